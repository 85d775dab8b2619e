"""Decoupled straight-through: one temperature for the states, another one for the derivative."""

from typing import Any

import jax.numpy as jnp

from gradbench.core.arguments import are_known, positive
from gradbench.core.autodiff import surrogate_gradient
from gradbench.core.contract import Loss, Model
from gradbench.core.run import draw_state
from gradbench.core.surrogate import unitwise
from gradbench.estimators.registry import register_backprop


def _is_straight_through(forward: Any, backward: Any) -> bool:
    return bool(forward == 1 and backward == 1)


@register_backprop(
    family="straight_through",
    exactness=lambda forward, backward: (
        "multilinear" if _is_straight_through(forward, backward) else "biased"
    ),
    depth_claims=lambda forward, backward: (
        ("linear uniform",) if _is_straight_through(forward, backward) else ()
    ),
    value_unbiased=lambda forward, backward: bool(forward == 1),
    full_name="decoupled straight-through",
    display_name="decoupled ST",
    paper="https://arxiv.org/abs/2410.13331",
    source="Shah et al. 2024, Improving discrete optimisation via decoupled straight-through",
    formula=(
        r"x = \operatorname{sign}\!\left(\frac{a}{t_f} - z\right), \quad \frac{\partial "
        r"x}{\partial a} := \frac{2}{t_b}\,F'\!\left(\frac{a}{t_b}\right)"
    ),
)
def decoupled_st(model: Model, *, forward: float = 1.0, backward: float = 1.0) -> Loss:
    """dx/dl = 2F'(l / t_b) / t_b at states x = sign(l / t_f - z), for pre-activations l.

    t_f is ``forward``, the temperature of the states, and t_b is ``backward``, that of the
    derivative. At 1 and 1 it is ``straight_through``; with t_f = 1 it is that with the slope
    1 / t_b. Any other t_f trains another network than the model, whose states have P(x = 1) = F(l).
    The Gumbel-Softmax form of the first version of the paper is ``st_gumbel_softmax`` with a slope.

    Raises:
        GradbenchError: a temperature that is not positive.
    """
    hot, cold = positive("forward", forward), positive("backward", backward)
    own = are_known(hot) and hot == 1  # the states are those of the model

    def rule(site, a, u):
        x = draw_state(site, a / hot, u)
        return surrogate_gradient(lambda x, a: 2 * site.noise.pdf(a / cold) / cold, x, a)

    def breakpoints(stream, run):
        rows = zip(run.sites, run.a, strict=True)
        return [jnp.stack([s.noise.cdf(a / hot), s.noise.cdf(-a / hot)]) for s, a in rows]

    if own:
        return unitwise(model, rule)
    return unitwise(
        model, rule, randomness="uniforms", smoothness="constant", breakpoints=breakpoints
    )
