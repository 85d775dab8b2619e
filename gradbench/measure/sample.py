"""Draws for everybody: their moments, or the draws themselves, by the loop that measures."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.arguments import at_least
from gradbench.core.callables import check_loss
from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.devices import on_host, to_host
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import check_data, checked, refuse_traced
from gradbench.core.precision import float64
from gradbench.core.pytrees import closed, from_rows, from_vectors, opened
from gradbench.measure.blocks import Moments, pool
from gradbench.measure.cell import coordinates_of
from gradbench.measure.draws import chunk_of, draw_block

_ENTRIES = 1 << 22  # gradient coordinates of a call of compiled code


class Draws(NamedTuple):
    """n draws of a loss: moments of their values and gradients, and the draws if asked for.

    Attributes:
        n: how many draws there are.
        value: the mean of the values, in float64.
        value_se: its standard error.
        mean: the mean gradient, in float64, with the structure of the parameters.
        variance: the variance of each coordinate of a draw; its sum is the total variance.
        se: the standard error of each coordinate of the mean.
        values: the values [n], if asked for.
        gradients: the gradients, leaves [n, ...] in the type of the parameters, if asked for.
    """

    n: int
    value: float
    value_se: float
    mean: Params
    variance: Params
    se: Params
    values: Float[Array, " n"] | None = None
    gradients: Params | None = None


def draws(
    loss: Loss, params: Params, key: Array, batch: Batch, n: int, *, stacked: bool = False
) -> Draws:
    """Return the moments of n draws of a gradient, and the draws themselves if ``stacked``.

    Draw i is ``jax.grad(loss)(params, jax.random.fold_in(key, i), batch)``. Draws are made by a
    compiled loop over parts that fit the processor's cache, and are not kept unless they are asked
    for, so that n may be large. The first call for a loss compiles: pass the same function each
    time, since a new one is compiled again.

    Args:
        loss: ``loss(params, key, batch) -> scalar``, such as an estimator, whose gradient is a
            draw; or ``-> (scalar, aux)``.
        params: any pytree of real arrays.
        key: of the draws.
        batch: examples along the first axis of its leaves.
        n: the number of draws, at least 2.
        stacked: whether to return all values and gradients too.

    Raises:
        GradbenchError: what does not fit the loss or is no number of draws, or a call inside
            ``jit``, ``grad`` or ``vmap``.
    """
    count = at_least(2, "n", n)
    if not isinstance(stacked, bool | np.bool_):
        raise GradbenchError(f"stacked is {stacked!r}; give True or False")
    check_loss(loss)
    check_data(params, batch, key, differentiated=True)
    refuse_traced("draws", params, key, batch)
    if hasattr(loss, "model"):
        checked(loss.model, params, batch, key, differentiated=True)
    params, batch = closed(params, numbers=True), jax.tree.map(jnp.asarray, batch)
    loss = as_estimator(loss)
    chunk = chunk_of(loss, params, batch, 1 << (count.bit_length() - 1))
    calls = -(-count // max(chunk, _ENTRIES // coordinates_of(params)))
    size = -(-count // (calls * chunk)) * chunk
    found: list[list[Moments]] = []
    kept: list[tuple[Array, ...]] = []
    for first in range(0, count, size):
        each = draw_block(loss, size, chunk, params, batch, key, np.uint32(first))
        values, gradients = each
        rows = tuple(part[: count - first] for part in (values[:, None], *gradients))
        moments = jax.tree.map(np.asarray, [moments_of(part) for part in rows])
        found.append([Moments(int(part[0]), part[1], part[2]) for part in moments])
        if stacked:
            kept.append(rows)
    value, *layers = map(pool, zip(*found, strict=True))
    with float64():
        variances = [layer.m2 / (count - 1) for layer in layers]
        mean, variance, se = (
            opened(from_vectors(vectors, params))
            for vectors in (
                [layer.mean for layer in layers],
                variances,
                [np.sqrt(own / count) for own in variances],
            )
        )
    spread = float(np.sqrt(value.m2[0] / (count - 1) / count))
    if not stacked:
        return Draws(count, float(value.mean[0]), spread, mean, variance, se)
    whole, *parts = (jnp.concatenate(own) for own in zip(*kept, strict=True))
    gradients = opened(from_rows(parts, params))
    return Draws(count, float(value.mean[0]), spread, mean, variance, se, whole[:, 0], gradients)


def moments_of(rows: Array) -> tuple[Array, Array, Array]:
    """Return count, mean [P] and sum of squared deviations [P] of draws [n, P], in float64."""
    with float64(), on_host():
        found: tuple[Array, Array, Array] = _moments_of(to_host(rows))
        return found


@jax.jit
def _moments_of(rows: Array) -> tuple[Array, Array, Array]:
    rows = rows.astype(float)
    mean = jnp.mean(rows, axis=0)
    return jnp.float64(len(rows)), mean, jnp.sum((rows - mean) ** 2, axis=0)


def as_estimator(loss: Loss) -> Loss:
    """Return a loss that takes parameters as ``pytrees.closed`` makes them.

    Estimators open them again by themselves; a loss of the user's own is
    wrapped, and then has no aux.

    Raises:
        GradbenchError: the loss has no hash.
    """
    try:
        hash(loss)
    except TypeError as error:
        raise GradbenchError(
            f"the loss of type {type(loss).__name__} has no hash, by which compiled functions are "
            "cached; give a function"
        ) from error
    return loss if hasattr(loss, "model") else _opening(loss)  # type: ignore[arg-type]


@lru_cache
def _opening(loss: Loss) -> Loss:
    def opening(params: Params, key: Array, batch: Batch) -> Any:
        return scalar_of(loss(opened(params), key, batch))

    return opening
