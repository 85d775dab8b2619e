"""Ground truth by enumeration: the expected loss, its gradient, and exact moments of estimators.

Two routes give the expected loss, both differentiable and both under the estimator contract:
``recursion`` pushes the distribution over the states of a layer to the next (an ``SBN``, cost
sum_k 2^(n_k + n_{k+1})), ``brute_force`` sums over all paths of any model (cost 2^(sum_k n_k)).
Binary weights are enumerated by ``brute_force``, and within it the activations by ``recursion``.
``reference`` computes the exact gradient in float64 and records how well the routes agree.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.errors import GradbenchError
from gradbench.layers import axes
from gradbench.model import (
    Batch,
    Example,
    Lifted,
    Loss,
    Model,
    Params,
    Site,
    Visit,
    as_examples,
    batch_size,
    find_sites,
    visit_path,
)
from gradbench.network import SBN
from gradbench.noise import Noise, get_noise
from gradbench.precision import float64
from gradbench.weights import BinaryWeights

MEMORY = 2 << 30  # bytes that an enumeration may take unless the caller says otherwise
WORK = 1 << 41  # multiply-adds, some minutes a gradient on two cores
_TABLE = 1 << 18  # entries of transition tables worked on at a time: they stay in cache
_PATHS = 1 << 20  # numbers that a chunk of paths works on at a time
_OVERHEAD = 1 << 27  # bytes that compiled code takes besides its tables, as measured


def all_states(units: int, dtype: Any) -> Float[Array, "states units"]:
    """The 2^units states in {-1, +1}; unit 0 is the most significant bit of the row number."""
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
    """The size of equal chunks, at most ``most`` or 1; ``rows`` is a power of two."""
    return 1 << (max(1, min(rows, most)).bit_length() - 1)


def _sum_parts(total: PyTree, part: Callable[..., PyTree], *chunks: Array) -> PyTree:
    """``total`` + sum of ``part(*chunk)`` over the first axis; nothing but the sum is kept."""
    again = jax.checkpoint(part)

    def step(total: PyTree, chunk: tuple[Array, ...]) -> tuple[PyTree, None]:
        # The data may be of higher precision than the parameters.
        return jax.tree.map(lambda t, p: t + p.astype(t.dtype), total, again(*chunk)), None

    return jax.lax.scan(step, total, chunks)[0]


def _sum_rows(total: PyTree, part: Callable[..., PyTree], *arrays: Array) -> PyTree:
    """``total`` + ``part(*arrays)``, which sums over the rows of all arrays, in chunks of rows."""
    size = _chunk(len(arrays[0]), _TABLE // _width(part, *arrays))
    return _sum_parts(total, part, *(a.reshape(-1, size, *a.shape[1:]) for a in arrays))


def _width(part: Callable[..., PyTree], *arrays: Array) -> int:
    """Numbers that ``part`` works on for each row: the largest array that grows with the rows."""

    def sizes(rows: int) -> list[int]:
        some = [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for array in arrays]
        program = jax.make_jaxpr(part)(*some)
        return [math.prod(out.aval.shape) for line in program.eqns for out in line.outvars]

    return max(1, *(three - two for three, two in zip(sizes(3), sizes(2), strict=True)))


def recursion(network: SBN, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss of a network, mean over the batch, by the layer recursion.

    Carried from layer to layer are the distribution of the states, ``[states, examples]``, and the
    expected sum of the objective's terms below.
    """
    term = network.term and partial(network.term, params[-1])
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


def _weighted(
    probability: Float[Array, "states n"], f: Float[Array, "states n"]
) -> Float[Array, " n"]:
    """The expectation over the first axis; values of probability 0 do not count."""
    return jnp.sum(probability * jnp.where(probability > 0, f, 0), axis=0)


def _path(number: Array, sites: tuple[Site, ...], dtype: Any) -> tuple[Array, ...]:
    """The states of all sites on the path with this number."""
    units = sum(site.size for site in sites)
    flat = numbered_states(number, units, dtype)
    ends = np.cumsum([site.size for site in sites])[:-1]
    return tuple(
        part.reshape(site.shape) for site, part in zip(sites, jnp.split(flat, ends), strict=True)
    )


def _path_probability(run: Visit) -> Float[Array, ""]:
    factors = [
        site.noise.probability(x, a).ravel()
        for site, x, a in zip(run.sites, run.x, run.a, strict=True)
    ]
    return jnp.prod(jnp.concatenate(factors))


def brute_force(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss of any model, mean over the batch, by a sum over all paths of states.

    Of binary weights and stochastic activations these are all paths of both.
    """
    return _over_paths(_with_inner(model, brute_force), params, batch)


def over_weights(model: BinaryWeights, params: Params, batch: Batch) -> Float[Array, ""]:
    """The expected loss by a sum over all binary weights, and in it the layer recursion."""
    return _over_paths(_with_inner(model, recursion), params, batch)


def _with_inner(model: Model, route: Callable[..., Array]) -> Model:
    """Binary weights whose activations are enumerated by a route; other models as they are."""
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        return replace(model, activations=partial(_expectation, route))
    return model


def _expectation(route: Callable[..., Array], network: Model) -> Loss:
    """The estimator of no variance: under its contract, but for a size that has been checked."""
    return lambda params, key, batch: route(network, params, batch)


def _over_paths(model: Model, params: Params, batch: Batch) -> Float[Array, ""]:
    most = _paths_at_once(model, params, batch)
    sites, dtype = _sites_and_type(model, params, batch)
    batch = as_examples(model, _any_key(), batch)

    def weighted(number: Array, example: Example) -> Array:
        run = visit_path(model, params, example, _path(number, sites, dtype))
        probability = _path_probability(run)
        return probability * jnp.where(probability > 0, run.f, 0)

    zero = jnp.zeros(batch_size(batch), dtype)
    units = sum(site.size for site in sites)
    return jnp.mean(_sum_paths(zero, weighted, batch, units, most))


def _sum_paths(
    total: PyTree, weighted: Callable[[Array, Example], PyTree], batch: Batch, units: int, most: int
) -> PyTree:
    """``total`` + sum over all paths of ``weighted(number of the path, example)``, per example."""
    size = _chunk(2**units, most)

    def part(first: Array) -> PyTree:
        paths = first + jnp.arange(size)
        parts = jax.vmap(lambda n: jax.vmap(partial(weighted, n))(batch))(paths)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), parts)

    return _sum_parts(total, part, size * jnp.arange(2**units // size))


def _any_key() -> Array:
    """For models that want a key where nothing is drawn."""
    return jax.random.key(0)


def _sites_and_type(model: Model, params: Params, batch: Batch) -> tuple[tuple[Site, ...], Any]:
    batch = as_examples(model, _any_key(), batch)
    sites = find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], batch))
    return sites, jnp.result_type(*jax.tree.leaves(params))


def expected_loss(
    model: Model, params: Params, batch: Batch, memory: int = MEMORY
) -> Float[Array, ""]:
    """The exact expected loss, mean over the batch: recursion on an ``SBN``, else brute force.

    Raises:
        GradbenchError: the enumeration would take more than ``memory`` bytes, or more than ``WORK``
            operations.
    """
    check_size(model, params, batch, memory)
    return _route(model)(model, params, batch)


def _route(model: Model) -> Callable[[Any, Params, Batch], Array]:
    if isinstance(model, SBN):
        return recursion
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        return over_weights
    return brute_force


class _Size(NamedTuple):
    """What an enumeration takes: numbers held at a time, and multiply-adds."""

    what: str
    entries: float
    work: float


def check_size(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> None:
    """Refuses a model too large to enumerate, with the size, the budget and what to do.

    Raises:
        GradbenchError: see ``expected_loss``.
    """
    _refuse_large(_size(model, params, batch), params, batch, memory)


def _refuse_large(size: _Size, params: Params, batch: Batch, memory: int) -> None:
    dtype = jnp.result_type(*jax.tree.leaves(params))
    needed = size.entries * jnp.dtype(dtype).itemsize + _OVERHEAD
    examples = batch_size(batch)
    many = f"{examples:g} example{'s' * (examples != 1)}"
    remedy = "use narrower layers or fewer examples"
    if needed > memory:
        raise GradbenchError(
            f"enumerating {size.what} for {many} needs {needed / 2**30:,.4g} GiB, over the memory "
            f"budget of {memory / 2**30:,.4g} GiB; {remedy}"
        )
    if size.work > WORK:
        raise GradbenchError(
            f"enumerating {size.what} for {many} takes {size.work:.0e} operations, over the limit "
            f"of {WORK:.0e}; {remedy}"
        )


# Sizes are floats, and no more than they hold: 2**n of an absurd n would take for ever as integer.
_MOST_UNITS = 400.0


def _size(model: Model, params: Params, batch: Batch) -> _Size:
    """The size of the enumeration by the route of a model."""
    if not isinstance(model, SBN):
        return _paths_size(model, params, batch)
    sites, _ = _sites_and_type(model, params, batch)
    examples, sizes = float(batch_size(batch)), [min(site.size, _MOST_UNITS) for site in sites]
    # As measured, with some reserve: copies of the distributions, tables of a chunk.
    states = sum(2**n * (7 * examples + 4 * n) for n in sizes)
    entries = states + 24 * max(_TABLE, 2 ** max(sizes))
    # An entry of a table costs as much as its product with about a hundred examples.
    pairs = zip(sizes, [*sizes[1:], 0.0], strict=True)
    work = (examples + 100) * sum(2 ** (below + above) for below, above in pairs)
    widths = "-".join(str(site.size) for site in sites)
    return _Size(f"the states of layers of {widths} units", entries, work)


def _paths_size(model: Model, params: Params, batch: Batch) -> _Size:
    """The size of the enumeration by all paths of any model, all weights of binary weights."""
    sites, _ = _sites_and_type(model, params, batch)
    units = sum(site.size for site in sites)
    paths = 2 ** min(units, _MOST_UNITS)
    if not isinstance(model, BinaryWeights):
        what = f"all 2^{units} paths through {units} units"
        return _Size(what, 24.0 * _PATHS, 100.0 * batch_size(batch) * paths * units)  # as measured
    inner = _given_weights(model, params, batch)
    at_once = max(1.0, _PATHS // inner.entries)
    what = f"all 2^{units} values of {units} binary weights" + inner.what
    return _Size(what, 24.0 * _PATHS + 4 * at_once * inner.entries, paths * inner.work)


def _given_weights(model: BinaryWeights, params: Params, batch: Batch) -> _Size:
    """The size of the expected loss for one value of all weights."""
    examples, layers = float(batch_size(batch)), model.network.layers
    widths = [min(float(math.prod(axes(layer.outputs))), _MOST_UNITS) for layer in layers]
    if isinstance(model.network, SBN):
        size = _size(model.network, params, batch)
        tables = max(2 ** sum(pair) for pair in pairwise([*widths, 0.0]))
        entries = sum(4 * examples * 2**n for n in widths) + min(float(_TABLE), tables)
        return _Size(f", and for each {size.what},", entries, size.work)
    coordinates = sum(leaf.size for leaf in jax.tree.leaves(params))
    return _Size("", 4 * examples * (1 + sum(widths)), 10 * examples * coordinates)


def _paths_at_once(model: Model, params: Params, batch: Batch) -> int:
    if isinstance(model, BinaryWeights):
        return int(_PATHS // _given_weights(model, params, batch).entries)
    sites, _ = _sites_and_type(model, params, batch)
    return _PATHS // (batch_size(batch) * sum(site.size for site in sites))


class Moments(NamedTuple):
    """Exact moments of one draw: mean value, mean and variance of the gradient (as params)."""

    value: Float[Array, ""]
    mean: PyTree[Array]
    variance: PyTree[Array]


def moments(loss: Loss, params: Params, batch: Batch) -> Moments:
    """E g and the variance of every coordinate of g, without Monte-Carlo error.

    All paths are fed instead of random ones, u = 0 for +1 and u = 1 for -1, weighted by their
    probabilities. The examples of a batch are independent, so means average and variances add. A
    pure function, to be put under ``jit``, in the precision of the parameters: call it inside
    ``gradbench.float64()``. Cost: 2^(units) draws.

    Raises:
        GradbenchError: an estimator that is not driven by the states alone, or too many paths.
    """
    model = getattr(loss, "model", None)
    random = isinstance(model, BinaryWeights) and model.random
    if not isinstance(loss, Lifted) or loss.randomness == "uniforms" or random:
        raise GradbenchError(
            "exact moments need an estimator whose only randomness is the states, such as "
            "straight_through(model) or reinforce(model); measure draws of this one"
        )
    size = _paths_size(loss.model, params, batch)
    _refuse_large(size._replace(work=2 * size.work), params, batch, MEMORY)
    sites, dtype = _sites_and_type(loss.model, params, batch)
    most = _paths_at_once(loss.model, params, batch)
    batch = as_examples(loss.model, _any_key(), batch)
    units, examples = sum(site.size for site in sites), batch_size(batch)
    draw = jax.value_and_grad(loss.example_loss)

    def weighted(number: Array, example: Example) -> tuple[Array, PyTree, PyTree]:
        path = _path(number, sites, dtype)
        p = _path_probability(visit_path(loss.model, params, example, path))
        value, g = draw(params, (tuple((1 - x) / 2 for x in path),), example)
        value, g = jax.tree.map(lambda leaf: jnp.where(p > 0, leaf, 0), (value, g))
        first = jax.tree.map(lambda leaf: p * leaf, g)
        return p * value, first, jax.tree.map(lambda leaf: p * leaf**2, g)

    zero = jax.tree.map(lambda leaf: jnp.zeros((examples, *leaf.shape), dtype), params)
    coordinates = sum(leaf.size for leaf in jax.tree.leaves(params))
    value, first, second = _sum_paths(
        (jnp.zeros(examples, dtype), zero, zero),
        weighted,
        batch,
        units,
        min(most, _PATHS // (examples * coordinates)),
    )
    return Moments(
        jnp.mean(value),
        jax.tree.map(lambda m: jnp.mean(m, axis=0), first),
        jax.tree.map(
            lambda m, s: jnp.mean(jnp.maximum(s - m**2, 0), axis=0) / examples, first, second
        ),
    )


class Reference(NamedTuple):
    """The exact gradient of a model on a batch, in float64, with what it was checked against.

    ``gradient`` has the structure of the parameters (numpy arrays); ``agreement`` maps each check
    to the largest relative difference found, ``None`` where there is no second route: models that
    are not an ``SBN``, or with more than ``_SECOND_ROUTE`` paths.
    """

    value: float
    gradient: PyTree[np.ndarray]
    route: str
    agreement: dict[str, float | None]


_SECOND_ROUTE = 1 << 24  # paths x examples that the second route may look at
_TOLERANCE = 1e-9  # relative difference of the two routes


def reference(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> Reference:
    """The exact gradient in float64, whatever the precision of the caller.

    Checked by brute force (on as many examples as it can afford) and by a central finite
    difference, along the gradient and along a fixed direction, relative to the gradient's norm.

    Raises:
        GradbenchError: NaN or infinite parameters or data, targets or shapes that do not fit, a
            model too large to enumerate, or two routes that disagree by more than 1e-9.
    """
    check_values(model, params, batch)
    with float64():
        params, batch = jax.tree.map(_double, (params, batch))
        check_size(model, params, batch, memory)
        route = _route(model)
        value, gradient = _value_and_gradient(route, model, params, batch)
        agreement = {
            "brute force": _second_route(model, params, batch),
            "finite difference": _finite_difference(route, model, params, batch, gradient),
        }
    if (agreement["brute force"] or 0) > _TOLERANCE:
        raise GradbenchError(
            f"the two routes to the exact gradient differ by {agreement['brute force']:.1e}; "
            "check that layers and objective are deterministic functions of their arguments"
        )
    return Reference(float(value), jax.tree.map(np.asarray, gradient), route.__name__, agreement)


def _double(leaf: Any) -> Array:
    leaf = np.asarray(leaf)
    return jnp.asarray(leaf, jnp.float64 if np.issubdtype(leaf.dtype, np.floating) else None)


def check_values(model: Model, params: Params, batch: Batch) -> None:
    """Refuses parameters and data that are not finite, and what the model itself refuses.

    Raises:
        GradbenchError: names the entry and the value.
    """
    for name, tree in (("parameters", params), ("data", batch)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            if name == "parameters" and not np.issubdtype(array.dtype, np.floating):
                raise GradbenchError(
                    f"the parameters hold {array.dtype} at {jax.tree_util.keystr(path)}; "
                    "give real numbers"
                )
            if not np.all(np.isfinite(array)):
                wrong = array[~np.isfinite(array)][0]
                raise GradbenchError(
                    f"the {name} hold {wrong} at {jax.tree_util.keystr(path)}; give finite numbers"
                )
    if isinstance(model, SBN | BinaryWeights):
        model.check(params, batch)
    if isinstance(model, BinaryWeights):
        model.warn_outside(params)
    try:
        hash(model)
    except TypeError:
        raise GradbenchError(
            f"the model of type {type(model).__name__} has no hash, which compiled functions are "
            "kept by; give a function or a frozen dataclass"
        ) from None


@partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradient(route: Callable, model: Model, params: Params, batch: Batch) -> Any:
    return jax.value_and_grad(partial(route, model))(params, batch)


def _second_route(model: Model, params: Params, batch: Batch) -> float | None:
    """Largest difference of the two routes, per layer relative to the norm of its gradient."""
    if not isinstance(model, SBN) and _route(model) is brute_force:
        return None
    sites, _ = _sites_and_type(model, params, batch)
    units: int = sum(site.size for site in sites)
    if isinstance(model, BinaryWeights) and isinstance(model.network, SBN):
        units += sum(site.size for site in _sites_and_type(model.network, params, batch)[0])
    examples = min(batch_size(batch), _SECOND_ROUTE >> units)
    if examples == 0:
        return None
    batch = jax.tree.map(lambda leaf: leaf[:examples], batch)
    (_, one), (_, two) = (
        _value_and_gradient(route, model, params, batch) for route in (_route(model), brute_force)
    )
    differences = [
        np.linalg.norm(_flat(a) - _flat(b)) / (np.linalg.norm(_flat(a)) or 1)
        for a, b in zip(one, two, strict=True)
        if jax.tree.leaves(a)
    ]
    return float(max(differences))


def _flat(tree: PyTree) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


_STEPS = (1e-2, 1e-3, 1e-4, 1e-5)


def _finite_difference(
    route: Callable, model: Model, params: Params, batch: Batch, gradient: Params
) -> float:
    """Difference to the five-point central difference at the step where it converged best.

    The step is chosen where two neighbours in ``_STEPS`` agree best, without a look at the
    gradient: large steps cross the kinks of bounded noises, small ones lose digits.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    exact = jax.flatten_util.ravel_pytree(gradient)[0]
    norm = jnp.linalg.norm(exact)
    fixed = jnp.cos(jnp.arange(1.0, exact.size + 1) ** 2)
    worst = 0.0
    for direction in (exact / jnp.where(norm > 0, norm, 1), fixed / jnp.linalg.norm(fixed)):
        steps = jnp.array([[-2, -1, 1, 2]]) * jnp.array(_STEPS)[:, None]
        points = flat + steps.reshape(-1, 1) * direction
        values = _values(route, model, jax.vmap(unravel)(points), batch).reshape(-1, 4)
        slopes = (values @ jnp.array([1.0, -8, 8, -1])) / (12 * jnp.array(_STEPS))
        best = slopes[jnp.argmin(jnp.abs(jnp.diff(slopes))) + 1]
        worst = max(worst, float(jnp.abs(best - exact @ direction) / jnp.where(norm > 0, norm, 1)))
    return worst


@partial(jax.jit, static_argnums=(0, 1))
def _values(route: Callable, model: Model, params: Params, batch: Batch) -> Array:
    return jax.lax.map(lambda point: route(model, point, batch), params)
