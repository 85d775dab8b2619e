"""The size of an enumeration, and the refusal of what is too large."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradbench.core.arguments import limit
from gradbench.core.contract import Batch, Example, Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.inputs import checked
from gradbench.core.pytrees import real_type
from gradbench.core.run import as_examples, batch_size, run_model, sites_of
from gradbench.exact.routes import Size, route_of
from gradbench.models.structure import Layered, has_latent_weights, inner_model, run_work

MEMORY = 2 << 30  # bytes that an enumeration may take unless the caller says otherwise
WORK = 1 << 41  # multiply-adds, some minutes a gradient on two cores
TABLE = 1 << 18  # entries of transition tables worked on at a time: they stay in cache
PATHS = 1 << 20  # numbers that a chunk of paths works on at a time
_OVERHEAD = 1 << 27  # bytes that compiled code takes besides its tables, as measured

# Sizes are floats, and no more than they hold: 2**n of an absurd n would take for ever as integer.
_MOST_UNITS = 400.0
_TRACED = 60  # units beyond which no path is looked at


def check_size(model: Model, params: Params, batch: Batch, memory: int = MEMORY) -> None:
    """Refuse a model that is too large to enumerate by its route.

    Shapes and types of ``params`` are enough.

    Raises:
        GradbenchError: a model, parameters and a batch that do not fit each other; or the
            enumeration takes more than ``memory`` bytes, or more than ``WORK``
            operations; the sentence gives its size, the budget and the remedy.
    """
    limit("memory", memory)
    checked(model, params, batch)
    refuse_large(route_of(model).size(model, params, batch), params, batch, memory)


def is_small(
    model: Model, params: Params, batch: Batch, memory: int = MEMORY, work: float = WORK
) -> bool:
    """Return whether an enumeration takes at most ``memory`` bytes and ``work`` multiply-adds.

    Raises:
        GradbenchError: a model that breaks the contract, or parameters and a batch that do not fit
            it.
    """
    limit("memory", memory)
    limit("work", work)
    checked(model, params, batch)
    return fits(route_of(model).size(model, params, batch), params, memory, work)


def fits(size: Size, params: Params, memory: int = MEMORY, work: float = WORK) -> bool:
    """Return whether an enumeration of that size stays within ``memory`` and ``work``."""
    return _bytes(size, params) <= memory and size.work <= work


def refuse_large(size: Size, params: Params, batch: Batch, memory: int) -> None:
    """Refuse an enumeration that takes more than ``memory`` bytes or too long.

    Raises:
        GradbenchError: see ``check_size``.
    """
    needed, examples = _bytes(size, params), batch_size(batch)
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


def _bytes(size: Size, params: Params) -> float:
    return size.entries * jnp.dtype(real_type(params)).itemsize + _OVERHEAD


# ---------------------------------------------------------------------- the sizes of the routes


def closed_form_size(model: Layered, params: Params, batch: Batch) -> Size:
    """Return the size of an expectation in closed form: hardly anything."""
    units: int = sum(site.size for site in sites_of(model, params, batch))
    return Size(f"the means of {units} units", 0.0, float(batch_size(batch) * units))


def recursion_size(model: Layered, params: Params, batch: Batch) -> Size:
    """Return the size of the layer recursion."""
    sites, dtype = sites_and_type(model, params, batch)
    examples, sizes = float(batch_size(batch)), [min(site.size, _MOST_UNITS) for site in sites]
    columns = 1.0 if model.term else min(examples, classes_of(model, batch) or examples)
    # As measured, with some reserve: copies of what is expected of each state, tables of a chunk.
    states = sum(2**n * (7 * columns + 4 * n) for n in sizes)
    states += (12 if model.term else 1) * examples * 2 ** sizes[0]
    entries = states + 24 * max(TABLE, 2 ** max(sizes))
    work = 100 * (examples * 2 ** sizes[0] + columns * 2 ** sizes[-1])
    for low, high in pairwise(sizes):
        # The table of all pairs of states costs as much as a hundred products with each.
        table = 10 if by_halves(int(high), int(columns)) and not model.term else 100
        work += (table + 2 * columns) * 2 ** (low + high)
    widths = "-".join(str(site.size) for site in sites)
    what = f"the states of layers of {widths} units"
    if model.term and max(sizes) < _TRACED:
        # What a term makes of the states above alone is there for all of them, chunk by chunk.
        for k, (below, site) in enumerate(pairwise(sites), 1):
            width = float(_term_width(model, params, k, below, site, dtype))
            entries += 4 * 2**site.size * width
            work += max(1.0, 2.0 ** (below.size + site.size) / TABLE) * 2**site.size * width
    return Size(what, entries, work)


def classes_of(model: Layered, batch: Batch) -> int | None:
    """Return the number of classes that an objective knows of its targets, None if it does not."""
    found, targets = getattr(model.objective, "classes", None), batch[1]
    if not isinstance(found, int) or not jax.tree_util.all_leaves([targets]):
        return None
    numbered = jnp.issubdtype(jnp.result_type(targets), jnp.integer) and jnp.ndim(targets) == 1
    return found if numbered else None


def by_halves(units: int, n: int) -> bool:
    """Return whether n expectations are best summed over one half of the units after the other.

    They are where sums over the first half are fewer than the probabilities of all states.
    """
    return 2 * n <= 2 ** (units // 2)


def _term_width(model: Layered, params: Params, k: int, below: Site, site: Site, dtype: Any) -> int:
    """Return the count of numbers that term k works on for each state of its layer."""
    lower, a = jnp.zeros(below.shape, dtype), jnp.zeros(site.shape, dtype)

    def terms(params: Params, above: Array) -> Array:
        assert model.term is not None
        term = partial(model.term, params, k, site.noise, lower, a)
        return jax.vmap(term)(above)

    return row_width(terms, jax.ShapeDtypeStruct((1, *site.shape), dtype), given=(params,))


def paths_size(model: Model, params: Params, batch: Batch, streams: int = 1) -> Size:
    """Return the size of the sum over all paths of any model, over all weights of binary weights.

    With several ``streams`` it is a sum over all combinations of so many paths.
    """
    sites, dtype = sites_and_type(model, params, batch)
    units = sum(site.size for site in sites)
    paths = 2 ** min(units * streams, _MOST_UNITS)
    what, work = _each_path(model, params, batch, units, streams)
    if units * streams > _TRACED:  # refused by its work, whatever its memory
        return Size(what, 24.0 * PATHS, paths * work)

    def path(params: Params, examples: Batch, state: Array) -> Array:
        def f(example: Example) -> Array:
            return run_model(model, params, example, lambda site, a: jnp.full(site.shape, state)).f

        return jax.vmap(f, axis_size=batch_size(examples))(examples)

    given = (params, as_examples(model, any_key(), batch))
    one = jax.ShapeDtypeStruct((1,), dtype)
    width = row_width(jax.vmap(path, (None, None, 0)), one, given=given)
    return Size(what, 24.0 * max(PATHS, width), paths * work)


def _each_path(
    model: Model, params: Params, batch: Batch, units: int, streams: int
) -> tuple[str, float]:
    """Return what a path is, in words, and the work on one of them."""
    what = f"all 2^{units * streams} paths through {units} units"
    if streams > 1:
        what += f", {streams} at a time,"
    if has_latent_weights(model):
        what = f"all 2^{units} values of {units} binary weights"
    inner = inner_model(model)
    if inner is not None:
        size = route_of(inner).size(inner, params, batch)
        return f"{what}, and for each {size.what},", size.work
    work = run_work(model, params, batch)
    if work is None:
        work = 100.0 * batch_size(batch) * units * max(1, streams)  # as measured
    return what, work


# --------------------------------------------------------------------- the sites and the widths


def any_key() -> Array:
    """Return a key for models that want one where nothing is drawn."""
    return jax.random.key(0)


def sites_and_type(model: Model, params: Params, batch: Batch) -> tuple[tuple[Site, ...], Any]:
    """Return the stochastic layers of a model and the type of its objective, without running it."""
    return sites_of(model, params, batch), real_type(params)


def path_units(model: Model, params: Params, batch: Batch) -> int:
    """Return how many units have a state on a path, those under binary weights included."""
    units = sum(site.size for site in sites_of(model, params, batch))
    inner = inner_model(model)
    return units + (path_units(inner, params, batch) if inner is not None else 0)


def row_width(part: Callable[..., PyTree], *arrays: Any, given: tuple[PyTree, ...] = ()) -> int:
    """Return the count of numbers that ``part(*given, *arrays)`` works on per row of ``arrays``.

    It is the size of the largest array that grows with the rows, also inside jit and scan. Shapes
    and types of the arguments are enough.
    """

    def sizes(rows: int) -> list[int]:
        some = [jax.ShapeDtypeStruct((rows, *array.shape[1:]), array.dtype) for array in arrays]
        return [math.prod(shape) for shape in _shapes(jax.make_jaxpr(part)(*given, *some).jaxpr)]

    return max(1, *(three - two for three, two in zip(sizes(3), sizes(2), strict=True)))


def largest_array(program: Any) -> int:
    """Return the size of the largest array that a traced program makes, at least 1."""
    return max((math.prod(shape) for shape in _shapes(program)), default=1)


def _shapes(program: Any) -> Iterator[tuple[int, ...]]:
    """Yield the shapes of all results of a traced program and of the programs inside it."""
    for line in program.eqns:
        yield from (getattr(out.aval, "shape", ()) for out in line.outvars)
        for value in line.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _shapes(inner)
