"""Moments of the gradient of one layer, by sums over the outcomes of its units in two branches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.core.branches import Branches
from gradbench.core.contract import Params, Site
from gradbench.exact.states import pair_rows, product_table
from gradbench.models.layer import units
from gradbench.models.structure import Layered


class Given(NamedTuple):
    """What is known of the objective given the states of a layer, a column for each example.

    ``mean`` is E f for each state, and ``square`` is E f^2 for each state or, where copies share
    their noise, E (f_0 - f_1)^2 for each pair of states.
    """

    mean: Float[Array, "states examples"]
    square: Float[Array, "rows examples"]


def spread_of(branches: Branches, n: int, given: Given) -> Float[Array, "table examples"]:
    """Return, for all outcomes of a layer of n units, E f^2 of one copy or E (f_0 - f_1)^2."""
    if branches.copies == 1 or branches.above is not None:
        return given.square
    first, second = pair_rows(n)
    mean, square = given
    return square[first] + square[second] - 2 * mean[first] * mean[second]


def layer_moments(
    branches: Branches,
    model: Layered,
    site: Site,
    theta: Params,
    mean: Float[Array, "states examples"],
    spread: Float[Array, "table examples"],
    weights: Float[Array, "rows examples"],
    states: Float[Array, "rows ..."],
) -> tuple[PyTree, PyTree]:
    """Return two moments of the gradient of a layer that some states below it contribute."""
    layer = model.layers[site.index]

    def row(weight: Array, state: Array) -> tuple[PyTree, PyTree]:
        x = model.encode(state)
        found = gradient_moments(branches, site, layer, theta, mean, spread, x)

        def weighted(leaf: Array) -> Array:
            p = weight.reshape(-1, *[1] * (leaf.ndim - 1))
            return p * jnp.where(p > 0, leaf, 0)

        return jax.tree.map(weighted, found)

    found = jax.vmap(row)(weights, states)
    return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), found)


def gradient_moments(
    branches: Branches, site: Site, layer: Any, theta: Params, mean: Array, spread: Array, x: Array
) -> tuple[PyTree, PyTree]:
    """Return two moments of the gradient of a layer, given what it reads, ``[examples, ...]``."""
    i, j = unit_pairs(layer, theta)
    law = branches.law(site, layer(theta, x)).reshape(4, -1, site.size)
    one, two = _signal_moments(branches, law, mean, spread, i, j)
    slopes = jax.tree.map(
        lambda leaf: leaf.reshape(site.size, *leaf.shape[len(site.shape) :]),
        jax.jacrev(layer)(theta, x),
    )
    twice = np.where(i == j, 1.0, 2.0)

    def second(leaf: Array) -> Array:
        return jnp.tensordot((two.T * twice).astype(leaf.dtype), leaf[i] * leaf[j], 1)

    return jax.tree.map(lambda leaf: jnp.tensordot(one.T, leaf, 1), slopes), jax.tree.map(
        second, slopes
    )


def _signal_moments(
    branches: Branches, law: Array, mean: Array, spread: Array, i: np.ndarray, j: np.ndarray
) -> tuple[Float[Array, "units examples"], Float[Array, "pairs examples"]]:
    """Return E s for all units and E s_i s_j for pairs of units, s = sum_k f_k w_k."""
    n, unit = branches.copies, np.arange(law.shape[2])
    p, w0, w1, both = (part.T for part in law)  # [units, outcomes]
    at_i, at_j = unit == i[:, None], unit == j[:, None]
    factors = jnp.where(at_i[..., None], w0, jnp.where(at_j[..., None], w1, p))
    factors = jnp.where((at_i & at_j)[..., None], both, factors)
    sign = 1.0 if n == 1 else -n * (n - 1) / 2
    two = sign * (jax.vmap(product_table)(factors) @ spread)
    if n > 1:  # the first copy alone
        p, w0 = (part.reshape(-1, 2, 2).sum(axis=2) for part in (p, w0))
    factors = jnp.where(np.eye(len(unit), dtype=bool)[..., None], w0, p)
    return n * (jax.vmap(product_table)(factors) @ mean), two


def unit_pairs(layer: Any, theta: Params) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of units i <= j that some parameter of the layer has a share in.

    In a dense layer a parameter belongs to a single unit. Elsewhere all pairs are taken.
    """
    n = units(layer.outputs)
    if getattr(layer, "affine", False) and np.shape(theta["weight"]) == (n, units(layer.inputs)):
        return np.arange(n), np.arange(n)
    return np.triu_indices(n)
