"""Whether the files of a cell fit together: its blocks, the exact gradient, moments and costs.

Every file was checked alone when it was read. Here numbers are compared that stand in several of
them, and with what they can be: a count is positive, a cosine at most 1, a variance not negative.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import CorruptFile, Floats, Json
from gradbench.core.names import unprintable
from gradbench.measure.blocks import Block, LayerBlock
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
    """What is stored of a cell: its constants and blocks, the gradient [P] per layer, moments."""

    meta: Json
    blocks: Sequence[Block]
    gradient: Sequence[Floats]
    moments: Sequence[tuple[Floats, Floats]] | None


def refuse_contradiction(directory: Path, cell: Stored) -> None:
    """Refuse a cell whose files do not fit together.

    Raises:
        CorruptFile: names the ``directory`` of its blocks, and what is wrong.
    """
    if what := contradiction(cell):
        raise CorruptFile(
            f"the cell in {str(directory)!r} is not as gradbench writes it, {what}; "
            "delete it with its exact gradient and moments, and run again"
        )


def contradiction(cell: Stored) -> str:
    """Return what does not fit together in a cell, in some words; "" if all does."""
    meta = cell.meta
    if (at := fault(meta, _META, "meta")) or unprintable(meta) is not None:
        return f"its constants{at.removeprefix('meta')} are not what they have to be"
    if _WHOLE in meta["layer_names"] or not _is_plan(meta):
        return "its constants contradict each other"
    layers, sizes = len(meta["layer_names"]), [len(layer) for layer in cell.gradient]
    if layers != len(sizes):
        return f"it has {layers} layers and the exact gradient {len(sizes)}"
    if cell.moments is not None and [len(mean) for mean, _ in cell.moments] != sizes:
        return "its exact moments are not of the size of the exact gradient"
    if any(len(block.layers) != layers for block in cell.blocks):
        return "its blocks have another number of layers"
    if len({block.network is None for block in cell.blocks}) > 1:
        return "some of its blocks are of another schema"
    if layers > 1 and any(block.network is None for block in cell.blocks) and _has_signs(cell):
        return "its blocks lack the network"
    counts = np.array([block.layers[0].count for block in cell.blocks])
    if (counts[:-1] != meta["block"]).any() or not 1 <= counts[-1] <= meta["block"]:
        return "its blocks are not of the size that it says"
    if counts.sum() > meta["draws"]:
        return "it has more draws than it says"
    columns = list(zip(*(block.layers for block in cell.blocks), strict=True))
    parts = [*zip(columns, sizes, strict=True)]
    if cell.blocks[0].network is not None:
        parts.append(([block.network for block in cell.blocks], 0))  # type: ignore[arg-type]
    return next(filter(None, (_of_layer(rows, size, counts, meta) for rows, size in parts)), "")


def _has_signs(cell: Stored) -> bool:
    """Return whether the blocks are of schema 2 or later."""
    return not any(np.isnan(layer.signs).any() for layer in cell.blocks[0].layers)


def _is_plan(meta: Json) -> bool:
    """Return whether averages and heads are those of blocks of this size."""
    block, heads = meta["block"], meta["head_sizes"]
    return (
        all(m <= block for m in meta["averages"])
        and all(head < block for head in heads)
        and len(set(heads)) == len(heads)
        and all(m > block and m % block in (0, *heads) for m in meta["larger"])
    )


def _of_layer(rows: Sequence[LayerBlock], size: int, counts: Any, meta: Json) -> str:
    """Return what is impossible in the blocks of one layer, or of the network."""
    averages, heads = np.array(meta["averages"]), len(meta["head_sizes"])
    if any(row.heads.shape != (heads, size) or len(row.groups) != len(averages) for row in rows):
        return "its blocks are not of the size of the exact gradient"
    if any(row.mean.shape != (size,) for row in rows):
        return "its blocks are not of the size of the exact gradient"
    means, squares, sums = (np.stack([row[k] for row in rows]) for k in (1, 2, 3))
    if not (np.isfinite(means).all() and (squares >= 0).all() and not np.isnan(sums).any()):
        return "its moments are not those of any draws"
    if (np.array([row.count for row in rows]) != counts).any():
        return "its layers are of different draws"
    groups = np.stack([row.groups for row in rows])
    if (groups != counts[:, None] // averages).any():
        return "its groups are not those of its draws"
    if (np.stack([row.histogram for row in rows]).sum(-1) != groups).any():
        return "its histogram is not that of its groups"
    most = groups * (1 + _ROUNDING)
    cosine, squared, signs, signs_squared = (
        np.stack([row[k] for row in rows]) for k in (5, 6, 8, 9)
    )
    if not ((np.abs(cosine) <= most).all() and (squared >= 0).all() and (squared <= most).all()):
        return "its cosines are impossible"
    known = ~np.isnan(signs)  # schema 1 has none
    if known.all() != known.any() or (np.isnan(signs_squared) == known).any():
        return "its signs are impossible"
    for share in (signs[known], signs_squared[known]):
        if not ((share >= 0) & (share <= most[known])).all():
            return "its signs are impossible"
    return ""
