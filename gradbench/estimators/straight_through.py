"""Straight-through estimators."""

import jax.numpy as jnp

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.estimators.registry import register
from gradbench.model import Loss, Model, draw_state, lift, visit, with_slope

PROXIES = {
    "density": lambda site, a: 2 * site.noise.pdf(a),
    "identity": lambda site, a: jnp.ones_like(a),
}


@register(
    family="straight_through",
    exactness="multilinear",
    cost="1 + G",
    differentiable=True,
    source="Bengio et al. 2013; Shekhovtsov & Yanush 2021",
)
def straight_through(model: Model, *, proxy: str = "density") -> Loss:
    """Sampled states with the derivative 2F'(a), twice the density of the injected noise.

    ``proxy="identity"`` has the derivative 1 instead (Hinton 2012): exact for nothing, and for
    binary weights the gradient that ``gradbench.optimisers`` make mirror descent of.
    """
    if proxy not in PROXIES:
        raise GradbenchError(f"proxy is {proxy!r}; {did_you_mean(proxy, PROXIES)}")

    def example_loss(params, u, example):
        def unit(site, a):
            x = draw_state(site, a, u[0][site.index])
            return with_slope(lambda x, a: PROXIES[proxy](site, a), x, a)

        return visit(model, params, example, unit).f

    return lift(model, example_loss)
