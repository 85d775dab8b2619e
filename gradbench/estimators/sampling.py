"""Randomised quasi-Monte Carlo: the uniforms of several draws as points of one shifted lattice.

The points of a rank-1 lattice, shifted together on the torus by one uniform vector, fill the unit
cube evenly, and each of them is uniform. So a mean over them keeps its mean, whatever the function.
Products of two different draws do not: their factors depend on each other. Source: Cranley &
Patterson 1976, Randomization of number theoretic methods for multiple integration.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.core.contract import Breakpoints, Trace
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.surrogate import SurrogateLoss

SAMPLINGS = ("independent", "lattice")


def is_lattice(sampling: str) -> bool:
    """Return whether draws are the points of a lattice, not independent.

    Raises:
        GradbenchError: there is no such ``sampling``.
    """
    if sampling not in SAMPLINGS:
        raise GradbenchError(f"sampling is {sampling!r}; {did_you_mean(sampling, SAMPLINGS)}")
    return sampling == "lattice"


def lattice(u: PyTree[Array], points: int) -> PyTree[Float[Array, "points ..."]]:
    """Return the points of a lattice shifted by uniforms, the first of which is ``u`` itself.

    Offsets are rounded to the grid of the uniforms (``open_uniform``), so that every point is
    distributed as ``u`` is, exactly.
    """
    leaves, form = jax.tree.flatten(u)
    offsets = _offsets(points, [leaf.shape for leaf in leaves])

    def shifted(leaf: Array, offset: np.ndarray) -> Array:
        grid = 2.0 ** min(32, jnp.finfo(leaf.dtype).nmant)
        offset = np.round(offset * grid) / grid
        up = jnp.asarray(offset, leaf.dtype)
        down = jnp.asarray(1 - offset, leaf.dtype)
        return jnp.where(leaf >= down, leaf - down, leaf + up)

    return jax.tree.unflatten(form, list(map(shifted, leaves, offsets)))


def lattice_breakpoints(loss: SurrogateLoss, points: int) -> Breakpoints:
    """Return where a mean over the points of lattices may jump in the shifts.

    ``loss`` is the estimator of one point: as many streams as it has are the shift of a lattice.
    """

    def breakpoints(stream: int, run: Trace) -> Sequence[Array]:
        own = stream % loss.streams
        more = loss.breakpoints(own, run) if loss.breakpoints else [a[None][:0] for a in run.a]
        shapes = [site.shape for _ in range(loss.streams) for site in run.sites]
        first = own * len(run.sites)
        found = []
        offsets = _offsets(points, shapes)[first : first + len(run.sites)]
        for site, a, extra, offset in zip(run.sites, run.a, more, offsets, strict=True):
            ends = [jnp.zeros_like(a), site.noise.cdf(a), site.noise.cdf(-a)]
            jumps = jnp.concatenate([jnp.stack(ends), jnp.reshape(extra, (-1, *site.shape))])
            found.append(((jumps[:, None] - offset) % 1).reshape(-1, *site.shape))
        return found

    return breakpoints


def _offsets(points: int, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray]:
    """Return i z / points mod 1 of each point i, as ``[points, *shape]`` for each shape."""
    sizes = [math.prod(shape) for shape in shapes]
    z = np.array(generators(points, sum(sizes)))
    all_of_them = np.arange(points)[:, None] * z % points / points
    parts: Any = np.split(all_of_them, np.cumsum(sizes)[:-1], axis=1)
    return [part.reshape(points, *shape) for part, shape in zip(parts, shapes, strict=True)]


@lru_cache(maxsize=64)
def generators(points: int, dimensions: int) -> tuple[int, ...]:
    """Return a generating vector, whose entries have no factor in common with ``points``.

    Entry by entry, the sum over the pairs with those before of what the lattice leaves of the
    product of two Bernoulli polynomials of degree 2 is made as small as possible: pairs of units
    are what the products of objective and score consist of.
    """
    units = [z for z in range(1, points) if math.gcd(z, points) == 1] or [1]
    x = np.arange(points) * np.array(units)[:, None] % points / points
    polynomial = x**2 - x + 1 / 6
    pairs = polynomial @ polynomial.T
    total, chosen = np.zeros(len(units)), []
    for _ in range(dimensions):
        chosen.append(int(np.argmin(np.round(total, 12))))
        total += pairs[chosen[-1]]
    return tuple(units[k] for k in chosen)
