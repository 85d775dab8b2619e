"""The expected loss by enumeration: recursion over layers, sums over paths and over weights."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.core.contract import Batch, Example, Loss, Model, Params, Site, Trace
from gradbench.core.noise import Noise, get_noise
from gradbench.core.pytrees import closed
from gradbench.core.run import as_examples, batch_size, run_at_states
from gradbench.exact.size import (
    MEMORY,
    PATHS,
    TABLE,
    any_key,
    check_size,
    has_closed_form,
    row_width,
    sites_and_type,
)
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.layer import axes
from gradbench.models.network import SBN

_FEW = 64  # paths that are summed at once whatever they take


def all_states(units: int, dtype: Any) -> Float[Array, "states units"]:
    """The 2^units states in {-1, +1}; unit 0 is the most significant bit of the row number.

    ``dtype`` is that of the numbers.
    """
    return numbered_states(jnp.arange(2**units), units, dtype)


def numbered_states(number: Array, units: int, dtype: Any) -> Float[Array, "... units"]:
    """The states with these row numbers, see ``all_states``."""
    bits = (number[..., None] >> jnp.arange(units - 1, -1, -1)) & 1
    return (2 * bits - 1).astype(dtype)


def state_probabilities(noise: Noise, a: Float[Array, "... units"]) -> Float[Array, "... states"]:
    """P(x | a) of all 2^units states as an outer product over the units: exact also where F = 0."""
    table = jnp.ones((*a.shape[:-1], 1), a.dtype)
    for j in range(a.shape[-1]):
        unit = jnp.stack([noise.cdf(-a[..., j]), noise.cdf(a[..., j])], axis=-1)
        table = (table[..., :, None] * unit[..., None, :]).reshape(*a.shape[:-1], -1)
    return table


def _chunk(rows: int, most: int) -> int:
    """The size of chunks, a power of two of at most ``rows`` and ``most``, or 1."""
    return 1 << (max(1, min(rows, most)).bit_length() - 1)


def _sum_parts(
    total: PyTree, part: Callable[..., PyTree], *chunks: Array, smooth: bool = True
) -> PyTree:
    """``total`` + sum of ``part(*chunk)`` over the first axis; nothing but the sum is kept.

    ``smooth``: it may be differentiated, for which the parts are then computed again.
    """
    again = jax.checkpoint(part) if smooth else part

    def step(total: PyTree, chunk: tuple[Array, ...]) -> tuple[PyTree, None]:
        # The data may be of higher precision than the parameters.
        return jax.tree.map(lambda t, p: t + p.astype(t.dtype), total, again(*chunk)), None

    return jax.lax.scan(step, total, chunks)[0]


def _sum_rows(total: PyTree, part: Callable[..., PyTree], *arrays: Array) -> PyTree:
    """``total`` + ``part(*arrays)``, which sums over the rows of all arrays, in chunks of rows."""
    size = _chunk(len(arrays[0]), TABLE // row_width(part, *arrays))
    return _sum_parts(total, part, *(a.reshape(-1, size, *a.shape[1:]) for a in arrays))


def recursion(network: SBN, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss of a network, mean over the batch, by the layer recursion.

    Carried from layer to layer are the distribution of the states, ``[states, examples]``, and the
    expected sum of the objective's terms below.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    term = network.term and partial(network.term, params)
    first, theta = network.layers[0], params[0]
    a = jax.vmap(partial(first, theta))(batch[0])
    noise, shape = get_noise(first.noise), a.shape[1:]
    distribution = state_probabilities(noise, a.reshape(len(a), -1)).T
    states = all_states(math.prod(shape), a.dtype).reshape(-1, *shape)
    total = jnp.zeros(len(a), a.dtype)
    if term:

        def first_term(distribution: Array, states: Array) -> Array:
            f = jax.vmap(
                lambda x: jax.vmap(lambda example, a: term(0, noise, example, a, x))(batch, a)
            )(states)
            return _weighted(distribution, f)

        total = _sum_rows(total, first_term, distribution, states)

    for k, (layer, theta) in enumerate(zip(network.layers[1:], params[1:-1], strict=True), 1):
        noise, shape = get_noise(layer.noise), axes(layer.outputs)
        above = all_states(math.prod(shape), a.dtype).reshape(-1, *shape)

        def pushed(distribution, states, k=k, layer=layer, theta=theta, noise=noise, above=above):
            a = jax.vmap(lambda x: layer(theta, network.encode(x)))(states)
            table = state_probabilities(noise, a.reshape(len(a), -1))
            cost = jnp.zeros(distribution.shape[1], a.dtype)
            if term:
                pairs = jax.vmap(
                    lambda below, a: jax.vmap(lambda x: term(k, noise, below, a, x))(above)
                )(states, a)
                cost = _weighted(table.T, pairs.T) @ distribution
            return table.T @ distribution, cost

        start = jnp.zeros((len(above), distribution.shape[1]), a.dtype)
        distribution, total = _sum_rows((start, total), pushed, distribution, states)
        states = above
    if term:
        return jnp.mean(total)

    def expected(distribution, states):
        f = jax.vmap(
            lambda x: jax.vmap(partial(network.objective, params[-1], network.encode(x)))(batch[1])
        )(states)
        return _weighted(distribution, f)

    return jnp.mean(_sum_rows(total, expected, distribution, states))


def closed_form(network: SBN, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss of one layer, mean over the batch, by an objective that knows it.

    ``network`` is of that layer alone.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    (layer,), noise = network.layers, get_noise(network.layers[0].noise)

    def expected(x: Array, target: Array) -> Array:
        p = noise.cdf(layer(params[0], x))
        return network.objective.expected(params[-1], p, network.states, target)

    return jnp.mean(jax.vmap(expected)(*batch))


def _weighted(
    probability: Float[Array, "states n"], f: Float[Array, "states n"]
) -> Float[Array, " n"]:
    """The expectation over the first axis; values of probability 0 do not count."""
    return jnp.sum(probability * jnp.where(probability > 0, f, 0), axis=0)


def states_of_path(number: Array, sites: tuple[Site, ...], dtype: Any) -> list[Array]:
    """The states of all sites on the path with this number."""
    return by_site(numbered_states(number, sum(site.size for site in sites), dtype), sites)


def by_site(flat: Array, sites: tuple[Site, ...]) -> list[Array]:
    """A vector over all units as an array per site."""
    ends = np.cumsum([site.size for site in sites])[:-1]
    return [x.reshape(s.shape) for s, x in zip(sites, jnp.split(flat, ends), strict=True)]


def path_probability(run: Trace) -> Float[Array, ""]:
    """Return the probability of the states of a run, given its pre-activations."""
    factors = [
        site.noise.probability(x, a).ravel()
        for site, x, a in zip(run.sites, run.x, run.a, strict=True)
    ]
    return jnp.prod(jnp.concatenate(factors))


def brute_force(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss of any model, mean over the batch, by a sum over all paths of states.

    Of binary weights and stochastic activations these are all paths of both.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    return _over_paths(_with_inner(model, brute_force), params, batch)


def over_weights(model: BinaryWeights, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss by a sum over all binary weights, and in it that over the activations.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    return _over_paths(_with_inner(model, route_of(model.network)), params, batch)


def _with_inner(model: Model, route: Callable[..., Array]) -> Model:
    """Binary weights whose activations are enumerated by a route; other models as they are."""
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        return replace(model, activations=partial(_expectation, route))
    return model


def _expectation(route: Callable[..., Array], network: Model) -> Loss:
    """The estimator of no variance: under its contract, but for a size that has been checked."""
    return lambda params, key, batch: route(network, params, batch)


def _over_paths(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    sites, dtype = sites_and_type(model, params, batch)
    batch = as_examples(model, any_key(), batch)

    def weighted(number: Array, example: Example) -> Array:
        run = run_at_states(model, params, example, states_of_path(number, sites, dtype))
        probability = path_probability(run)
        return probability * jnp.where(probability > 0, run.f, 0)

    zero = jnp.zeros(batch_size(batch), dtype)
    units = sum(site.size for site in sites)
    return jnp.mean(sum_numbered(zero, weighted, batch, 2**units))


def sum_numbered(
    total: PyTree,
    weighted: Callable[[Array, Example], PyTree],
    batch: Batch,
    count: int,
    smooth: bool = True,
) -> PyTree:
    """``total`` + sum of ``weighted(number, example)`` over 0 <= number < count, per example.

    Not to be differentiated unless ``smooth``.
    """

    def some(paths: Array) -> PyTree:
        parts = jax.vmap(lambda n: jax.vmap(partial(weighted, n))(batch))(paths)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)

    few = count <= _FEW  # whose widths are not worth tracing
    size = count if few else _chunk(count, PATHS // row_width(some, jnp.arange(1)))
    whole, rest = divmod(count, size)

    def part(first: Array, size: int = size) -> PyTree:
        return some(first + jnp.arange(size))

    total = _sum_parts(total, part, size * jnp.arange(whole), smooth=smooth)
    if not rest:
        return total
    last = partial(part, size=rest)
    return _sum_parts(total, last, jnp.array([whole * size]), smooth=smooth)


def expected_loss(
    model: Model, params: Params, batch: Batch, memory: int = MEMORY
) -> Float[Array, ""]:
    """The exact expected loss, mean over the batch: recursion on an ``SBN``, else brute force.

    In closed form where one layer feeds an objective that knows its expectation.

    Raises:
        GradbenchError: the enumeration would take more than ``memory`` bytes, or more than ``WORK``
            operations.
    """
    params = closed(params)
    check_size(model, params, batch, memory)
    return route_of(model)(model, params, batch)


def route_of(model: Model) -> Callable[[Any, Params, Batch], Array]:
    """The fastest of the routes that a model has."""
    if isinstance(model, SBN):
        return closed_form if has_closed_form(model) else recursion
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        return over_weights
    return brute_force
