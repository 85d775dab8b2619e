"""The rows of a shard: Parquet with a row for each block and layer, and one for the network.

The metadata of the file have a header, in JSON. Whatever a file holds, either it is as ``encode``
writes it or reading it is a ValueError, or one of the many errors of Arrow.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradbench.core.atomic import MOST_BYTES, Json, to_json
from gradbench.measure.blocks import BINS, Block, LayerBlock

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
_SINCE_2 = ("signs", "signs_sq")  # columns that schema 1 does not have
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
    schema = pa.schema(_COLUMNS, metadata={"gradbench": to_json(header)})
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema), buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue().to_pybytes()


def _nested(value: Any, kind: pa.DataType) -> Any:
    array = np.asarray(value, np.float64 if "double" in str(kind) else np.int64)
    return list(array) if array.ndim == 2 else array


def open_rows(data: bytes) -> tuple[pq.ParquetFile, Json]:
    """Return the Parquet file with this content, and its header."""
    file = pq.ParquetFile(pa.BufferReader(data))
    header: Json = json.loads(file.schema_arrow.metadata[b"gradbench"])
    return file, header


def read_rows(file: pq.ParquetFile, schema: int, first: int, last: int) -> pa.Table:
    """Return the rows of the blocks ``first`` to ``last``, after a check of all lengths.

    Raises:
        ValueError: they are not.
    """
    kinds = [(name, kind) for name, kind in _COLUMNS.items() if schema > 1 or name not in _SINCE_2]
    found = file.schema_arrow
    if len(found) != len(kinds) or any(
        found.field(n).name != name or not _same_kind(found.field(n).type, kind)
        for n, (name, kind) in enumerate(kinds)
    ):
        raise ValueError("columns")
    groups = (file.metadata.row_group(n) for n in range(file.metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > MOST_BYTES:
        raise ValueError("size")
    table = file.read().combine_chunks()
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    if any(_has_nulls(column) for column in columns.values()):
        raise ValueError("nothing in the place of a number")
    _check_rows(columns, first, last)
    lengths = {name: _lengths(one) for name, one in columns.items() if pa.types.is_list(one.type)}
    sizes = lengths["mean"], lengths["groups"]
    same = {"m2": 0, "cosine": 1, "cosine_sq": 1, "histogram": 1, "signs": 1, "signs_sq": 1}
    if any(name in lengths and (lengths[name] != sizes[k]).any() for name, k in same.items()):
        raise ValueError("lengths")
    inside = {"heads": sizes[0], "histogram": np.full(table.num_rows, BINS)}
    for name, size in inside.items():
        if (_lengths(columns[name].flatten()) != np.repeat(size, lengths[name])).any():
            raise ValueError("widths")
    return table


def _same_kind(found: pa.DataType, kind: pa.DataType) -> bool:
    """Return whether types are equal, whatever the names of the fields of lists are."""
    if pa.types.is_list(kind):
        return pa.types.is_list(found) and _same_kind(found.value_type, kind.value_type)
    return bool(found == kind)


def _has_nulls(column: Any) -> bool:
    inner = column.flatten() if pa.types.is_list(column.type) else None
    return column.null_count > 0 or (inner is not None and _has_nulls(inner))


def _lengths(lists: Any) -> np.ndarray:
    return np.diff(np.asarray(lists.offsets))


def _check_rows(columns: Mapping[str, Any], first: int, last: int) -> None:
    """Refuse rows that are not, block by block, those of all layers and of the network."""
    block, layer = (np.asarray(columns[name]) for name in ("block", "layer"))
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


def decode(table: pa.Table) -> list[Block]:
    """Return the blocks in the rows of ``read_rows``."""
    layers: dict[int, list[LayerBlock]] = {}
    networks: dict[int, LayerBlock] = {}
    for k in range(table.num_rows):
        row = {name: table[name][k] for name in table.column_names}
        index, n = row["block"].as_py(), row["layer"].as_py()
        part = _layer(row)
        if n == _NETWORK:
            networks[index] = part
        else:
            layers.setdefault(index, []).append(part)
    return [Block(index, tuple(parts), networks.get(index)) for index, parts in layers.items()]


def _layer(row: dict[str, Any]) -> LayerBlock:
    """Return a row as it was encoded; columns that schema 1 does not have are NaN."""
    flat = {name: _flat(row[name]) for name in ("mean", "m2", "groups", "cosine", "cosine_sq")}
    unknown = np.full(len(flat["groups"]), np.nan)
    return LayerBlock(
        count=row["count"].as_py(),
        heads=_rows(row["heads"], len(flat["mean"])),
        histogram=_rows(row["histogram"], BINS),
        **{name: _flat(row[name]) if name in row else unknown for name in ("signs", "signs_sq")},
        **flat,
    )


def _rows(lists: Any, columns: int) -> np.ndarray:
    return _flat(lists.values).reshape(len(lists.values), columns)


def _flat(values: Any) -> np.ndarray:
    """Return the numbers of a list, or of all lists in a list, of Arrow."""
    return np.asarray(values.flatten() if isinstance(values, pa.ListArray) else values.values)
