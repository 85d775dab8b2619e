"""Draws of single examples at given uniforms: what an enumeration is made of.

Few rows are not worth compiling a program for: they are run in numpy, see ``core.uncompiled``. What
is traced is the same, and real draws are compiled, and compared with the rows number by number.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradbench.core.compiling import compile_plainly
from gradbench.core.contract import Batch, Example, Loss, Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import closed, layers_of, real_type
from gradbench.core.run import as_examples, batch_size, find_sites, run_at_states, sampled
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uncompiled import by_rows, take_rows
from gradbench.core.uniforms import Uniforms, draw_uniforms
from gradbench.exact.moments import Moments, moments_work
from gradbench.exact.quadrature import uniform_grid
from gradbench.exact.size import any_key, sites_and_type
from gradbench.exact.states import path_probability, states_of_path

_ROWS = 1 << 13  # at a time
_MANY = 1 << 18  # so many are worth a compiled program

# ``rule(e, number)`` gives the weights of draws of the examples e, and their uniforms.
_Rule = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, tuple[Uniforms, ...]]]


def vector(value: Array, gradient: Params) -> Float[Array, " coordinates"]:
    """Return value and gradient as one vector."""
    return jnp.concatenate([jnp.reshape(value, 1), ravel_pytree(gradient)[0]])


def vectors_of(params: Params) -> list[np.ndarray]:
    """Return the numbers of each layer as a vector, in numpy."""
    return [np.concatenate([np.ravel(x) for x in leaves]) for _, leaves in layers_of(params)]


def draws_at(
    loss: SurrogateLoss,
    params: Params,
    u: tuple[Uniforms, ...],
    examples: Batch,
    many: bool = False,
) -> Float[np.ndarray, "rows coordinates"]:
    """Return value and gradient of the draws of some examples, one a row of all arrays.

    Of ``many``, in this and further calls, a program is compiled.
    """
    n = batch_size(examples)
    found = []
    for start in range(0, n, _ROWS):
        rows = np.arange(start, start + _ROWS if many else min(start + _ROWS, n))
        part = jax.tree.map(partial(take_rows, rows=np.minimum(rows, n - 1)), (u, examples))
        if many:
            found.append(np.asarray(_compiled(loss, params, part)))
        else:
            found.append(by_rows(_draw, (loss,), params, part))
    return np.concatenate(found)[:n]


@partial(jax.jit, static_argnums=0)  # so that it is traced once, to be run in numpy and compiled
def _draw(
    loss: SurrogateLoss, params: Params, row: tuple[tuple[Uniforms, ...], Example]
) -> Float[Array, " coordinates"]:
    return vector(*jax.value_and_grad(loss.example_loss)(closed(params), *row))


@partial(compile_plainly, static_argnums=0)
def _compiled(
    loss: SurrogateLoss, params: Params, rows: tuple[tuple[Uniforms, ...], Batch]
) -> Float[Array, "rows coordinates"]:
    return jax.vmap(partial(_draw, loss, params))(rows)


def row_moments(loss: SurrogateLoss, params: Params, batch: Batch, points: int) -> Moments:
    """Return what ``moments`` does: of draws at all states, or at ``points`` of all uniforms.

    Raises:
        GradbenchError: see ``moments``.
    """
    examples = as_examples(loss.model, any_key(), batch)
    sites, _ = sites_and_type(loss.model, params, batch)
    n = batch_size(examples)
    if loss.randomness == "uniforms":
        count, rule = _by_uniforms(loss, sites, params, examples, points)
    else:
        count, rule = _by_states(loss, sites, params, examples)
    first = np.zeros((n, 1 + sum(np.size(leaf) for leaf in jax.tree.leaves(params))))
    second = np.zeros_like(first)
    many = n * count >= _MANY
    for start in range(0, n * count, _ROWS):
        rows = np.arange(start, min(start + _ROWS, n * count))
        e, number = rows // count, rows % count
        weight, u = rule(e, number)
        own = jax.tree.map(partial(take_rows, rows=e), examples)
        draws = np.where(weight[:, None] > 0, draws_at(loss, params, u, own, many), 0)
        begin = np.flatnonzero(np.diff(e, prepend=-1))  # of the rows of each example
        weighted = weight[:, None] * draws
        first[e[begin]] += np.add.reduceat(weighted, begin)
        second[e[begin]] += np.add.reduceat(weighted * draws, begin)
    mean = np.mean(first, axis=0)
    variance = np.mean(np.maximum(second - first**2, 0), axis=0) / n
    return Moments(mean[0], _as_tree(mean[1:], params), _as_tree(variance[1:], params))


def _as_tree(numbers: np.ndarray, params: Params) -> Params:
    """Return numbers as arrays of the form of the parameters, in numpy."""
    leaves, form = jax.tree.flatten(params)
    parts = np.split(numbers, np.cumsum([np.size(leaf) for leaf in leaves])[:-1])
    shaped = [part.reshape(np.shape(leaf)) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(form, shaped)


def row_work(loss: Loss, params: Params, batch: Batch, points: int) -> float:
    """Return how many draws ``row_moments`` takes; infinite where there are none to enumerate.

    What an estimator declares of its branches is not believed: the draws are what is judged.
    """
    random = getattr(getattr(loss, "model", None), "random", False)
    if not isinstance(loss, SurrogateLoss) or loss.randomness != "uniforms" or random:
        return moments_work(loss, params, batch, points, declared=False)
    examples = as_examples(loss.model, any_key(), batch)
    sites, _ = sites_and_type(loss.model, params, batch)
    try:
        count, _ = _by_uniforms(loss, sites, params, examples, points)
    except GradbenchError:
        return math.inf
    return float(batch_size(examples) * count)


def _by_states(
    loss: SurrogateLoss, sites: tuple[Site, ...], params: Params, examples: Batch
) -> tuple[int, _Rule]:
    """Return how many draws of one example there are, and how they are made: one path a stream."""
    units = sum(site.size for site in sites)
    number = np.arange(batch_size(examples) << units)
    e, path = number >> units, number % (1 << units)
    rows = path, jax.tree.map(partial(take_rows, rows=e), examples)
    table = by_rows(_path_probability, (loss.model, sites), params, rows).reshape(-1, 1 << units)

    def rule(e: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, tuple[Uniforms, ...]]:
        weight, streams = np.ones(len(e)), []
        for stream in range(loss.streams):
            path = (number >> (units * stream)) % (1 << units)
            weight = weight * table[e, path]
            bits = (path[:, None] >> np.arange(units - 1, -1, -1)) & 1
            streams.append(_by_site(1.0 - bits, sites))
        return weight, tuple(streams)

    return 1 << (units * loss.streams), rule


def _path_probability(
    model: Model, sites: tuple[Site, ...], params: Params, row: tuple[Array, Example]
) -> Float[Array, ""]:
    number, example = row
    states = states_of_path(number, sites, real_type(params))
    return path_probability(run_at_states(model, params, example, states))


def _by_uniforms(
    loss: SurrogateLoss, sites: tuple[Site, ...], params: Params, examples: Batch, points: int
) -> tuple[int, _Rule]:
    """Return the same for the product of quadrature rules of all uniforms."""
    lengths, grid = uniform_grid(loss, sites, params, examples, points, compiled=False)
    strides = np.cumprod([1, *lengths[:0:-1]])[::-1][: len(lengths)]
    axis = np.arange(len(lengths))

    def rule(e: np.ndarray, number: np.ndarray) -> tuple[np.ndarray, tuple[Uniforms, ...]]:
        index = (number[:, None] // strides) % np.array(lengths)
        u, weight = np.moveaxis(grid[e[:, None], axis, :, index], -1, 0)
        streams = np.split(u, loss.streams, axis=1)
        return np.prod(weight, axis=1), tuple(_by_site(part, sites) for part in streams)

    return math.prod(lengths), rule


def _by_site(rows: np.ndarray, sites: tuple[Site, ...]) -> Uniforms:
    parts = np.split(rows, np.cumsum([site.size for site in sites])[:-1], axis=1)
    shaped = [x.reshape(len(x), *s.shape) for x, s in zip(parts, sites, strict=True)]
    return tuple(shaped)  # type: ignore[arg-type]


def uniforms_of_keys(
    model: Model, streams: int, by_states: bool, params: Params, keys: Array, batch: Batch
) -> tuple[tuple[Uniforms, ...], Batch]:
    """Return the uniforms of real draws and their examples, ``[keys, examples, ...]``.

    An estimator that is driven by states gets the uniforms 0 and 1 of its path in their place.
    """
    found: tuple[tuple[Uniforms, ...], Batch] = by_rows(
        _uniforms_of_key, (model, streams, by_states), (params, batch), keys
    )
    return found


def _uniforms_of_key(
    model: Model, streams: int, by_states: bool, data: tuple[Params, Batch], key: Array
) -> tuple[tuple[Uniforms, ...], Batch]:
    params, batch = data
    examples = as_examples(model, key, batch)
    sites = find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], examples))
    shapes, n = [site.shape for site in sites], batch_size(examples)
    u = draw_uniforms(key, shapes, streams, n, real_type(params))
    u = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), u)
    if by_states:

        def of_path(stream: Uniforms, example: Any) -> Uniforms:
            return tuple((1 - x) / 2 for x in sampled(model, params, stream, example).x)

        u = tuple(jax.vmap(of_path)(stream, examples) for stream in u)
    return u, examples


def real_rows(
    loss: SurrogateLoss,
    params: Params,
    keys: Array,
    batch: Batch,
    by_states: bool = False,
) -> Float[np.ndarray, "keys coordinates"]:
    """Return value and gradient of the draws of a batch, a row for each key.

    They are made of those of its examples, see ``uniforms_of_keys``.
    """
    u, examples = uniforms_of_keys(loss.model, loss.streams, by_states, params, keys, batch)
    if loss.couples_batch:  # all examples are one draw, and their axis is the last
        u = jax.tree.map(lambda leaf: np.moveaxis(leaf, 1, -1), u)
        return draws_at(loss, params, u, examples)
    u, examples = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (u, examples))
    draws = draws_at(loss, params, u, examples)
    return np.mean(draws.reshape(len(keys), -1, draws.shape[-1]), axis=1)
