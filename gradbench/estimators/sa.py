"""SA, the sample-analytic estimator with an augmented state, from which PSA was derived."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.arguments import are_known, not_negative
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params, Site, Trace, is_chain
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.run import flip, run_at_states, run_model
from gradbench.core.surrogate import surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.cost import Cost, D, L, n
from gradbench.estimators.registry import register
from gradbench.models.flips import generic_route, one_by_one
from gradbench.models.structure import is_layered


@register(
    family="psa",
    exactness=lambda smoothing: "one layer" if smoothing == 0 else "biased",
    cost=Cost(n + 1, layers=L + D - n),
    value_unbiased=lambda smoothing: smoothing == 0,
    full_name="sample-analytic",
    display_name="SA",
    paper="https://arxiv.org/abs/2006.03143",
    source="Shekhovtsov, Yanush & Flach 2020, in their released code (gradeval/model.py, fw_SA)",
    formula=(
        r"g_j = -\frac{x_j\,\delta_j\,F'(a_j)}{2 P_j}, \quad \delta_i = f(x^{(i)}) - f(x) + "
        r"\sum_{j \text{ above}} \delta_j\,\frac{D_j(a_j^{(i)}) - D_j(a_j)}{P_j}"
    ),
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

    With ``smoothing=0``, as in the authors' experiments, the states are those of the sampled path.
    The estimator is then unbiased for one layer and any objective, and its value always. It is also
    unbiased for the layer below the last if the objective is a sum of terms of pairs of the last
    states: with the weights 1 / 2P the two ends of a flip count alike, a trapezoidal rule. With
    ``smoothing`` above 0 the states are those of smoothed units; value and gradient are biased,
    except the gradient in a single unit. As t grows, states become fair coins and the gradient
    becomes that of PSA at these states. The authors' code has the default 100.

    Raises:
        GradbenchError: a smoothing that is negative or not finite; when called with one above 0,
            noise whose integral is infinite.
    """
    t = not_negative("smoothing", smoothing)

    def breakpoints(stream, run):
        return [_chance(site.noise, a, t)[None] for site, a in zip(run.sites, run.a, strict=True)]

    smoothed = {"randomness": "uniforms", "smoothness": "constant", "breakpoints": breakpoints}
    options: Any = {} if _is_zero(t) else smoothed
    return surrogate_loss(model, partial(_draw, model, t), route=partial(_route, model), **options)


def _draw(
    model: Model, t: float, params: Params, u: tuple[Uniforms, ...], example: Example
) -> Float[Array, ""]:
    """Return the surrogate loss of one example, with the smoothing ``t``."""

    def unit(site: Site, a: Array) -> Array:
        return jnp.where(u[0][site.index] < _chance(site.noise, a, t), 1, -1).astype(a.dtype)

    run = run_model(model, params, example, unit)
    constant = Trace(*stop_gradient((run.f, run.x, run.a)), run.sites)
    last = len(run.x) - 1

    f, _ = _flips(model, params, example, run, last)
    change = f - run.f
    other = 1 - _chance(run.sites[last].noise, constant.x[last] * constant.a[last], t)
    loss = run.f + jnp.mean(other.ravel() * change)

    deltas: tuple[Array, ...] = ()  # of the layers from k + 1 on
    for k in reversed(range(last + 1)):
        delta = stop_gradient(change)
        if k < last:
            f, above = _flips(model, stop_gradient(params), example, constant, k)
            delta = f - constant.f
            for site, others, effect in zip(run.sites[k + 1 :], above, deltas, strict=False):
                x, a = constant.x[site.index], constant.a[site.index]
                more = _lost(site.noise, x * a, x * others, t) - _lost(site.noise, x * a, x * a, t)
                share = _given(site, x, a, more, t)
                delta += share.reshape(len(delta), -1) @ effect.ravel()
        site, x, a = run.sites[k], constant.x[k], constant.a[k]
        deltas = (delta.reshape(site.shape), *deltas)
        slope = _given(site, x, a, -x * deltas[0] * site.noise.pdf(a) / 2, t)
        loss += gradient_term(slope, run.a[k])
    return loss


def _chance(noise: Noise, a: Array, t: float) -> Array:
    """Return G(a), the probability of +1."""
    if _is_zero(t):
        return noise.cdf(a)
    return (_integral(noise, a + t) - _integral(noise, a - t)) / (2 * t)


def _lost(noise: Noise, a: Array, other: Array, t: float) -> Array:
    """Return D = E max(F(a + s) - F(other), 0)."""
    if _is_zero(t):
        return jnp.maximum(noise.cdf(a) - noise.cdf(other), 0)
    b = jnp.clip(other - a, -t, t)
    area = _integral(noise, a + t) - _integral(noise, a + b) - (t - b) * noise.cdf(other)
    return jnp.maximum(area / (2 * t), 0)


def _given(site: Site, x: Array, a: Array, joint: Array, t: float) -> Array:
    """Return ``joint`` / P_j; a state of probability 0 is never seen."""
    p = _chance(site.noise, x * a, t)
    return jnp.where(p > 0, joint / jnp.where(p > 0, p, 1), 0)


def _is_zero(t: float) -> bool:
    """Return whether there is no smoothing; one that JAX traces has to be positive."""
    return are_known(t) and t == 0


def _integral(noise: Noise, a: Array) -> Array:
    if noise.integral is None:
        raise GradbenchError(
            f"sa() with smoothing got the noise {noise.name!r}, whose integral is infinite; take "
            "smoothing=0"
        )
    return noise.integral(a)


def _route(model: Model, sites: tuple[Site, ...], params: Params) -> list[str]:
    """Return in words how flips are computed in a model with these sites."""
    if not _is_layered_chain(model):
        return generic_route(sites)
    return [
        f"layer {site.index + 1}: {site.size} flips in turn, what is above run again for each"
        for site in sites
    ]


def _flips(model, params, example, run: Trace, k: int) -> tuple[Array, tuple[Array, ...]]:
    """With each unit of site k flipped in turn: the objective, and the pre-activations above.

    Of a chain, those of the next site alone: no other change.
    """

    def one(i):
        x_k = flip(run.x[k], i)
        if _is_layered_chain(model):
            return model.layers[k + 1](params[k + 1], model.encode(x_k))
        other = run_at_states(model, params, example, (*run.x[:k], x_k, *run.x[k + 1 :]))
        return other.f, other.a[k + 1 :]

    size = sum(x.size for x in run.x)
    if not _is_layered_chain(model):
        return one_by_one(one, run.x[k].size, size)  # type: ignore[return-value]
    f = model.flip_objective(params, example, run, k)
    return f, () if k == len(run.x) - 1 else (one_by_one(one, run.x[k].size, size),)


def _is_layered_chain(model: Model) -> bool:
    """Return whether flips of a layer are known to reach no other layer than the next."""
    return is_chain(model) and is_layered(model)
