"""The choice of one unit by a uniform, and where it jumps."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float


def choose(weights: Float[Array, " n"], u: Array) -> Array:
    """Return a number below n, drawn in proportion to its weight by the first uniform of u."""
    ends = jnp.cumsum(weights)
    return jnp.minimum(jnp.sum(u.ravel()[0] * ends[-1] >= ends), len(weights) - 1)


def choice_breaks(weights: Float[Array, "... n"]) -> Float[Array, " m"]:
    """Return where ``choose`` jumps in its uniform, for all rows of weights."""
    ends = jnp.cumsum(weights, axis=-1)
    return (ends / jnp.where(ends[..., -1:] > 0, ends[..., -1:], 1)).ravel()


def first_breaks(points: Float[Array, " m"], shape: Sequence[int]) -> Array:
    """Return breakpoints of the first uniform of a layer as ``[m, *shape]``; others have none."""
    rest = jnp.zeros((len(points), math.prod(shape) - 1), points.dtype)
    return jnp.concatenate([points[:, None], rest], axis=1).reshape(-1, *shape)
