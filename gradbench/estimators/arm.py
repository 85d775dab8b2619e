"""ARM (augment-REINFORCE-merge), AR and DisARM: estimators that depend on the uniforms themselves.

Formulas are gradients in the logit of p. For noise that is not logistic they are multiplied by the
derivative of the logit in a.
"""

import jax.numpy as jnp

from gradbench.core.autodiff import gradient_term
from gradbench.core.branches import ABOVE, Branches, Weight, antithetic_law, single_law
from gradbench.core.contract import Loss, Model, Smoothness
from gradbench.core.run import branch_noise, branch_streams, draw_state, rollout, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register
from gradbench.estimators.score import returns, with_terms


@register(
    family="arm",
    exactness="unbiased",
    full_name="augment-REINFORCE",
    display_name="AR",
    paper="https://arxiv.org/abs/1807.11143",
    source="Yin & Zhou 2019, ARM: Augment-REINFORCE-merge gradient",
    formula=r"g_\ell = f([u < p])\,(1 - 2u)",
)
def ar(model: Model, *, signals: str = "local") -> Loss:
    """f([u < p]) (1 - 2u) per layer: ARM before its two terms are merged.

    It takes one evaluation, the same return f for all layers, and no baseline. Its variance does
    not vanish where units saturate. ``signals`` are those of ``reinforce``: terms of f that the
    layer cannot change are left out of its return.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    split = with_terms(model, signals)

    def example_loss(params, u, example):
        run = sampled(split, params, u[0], example)
        own = returns(run)
        loss = own[0]
        for site, a, v, f in zip(run.sites, run.a, u[0], own, strict=True):
            loss += gradient_term(f * (1 - 2 * v) * site.noise.logit_slope(a), a)
        return loss

    branches = Branches(example_loss, single_law(lambda site, a, u: 1 - 2 * u), copies=1)
    return surrogate_loss(model, example_loss, randomness="uniforms", branches=branches)


@register(
    family="arm",
    exactness="unbiased",
    cost=Cost(L + 1, layers=L * (L + 1)),
    full_name="augment-REINFORCE-merge",
    display_name="ARM",
    paper="https://arxiv.org/abs/1807.11143",
    as_published="independent descendants in several layers",
    source="Yin & Zhou 2019, ARM: Augment-REINFORCE-merge gradient",
    formula=r"g_\ell = \bigl(f([u > 1 - p]) - f([u < p])\bigr)\,\bigl(u - \tfrac{1}{2}\bigr)",
)
def arm(model: Model, *, descendants: str = "shared") -> Loss:
    """(f([u > 1-p]) - f([u < p])) (u - 1/2) per layer, AR averaged with itself at 1 - u.

    One branch is the sampled path itself. The layers above the other branch have the noise that
    ``descendants`` names: that of the path, "shared" (common random numbers), or an "independent"
    or "antithetic" one. The authors have independent ones; the default has less variance.

    Raises:
        GradbenchError: unknown ``descendants``.
    """
    return _antithetic(model, lambda site, a, u, x, other: 0.5 - u, descendants, "linear")


@register(
    family="arm",
    exactness="unbiased",
    cost=Cost(L + 1, layers=L * (L + 1)),
    full_name="Rao-Blackwellised ARM",
    display_name="DisARM",
    paper="https://arxiv.org/abs/2006.10680",
    as_published="independent descendants in several layers",
    source="Dong et al. 2020, DisARM; Yin et al. 2020, U2G",
    formula=(
        r"g_\ell = \frac{1}{2}\,\bigl(f(b) - f(\tilde{b})\bigr)\,(b - \tilde{b})\,\max(p, 1 - p), "
        r"\quad \tilde{b} = [1 - u < p]"
    ),
    aliases=("u2g",),
)
def disarm(model: Model, *, descendants: str = "shared") -> Loss:
    """(f(b) - f(b~)) (b - b~) max(p, 1-p) / 2 per layer, b~ the state that 1 - u makes.

    This is ARM with its uniforms averaged given the two states, so that its variance is never
    larger in one layer; branches and ``descendants`` are as there. It is also known as U2G.

    Raises:
        GradbenchError: unknown ``descendants``.
    """
    return _antithetic(
        model,
        lambda site, a, u, x, other: (x - other) / 4 * site.noise.cdf(jnp.abs(a)),
        descendants,
        "constant",
    )


def _antithetic(
    model: Model,
    weight: Weight,
    descendants: str,
    smoothness: Smoothness,
) -> Loss:
    """(f(x) - f(x~)) weight(site, a, u, x, x~) per layer, in the logit; 1 - u makes x~."""

    def example_loss(params, u, example):
        run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
        loss = run.f
        for site, a, u_k, x in zip(run.sites, run.a, u[0], run.x, strict=True):
            other = draw_state(site, a, 1 - u_k)
            f = rollout(model, params, example, run, site.index, other, above)
            signal = (run.f - f) * weight(site, a, u_k, x, other)
            loss += gradient_term(signal * site.noise.logit_slope(a), a)
        return loss

    streams = branch_streams(descendants)
    return surrogate_loss(
        model,
        example_loss,
        streams,
        randomness="uniforms",
        smoothness=smoothness,
        branches=Branches(example_loss, antithetic_law(weight), above=ABOVE[descendants]),
    )
