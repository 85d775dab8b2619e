"""The rows of a shard: Parquet with a row for each block and layer, and one for the network.

The metadata of the file have a header, in JSON. Whatever a file holds, either it is as ``encode``
writes it or reading it is a ValueError, or one of the many errors of Arrow.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradbench.core.atomic import MOST_BYTES, Counts, Json, to_json
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import BINS, Block
from gradbench.measure.stack import Histograms, LayerStack, Stack
from gradbench.results.totals import KEY, pack_totals, unpack_totals

_FLOATS, _COUNTS = pa.list_(pa.float64()), pa.list_(pa.int64())
_COLUMNS = {
    "block": pa.int64(),
    "layer": pa.int64(),
    "count": pa.int64(),
    "mean": _FLOATS,
    "m2": _FLOATS,
    "heads": pa.list_(_FLOATS),
    "groups": _COUNTS,
    "cosine": _FLOATS,
    "cosine_sq": _FLOATS,
    "histogram": pa.list_(_COUNTS),
    "signs": _FLOATS,
    "signs_sq": _FLOATS,
}
_SCHEMA = pa.schema(_COLUMNS)
_SCHEMA_1 = pa.schema([one for one in _SCHEMA if one.name not in ("signs", "signs_sq")])
_NETWORK = -1  # in the place of the number of a layer


def encode(blocks: Sequence[Block], header: Json) -> bytes:
    """Return Parquet with one row per block and layer, and one per block for the network."""
    rows = [
        (block.index, n, *layer)
        for block in blocks
        for n, layer in [*enumerate(block.layers), (_NETWORK, block.network)]
        if layer is not None
    ]
    columns = {
        name: pa.array([_nested(value, kind) for value in values], kind)
        for (name, kind), values in zip(_COLUMNS.items(), zip(*rows, strict=True), strict=True)
    }
    each = len(rows) // len(blocks)
    histograms = list(zip(*rows, strict=True))[list(_COLUMNS).index("histogram")]
    totals = [np.sum(histograms[k::each], axis=0) for k in range(each)]
    metadata = {"gradbench": to_json(header), KEY: pack_totals(totals)}
    schema = pa.schema(_COLUMNS, metadata=metadata)
    buffer = pa.BufferOutputStream()
    # For short columns zstd takes longer to begin than lz4 to unpack them, and saves 3 % of a file.
    ways = {
        _path(name, kind): "zstd" if name == "histogram" else "lz4"
        for name, kind in _COLUMNS.items()
    }
    pq.write_table(pa.table(columns, schema), buffer, compression=ways, use_dictionary=False)
    return buffer.getvalue().to_pybytes()


def _nested(value: Any, kind: pa.DataType) -> Any:
    array = np.asarray(value, np.float64 if "double" in str(kind) else np.int64)
    return list(array) if array.ndim == 2 else array


def _path(name: str, kind: pa.DataType) -> str:
    """Return the path of the numbers of a column in the schema of Parquet."""
    return _path(f"{name}.list.element", kind.value_type) if pa.types.is_list(kind) else name


def open_rows(data: bytes) -> tuple[pq.ParquetFile, Json]:
    """Return the Parquet file with this content, and its header."""
    file = pq.ParquetFile(pa.BufferReader(data))
    header: Json = json.loads(file.metadata.metadata[b"gradbench"])
    return file, header


def read_rows(
    file: pq.ParquetFile, schema: int, first: int, last: int, damaged: Callable[[], Exception]
) -> Stack:
    """Return the rows of the blocks ``first`` to ``last`` as arrays, after a check of all lengths.

    Columns are read as a whole, and the arrays are parts of them. Histograms, nearly all of a file,
    are read when they are asked for. What schema 1 does not have is NaN.

    Args:
        file: the file.
        schema: the schema that it is of.
        first: the number of its first block.
        last: that of its last one.
        damaged: makes the error of histograms that are not of these lengths.

    Raises:
        ValueError: they are not.
    """
    wanted = _SCHEMA if schema > 1 else _SCHEMA_1
    if not file.schema_arrow.equals(wanted):  # whatever the names of the fields of lists are
        raise ValueError("columns")
    groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise ValueError("size")
    columns = _read(file, [name for name in wanted.names if name != "histogram"])
    each = _check_rows(columns, first, last)
    heads, widths = columns["heads"].lengths
    sizes = columns["mean"].lengths[0], columns["groups"].lengths[0]
    same = {"m2": 0, "cosine": 1, "cosine_sq": 1, "signs": 1, "signs_sq": 1}
    if any(
        name in columns and (columns[name].lengths[0] != sizes[k]).any() for name, k in same.items()
    ):
        raise ValueError("lengths")
    if (widths != np.repeat(sizes[0], heads)).any():
        raise ValueError("widths")
    shapes = np.stack([*sizes, heads], axis=1).reshape(-1, each, 3)
    if (shapes != shapes[0]).any():
        raise ValueError("blocks of different sizes")
    stacks = _stacks(columns, shapes[0].tolist(), first, last)

    histograms = _later(partial(_histograms, file, sizes[1], each), damaged)
    totals = cache(_later(partial(_totals, file, sizes[1], each), damaged))
    rows = [
        stack._replace(histogram=Histograms(partial(_at, histograms, k), partial(_at, totals, k)))
        for k, stack in enumerate(stacks)
    ]
    network = rows.pop() if columns["layer"].numbers[-1] == _NETWORK else None
    return Stack(np.arange(first, last + 1), rows, network)


def _later(
    function: Callable[[], list[Counts]], damaged: Callable[[], Exception]
) -> Callable[[], list[Counts]]:
    """Return a function that reads more of a shard, and fails as the reading of its rows does."""

    def read() -> list[Counts]:
        try:
            return function()
        except MemoryError as error:
            raise GradbenchError(
                "there is not enough memory to read the histograms of a shard; end other programs, "
                "and run again"
            ) from error
        except Exception as error:  # of any kind: readers of a crafted file raise them all
            raise damaged() from error

    return read


def _at(function: Callable[[], list[Counts]], k: int) -> Counts:
    return function()[k]


class _Column(NamedTuple):
    """The numbers of a column of Arrow, also of lists in it, and how many each list has.

    ``lengths`` has an array for the lists of the column, and one for those inside them.
    """

    numbers: np.ndarray
    lengths: list[np.ndarray]

    @classmethod
    def of(cls, column: Any) -> "_Column":
        """Return the content of a column of Arrow.

        Raises:
            ValueError: something is missing in it.
        """
        lengths: list[np.ndarray] = []
        while not column.null_count:
            if not pa.types.is_list(column.type):
                return cls(np.asarray(column), lengths)
            offsets = np.asarray(column.offsets)
            lengths.append(offsets[1:] - offsets[:-1])
            column = column.values[int(offsets[0]) : int(offsets[-1])]  # ``flatten`` takes longer
        raise ValueError("nothing in the place of a number")


def _read(file: pq.ParquetFile, names: Sequence[str]) -> dict[str, _Column]:
    """Return columns of a file.

    Raises:
        ValueError: something is missing in them.
    """
    table = file.read(names, use_threads=False)  # threads cost more than they save here
    chunked = zip(names, table.columns, strict=True)
    return {
        name: _Column.of(one.chunk(0) if one.num_chunks == 1 else one.combine_chunks())
        for name, one in chunked
    }


def _histograms(file: pq.ParquetFile, sizes: np.ndarray, each: int) -> list[Counts]:
    """Return the histograms [n, K, BINS] of each layer, and of the network.

    Args:
        file: the file.
        sizes: the number K of each row.
        each: the number of rows of a block.

    Raises:
        ValueError: they are not of these lengths.
    """
    (column,) = _read(file, ["histogram"]).values()
    outer, inner = column.lengths
    if len(outer) != len(sizes) or (outer != sizes).any():
        raise ValueError("lengths")
    if (inner != BINS).any():
        raise ValueError("widths")
    shapes = [(k, BINS) for k in sizes[:each].tolist()]
    found = list(_parts(column.numbers.reshape(len(sizes) // each, -1), shapes))
    if (stored := _stored_totals(file, sizes[:each])) is not None:
        totals = [part.sum(0) for part in found]
        if not all(map(np.array_equal, totals, stored)):
            raise ValueError("totals")
    return found


def _totals(file: pq.ParquetFile, sizes: np.ndarray, each: int) -> list[Counts]:
    """Return the sums [K, BINS] of the histograms over the blocks; the arguments are the same.

    Raises:
        ValueError: they are not of these lengths.
    """
    stored = _stored_totals(file, sizes[:each])
    return [part.sum(0) for part in _histograms(file, sizes, each)] if stored is None else stored


def _stored_totals(file: pq.ParquetFile, sizes: np.ndarray) -> list[Counts] | None:
    """Return the sums in the metadata, None in files of an older gradbench, see ``totals``."""
    text = file.metadata.metadata.get(KEY)
    return None if text is None else unpack_totals(text, sizes.tolist())


def _check_rows(columns: Mapping[str, _Column], first: int, last: int) -> int:
    """Refuse rows that are not, block by block, those of all layers and of the network.

    Returns:
        The number of rows of each block.
    """
    block, layer = columns["block"].numbers, columns["layer"].numbers
    rows, blocks = len(block), last - first + 1
    if not 1 <= blocks <= rows or rows % blocks:
        raise ValueError("rows")
    each = layer.reshape(blocks, -1)
    layers = np.arange(each.shape[1])
    with_network = np.where((layers == layers[-1]) & (layers > 0), _NETWORK, layers)
    if not (each == layers).all() and not (each == with_network).all():
        raise ValueError("layers")
    if (block != np.repeat(np.arange(first, last + 1), each.shape[1])).any():
        raise ValueError("blocks")
    return len(layers)


def _stacks(
    columns: Mapping[str, _Column], shapes: Sequence[Sequence[int]], first: int, last: int
) -> list[LayerStack]:
    """Return columns as arrays, for each layer and for the network; histograms are left out.

    Args:
        columns: the columns.
        shapes: [rows of a block, 3] P, K and H of each.
        first: the number of the first block.
        last: that of the last one.
    """
    blocks = last - first + 1
    inside: dict[str, list[tuple[int, ...]]] = {
        "count": [()] * len(shapes),
        "mean": [(p,) for p, _, _ in shapes],
        "m2": [(p,) for p, _, _ in shapes],
        "heads": [(h, p) for p, _, h in shapes],
    }
    averages: list[tuple[int, ...]] = [(k,) for _, k, _ in shapes]
    fields = []
    for name in LayerStack._fields:
        within = inside.get(name, averages)
        if name in columns:
            fields.append(list(_parts(columns[name].numbers.reshape(blocks, -1), within)))
        else:
            fields.append([np.full((blocks, *shape), np.nan) for shape in within])
    return [LayerStack(*parts) for parts in zip(*fields, strict=True)]


def _parts(values: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> Iterator[np.ndarray]:
    """Yield the parts of an array [blocks, numbers of a block] in these shapes."""
    start = 0
    for shape in shapes:
        end = start + math.prod(shape)
        yield values[:, start:end].reshape(len(values), *shape)
        start = end
