"""Integrals over uniforms, by quadrature rules that know where draws jump."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.compiling import compile_plainly
from gradbench.core.contract import Batch, Example, Params, Site, Smoothness
from gradbench.core.errors import GradbenchError
from gradbench.core.programs import Make, parts
from gradbench.core.run import batch_size, run_at_states
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uncompiled import by_rows, take_rows
from gradbench.exact.states import by_site, numbered_states

# Points to either side of the middle of an interval in which a draw is smooth. The most that is
# affordable is taken, because relaxations of low temperature turn within 1 % of the interval.
_SMOOTH = (96, 48, 24)


def uniform_grid(
    loss: SurrogateLoss,
    sites: tuple[Site, ...],
    params: Params,
    examples: Batch,
    points: int,
    compiled: bool = True,
) -> tuple[tuple[int, ...], np.ndarray]:
    """Return how many points each axis has, and points and weights [examples, axes, 2, points].

    An axis is a uniform: streams first, then sites, then units. It is refined between the
    breakpoints of the example over all paths; points that an example does not need have weight 0.
    Breakpoints are found by a compiled program, or in numpy for an estimator of which little else
    is asked.

    Raises:
        GradbenchError: more than ``points`` points, more than 8 units, or an estimator that
            couples the examples.
    """
    units = sum(site.size for site in sites)
    axes = loss.streams * units
    if loss.couples_batch:
        raise GradbenchError(
            "exact moments of an estimator that couples the examples and is driven by uniforms "
            "are not known; measure draws of this one"
        )
    if units > 8:
        raise GradbenchError(
            f"an integral over the uniforms of {units} units is too large; measure draws of this "
            "estimator, or take a network of some three units"
        )
    few = len(_rule(loss.smoothness, _SMOOTH[-1])[0])  # on an axis without a jump
    if few**axes > points:
        raise _too_many(axes, few**axes, points)
    every = _ends(loss, sites, params, examples, compiled)
    for half in _SMOOTH:
        rules = [[_points(ends, loss.smoothness, half) for ends in row] for row in every]
        lengths = tuple(max(len(row[k][0]) for row in rules) for k in range(axes))
        if math.prod(lengths) <= points:
            break
    else:
        raise _too_many(axes, math.prod(lengths), points)
    grid = np.full((len(rules), axes, 2, max(lengths)), 0.5)
    grid[:, :, 1] = 0
    for e, row in enumerate(rules):
        for k, rule in enumerate(row):
            grid[e, k, :, : len(rule[0])] = rule
    return lengths, grid


def _too_many(axes: int, needed: int, points: int) -> GradbenchError:
    return GradbenchError(
        f"an integral over {axes} uniforms needs at least {needed:.0e} points, over the limit of "
        f"{points:.0e}; measure draws of this estimator, or take fewer units"
    )


def _ends(
    loss: SurrogateLoss,
    sites: tuple[Site, ...],
    params: Params,
    examples: Batch,
    compiled: bool,
) -> list[list[np.ndarray]]:
    """Return, per example and axis, the values of the uniform between which no draw jumps."""
    n = batch_size(examples)
    if compiled:
        tables = _breakpoints(*parts(loss), sites, params, examples)
    else:
        units = sum(site.size for site in sites)
        states = numbered_states(np.arange(1 << units), units, jnp.result_type(float))
        e, path = np.divmod(np.arange(n * len(states)), len(states))
        rows = states[path], jax.tree.map(partial(take_rows, rows=e), examples)
        found = by_rows(_of_path, (loss, sites), params, rows)
        tables = [table.reshape(n, len(states), *table.shape[1:]) for table in found]
    tables = [np.asarray(table, float) for table in tables]
    return [
        [
            np.unique(np.clip([0.0, 1.0, *table[e, :, :, j].ravel()], 0, 1))
            for table in tables
            for j in range(table.shape[3])
        ]
        for e in range(n)
    ]


@partial(compile_plainly, static_argnums=(0, 2))
def _breakpoints(
    make: Make, numbers: Any, sites: tuple[Site, ...], params: Params, examples: Batch
) -> list[Float[Array, "examples paths breaks units"]]:
    """Return, per stream and site, the breakpoints on all paths."""
    of_path = partial(_of_path, make(numbers), sites, params)
    units = sum(site.size for site in sites)
    states = numbered_states(jnp.arange(2**units), units, jnp.result_type(float))
    each_path = jax.vmap(lambda flat, example: of_path((flat, example)), in_axes=(0, None))
    each = jax.vmap(each_path, in_axes=(None, 0), axis_size=batch_size(examples))
    return each(states, examples)


def _of_path(
    loss: SurrogateLoss, sites: tuple[Site, ...], params: Params, row: tuple[Array, Example]
) -> list[Float[Array, "breaks units"]]:
    """Return, per stream and site, the breakpoints on one path of an example."""
    flat, example = row
    run = run_at_states(loss.model, params, example, by_site(flat, sites))
    both = [jnp.stack([s.noise.cdf(a), s.noise.cdf(-a)]) for s, a in zip(sites, run.a, strict=True)]
    found = []
    for stream in range(loss.streams):
        more = loss.breakpoints(stream, run) if loss.breakpoints else [x[:0] for x in both]
        for site, own, extra in zip(sites, both, more, strict=True):
            extra = extra.reshape(-1, *site.shape)
            found.append(jnp.concatenate([own, extra]).reshape(-1, site.size))
    return found


def _points(ends: np.ndarray, smoothness: Smoothness, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points and weights of a rule that is exact, or converges fast, between the ends."""
    ends = ends[np.concatenate([[True], np.diff(ends) > 1e-14])]
    node, weight = _rule(smoothness, half)
    width = np.diff(ends)
    return (
        (ends[:-1, None] + width[:, None] * node).ravel(),
        (width[:, None] * weight).ravel(),
    )


def _rule(smoothness: Smoothness, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights on (0, 1): one, two of Gauss, or the double exponential rule."""
    if smoothness == "constant":
        return np.array([0.5]), np.array([1.0])
    if smoothness == "linear":
        return 0.5 + np.array([-1, 1]) / math.sqrt(12), np.array([0.5, 0.5])
    t = np.arange(-half, half + 1) * (3.0 / half)
    node = 1 / (1 + np.exp(-np.pi * np.sinh(t)))
    weight = np.pi * np.cosh(t) * node * (1 - node)
    return node, weight / weight.sum()
