"""How much an enumeration takes, and what is too much."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradbench.core.contract import Batch, Example, Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import real_type
from gradbench.core.run import as_examples, batch_size, run_model, sites_of
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.network import SBN

MEMORY = 2 << 30  # bytes that an enumeration may take unless the caller says otherwise
WORK = 1 << 41  # multiply-adds, some minutes a gradient on two cores
TABLE = 1 << 18  # entries of transition tables worked on at a time: they stay in cache
PATHS = 1 << 20  # numbers that a chunk of paths works on at a time
_OVERHEAD = 1 << 27  # bytes that compiled code takes besides its tables, as measured


def any_key() -> Array:
    """For models that want a key where nothing is drawn."""
    return jax.random.key(0)


def sites_and_type(model: Model, params: Params, batch: Batch) -> tuple[tuple[Site, ...], Any]:
    """Return the stochastic layers of a model and the type of its objective, without running it."""
    return sites_of(model, params, batch), real_type(params)


class Size(NamedTuple):
    """What an enumeration takes: numbers held at a time, and multiply-adds."""

    what: str
    entries: float
    work: float


def check_size(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> None:
    """Refuses a model too large to enumerate, with the size, the budget and what to do.

    Raises:
        GradbenchError: see ``expected_loss``.
    """
    refuse_large(_size(model, params, batch), params, batch, memory)


def is_small(
    model: Model, params: Params, batch: Batch, memory: int = MEMORY, work: float = WORK
) -> bool:
    """Whether an enumeration takes at most ``memory`` in bytes and ``work`` in multiply-adds.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    size = _size(model, params, batch)
    itemsize = jnp.dtype(real_type(params)).itemsize
    return size.entries * itemsize + _OVERHEAD <= memory and size.work <= work


def refuse_large(size: Size, params: Params, batch: Batch, memory: int) -> None:
    """Raise a GradbenchError where an enumeration takes more than ``memory`` bytes or too long."""
    needed = size.entries * jnp.dtype(real_type(params)).itemsize + _OVERHEAD
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
_TRACED = 60  # units beyond which no path is looked at


def has_closed_form(model: Model) -> bool:
    """Whether one layer feeds an objective that knows its expectation over independent units."""
    if not isinstance(model, SBN) or len(model.layers) > 1:
        return False
    return hasattr(model.objective, "expected")


def _size(model: Model, params: Params, batch: Batch) -> Size:
    """The size of the enumeration by the route of a model."""
    if has_closed_form(model):
        units = sum(site.size for site in sites_and_type(model, params, batch)[0])
        return Size(f"the means of {units} units", 0.0, float(batch_size(batch) * units))
    if not isinstance(model, SBN):
        return paths_size(model, params, batch)
    sites, dtype = sites_and_type(model, params, batch)
    examples, sizes = float(batch_size(batch)), [min(site.size, _MOST_UNITS) for site in sites]
    # As measured, with some reserve: copies of the distributions, tables of a chunk.
    states = sum(2**n * (7 * examples + 4 * n) for n in sizes)
    entries = states + 24 * max(TABLE, 2 ** max(sizes))
    # An entry of a table costs as much as its product with about a hundred examples.
    pairs = zip(sizes, [*sizes[1:], 0.0], strict=True)
    work = (examples + 100) * sum(2 ** (below + above) for below, above in pairs)
    widths = "-".join(str(site.size) for site in sites)
    what = f"the states of layers of {widths} units"
    if model.term and max(sizes) < _TRACED:
        # What a term makes of the states above alone is there for all of them, chunk by chunk.
        for k, (below, site) in enumerate(pairwise(sites), 1):
            width = float(_term_width(model, params, k, below, site, dtype))
            entries += 4 * 2**site.size * width
            work += max(1.0, 2.0 ** (below.size + site.size) / TABLE) * 2**site.size * width
    return Size(what, entries, work)


def _term_width(network: SBN, params: Params, k: int, below: Site, site: Site, dtype: Any) -> int:
    """Numbers that term k works on for each state of its layer."""
    lower, a = jnp.zeros(below.shape, dtype), jnp.zeros(site.shape, dtype)

    def terms(params: Params, above: Array) -> Array:
        assert network.term is not None
        term = partial(network.term, params, k, site.noise, lower, a)
        return jax.vmap(term)(above)

    return row_width(terms, jax.ShapeDtypeStruct((1, *site.shape), dtype), given=(params,))


def paths_size(model: Model, params: Params, batch: Batch, streams: int = 1) -> Size:
    """The size of the enumeration by all paths of any model, all weights of binary weights.

    With several ``streams``, by all combinations of so many paths.
    """
    sites, dtype = sites_and_type(model, params, batch)
    units = sum(site.size for site in sites)
    paths = 2 ** min(units * streams, _MOST_UNITS)
    what = f"all 2^{units * streams} paths through {units} units"
    if streams > 1:
        what += f", {streams} at a time,"
    work = 100.0 * batch_size(batch) * units * max(1, streams)  # as measured
    if isinstance(model, BinaryWeights):
        inner, work = _given_weights(model, params, batch)
        what = f"all 2^{units} values of {units} binary weights{inner}"
    if units * streams > _TRACED:  # refused by its work, whatever its memory
        return Size(what, 24.0 * PATHS, paths * work)

    def path(params: Params, examples: Batch, state: Array) -> Array:
        def f(example: Example) -> Array:
            return run_model(model, params, example, lambda site, a: jnp.full(site.shape, state)).f

        return jax.vmap(f)(examples)

    given = (params, as_examples(model, any_key(), batch))
    one = jax.ShapeDtypeStruct((1,), dtype)
    width = row_width(jax.vmap(path, (None, None, 0)), one, given=given)
    return Size(what, 24.0 * max(PATHS, width), paths * work)


def _given_weights(model: BinaryWeights, params: Params, batch: Batch) -> tuple[str, float]:
    """What is enumerated for one value of all weights, and its work."""
    if isinstance(model.network, SBN):
        size = _size(model.network, params, batch)
        return f", and for each {size.what},", size.work
    return "", 10.0 * batch_size(batch) * sum(leaf.size for leaf in jax.tree.leaves(params))


def row_width(part: Callable[..., PyTree], *arrays: Any, given: tuple[PyTree, ...] = ()) -> int:
    """Numbers that ``part(*given, *arrays)`` works on for each row of ``arrays``.

    The size of the largest array that grows with the rows, also inside jit and scan. Shapes and
    types of the arguments are enough.
    """

    def sizes(rows: int) -> list[int]:
        some = [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for array in arrays]
        return [math.prod(shape) for shape in _shapes(jax.make_jaxpr(part)(*given, *some).jaxpr)]

    return max(1, *(three - two for three, two in zip(sizes(3), sizes(2), strict=True)))


def _shapes(program: Any) -> Iterator[tuple[int, ...]]:
    """The shapes of all results of a traced program and of the programs inside it."""
    for line in program.eqns:
        yield from (getattr(out.aval, "shape", ()) for out in line.outvars)
        for value in line.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _shapes(inner)
