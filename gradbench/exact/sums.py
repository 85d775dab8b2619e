"""Sums over very many terms, in chunks that fit into memory: nothing but the sum is kept."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradbench.core.contract import Batch, Example
from gradbench.core.noise import Noise
from gradbench.core.run import batch_size
from gradbench.exact.size import PATHS, TABLE, by_halves, row_width
from gradbench.exact.states import state_probabilities

# Terms that are summed at once whatever they take, and terms of all examples together.
_FEW, _FEW_ALL = 64, 2048


def sum_rows(
    total: PyTree, part: Callable[..., PyTree], *arrays: Array, width: int | None = None
) -> PyTree:
    """Return ``total`` + ``part(*arrays)``, a sum over the rows of all arrays, by chunks of rows.

    The number of rows is a power of two. ``width`` is the count of numbers that ``part`` works on
    per row, found by tracing it where it is not given.
    """
    rows = len(arrays[0])
    size = _chunk(rows, TABLE // (width or row_width(part, *arrays)))
    return _sum_parts(total, part, *(a.reshape(-1, size, *a.shape[1:]) for a in arrays))


def map_rows(row: Callable[..., PyTree], *arrays: Array, width: int | None = None) -> PyTree:
    """Return ``row(*arrays)`` for each row of the arrays, stacked, by chunks of rows.

    ``width`` is as in ``sum_rows``. For a derivative rows are computed once more, so that their
    inner values need not be kept.
    """
    row, rows = jax.checkpoint(row), len(arrays[0])
    most = TABLE // (width or row_width(jax.vmap(row), *arrays))
    if most >= rows:
        return jax.vmap(row)(*arrays)
    return jax.lax.map(lambda own: row(*own), arrays, batch_size=_chunk(rows, most))


def sum_numbered(
    total: PyTree,
    weighted: Callable[[Array, Example], PyTree],
    batch: Batch,
    count: int,
    smooth: bool = True,
) -> PyTree:
    """Return ``total`` + sum of ``weighted(number, example)`` over numbers < count, per example.

    It must not be differentiated unless ``smooth``.
    """
    examples = batch_size(batch)  # of which a batch without arrays has one

    def some(paths: Array) -> PyTree:
        parts = jax.vmap(lambda n: jax.vmap(partial(weighted, n), axis_size=examples)(batch))(paths)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)

    # The width of so few is not worth tracing.
    few = count <= _FEW or count * batch_size(batch) <= _FEW_ALL
    size = count if few else _chunk(count, PATHS // row_width(some, jnp.arange(1)))
    whole, rest = divmod(count, size)

    def part(first: Array, size: int = size) -> PyTree:
        return some(first + jnp.arange(size))

    total = _sum_parts(total, part, size * jnp.arange(whole), smooth=smooth)
    if not rest:
        return total
    last = partial(part, size=rest)
    return _sum_parts(total, last, jnp.array([whole * size]), smooth=smooth)


def expectation_of(
    probability: Float[Array, "states n"], f: Float[Array, "states n"]
) -> Float[Array, " n"]:
    """Return the expectation of f over the first axis; values of probability 0 do not count."""
    return jnp.sum(probability * jnp.where(probability > 0, f, 0), axis=0)


def expected_given(
    noise: Noise, a: Float[Array, " units"], f: Float[Array, "states n"]
) -> Float[Array, " n"]:
    """Return the expectation of f over the states of units, given their pre-activations.

    A value that is not finite gives NaN, unless its state has probability 0.
    """
    parts = jnp.split(a, [len(a) // 2]) if by_halves(len(a), f.shape[1]) else [a]
    *first, last = (state_probabilities(noise, part) for part in parts)

    def total(f: Array) -> Array:
        for p in first:
            f = jnp.einsum("u,uvn->vn", p, f.reshape(len(p), -1, f.shape[1]))
        return last @ f

    finite = jnp.isfinite(f)
    broken = total((~finite).astype(f.dtype))
    return jnp.where(broken > 0, jnp.nan, total(jnp.where(finite, f, 0)))


def _chunk(rows: int, most: int) -> int:
    """Return the size of chunks, a power of two of at most ``rows`` and ``most``, or 1."""
    return 1 << (max(1, min(rows, most)).bit_length() - 1)


def _sum_parts(
    total: PyTree, part: Callable[..., PyTree], *chunks: Array, smooth: bool = True
) -> PyTree:
    """Return ``total`` + the sum of ``part(*chunk)`` over the first axis of ``chunks``.

    Where the sum may be differentiated (``smooth``), its parts are computed once more for that, so
    that their inner values need not be kept.
    """
    again = jax.checkpoint(part) if smooth else part

    def step(total: PyTree, chunk: tuple[Array, ...]) -> tuple[PyTree, None]:
        # The data may be of higher precision than the parameters.
        return jax.tree.map(lambda t, p: t + p.astype(t.dtype), total, again(*chunk)), None

    return jax.lax.scan(step, total, chunks)[0]
