"""Perturbations of pre-activations: evolution strategies, SPSA and forward gradients.

The papers perturb all parameters at once. Here it is the pre-activations of an example, and the
weights follow by the chain rule, which is the same where the parameters are the logits of the
units; it is known as node or activity perturbation. In a difference of two evaluations the layers
have their turns, so that both have the same states below: weights would else have a bias of the
order s. A direction e has independent entries of mean 0 and variance 1.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.special import ndtri
from jaxtyping import Array

from gradbench.core.arguments import positive
from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.contract import Breakpoints, Loss, Model, Trace
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.run import draw_state, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register

# The entries of e, from uniforms.
DIRECTIONS: dict[str, Callable[[Array], Array]] = {
    "normal": ndtri,
    "rademacher": lambda u: jnp.where(u < 0.5, -1, 1).astype(u.dtype),
}


@register(
    family="perturbation",
    exactness="biased",
    cost=Cost(2 * L, layers=2 * L * L),
    value_unbiased=False,
    full_name="evolution strategies",
    display_name="ES",
    paper="https://arxiv.org/abs/1703.03864",
    source="Salimans et al. 2017, Evolution strategies as a scalable alternative; Rechenberg 1973",
    formula=(
        r"g = \frac{f(a + s \epsilon) - f(a - s \epsilon)}{2s}\,\epsilon, \quad \epsilon \sim "
        r"\mathcal{N}(0, I)"
    ),
    aliases=("es", "node_perturbation"),
)
def evolution_strategies(model: Model, *, scale: float = 0.5) -> Loss:
    """(f(a + s e) - f(a - s e)) e / 2s per layer, e standard normal, on common uniforms.

    s is the ``scale``. The mean is the gradient of the loss smoothed by normal noise of deviation s
    in the pre-activations, so that the bias is of the order s^2; the variance grows as 1 / s. It is
    the floor for a black box: it knows nothing of the units. The value is the mean of all
    evaluations, two for each layer.

    Raises:
        GradbenchError: a scale that is not positive; when exact moments are computed, any model.
    """
    return _two_sided(model, positive("scale", scale), "normal", _on_no_grid)


@register(
    family="perturbation",
    exactness="biased",
    cost=Cost(2 * L, layers=2 * L * L),
    value_unbiased=False,
    full_name="simultaneous perturbation",
    display_name="SPSA",
    paper="https://doi.org/10.1109/9.119632",
    source="Spall 1992, Multivariate stochastic approximation using a simultaneous perturbation "
    "gradient approximation",
    formula=(
        r"g = \frac{f(a + s \epsilon) - f(a - s \epsilon)}{2s}\,\epsilon, \quad \epsilon_i = \pm 1"
    ),
)
def spsa(model: Model, *, scale: float = 0.5) -> Loss:
    """(f(a + s e) - f(a - s e)) e / 2s per layer, e = -1 or +1 in each unit, on common uniforms.

    s is the ``scale``, the paper's c. As for ``evolution_strategies`` the bias is of the order s^2
    and the variance grows as 1 / s.

    Raises:
        GradbenchError: a scale that is not positive.
    """
    s = positive("scale", scale)

    def breakpoints(stream: int, run: Trace) -> Sequence[Array]:
        if stream:
            return _halves(stream, run)
        rows = zip(run.sites, run.a, strict=True)
        return [jnp.stack([site.noise.cdf(a + s), site.noise.cdf(a - s)]) for site, a in rows]

    return _two_sided(model, s, "rademacher", breakpoints)


def _two_sided(model: Model, s: float, direction: str, breakpoints: Breakpoints) -> Loss:
    """Return the symmetric difference along a random direction, layer by layer."""

    def example_loss(params, u, example):
        e = [DIRECTIONS[direction](v) for v in u[1]]

        def branch(k: int, sign: int) -> Trace:
            def unit(site, a):
                moved = a + sign * s * e[k] if site.index == k else a
                return draw_state(site, moved, u[0][site.index])

            return run_model(model, params, example, unit)

        losses = []
        for k, own in enumerate(e):
            up, down = branch(k, 1), branch(k, -1)
            rate = stop_gradient(up.f - down.f) / (2 * s)
            losses.append((up.f + down.f) / 2 + len(e) * gradient_term(rate * own, up.a[k]))
        return jnp.mean(jnp.stack(losses))

    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints,
    )


def _on_no_grid(stream: int, run: Trace) -> Sequence[Array]:
    raise GradbenchError(
        "the exact moments of evolution_strategies() are not known, since its states jump wherever "
        "the direction says; measure draws of it, or take spsa"
    )


@register(
    family="straight_through",
    exactness="multilinear",
    cost=Cost(2, 1, 2 * L),
    differentiable=True,
    full_name="straight-through by forward differentiation",
    display_name="forward gradient",
    paper="https://arxiv.org/abs/2202.08587",
    source="Baydin et al. 2022, Gradients without backpropagation; in the pre-activations Ren et "
    "al. 2023, Scaling forward gradient with local losses",
    formula=r"g = (g_{\text{ST}} \cdot \epsilon)\,\epsilon, \quad \epsilon \sim \mathcal{N}(0, I)",
    aliases=("fgd",),
)
def forward_gradient(model: Model, *, direction: str = "normal") -> Loss:
    """g_e = (g . e) e: straight-through along a random direction e, by one forward pass.

    g is the draw of ``straight_through`` in the pre-activations of all layers, and g . e its
    Jacobian-vector product, so that nothing is kept for a backward pass. The mean is that of
    ``straight_through``. The entries of e are standard normal, or with ``direction="rademacher"``
    -1 and +1, of less variance. The objective must allow forward differentiation.

    Raises:
        GradbenchError: an unknown direction.
    """
    if direction not in DIRECTIONS:
        raise GradbenchError(f"direction is {direction!r}; {did_you_mean(direction, DIRECTIONS)}")

    def example_loss(params, u, example):
        run, fixed = sampled(model, params, u[0], example), stop_gradient(params)
        e = [DIRECTIONS[direction](v).astype(a.dtype) for v, a in zip(u[1], run.a, strict=True)]

        def shifted(offsets: Sequence[Array]) -> Array:
            def unit(site, a):
                x = draw_state(site, a, u[0][site.index])
                moved = a + offsets[site.index]
                return surrogate_gradient(lambda x, a: 2 * site.noise.pdf(a), x, moved)

            return run_model(model, fixed, example, unit).f

        _, rate = jax.jvp(shifted, ([jnp.zeros_like(v) for v in e],), (e,))
        terms = [gradient_term(rate * own, a) for own, a in zip(e, run.a, strict=True)]
        return run.f + jnp.sum(jnp.stack(terms))

    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant" if direction == "rademacher" else "smooth",
        breakpoints=_halves,
    )


def _halves(stream: int, run: Trace) -> list[Array]:
    return [jnp.full((1, *a.shape), 0.5) for a in run.a]
