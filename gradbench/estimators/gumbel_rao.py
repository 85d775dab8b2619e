"""Gumbel-Rao: straight-through Gumbel-Softmax, averaged over its noise given the hard states."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least, positive
from gradbench.core.contract import Loss, Model, Trace
from gradbench.core.noise import NOISES, Noise
from gradbench.estimators.registry import register_backprop
from gradbench.estimators.straight_through import with_derivative


def _averaged(
    model: Model, samples: int, slope: Callable[..., Array], kink: Callable[..., Array]
) -> Loss:
    """Average ``slope(noise, x, a, v)``, with a kink in v at ``kink``, over ``samples`` streams."""

    def mean(noise: Noise, x: Array, a: Array, u: Array, *v: Array) -> Array:
        return jnp.mean(jax.vmap(lambda own: slope(noise, x, a, own))(jnp.stack(v)), axis=0)

    def breakpoints(stream: int, run: Trace) -> list[Array]:
        rows = zip(run.sites, run.x, run.a, strict=True)
        kinks = [kink(site.noise, x, a)[None] for site, x, a in rows]
        return kinks if stream else [jnp.ones_like(v) for v in kinks]

    return with_derivative(
        model,
        mean,
        1 + samples,
        randomness="uniforms",
        smoothness="smooth",
        breakpoints=breakpoints,
    )


@register_backprop(
    family="gumbel_rao",
    exactness="biased",
    source="Paulus et al. 2021, Rao-Blackwellizing the straight-through Gumbel-Softmax",
)
def gumbel_rao(model: Model, *, temperature: float = 1.0, samples: int = 10) -> Loss:
    """J = the mean of K ``samples`` of y(1 - y) / t, y = sig((a - z) / t), z given the state.

    t is the ``temperature``. The noise is a constant to the derivative, so that for any K the mean
    is that of ``st_gumbel_softmax`` and the variance is never larger. As K goes to infinity and t
    to 0 it becomes ZGR. The paper takes 10, 100 and 1000 samples.

    Raises:
        GradbenchError: a temperature that is not positive, or ``samples`` below 1.
    """
    t = positive("temperature", temperature)

    def slope(noise, x, a, v):
        lead = noise.lead(x, a, v) / t
        return 2 * jax.nn.sigmoid(lead) * jax.nn.sigmoid(-lead) / t

    # v F(xa) = 1/2 is where the quantiles of triangular and Laplace noise are not smooth.
    def kink(noise, x, a):
        return jnp.minimum(0.5 / jnp.maximum(noise.cdf(x * a), 0.5), 1)

    return _averaged(model, at_least(1, "samples", samples), slope, kink)


@register_backprop(
    family="gumbel_rao",
    exactness="biased",
    source="Wang & Bui 2026, Beyond ReinMax",
)
def reinmax_rao(model: Model, *, temperature: float = 1.0, samples: int = 10) -> Loss:
    """J = 2 J_t - p(1 - p) / 2: ReinMax with a Gumbel-Rao mean J_t in the place of q(1 - q).

    q = (p + b) / 2, and J_t is the mean over K ``samples`` of y(1 - y) / t, y = sig((l - z) / t), l
    the logit of q and z logistic given sign(l - z) = x. The formula is for the logit of p. It is
    exact for nothing: as the ``temperature`` t goes to 0, its mean on linear objectives is half of
    the right one. The authors take 100 samples. Their control variate, ReinMax-CV, is left out
    because the paper does not determine it; one of mean zero given the state can only add variance
    to ReinMax.

    Raises:
        GradbenchError: a temperature that is not positive, or ``samples`` below 1.
    """
    t = positive("temperature", temperature)
    logistic = NOISES["logistic"]

    def slope(noise, x, a, v):
        p, other = noise.cdf(x * a), noise.cdf(-x * a)
        odds = jnp.log1p(p) - jnp.log(jnp.maximum(other, jnp.finfo(a.dtype).tiny))  # x l
        lead = logistic.lead(x, x * odds, v) / t
        mean = jax.nn.sigmoid(lead) * jax.nn.sigmoid(-lead) / t
        return 2 * (2 * mean - p * other / 2) * noise.logit_slope(a)

    return _averaged(
        model, at_least(1, "samples", samples), slope, lambda noise, x, a: jnp.ones_like(a)
    )
