"""Cells on disk: the blocks of one estimator at one checkpoint, in consecutive shards.

A shard is a Parquet file FIRST-LAST.DIGEST.parquet with the blocks of these numbers, a row for each
block and layer. Its metadata say which run and cell it belongs to, so that none is mistaken.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gradbench.core.atomic import (
    SCHEMA,
    CorruptFile,
    Json,
    digest,
    guard,
    no_memory,
    plain,
    read_file,
    refuse_foreign,
    refuse_newer,
    to_json,
    whole,
)
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import Block
from gradbench.measure.stack import Stack
from gradbench.results.rows import encode, open_rows, read_rows

_NAME = re.compile(r"\d{6,}-\d{6,}\.[0-9a-f]{16}\.parquet", re.ASCII)


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


@dataclass(frozen=True, slots=True)
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
        data = encode(blocks, self._header(first, last) | {"meta": meta})
        self.write(self.directory / f"{first:06}-{last:06}.{digest(data)}.parquet", data)

    def load(self) -> tuple[Json | None, list[Block]]:
        """Return the constants of the cell, None where it is empty, and all blocks in order.

        Raises:
            CorruptShard: a shard is damaged, missing or foreign.
        """
        meta, stacks = self.load_stacks()
        return meta, [block for stack in stacks for block in stack]

    def load_stacks(self) -> tuple[Json | None, list[Stack]]:
        """Return the constants of the cell, None where it is empty, and its blocks shard by shard.

        Raises:
            CorruptShard: a shard is damaged, missing or foreign.
        """
        meta: Json | None = None
        stacks = []
        for shard in self._shards():
            stack, meta = self._read(shard)
            stacks.append(stack)
        return meta, stacks

    def done_blocks(self) -> int:
        """Return the number of stored blocks, after verifying all shards.

        Raises:
            CorruptShard: a shard is damaged, missing or foreign.
        """
        return len(self.load()[1])

    def discard(self) -> None:
        """Delete the shards of this cell, and nothing else."""
        with guard("delete", self.directory):
            for path in self._paths():
                path.unlink()

    def shards(self) -> list[Path]:
        """Return the files of the blocks in order.

        Raises:
            CorruptShard: one is missing.
        """
        return [shard.path for shard in self._shards()]

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
            names = filter(_NAME.fullmatch, os.listdir(self.directory))
            return [self.directory / name for name in names]

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

    def _read(self, shard: _Shard) -> tuple[Stack, Json]:
        """Return the verified blocks of a shard, and its ``meta``."""
        data = read_file(shard.path)
        if digest(data) != shard.digest:
            raise _corrupt(shard.path, "is corrupted")
        try:
            file, header = open_rows(data)
            schema = whole(header["schema"], 1)
            meta = header.pop("meta") if schema <= SCHEMA else {}
        except MemoryError as error:
            raise no_memory(shard.path) from error
        except Exception as error:  # of any kind: readers of a crafted file raise them all
            raise _corrupt(shard.path, _NO_SHARD) from error
        refuse_newer(shard.path, schema)
        wanted = self._header(shard.first, shard.last) | {"schema": schema}
        try:
            refuse_foreign(shard.path, header, wanted, _REMEDY)
        except CorruptFile as error:
            raise CorruptShard(f"the shard {error}") from None
        try:
            if not isinstance(meta, dict):
                raise ValueError("meta")
            damaged = partial(_corrupt, shard.path, _NO_SHARD)
            return read_rows(file, schema, shard.first, shard.last, damaged), meta
        except MemoryError as error:
            raise no_memory(shard.path) from error
        except Exception as error:
            raise _corrupt(shard.path, _NO_SHARD) from error


def is_shard(path: Path) -> bool:
    """Return whether a file has the name of a shard."""
    return _NAME.fullmatch(path.name) is not None


_REMEDY = "its cell has to be measured again, give the same `gradbench run`"
_NO_SHARD = "is not a shard as gradbench writes it"


def _corrupt(path: Path, what: str) -> CorruptShard:
    return CorruptShard(f"the shard {str(path)!r} {what}; {_REMEDY}")
