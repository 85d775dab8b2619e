"""How much an enumeration takes, and what is too much."""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.errors import GradbenchError
from gradbench.layers import axes
from gradbench.model import Batch, Model, Params, Site, as_examples, batch_size, find_sites
from gradbench.network import SBN
from gradbench.weights import BinaryWeights

MEMORY = 2 << 30  # bytes that an enumeration may take unless the caller says otherwise
WORK = 1 << 41  # multiply-adds, some minutes a gradient on two cores
TABLE = 1 << 18  # entries of transition tables worked on at a time: they stay in cache
PATHS = 1 << 20  # numbers that a chunk of paths works on at a time
_OVERHEAD = 1 << 27  # bytes that compiled code takes besides its tables, as measured


def any_key() -> Array:
    """For models that want a key where nothing is drawn."""
    return jax.random.key(0)


def sites_and_type(model: Model, params: Params, batch: Batch) -> tuple[tuple[Site, ...], Any]:
    batch = as_examples(model, any_key(), batch)
    sites = find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], batch))
    return sites, jnp.result_type(*jax.tree.leaves(params))


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


def refuse_large(size: Size, params: Params, batch: Batch, memory: int) -> None:
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


def _size(model: Model, params: Params, batch: Batch) -> Size:
    """The size of the enumeration by the route of a model."""
    if not isinstance(model, SBN):
        return paths_size(model, params, batch)
    sites, _ = sites_and_type(model, params, batch)
    examples, sizes = float(batch_size(batch)), [min(site.size, _MOST_UNITS) for site in sites]
    # As measured, with some reserve: copies of the distributions, tables of a chunk.
    states = sum(2**n * (7 * examples + 4 * n) for n in sizes)
    entries = states + 24 * max(TABLE, 2 ** max(sizes))
    # An entry of a table costs as much as its product with about a hundred examples.
    pairs = zip(sizes, [*sizes[1:], 0.0], strict=True)
    work = (examples + 100) * sum(2 ** (below + above) for below, above in pairs)
    widths = "-".join(str(site.size) for site in sites)
    return Size(f"the states of layers of {widths} units", entries, work)


def paths_size(model: Model, params: Params, batch: Batch) -> Size:
    """The size of the enumeration by all paths of any model, all weights of binary weights."""
    sites, _ = sites_and_type(model, params, batch)
    units = sum(site.size for site in sites)
    paths = 2 ** min(units, _MOST_UNITS)
    if not isinstance(model, BinaryWeights):
        what = f"all 2^{units} paths through {units} units"
        return Size(what, 24.0 * PATHS, 100.0 * batch_size(batch) * paths * units)  # as measured
    inner = _given_weights(model, params, batch)
    at_once = max(1.0, PATHS // inner.entries)
    what = f"all 2^{units} values of {units} binary weights" + inner.what
    return Size(what, 24.0 * PATHS + 4 * at_once * inner.entries, paths * inner.work)


def _given_weights(model: BinaryWeights, params: Params, batch: Batch) -> Size:
    """The size of the expected loss for one value of all weights."""
    examples, layers = float(batch_size(batch)), model.network.layers
    widths = [min(float(math.prod(axes(layer.outputs))), _MOST_UNITS) for layer in layers]
    if isinstance(model.network, SBN):
        size = _size(model.network, params, batch)
        tables = max(2 ** sum(pair) for pair in pairwise([*widths, 0.0]))
        entries = sum(4 * examples * 2**n for n in widths) + min(float(TABLE), tables)
        return Size(f", and for each {size.what},", entries, size.work)
    coordinates = sum(leaf.size for leaf in jax.tree.leaves(params))
    return Size("", 4 * examples * (1 + sum(widths)), 10 * examples * coordinates)


def paths_at_once(model: Model, params: Params, batch: Batch) -> int:
    if isinstance(model, BinaryWeights):
        return int(PATHS // _given_weights(model, params, batch).entries)
    sites, _ = sites_and_type(model, params, batch)
    return PATHS // (batch_size(batch) * sum(site.size for site in sites))
