"""A block of draws, reduced to its statistics by one program for all estimators and all M.

The program depends on the number of draws in a block, on the numbers M and on the sizes of the
layers alone. How long it takes to compile grows with the number of layers and little with that of
the M, whose rows are reduced together.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradbench.measure.blocks import BINS, ROUNDING, LayerBlock


def reduced(
    block: int,
    averages: tuple[int, ...],
    head_sizes: tuple[int, ...],
    gradients: tuple[Float[Array, "block p"], ...],
    exact: tuple[Float[Array, " p"], ...],
    count: int,
) -> list[LayerBlock]:
    """Return the statistics of the first ``count`` draws, for each layer and for the network.

    To be called inside ``float64()``.

    Args:
        block: the number of draws that there are.
        averages: the numbers M of draws that are averaged.
        head_sizes: the numbers of draws that heads are sums of.
        gradients: the draws of each layer.
        exact: the true gradient of each layer.
        count: how many of the draws count.
    """
    found = _reduced(block, averages, head_sizes, gradients, exact, count)
    *moments, groups, sums = jax.tree.map(np.asarray, found)
    ends = np.cumsum([len(truth) for truth in exact])[:-1]
    layers = zip(*(np.split(rows, ends, axis=-1) for rows in moments), strict=True)
    nothing = [rows[..., :0] for rows in moments]
    return [
        LayerBlock._make((count, *own, groups, *(of[n] for of in sums)))
        for n, own in enumerate((*layers, nothing))
    ]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _reduced(
    block: int,
    averages: tuple[int, ...],
    head_sizes: tuple[int, ...],
    gradients: tuple[Float[Array, "block p"], ...],
    exact: tuple[Float[Array, " p"], ...],
    count: Array,
) -> tuple[Any, ...]:
    """Return mean [P], m2 [P] and heads [H, P] of all coordinates, groups [K], and the other sums.

    Those have a first axis of layers, the network being the last: the fields of ``LayerBlock`` from
    ``cosine`` on. The rows of all M are reduced together, so that the program stays short.
    """
    numbers = jnp.arange(block)
    present = (numbers < count)[:, None]
    draws = jnp.concatenate(gradients, axis=1).astype(jnp.result_type(float))
    draws = jnp.where(present, draws, 0)
    mean = jnp.sum(draws, axis=0) / count
    m2 = jnp.sum(jnp.where(present, draws - mean, 0) ** 2, axis=0)
    heads = (numbers < np.array(head_sizes, int).reshape(-1, 1)).astype(draws.dtype) @ draws
    means = _group_means(draws, averages)
    complete, level = _complete(block, np.array(averages), count)
    sums = _sums(_directions(jnp.concatenate(means), exact), complete, level)
    return mean, m2, heads, jnp.sum(complete, axis=1), sums


def _group_means(
    draws: Float[Array, "block p"], averages: Sequence[int]
) -> list[Float[Array, "groups p"]]:
    """Return the means of whole groups of M draws for each M, made of those for a divisor of M."""
    means = {1: draws}
    for m in averages:
        known = max(n for n in means if m % n == 0)
        size, parts = len(draws) // m, m // known
        rows = means[known][: size * parts]
        means[m] = jnp.mean(rows.reshape(size, parts, -1), axis=1) if parts > 1 else rows
    return [means[m] for m in averages]


def _complete(block: int, averages: np.ndarray, count: Array) -> tuple[Array, Array]:
    """Return which rows of the groups of all M are complete groups of each M [K, rows].

    Also return the number of the M that each row belongs to [rows].
    """
    ends = np.cumsum(block // averages)
    row = jnp.arange(ends[-1])
    level = jnp.sum(row[:, None] >= ends, axis=1)
    begins = jnp.asarray(ends - block // averages)
    within = (row - begins[level] + 1) * jnp.asarray(averages)[level] <= count
    return within & (level == np.arange(len(averages))[:, None]), level


def _directions(
    g: Float[Array, "rows p"], exact: Sequence[Float[Array, " p"]]
) -> tuple[Array, ...]:
    """Return g.G, |g|^2, |G|^2, and how many coordinates have the sign of G, and how many could.

    Each has a first axis of layers, the network being the last.
    """
    begin, parts = 0, []
    for truth in exact:
        own = g[:, begin : (begin := begin + len(truth))]
        known = jnp.abs(truth) > ROUNDING * jnp.max(jnp.abs(truth), initial=0.0)
        same = known & (jnp.sign(own) == jnp.sign(truth))
        parts.append(
            (
                jnp.sum(own * truth, axis=1),
                jnp.sum(own**2, axis=1),
                jnp.sum(truth**2),
                jnp.sum(same, axis=1),
                jnp.sum(known),
            )
        )
    layers = map(jnp.stack, zip(*parts, strict=True))
    return tuple(jnp.concatenate([one, jnp.sum(one, axis=0, keepdims=True)]) for one in layers)


def _sums(
    directions: tuple[Array, ...], complete: Bool[Array, "averages rows"], level: Array
) -> tuple[Array, ...]:
    """Return the sums over complete groups; a cosine is 0 where one of the vectors is zero."""
    dot, square, truth, same, known = directions
    norms = jnp.sqrt(square * truth[:, None])
    cosine = jnp.where(norms > 0, dot / jnp.where(norms > 0, norms, 1), 0)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    bins = jnp.minimum((angle * (BINS / jnp.pi)).astype(int), BINS - 1)
    histogram = jnp.zeros((len(dot), len(complete), BINS), jnp.int32)
    layer = jnp.arange(len(dot))[:, None]
    histogram = histogram.at[layer, level, bins].add(jnp.any(complete, axis=0).astype(jnp.int32))
    signs = same / jnp.maximum(known, 1)[:, None]

    def total(rows: Float[Array, "layers rows"]) -> Float[Array, "layers averages"]:
        return jnp.sum(jnp.where(complete, rows[:, None], 0), axis=2)

    return total(cosine), total(cosine**2), histogram, total(signs), total(signs**2)
