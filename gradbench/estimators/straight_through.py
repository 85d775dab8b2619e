"""Straight-through estimators."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.estimators.registry import Cost, register
from gradbench.model import Loss, Model, draw_state, lift, visit, with_slope
from gradbench.noise import Noise

PROXIES = {
    "density": lambda noise, x, a: 2 * noise.pdf(a),
    "identity": lambda noise, x, a: jnp.ones_like(a),
}


def with_derivative(model: Model, slope: Callable[[Noise, Array, Array], Array]) -> Loss:
    """Sampled states x with the derivative ``slope(noise, x, a)``: any rule local to a unit."""

    def example_loss(params, u, example):
        def unit(site, a):
            x = draw_state(site, a, u[0][site.index])
            return with_slope(lambda x, a: slope(site.noise, x, a), x, a)

        return visit(model, params, example, unit).f

    return lift(model, example_loss)


@register(
    family="straight_through",
    exactness="multilinear",
    cost=Cost(gradient="1"),
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
    return with_derivative(model, PROXIES[proxy])
