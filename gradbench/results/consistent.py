"""Whether the files of a cell fit together: its blocks, the exact gradient, moments and costs.

Every file was checked alone when it was read. Here numbers are compared that stand in several of
them, and with what they can be: a count is positive, a cosine at most 1, a variance not negative.
"""

import json
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import CorruptFile, Counts, Floats, Json, to_json
from gradbench.core.names import unprintable
from gradbench.measure.stack import LayerStack, Stack
from gradbench.results.shape import anything, count, fault, filled, name

_META = {
    "draws": count,
    "block": count,
    "averages": filled(count),
    "head_sizes": [count],
    "larger": [count],
    "layer_names": filled(name),
    ...: anything,
}
_ROUNDING = 1e-9  # of sums of cosines, which are at most the number of groups
_WHOLE = "network"  # no layer has this name


class Stored(NamedTuple):
    """What is stored of a cell: constants, blocks by shard, gradient [P] per layer, moments."""

    meta: Json
    blocks: Sequence[Stack]
    gradient: Sequence[Floats]
    moments: Sequence[tuple[Floats, Floats]] | None


def fitting(directory: Path, cell: Stored) -> Stack:
    """Return the blocks of a cell as one, or refuse it where its files do not fit together.

    Histograms are read when they are asked for, and refused then.

    Raises:
        CorruptFile: names the ``directory`` of its blocks, and what is wrong.
    """
    if what := _before_blocks(cell) or _of_stacks(cell):
        raise _unfit(directory, what)
    stack = Stack.join(cell.blocks)
    if what := _of_blocks(stack, cell.meta):
        raise _unfit(directory, what)
    network = None if stack.network is None else _fitting_histogram(directory, stack.network)
    layers = [_fitting_histogram(directory, layer) for layer in stack.layers]
    return Stack(stack.numbers, layers, network)


def _unfit(directory: Path, what: str) -> CorruptFile:
    return CorruptFile(
        f"the cell in {str(directory)!r} is not as gradbench writes it, {what}; "
        "delete it with its exact gradient and moments, and run again"
    )


def _fitting_histogram(directory: Path, layer: LayerStack) -> LayerStack:
    """Return a layer whose histogram, which is read later, is then compared with its groups."""

    @cache
    def total() -> Counts:
        found = layer.histogram.total()
        if (found.sum(-1) != layer.groups.sum(0)).any():
            raise _unfit(directory, "its histogram is not that of its groups")
        return found

    return layer._replace(histogram=layer.histogram._replace(total=total))


def _before_blocks(cell: Stored) -> str:
    """Return what does not fit together in the constants, gradient and moments of a cell."""
    meta = cell.meta
    if what := _of_constants(to_json(meta)):
        return what
    layers, sizes = len(meta["layer_names"]), [len(layer) for layer in cell.gradient]
    if layers != len(sizes):
        return f"it has {layers} layers and the exact gradient {len(sizes)}"
    if cell.moments is not None and [len(mean) for mean, _ in cell.moments] != sizes:
        return "its exact moments are not of the size of the exact gradient"
    return ""


@lru_cache(maxsize=64)  # many cells have the same
def _of_constants(text: str) -> str:
    """Return what is wrong with the constants of a cell, given as JSON; "" if nothing is."""
    meta = json.loads(text)
    if (at := fault(meta, _META, "meta")) or unprintable(meta) is not None:
        return f"its constants{at.removeprefix('meta')} are not what they have to be"
    if _WHOLE in meta["layer_names"] or not _is_plan(meta):
        return "its constants contradict each other"
    return ""


def _is_plan(meta: Json) -> bool:
    """Return whether averages and heads are those of blocks of this size."""
    block, heads = meta["block"], meta["head_sizes"]
    return (
        all(m <= block for m in meta["averages"])
        and all(head < block for head in heads)
        and len(set(heads)) == len(heads)
        and all(m > block and m % block in (0, *heads) for m in meta["larger"])
    )


def _of_stacks(cell: Stored) -> str:
    """Return what is wrong with the sizes of the blocks of a cell, "" if nothing is."""
    layers, first = len(cell.gradient), cell.blocks[0]
    if any(len(stack.layers) != layers for stack in cell.blocks):
        return "its blocks have another number of layers"
    if len({stack.network is None for stack in cell.blocks}) > 1:
        return "some of its blocks are of another schema"
    has_signs = not any(np.isnan(layer.signs[0]).any() for layer in first.layers)  # schema 2
    if layers > 1 and first.network is None and has_signs:
        return "its blocks lack the network"
    heads, averages = len(cell.meta["head_sizes"]), len(cell.meta["averages"])
    sizes = [len(layer) for layer in cell.gradient]
    for stack in cell.blocks:
        network = [] if stack.network is None else [(stack.network, 0)]
        for part, size in [*zip(stack.layers, sizes, strict=True), *network]:
            wanted = (heads, size), (averages,), (size,)
            if (part.heads.shape[1:], part.groups.shape[1:], part.mean.shape[1:]) != wanted:
                return "its blocks are not of the size of the exact gradient"
    return ""


def _of_blocks(stack: Stack, meta: Json) -> str:
    """Return what is impossible in the blocks of a cell, "" if nothing is."""
    counts = stack.layers[0].count
    if (counts[:-1] != meta["block"]).any() or not 1 <= counts[-1] <= meta["block"]:
        return "its blocks are not of the size that it says"
    if counts.sum() > meta["draws"]:
        return "it has more draws than it says"
    parts = [*stack.layers, *([] if stack.network is None else [stack.network])]
    if not all(map(_has_moments, parts)):
        return "its moments are not those of any draws"
    if any((part.count != counts).any() for part in parts):
        return "its layers are of different draws"
    groups = counts[:, None] // np.array(meta["averages"])
    if any((part.groups != groups).any() for part in parts):
        return "its groups are not those of its draws"
    most = groups * (1 + _ROUNDING)
    cosine, squared, signs, signs_squared = (
        np.stack([getattr(part, name) for part in parts])
        for name in ("cosine", "cosine_sq", "signs", "signs_sq")
    )
    if not ((np.abs(cosine) <= most).all() and (squared >= 0).all() and (squared <= most).all()):
        return "its cosines are impossible"
    unknown = np.isnan(signs)  # in schema 1
    each = unknown.reshape(len(parts), -1)
    if (each.all(1) != each.any(1)).any() or (np.isnan(signs_squared) != unknown).any():
        return "its signs are impossible"
    if not all((((x >= 0) & (x <= most)) | unknown).all() for x in (signs, signs_squared)):
        return "its signs are impossible"
    return ""


def _has_moments(part: LayerStack) -> bool:
    """Return whether the moments of a layer, or of the network, are those of some draws."""
    finite = np.isfinite(part.mean).all() and (part.m2 >= 0).all()
    return bool(finite and not (part.heads.size and np.isnan(part.heads).any()))
