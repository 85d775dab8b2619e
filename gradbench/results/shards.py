"""Cells on disk: the blocks of one estimator at one checkpoint, in consecutive shards.

A shard is a Parquet file FIRST-LAST.DIGEST.parquet with the blocks of these numbers, a row for each
block and layer. Its metadata say which run and cell it belongs to, so that none is mistaken.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradbench.core.atomic import (
    SCHEMA,
    CorruptFile,
    Json,
    digest,
    guard,
    plain,
    refuse_newer,
    to_json,
)
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import BINS, Block, LayerBlock

_NAME = re.compile(r"\d{6,}-\d{6,}\.[0-9a-f]{16}\.parquet", re.ASCII)
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
_NETWORK = -1  # in the place of the number of a layer


class CorruptShard(CorruptFile):
    """A shard is damaged, missing or foreign: its cell has to be discarded and measured again."""


class CheckpointId(NamedTuple):
    """The place of parameters and their gradients; labels are texts of 1 to 200 plain letters."""

    problem: str
    replicate: int
    checkpoint: str


class _Shard(NamedTuple):
    first: int
    last: int
    digest: str
    path: Path


@dataclass(frozen=True)
class CellStore:
    """The blocks of one estimator at one checkpoint; ``Results.cell`` makes it."""

    place: CheckpointId
    estimator: str
    directory: Path  # where the shards are
    run: Json  # what tells the shards of this run from those of others
    write: Callable[[Path, bytes], None]

    def append(self, blocks: Sequence[Block], meta: Mapping[str, Any]) -> None:
        """Write one shard with the blocks that follow those already there.

        ``meta`` are the constants of the cell (block size, ``averages``, ``head_sizes``, ...): JSON
        can say them, and they are the same in every shard.

        Raises:
            GradbenchError: the blocks or the constants do not fit; the cell stays as it was.
        """
        shards = self._shards()
        first = shards[-1].last + 1 if shards else 0
        last = first + len(blocks) - 1
        if not blocks or [block.index for block in blocks] != list(range(first, last + 1)):
            raise GradbenchError(
                f"blocks {[block.index for block in blocks]} do not continue {self._name}; "
                f"append consecutive blocks from block {first} on"
            )
        if shards and self._read(shards[-1])[1] != plain(meta):
            raise GradbenchError(
                f"{self._name} was begun with other settings than {to_json(meta)}; choose another "
                "directory with --out"
            )
        data = _encode(blocks, self._header(first, last) | {"meta": meta})
        self.write(self.directory / f"{first:06}-{last:06}.{digest(data)}.parquet", data)

    def load(self) -> tuple[Json | None, list[Block]]:
        """Return the constants of the cell, None where it is empty, and all blocks in order.

        Raises:
            CorruptShard: a shard is damaged, missing or foreign.
        """
        meta: Json | None = None
        blocks: list[Block] = []
        for shard in self._shards():
            file, meta = self._read(shard)
            blocks += _decode(file)
        return meta, blocks

    def done_blocks(self) -> int:
        """Return the number of stored blocks, after verifying all shards.

        Raises:
            CorruptShard: a shard is damaged, missing or foreign.
        """
        shards = self._shards()
        for shard in shards:
            self._read(shard)
        return shards[-1].last + 1 if shards else 0

    def discard(self) -> None:
        """Delete the shards of this cell, and nothing else."""
        with guard("delete", self.directory):
            for path in self._paths():
                path.unlink()

    @property
    def _name(self) -> str:
        return f"the cell of {self.estimator!r} at {'/'.join(map(str, self.place))!r}"

    def _header(self, first: int, last: int) -> Json:
        """Return what a shard says about itself, so that a foreign one is noticed."""
        names = {**self.place._asdict(), "estimator": self.estimator}
        return {"schema": SCHEMA, **self.run, **names, "first": first, "last": last}

    def _paths(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        with guard("read", self.directory):
            return [path for path in self.directory.iterdir() if is_shard(path)]

    def _shards(self) -> list[_Shard]:
        """Return the shards by their names, which must follow one another."""
        fields = [(path, re.split(r"[-.]", path.name)) for path in self._paths()]
        shards = sorted(_Shard(int(f[0]), int(f[1]), f[2], path) for path, f in fields)
        follows = 0
        for shard in shards:
            if shard.first != follows:
                raise _corrupt(shard.path, f"does not begin with block {follows}")
            follows = shard.last + 1
        return shards

    def _read(self, shard: _Shard) -> tuple[pq.ParquetFile, Json]:
        """Return a verified shard, and its ``meta``."""
        with guard("read", shard.path):
            data = shard.path.read_bytes()
        if digest(data) != shard.digest:
            raise _corrupt(shard.path, "is corrupted")
        file = pq.ParquetFile(pa.BufferReader(data))
        header = json.loads(file.schema_arrow.metadata[b"gradbench"])
        refuse_newer(shard.path, header["schema"])
        meta = header.pop("meta")
        if header != self._header(shard.first, shard.last) | {"schema": header["schema"]}:
            raise _corrupt(shard.path, "belongs to another cell or another run")
        return file, meta


def is_shard(path: Path) -> bool:
    """Return whether a file has the name of a shard."""
    return _NAME.fullmatch(path.name) is not None


def _corrupt(path: Path, what: str) -> CorruptShard:
    return CorruptShard(
        f"the shard {str(path)!r} {what}; its cell has to be measured again, "
        "give the same `gradbench run`"
    )


def _encode(blocks: Sequence[Block], header: Json) -> bytes:
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


def _decode(file: pq.ParquetFile) -> list[Block]:
    layers: dict[int, list[LayerBlock]] = {}
    networks: dict[int, LayerBlock] = {}
    table = file.read().combine_chunks()
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
