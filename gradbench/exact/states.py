"""All states of some units, all paths through the layers of a model, and their probabilities."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Site, Trace
from gradbench.core.noise import Noise


def all_states(units: int, dtype: Any) -> Float[Array, "states units"]:
    """Return the 2^units states in {-1, +1} as numbers of type ``dtype``.

    Unit 0 is the most significant bit of the row number.
    """
    return numbered_states(jnp.arange(2**units), units, dtype)


def numbered_states(number: Any, units: int, dtype: Any) -> Float[Array, "... units"]:
    """Return the states with these row numbers, see ``all_states``; of numpy for those of numpy."""
    bits = (number[..., None] >> np.arange(units - 1, -1, -1)) & 1
    return (2 * bits - 1).astype(dtype)


def state_probabilities(noise: Noise, a: Float[Array, "... units"]) -> Float[Array, "... states"]:
    """Return P(x | a) of all 2^units states: an outer product over units, exact where F = 0 too."""
    table = jnp.ones((*a.shape[:-1], 1), a.dtype)
    for j in range(a.shape[-1]):
        unit = jnp.stack([noise.cdf(-a[..., j]), noise.cdf(a[..., j])], axis=-1)
        table = (table[..., :, None] * unit[..., None, :]).reshape(*a.shape[:-1], -1)
    return table


def product_table(factors: Float[Array, "units outcomes"]) -> Float[Array, " table"]:
    """Return the products of one factor of each unit, for all their outcomes: unit 0 slowest."""
    table = jnp.ones(1, factors.dtype)
    for unit in factors:
        table = (table[:, None] * unit).ravel()
    return table


def pair_rows(units: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row numbers of the first and the second states, for all 4^units pairs of states.

    A pair is numbered by two bits for each unit, that of the first states before that of the
    second; unit 0 is the most significant.
    """
    number = np.arange(4**units)
    place = 2 * np.arange(units)
    bits = (number[:, None] >> place) & 1, (number[:, None] >> (place + 1)) & 1
    second, first = (np.sum(b << np.arange(units), axis=1) for b in bits)
    return first, second


def states_of_path(number: Array, sites: tuple[Site, ...], dtype: Any) -> list[Array]:
    """Return the states of all sites on the path with this number."""
    return by_site(numbered_states(number, sum(site.size for site in sites), dtype), sites)


def by_site(flat: Array, sites: tuple[Site, ...]) -> list[Array]:
    """Return a vector over all units as one array per site."""
    ends = np.cumsum([site.size for site in sites])[:-1]
    return [x.reshape(s.shape) for s, x in zip(sites, jnp.split(flat, ends), strict=True)]


def path_probability(run: Trace) -> Float[Array, ""]:
    """Return the probability of the states of a run, given its pre-activations."""
    factors = [
        site.noise.probability(x, a).ravel()
        for site, x, a in zip(run.sites, run.x, run.a, strict=True)
    ]
    return jnp.prod(jnp.concatenate(factors))
