"""Exact moments of estimators: by all paths, by pairs of branches, or by an integral.

An estimator that is driven by the states alone is fed all paths in place of random ones. One that
compares branches, on a chain of layers, is summed over pairs of branches. Any other one that is
driven by uniforms is integrated over them on a grid that respects its jumps: between its
breakpoints it is a constant, linear or smooth function of each uniform.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from gradbench.core.arguments import limit
from gradbench.core.compiling import compile_by_work
from gradbench.core.contract import Batch, Example, Loss, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import checked, is_finite, not_finite, refuse_traced
from gradbench.core.platform import check_platform
from gradbench.core.programs import Make, parts
from gradbench.core.pytrees import real_type
from gradbench.core.run import batch_size, run_at_states
from gradbench.core.surrogate import SurrogateLoss
from gradbench.exact.pairs import PER_DRAW, branch_moments, branches_size, compares_branches
from gradbench.exact.quadrature import uniform_grid
from gradbench.exact.size import MEMORY, fits, paths_size, refuse_large
from gradbench.exact.states import by_site, numbered_states, path_probability
from gradbench.exact.sums import sum_numbered

GRID = 1 << 25  # points of an integral over uniforms, at most


class Moments(NamedTuple):
    """The exact moments of one draw of an estimator.

    ``value`` is the mean of its value; ``mean`` and ``variance`` are those of each coordinate of
    its gradient, with the structure of the parameters.
    """

    value: Float[Array, ""]
    mean: PyTree[Array]
    variance: PyTree[Array]


def moments(
    loss: Loss, params: Params, batch: Batch, points: int = GRID, declared: bool = True
) -> Moments:
    """Return the mean of a draw g and the variance of each of its coordinates, exactly.

    An estimator that is driven by the states alone, one path a stream, is fed all paths instead of
    random ones (u = 0 for +1 and u = 1 for -1), weighted by their probabilities. This takes
    2^(units * streams) draws and is a pure function, which may be put under ``jit``.

    An estimator of the ARM kind, which declares its ``Branches``, is summed over pairs of branches,
    layer by layer, if its model is a chain of layers under a function of the last states. The cost
    is that of tables over pairs of states of neighbouring layers, at any depth. This too is a pure
    function. It believes what the estimator declares and does not look at its draws.

    Any other one that is driven by uniforms is integrated over all of them. The result is exact to
    rounding where draws are constant or linear between jumps, and to some 1e-10 where they are
    smooth. This needs concrete arrays and a tiny network, of up to three units or so, fewer where
    there are several streams.

    The examples of a batch are independent, so means average and variances add. The precision is
    that of the parameters: call it inside ``gradbench.float64()``.

    Args:
        loss: a gradient estimator; its gradient is g.
        params: the parameters of its model.
        batch: the examples.
        points: how many points the integral over uniforms may take.
        declared: whether to believe what an estimator declares of its branches; if not, its draws
            are integrated.

    Raises:
        GradbenchError: parameters or a batch that do not fit the model; NaN or infinity in them or
            in the moments, where they are known; too many paths, pairs or points; a loss that was
            not made by ``surrogate_loss``; or a platform that computes wrong values.
    """
    found = unchecked_moments(loss, params, batch, points, declared)
    if not is_finite(found):
        raise not_finite("mean or the variance of a draw")
    return found


def unchecked_moments(
    loss: Loss, params: Params, batch: Batch, points: int = GRID, declared: bool = True
) -> Moments:
    """Return what ``moments`` does, also where it is not finite.

    Raises:
        GradbenchError: anything else that ``moments`` refuses.
    """
    limit("points", points)
    if not isinstance(loss, SurrogateLoss) or getattr(loss.model, "random", False):
        raise GradbenchError(
            "exact moments need an estimator made by surrogate_loss() on a model whose objective "
            "is not random, such as straight_through(model); measure draws of this one"
        )
    check_platform()
    model = loss.model
    params, examples, sites, _ = checked(model, params, batch, finite=True, differentiated=True)
    dtype = real_type(params)
    copies = batch_size(examples) if loss.couples_batch else 1
    if declared and compares_branches(loss):
        size = branches_size(loss, params, batch)
        refuse_large(size, params, batch, MEMORY)
        return _of_batch(*branch_moments(size.work, loss, params, batch))
    if loss.couples_batch:
        examples = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], examples)
    make, numbers = parts(loss)
    if loss.randomness == "uniforms":
        refuse_traced("moments", params, examples)
        lengths, grid = uniform_grid(loss, sites, params, examples, points)
        points_of = jnp.asarray(grid, dtype)
        work = 100.0 * batch_size(examples) * math.prod(lengths) * len(lengths)
        return _by_uniforms(work, make, sites, dtype, lengths, numbers, params, examples, points_of)
    size = paths_size(model, params, batch, loss.streams * copies)
    refuse_large(size._replace(work=2 * size.work), params, batch, MEMORY)
    return _by_paths(size.work, make, sites, dtype, copies, numbers, params, examples)


def moments_work(
    loss: Loss, params: Params, batch: Batch, points: int = GRID, declared: bool = True
) -> float:
    """Return how many draws of one example ``moments`` takes; infinite where it refuses.

    What is no sum over draws counts as many as take the same time. ``loss``, ``points`` and
    ``declared`` are as in ``moments``.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    limit("points", points)
    if not isinstance(loss, SurrogateLoss) or getattr(loss.model, "random", False):
        return math.inf
    _, examples, sites, _ = checked(loss.model, params, batch)
    if declared and compares_branches(loss):
        size = branches_size(loss, params, batch)
        return size.work / PER_DRAW if fits(size, params) else math.inf
    n = batch_size(examples)
    if loss.randomness != "uniforms":
        bits = sum(site.size for site in sites) * loss.streams
        bits, n = (bits * n, 1) if loss.couples_batch else (bits, n)
        return n * 2.0**bits if bits < 1000 else math.inf
    refuse_traced("moments_work", params, examples)
    try:
        lengths, _ = uniform_grid(loss, sites, params, examples, points)
    except GradbenchError:
        return math.inf
    return float(n * math.prod(lengths))


def _sum_draws(
    loss: SurrogateLoss,
    params: Params,
    dtype: Any,
    weighted: Callable[..., tuple[Array, Any, Example]],
    data: Batch,
    count: int,
) -> Moments:
    """Return the moments as sums over ``count`` draws for each row of ``data``.

    ``weighted(number, row)`` returns the weight of a draw, its uniforms and its example.
    """
    draw = jax.value_and_grad(loss.example_loss)

    def terms(number: Array, row: Any) -> tuple[Array, PyTree, PyTree]:
        p, u, example = weighted(number, row)
        value, g = draw(params, u, example)
        value, g = jax.tree.map(lambda leaf: jnp.where(p > 0, leaf, 0), (value, g))
        first = jax.tree.map(lambda leaf: p * leaf, g)
        return p * value, first, jax.tree.map(lambda leaf: p * leaf**2, g)

    n = batch_size(data)
    zero = jax.tree.map(lambda leaf: jnp.zeros((n, *jnp.shape(leaf)), dtype), params)
    value, first, second = sum_numbered(
        (jnp.zeros(n, dtype), zero, zero), terms, data, count, smooth=False
    )
    return _of_batch(value, first, second)


def _of_batch(value: Float[Array, " examples"], first: PyTree, second: PyTree) -> Moments:
    """Return the moments of the mean over examples, from the first two moments of each."""
    n = len(value)
    return Moments(
        jnp.mean(value),
        jax.tree.map(lambda m: jnp.mean(m, axis=0), first),
        jax.tree.map(lambda m, s: jnp.mean(jnp.maximum(s - m**2, 0), axis=0) / n, first, second),
    )


@partial(compile_by_work, static_argnums=(0, 1, 2, 3))
def _by_paths(
    make: Make,
    sites: tuple[Site, ...],
    dtype: Any,
    copies: int,
    numbers: Any,
    params: Params,
    examples: Batch,
) -> Moments:
    """Return the moments over all paths.

    There is one path per stream, and one per example where the estimator couples the examples.
    """
    loss = make(numbers)
    streams = loss.streams * copies
    units = sum(site.size for site in sites)

    def weighted(number: Array, example: Example) -> tuple[Array, Any, Example]:
        states = numbered_states(number, units * streams, dtype)
        paths = [by_site(part, sites) for part in jnp.split(states, streams)] if streams else []
        p = jnp.ones((), dtype)
        for n, path in enumerate(paths):
            own = (
                jax.tree.map(lambda x, n=n: x[n % copies], example)
                if loss.couples_batch
                else example
            )
            p *= path_probability(run_at_states(loss.model, params, own, path))
        rows = [[(1 - x) / 2 for x in path] for path in paths]
        if loss.couples_batch:
            groups = [rows[s * copies : (s + 1) * copies] for s in range(loss.streams)]
            rows = [[jnp.stack(x, axis=-1) for x in zip(*group, strict=True)] for group in groups]
        return p, tuple(map(tuple, rows)), example

    return _sum_draws(loss, params, dtype, weighted, examples, 2 ** (units * streams))


@partial(compile_by_work, static_argnums=(0, 1, 2, 3))
def _by_uniforms(
    make: Make,
    sites: tuple[Site, ...],
    dtype: Any,
    lengths: tuple[int, ...],
    numbers: Any,
    params: Params,
    examples: Batch,
    grid: Float[Array, "examples axes 2 points"],
) -> Moments:
    """Return the moments by the product of the rules of all axes, of ``lengths`` points each."""
    loss = make(numbers)
    strides = np.cumprod([1, *lengths[:0:-1]])[::-1][: len(lengths)]

    def weighted(number: Array, row: Any) -> tuple[Array, Any, Example]:
        example, rules = row
        index = (number // strides) % np.array(lengths)
        u, weight = rules[jnp.arange(len(lengths)), :, index].T
        streams = [by_site(part, sites) for part in jnp.split(u, loss.streams)]
        return jnp.prod(weight), tuple(map(tuple, streams)), example

    return _sum_draws(loss, params, dtype, weighted, (examples, grid), math.prod(lengths))
