"""Exact moments of estimators: by all paths, or by an integral over the uniforms.

An estimator that is driven by the states alone is fed all paths in the place of random ones. One
that is driven by uniforms is integrated over them on a grid that respects its jumps: it is a
constant, linear or smooth function of each uniform between its breaks.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.errors import GradbenchError
from gradbench.exact._enumeration import numbered_states, path_probability, sum_numbered
from gradbench.exact._size import (
    MEMORY,
    any_key,
    paths_size,
    refuse_large,
    sites_and_type,
)
from gradbench.model import (
    Batch,
    Example,
    Lifted,
    Loss,
    Params,
    Site,
    as_examples,
    batch_size,
    visit_path,
)

GRID = 1 << 25  # points of an integral over uniforms
_SMOOTH = 24  # points to either side of the middle of an interval in which a draw is smooth


class Moments(NamedTuple):
    """Exact moments of one draw: mean value, mean and variance of the gradient (as params)."""

    value: Float[Array, ""]
    mean: PyTree[Array]
    variance: PyTree[Array]


def moments(loss: Loss, params: Params, batch: Batch) -> Moments:
    """E g and the variance of every coordinate of g, without Monte-Carlo error.

    Of an estimator that is driven by the states alone, one path a stream, all paths are fed instead
    of random ones, u = 0 for +1 and u = 1 for -1, weighted by their probabilities. A pure function,
    to be put under ``jit``. Cost: 2^(units * streams) draws.

    Of one that is driven by uniforms, the integral over all of them: to rounding where draws are
    constant or linear between jumps, to some 1e-10 where they are smooth. Needs concrete arrays and
    a tiny network, of up to three units or so, fewer where there are several streams.

    The examples of a batch are independent, so means average and variances add. In the precision of
    the parameters: call it inside ``gradbench.float64()``.

    Raises:
        GradbenchError: too many paths or points, or an estimator of which nothing is known.
    """
    if not isinstance(loss, Lifted) or getattr(loss.model, "random", False):
        raise GradbenchError(
            "exact moments need an estimator made by lift() on a model whose objective is not "
            "random, such as straight_through(model); measure draws of this one"
        )
    model = loss.model
    sites, dtype = sites_and_type(model, params, batch)
    examples = as_examples(model, any_key(), batch)
    copies = batch_size(examples) if loss.couples else 1
    if loss.couples:
        examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], examples)
    route = _integral if loss.randomness == "uniforms" else _all_paths
    count, weighted, data = route(loss, sites, dtype, copies, params, batch, examples)
    draw = jax.value_and_grad(loss.example_loss)

    def terms(number: Array, example: Any) -> tuple[Array, PyTree, PyTree]:
        p, u, own = weighted(params, number, example)
        value, g = draw(params, u, own)
        value, g = jax.tree.map(lambda leaf: jnp.where(p > 0, leaf, 0), (value, g))
        first = jax.tree.map(lambda leaf: p * leaf, g)
        return p * value, first, jax.tree.map(lambda leaf: p * leaf**2, g)

    n = batch_size(examples)
    zero = jax.tree.map(lambda leaf: jnp.zeros((n, *jnp.shape(leaf)), dtype), params)
    value, first, second = sum_numbered((jnp.zeros(n, dtype), zero, zero), terms, data, count)
    return Moments(
        jnp.mean(value),
        jax.tree.map(lambda m: jnp.mean(m, axis=0), first),
        jax.tree.map(lambda m, s: jnp.mean(jnp.maximum(s - m**2, 0), axis=0) / n, first, second),
    )


# What a route gives: the number of draws to be summed, ``weighted(params, number, example)`` with
# the weight, the uniforms and the example of a draw, and what stands for the examples.
_Route = tuple[int, Callable[..., tuple[Array, Any, Example]], Batch]


def _all_paths(
    loss: Lifted,
    sites: tuple[Site, ...],
    dtype: Any,
    copies: int,
    params: Params,
    batch: Batch,
    examples: Batch,
) -> _Route:
    """All paths: one a stream, or of estimators that couple the examples one an example."""
    streams = loss.streams * copies
    size = paths_size(loss.model, params, batch, streams)
    refuse_large(size._replace(work=2 * size.work), params, batch, MEMORY)
    units = sum(site.size for site in sites)

    def weighted(params: Params, number: Array, example: Example) -> tuple[Array, Any, Example]:
        states = numbered_states(number, units * streams, dtype)
        paths = [_by_site(part, sites) for part in jnp.split(states, streams)] if streams else []
        p = jnp.ones((), dtype)
        for n, path in enumerate(paths):
            own = jax.tree.map(lambda x, n=n: x[n % copies], example) if loss.couples else example
            p *= path_probability(visit_path(loss.model, params, own, path))
        return p, _arrange([[(1 - x) / 2 for x in path] for path in paths], loss, copies), example

    return 2 ** (units * streams), weighted, examples


def _by_site(flat: Array, sites: tuple[Site, ...]) -> list[Array]:
    ends = np.cumsum([site.size for site in sites])[:-1]
    return [x.reshape(s.shape) for s, x in zip(sites, jnp.split(flat, ends), strict=True)]


def _arrange(rows: list[list[Array]], loss: Lifted, copies: int) -> Any:
    """Uniforms as an estimator takes them, from rows ``streams x copies`` of arrays per site."""
    if not loss.couples:
        return tuple(map(tuple, rows))
    groups = [rows[s * copies : (s + 1) * copies] for s in range(loss.streams)]
    return tuple(tuple(jnp.stack(x, axis=-1) for x in zip(*group, strict=True)) for group in groups)


def _integral(
    loss: Lifted,
    sites: tuple[Site, ...],
    dtype: Any,
    copies: int,
    params: Params,
    batch: Batch,
    examples: Batch,
) -> _Route:
    """A product grid over all uniforms: its axes are refined between the breaks of the example."""
    if loss.couples:
        raise GradbenchError(
            "exact moments of an estimator that couples the examples need one that is driven by "
            "the states alone; measure draws of this one"
        )
    units = sum(site.size for site in sites)
    if units > 8:
        raise GradbenchError(
            f"an integral over the uniforms of {units} units is too large; measure draws of this "
            "estimator, or take a network of some three units"
        )
    n = batch_size(examples)
    axes = [
        axis
        for e in range(n)
        for axis in _axes(loss, sites, params, jax.tree.map(lambda leaf, e=e: leaf[e], examples))
    ]
    per = loss.streams * units
    lengths = [max(len(axes[e * per + k][0]) for e in range(n)) for k in range(per)]
    count = math.prod(lengths)
    if count > GRID:
        raise GradbenchError(
            f"an integral over {per} uniforms needs {count:.0e} points, over the limit of "
            f"{GRID:.0e}; measure draws of this estimator, or take a network of fewer units"
        )
    # [examples, axes, 2, points]: points and weights; what is missing in an example has weight 0.
    grid = np.full((n, per, 2, max(lengths, default=1)), 0.5)
    grid[:, :, 1] = 0
    for row, (points, weights) in enumerate(axes):
        grid[row // per, row % per, :, : len(points)] = points, weights
    strides = np.cumprod([1, *lengths[:0:-1]])[::-1]

    def weighted(params: Params, number: Array, pair: Any) -> tuple[Array, Any, Example]:
        example, table = pair
        index = (number // strides[:per]) % np.array(lengths, int)
        chosen = table[jnp.arange(per), :, index].astype(dtype)
        rows = [_by_site(x, sites) for x in jnp.split(chosen[:, 0], loss.streams)]
        return jnp.prod(chosen[:, 1]), _arrange(rows, loss, 1), example

    return count, weighted, (examples, jnp.asarray(grid))


def _axes(loss: Lifted, sites: tuple[Site, ...], params: Params, example: Example) -> list[Any]:
    """Points and weights for each uniform, streams first, then sites, then units."""
    units = sum(site.size for site in sites)
    states = numbered_states(jnp.arange(2**units), units, jnp.result_type(float))

    def jumps(flat: Array) -> list[list[Array]]:
        """Per stream and site, ``[breaks, units]``."""
        run = visit_path(loss.model, params, example, _by_site(flat, sites))
        found = []
        for s in range(loss.streams):
            own = loss.breaks(s, run) if loss.breaks else [jnp.zeros((0, *x.shape)) for x in sites]
            found.append(
                [
                    jnp.concatenate(
                        [
                            jnp.stack([site.noise.cdf(a), site.noise.cdf(-a)]),
                            extra.reshape(-1, *site.shape),
                        ]
                    ).reshape(-1, site.size)
                    for site, a, extra in zip(sites, run.a, own, strict=True)
                ]
            )
        return found

    axes = []
    for stream in jax.jit(jax.vmap(jumps))(states):
        for found in stream:
            for j in range(found.shape[2]):
                ends = np.clip(np.asarray(found[:, :, j], float).ravel(), 0, 1)
                axes.append(_points(np.unique([0.0, 1.0, *ends]), loss.pieces))
    return axes


def _points(ends: Any, pieces: str) -> tuple[Any, Any]:
    """Points and weights of a rule that is exact, or converges fast, between the breaks."""
    ends = ends[np.concatenate([[True], np.diff(ends) > 1e-14])]
    node, weight = _rule(pieces)
    width = np.diff(ends)
    return (
        (ends[:-1, None] + width[:, None] * node).ravel(),
        (width[:, None] * weight).ravel(),
    )


def _rule(pieces: str) -> tuple[Any, Any]:
    """Nodes and weights on (0, 1): one, two of Gauss, or the double exponential rule."""
    if pieces == "constant":
        return np.array([0.5]), np.array([1.0])
    if pieces == "linear":
        return 0.5 + np.array([-1, 1]) / math.sqrt(12), np.array([0.5, 0.5])
    t = np.arange(-_SMOOTH, _SMOOTH + 1) * (3.0 / _SMOOTH)
    node = 1 / (1 + np.exp(-np.pi * np.sinh(t)))
    weight = np.pi * np.cosh(t) * node * (1 - node)
    return node, weight / weight.sum()
