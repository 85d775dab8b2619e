"""SA, the sample-analytic estimator with an augmented state: the elder sister of PSA."""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from gradbench.core.arguments import finite
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model, Site, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, _integral
from gradbench.core.run import flip, run_at_states, run_model
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, D, L, n
from gradbench.estimators.registry import register
from gradbench.models.flips import generic_route, one_by_one
from gradbench.models.network import SBN


@register(
    family="psa",
    exactness=lambda smoothing: "one layer" if smoothing == 0 else "biased",
    cost=Cost(n + 1, layers=L + D - n),
    value_unbiased=lambda smoothing: smoothing == 0,
    source="Shekhovtsov, Yanush & Flach 2020, in their released code (gradeval/model.py, fw_SA)",
)
def sa(model: Model, *, smoothing: float = 0.0) -> Loss:
    """PSA with flips given the sampled state: P(the noise flips x_j too | x_j) = D_j / P_j.

    States are drawn from G(a) = E F(a + s), s ~ U(-t, t), with t = ``smoothing``: P_j = G(x_j a_j).
    Another pre-activation a' of unit j, from the same z, flips its state with the probability

        D_j(a') / P_j,   D_j(a') = E max(F(x_j (a_j + s)) - F(x_j a'), 0),

    and with delta_i the effect of flipping unit i, all other states kept,

        delta_i = f(x with i flipped) - f(x)
                  + sum over units j above of delta_j (D_j(a_j with i flipped) - D_j(a_j)) / P_j,

    the gradient in a_j is -x_j delta_j F'(a_j) / 2P_j. The objective is averaged over flips of the
    last states, as in PSA.

    ``smoothing=0``, of the authors' experiments, samples the path itself: unbiased for one layer,
    any objective and the value; also for the layer below the last if the objective is a sum of
    terms of pairs of the last states, as of any two: with the weights 1 / 2P the two ends of a flip
    count alike, a trapezoidal rule. Above 0 the states are those of the smoothed units: value and
    gradient are biased, but for the gradient in one single unit. As t grows, states become fair
    coins and the gradient that of PSA at these states. 100 is the default of the authors' code.

    Raises:
        GradbenchError: a smoothing that is negative or not finite; when called with one above 0,
            noise whose integral is not known.
    """
    t = finite("smoothing", smoothing)
    if t < 0:
        raise GradbenchError(f"smoothing is {smoothing!r}; give a number of at least 0")

    def chance(noise: Noise, a: Array) -> Array:
        """G(a), the probability of +1."""
        return (_integral(noise, a + t) - _integral(noise, a - t)) / (2 * t) if t else noise.cdf(a)

    def lost(noise: Noise, a: Array, other: Array) -> Array:
        """D: E max(F(a + s) - F(other), 0)."""
        if not t:
            return jnp.maximum(noise.cdf(a) - noise.cdf(other), 0)
        b = jnp.clip(other - a, -t, t)
        area = _integral(noise, a + t) - _integral(noise, a + b) - (t - b) * noise.cdf(other)
        return jnp.maximum(area / (2 * t), 0)

    def given(site: Site, x: Array, a: Array, joint: Array) -> Array:
        """Divided by P_j; a state of probability 0 is never seen."""
        p = chance(site.noise, x * a)
        return jnp.where(p > 0, joint / jnp.where(p > 0, p, 1), 0)

    def example_loss(params, u, example):
        def unit(site, a):
            return jnp.where(u[0][site.index] < chance(site.noise, a), 1, -1).astype(a.dtype)

        run = run_model(model, params, example, unit)
        constant = Trace(*stop_gradient((run.f, run.x, run.a)), run.sites)
        last = len(run.x) - 1

        f, _ = _flips(model, params, example, run, last)
        change = f - run.f
        other = 1 - chance(run.sites[last].noise, constant.x[last] * constant.a[last])
        loss = run.f + jnp.mean(other.ravel() * change)

        deltas: tuple = ()
        for k in reversed(range(last + 1)):
            delta = stop_gradient(change)
            if k < last:
                f, above = _flips(model, stop_gradient(params), example, constant, k)
                delta = f - constant.f
                for site, others, effect in zip(run.sites[k + 1 :], above, deltas, strict=False):
                    x, a = constant.x[site.index], constant.a[site.index]
                    more = lost(site.noise, x * a, x * others) - lost(site.noise, x * a, x * a)
                    delta += given(site, x, a, more).reshape(len(delta), -1) @ effect.ravel()
            site, x, a = run.sites[k], constant.x[k], constant.a[k]
            deltas = (delta.reshape(site.shape), *deltas)
            loss += gradient_term(
                given(site, x, a, -x * deltas[0] * site.noise.pdf(a) / 2), run.a[k]
            )
        return loss

    def route(sites):
        if not isinstance(model, SBN):
            return generic_route(sites)
        return [
            f"layer {site.index + 1}: {site.size} flips in turn, what is above run again for each"
            for site in sites
        ]

    if not t:
        return surrogate_loss(model, example_loss, route=route)

    def breakpoints(stream, run):
        return [chance(site.noise, a)[None] for site, a in zip(run.sites, run.a, strict=True)]

    return surrogate_loss(
        model,
        example_loss,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints,
        route=route,
    )


def _flips(model, params, example, run: Trace, k: int) -> tuple[Array, tuple[Array, ...]]:
    """With each unit of site k flipped in turn: the objective, and the pre-activations above.

    Of a chain, those of the next site alone: no other change.
    """

    def one(i):
        x_k = flip(run.x[k], i)
        if isinstance(model, SBN):
            return model.layers[k + 1](params[k + 1], model.encode(x_k))
        other = run_at_states(model, params, example, (*run.x[:k], x_k, *run.x[k + 1 :]))
        return other.f, other.a[k + 1 :]

    size = sum(x.size for x in run.x)
    if not isinstance(model, SBN):
        return one_by_one(one, run.x[k].size, size)  # type: ignore[return-value]
    f = model.flip_objective(params, example, run, k)
    return f, () if k == len(run.x) - 1 else (one_by_one(one, run.x[k].size, size),)
