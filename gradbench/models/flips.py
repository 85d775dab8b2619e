"""Single flips of the units of any model, fast where a layer has structure."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Example, Model, Params, Site, Trace
from gradbench.core.noise import get_noise
from gradbench.core.run import flip, rollout, run_at_states
from gradbench.core.uniforms import Uniforms
from gradbench.models.layer import Layer


def _each_kept(
    model: Model, params: Params, example: Example, run: Trace, k: int
) -> tuple[Array, Array]:
    """Return f and log P of the path with each unit of site k flipped, all other states kept."""
    x = run.x[k]

    def one(i: Array) -> Array:
        other = run_at_states(model, params, example, (*run.x[:k], flip(x, i), *run.x[k + 1 :]))
        return jnp.stack([other.f, _log_probability(other)])

    both = one_by_one(one, x.size, sum(site.size for site in run.sites))
    return both[:, 0].reshape(x.shape), both[:, 1].reshape(x.shape)


def _log_probability(run: Trace) -> Float[Array, ""]:
    """Return log P of a path; a state of probability 0 counts as the smallest number."""
    parts = zip(run.sites, run.x, run.a, strict=True)
    return jnp.sum(jnp.stack([jnp.sum(site.noise.log_cdf(x * a)) for site, x, a in parts]))


def each_unit(
    model: Model,
    params: Params,
    example: Example,
    run: Trace,
    k: int,
    change: Callable[[Array], Array],
    u: Uniforms,
) -> Array:
    """Return f with each state x_i of site k in turn replaced by ``change(x_i)``.

    The layers above are sampled again, from the uniforms u; the result has the shape of site k.
    """
    x, changed = run.x[k], change(run.x[k])
    number = jnp.arange(x.size).reshape(x.shape)

    def one(i: Array) -> Array:
        return rollout(model, params, example, run, k, jnp.where(number == i, changed, x), u)

    return one_by_one(one, x.size, sum(site.size for site in run.sites)).reshape(x.shape)


def generic_route(sites: Sequence[Site]) -> list[str]:
    """Return, in words, how flips reach the objective of a model without structure."""
    units = sum(site.size for site in sites)
    return [f"each of {units} units flipped in turn, and the model run again: {units + 1} runs"]


_AT_ONCE = 1 << 17  # numbers that single flips may work on at a time, per example


def one_by_one(f: Callable[..., Array], count: int, size: int) -> Array:
    """Return ``f(0), ..., f(count - 1)`` along the first axis.

    Each call works on ``size`` numbers. As many calls are made at a time as keep memory linear in
    ``size``, all of them where these are few.
    """
    most = max(1, _AT_ONCE // size)
    numbers = jnp.arange(count)
    if count <= most:
        return jax.vmap(f)(numbers)
    return jax.lax.map(jax.checkpoint(f), numbers, batch_size=most)


def flip_each(layer: Layer, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
    """Return sum_j g_j (F(a_j with x_i replaced by flipped_i) - F(a_j)) for every input i.

    ``x``, ``flipped`` and the result have the shape of the inputs, ``a`` and ``g`` the shape of the
    outputs. A layer with structure offers the same as its method ``flip_pullback(theta, x, flipped,
    a, g)``.
    """
    cdf = get_noise(layer.noise).cdf
    number = jnp.arange(x.size).reshape(x.shape)
    base = cdf(a)

    def one(i: Array) -> Array:
        return jnp.sum(g * (cdf(layer(theta, jnp.where(number == i, flipped, x))) - base))

    return one_by_one(one, x.size, x.size + a.size).reshape(x.shape)
