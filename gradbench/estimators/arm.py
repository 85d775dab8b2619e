"""ARM, augment-REINFORCE-merge, and DisARM: two antithetic branches in every layer."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from gradbench.estimators.registry import Cost, register
from gradbench.model import Loss, Model, Site, credit, draw_state, lift, sampled, tail


@register(
    family="arm",
    exactness="unbiased",
    cost=Cost("L + 1", layers="L * (L + 1)"),
    source="Yin & Zhou 2019, ARM: Augment-REINFORCE-merge gradient",
)
def arm(model: Model) -> Loss:
    """(f([u > 1-p]) - f([u < p])) (u - 1/2) per layer, in the logit of p.

    Both branches run the layers above with the same noise, so that the second branch is the sampled
    path itself for every layer. For other noise than logistic the logit's derivative is carried.
    """
    return _antithetic(model, lambda site, a, u, x, other: 0.5 - u)


@register(
    family="arm",
    exactness="unbiased",
    cost=Cost("L + 1", layers="L * (L + 1)"),
    source="Dong et al. 2020; Yin et al. 2020 (U2G)",
)
def disarm(model: Model) -> Loss:
    """(f(b) - f(b~)) (b - b~) max(p, 1-p) / 2 per layer, in the logit of p.

    ARM with its uniforms averaged given the two states b and b~, branches and noise as there; so
    its variance is never larger in one layer.
    """
    return _antithetic(
        model, lambda site, a, u, x, other: (x - other) / 4 * site.noise.cdf(jnp.abs(a))
    )


def _antithetic(model: Model, weight: Callable[[Site, Array, Array, Array, Array], Array]) -> Loss:
    """(f(x) - f(x~)) weight(site, a, u, x, x~) per layer, in the logit; x~ is that of 1 - u."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, a, u_k, x in zip(run.sites, run.a, u[0], run.x, strict=True):
            other = draw_state(site, a, 1 - u_k)
            f = tail(model, params, example, run, site.index, other, u[0])
            signal = (run.f - f) * weight(site, a, u_k, x, other)
            loss += credit(signal * site.noise.logit_slope(a), a)
        return loss

    return lift(model, example_loss, randomness="uniforms")
