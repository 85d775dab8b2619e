"""Exact moments of estimators that compare branches, by sums over pairs of states of each layer.

An estimator that declares its ``Branches`` is summed layer by layer, from the top down. Given the
states of a layer in both copies, the table E (f_0 - f_1)^2 follows from that of the layer above:
where the tails are independent, from two moments of f for each state; else by the law of a pair of
states under common uniforms, a product over units. The law of the branches of a layer given the
states below is a product over units too, in which a factor w stands in one or two units. So all
costs are those of pairs of states of neighbouring layers, at any depth.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.core.branches import Branches
from gradbench.core.compiling import compile_by_work
from gradbench.core.contract import Batch, Params, Site
from gradbench.core.noise import get_noise
from gradbench.core.pytrees import real_type
from gradbench.core.run import batch_size, sites_of
from gradbench.core.surrogate import SurrogateLoss
from gradbench.exact.pair_layers import (
    Given,
    gradient_moments,
    layer_moments,
    spread_of,
    unit_pairs,
)
from gradbench.exact.routes import Size
from gradbench.exact.size import TABLE
from gradbench.exact.states import all_states, pair_rows, product_table, state_probabilities
from gradbench.exact.sums import map_rows, sum_rows
from gradbench.models.structure import Layered, is_layered

PER_DRAW = 2000.0  # multiply-adds that take as long as a draw of one example
_TABULATED = 8.0  # multiply-adds that take as long as an entry of a table of products
_MOST_UNITS = 200.0  # beyond which a size is no number


def compares_branches(loss: SurrogateLoss) -> bool:
    """Return whether the moments of an estimator can be summed over pairs of branches.

    It says what its branches are, and its model is a chain whose objective is a function of the
    last states.
    """
    model: Any = loss.model
    known = loss.branches is not None and loss.branches.example_loss is loss.example_loss
    return known and is_layered(model) and getattr(model, "term", "unknown") is None


def branches_size(loss: SurrogateLoss, params: Params, batch: Batch) -> Size:
    """Return what ``branch_moments`` takes; shapes and types of the arguments are enough."""
    model, branches = _parts(loss)
    sites, examples = sites_of(model, params, batch), float(batch_size(batch))
    wide = [min(float(site.size), _MOST_UNITS) for site in sites]
    outcomes = 2.0 if branches.copies == 1 else 4.0
    paired = branches.copies > 1 and branches.above is not None
    base = 4.0 if paired else 2.0  # to the power of units: the rows of a table that is pushed
    tables = [outcomes**n for n in wide]
    columns = examples + _TABULATED
    work = entries = 0.0
    for k, (layer, n, table) in enumerate(zip(model.layers, wide, tables, strict=True)):
        parts = len(unit_pairs(layer, params[k])[0]) if n < _MOST_UNITS else n
        numbers = float(sum(map(np.size, jax.tree.leaves(params[k]))))
        below = 2 ** wide[k - 1] if k else examples
        work += below * parts * table * (columns if k else 1 + _TABULATED)
        work += below * parts * numbers * (examples if k else 1.0)
        entries += 3 * table * examples + 4 * max(float(TABLE), parts * table + n * numbers)
        entries += 2 * examples * numbers
    for below, above in pairwise(wide):
        work += base ** (below + above) * (columns if paired else columns + examples)
        entries += 4 * max(float(TABLE), base**above)
    what = f"the pairs of states of layers of {'-'.join(str(s.size) for s in sites)} units"
    return Size(what, entries, work)


def branch_moments(
    work: float, loss: SurrogateLoss, params: Params, batch: Batch
) -> tuple[Float[Array, " examples"], PyTree, PyTree]:
    """Return the expected value of each example, and two moments of a draw ``[examples, ...]``.

    The caller has checked its size, of which ``work`` is a part.
    """
    sites = sites_of(loss.model, params, batch)
    return _branch_moments(work, loss, sites, real_type(params), params, tuple(batch))


@partial(compile_by_work, static_argnums=(0, 1, 2))
def _branch_moments(
    loss: SurrogateLoss, sites: tuple[Site, ...], dtype: Any, params: Params, batch: Any
) -> tuple[Array, PyTree, PyTree]:
    model, branches = _parts(loss)
    states = [all_states(site.size, dtype).reshape(-1, *site.shape) for site in sites]
    inputs = jnp.asarray(batch[0])
    a = jax.vmap(partial(model.layers[0], params[0]))(inputs).reshape(len(inputs), -1)
    distributions = [state_probabilities(get_noise(model.layers[0].noise), a).T]
    for k in range(1, len(sites)):
        push = partial(_pushed_up, model, params, k)
        start = jnp.zeros((len(states[k]), len(inputs)), dtype)
        width = len(states[k])
        distributions.append(sum_rows(start, push, distributions[-1], states[k - 1], width=width))

    f, value, *top = _objective(model, params, batch[1], distributions[-1], states[-1])
    if branches.copies > 1:
        f = f - value  # differences count, and keep more digits
    given = _at_the_top(branches, f)
    moments = [tuple(top)]
    outcomes = 2 if branches.copies == 1 else 4
    parts = [
        len(unit_pairs(layer, theta)[0])
        for layer, theta in zip(model.layers, params[:-1], strict=True)
    ]
    tables = [n * outcomes**site.size for n, site in zip(parts, sites, strict=True)]
    widths = [
        n * sum(map(np.size, jax.tree.leaves(theta)))
        for n, theta in zip(parts, params[:-1], strict=True)
    ]
    for k in range(len(sites) - 1, 0, -1):
        spread = spread_of(branches, sites[k].size, given)
        part = partial(layer_moments, branches, model, sites[k], params[k], given.mean, spread)
        zero = _zeros(params[k], len(inputs), dtype)
        rows, width = (distributions[k - 1], states[k - 1]), widths[k] * len(inputs)
        moments.insert(0, sum_rows((zero, zero), part, *rows, width=max(width, tables[k])))
        a = jax.vmap(partial(_below, model, params, k))(states[k - 1])
        given = _pushed_down(branches, sites[k], a, given)
    spread = spread_of(branches, sites[0].size, given)

    def first(x: Array, mean: Array, spread: Array) -> tuple[PyTree, PyTree]:
        column = mean[:, None], spread[:, None]
        found = gradient_moments(branches, sites[0], model.layers[0], params[0], *column, x)
        return jax.tree.map(lambda leaf: leaf[0], found)

    moments.insert(
        0, map_rows(first, inputs, given.mean.T, spread.T, width=max(widths[0], tables[0]))
    )
    one, two = zip(*moments, strict=True)
    return value, tuple(one), tuple(two)


def _parts(loss: SurrogateLoss) -> tuple[Layered, Branches]:
    assert is_layered(loss.model) and loss.branches is not None
    return loss.model, loss.branches


def _zeros(theta: Params, examples: int, dtype: Any) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros((examples, *jnp.shape(leaf)), dtype), theta)


# ------------------------------------------------------------------------- between two layers


def _below(model: Layered, params: Params, k: int, states: Array) -> Float[Array, " units"]:
    """Return the pre-activations of layer k at the states below it."""
    return model.layers[k](params[k], model.encode(states)).ravel()


def _pushed_up(
    model: Layered, params: Params, k: int, distribution: Array, states: Array
) -> Float[Array, "states examples"]:
    """Return the distribution of layer k that some states of the layer below contribute."""
    a = jax.vmap(partial(_below, model, params, k))(states)
    return state_probabilities(get_noise(model.layers[k].noise), a).T @ distribution


def _pushed_down(branches: Branches, site: Site, a: Array, given: Given) -> Given:
    """Return what is known given the layer below, whose states have the pre-activations ``a``."""
    if branches.copies == 1 or branches.above is None:
        both = jnp.concatenate(given, axis=1)
        width = max(2**site.size, both.shape[1])
        found = map_rows(lambda own: state_probabilities(site.noise, own) @ both, a, width=width)
        return Given(*jnp.split(found, 2, axis=1))
    width = max(len(given.square), given.mean.shape[1])
    mean = map_rows(lambda own: state_probabilities(site.noise, own) @ given.mean, a, width=width)
    p, q, above = site.noise.cdf(a), site.noise.cdf(-a), branches.above

    def square(first: Array, second: Array) -> Array:
        both = above(p[first], p[second])
        only = p[first] - both, p[second] - both
        law = jnp.stack([jnp.maximum(q[first] - only[1], 0), only[1], only[0], both], axis=1)
        return product_table(law) @ given.square

    rows = pair_rows(int(np.log2(len(a))))
    return Given(mean, map_rows(square, *map(jnp.asarray, rows), width=width))


# ------------------------------------------------------------------------------ at the top


def _objective(
    model: Layered, params: Params, targets: Any, distribution: Array, states: Array
) -> tuple[Array, Array, PyTree, PyTree]:
    """Return f for each state and example, its mean, and two moments of its own gradient."""

    def one(theta: Params, state: Array, target: Any) -> Array:
        return model.objective(theta, model.encode(state), target)

    def row(state: Array, weight: Array) -> Array:
        f = jax.vmap(partial(one, params[-1], state))(targets)
        return jnp.where(weight > 0, f, 0)  # what never happens does not count

    f = map_rows(row, states, distribution)
    value = jnp.sum(distribution * f, axis=0)

    def part(weights: Array, states: Array) -> tuple[PyTree, PyTree]:
        draw = jax.vmap(jax.grad(one), (None, None, 0))
        g = jax.vmap(draw, (None, 0, None))(params[-1], states, targets)

        def total(leaf: Array, power: int) -> Array:
            p = weights.reshape(*weights.shape, *[1] * (leaf.ndim - 2))
            return jnp.sum(p * jnp.where(p > 0, leaf, 0) ** power, axis=0)

        return tuple(jax.tree.map(partial(total, power=power), g) for power in (1, 2))

    zero = _zeros(params[-1], f.shape[1], f.dtype)
    return (f, value, *sum_rows((zero, zero), part, distribution, states))


def _at_the_top(branches: Branches, f: Float[Array, "states examples"]) -> Given:
    if branches.copies == 1 or branches.above is None:
        return Given(f, f**2)
    first, second = pair_rows(int(np.log2(len(f))))
    return Given(f, (f[first] - f[second]) ** 2)
