"""A directory of results: what is measured is kept here, and found again after any interruption.

    DIR/manifest.json                                   what was run, by what, on what
    DIR/checkpoints/PROBLEM/REPLICATE/CHECKPOINT.npz    parameters, and how they were reached
    DIR/references/PROBLEM/REPLICATE/CHECKPOINT.npz     the exact gradient per layer
    DIR/shards/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR/FIRST-LAST.DIGEST.parquet    blocks of a cell
    DIR/figures/

Every file is written beside its place and renamed into it, so it is there as a whole or not at all;
it carries a digest of its content, so damage is found; equal content gives equal bytes (but for the
date in the manifest). One process at a time may write, any number may read.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradbench.blocks import BINS, SCHEMA, Block, Floats, LayerBlock
from gradbench.errors import GradbenchError
from gradbench.provenance import provenance

Json = dict[str, Any]

_PARTIAL = ".gradbench-partial"  # ends the name of a file that is being written
_SHARD = re.compile(r"(\d{6,})-(\d{6,})\.([0-9a-f]{16})\.parquet", re.ASCII)
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
}


class CorruptFile(GradbenchError):
    """The content of a file is not what was written; the sentence names the file."""


class CorruptShard(CorruptFile):
    """A shard is damaged, missing or foreign: its cell can be discarded and run again."""


class Place(NamedTuple):
    """Where parameters and their gradients belong; labels are texts of 1 to 200 plain letters."""

    problem: str
    replicate: int
    checkpoint: str


class Checkpoint(NamedTuple):
    """Parameters, a dict of arrays per layer, and facts about them (loss, epoch...)."""

    params: tuple[dict[str, Floats], ...]
    info: Json


class Reference(NamedTuple):
    """The exact value and gradient `[P]` per layer, and facts about them (routes, agreement...)."""

    value: float
    gradient: tuple[Floats, ...]
    info: Json


class Results:
    """A directory of results; `open_or_create` opens it to write, `open` to read only."""

    def __init__(self, directory: Path, manifest: Json, lock: int | None = None) -> None:
        self.directory = directory
        self.manifest = manifest
        self._lock = lock

    @classmethod
    def open_or_create(
        cls, directory: str | Path, suite: Mapping[str, Any], seed: int, draws: int
    ) -> Self:
        """Opens the results of this suite, seed and number of draws, or begins them; to write.

        What a killed run left half written is removed. Raises GradbenchError where the directory
        holds something else, has a newer schema, cannot be written, or is in use by another writer.
        """
        directory = Path(directory)
        path = directory / "manifest.json"
        wanted = {"schema": SCHEMA, "suite": suite, "suite_hash": suite_hash(suite)}
        wanted = _plain(wanted | {"seed": seed, "draws": draws})
        _refuse_foreign(directory)
        with contextlib.ExitStack() as undo, _guard("write", directory):
            lock = _locked(directory)
            undo.callback(os.close, lock)
            for partial in directory.rglob(f".*{_PARTIAL}"):
                partial.unlink()
            if path.exists():
                manifest = _read_manifest(path)
                _refuse_other(directory, manifest, wanted)
            else:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                manifest = wanted | {"provenance": provenance(), "created": now}
                _write(path, json.dumps(manifest, indent=2).encode())
            undo.pop_all()
        return cls(directory, manifest, lock)

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Opens existing results, to read only; raises GradbenchError where there are none."""
        return cls(Path(directory), _read_manifest(Path(directory) / "manifest.json"))

    def close(self) -> None:
        """Lets another process write; when a process dies the operating system does it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def figures(self) -> Path:
        """The directory of the figures, made where it is missing."""
        path = self.directory / "figures"
        with _guard("write", path):
            path.mkdir(exist_ok=True)
        return path

    def save_checkpoint(
        self, place: Place, params: Sequence[Mapping[str, Any]], info: Mapping[str, Any]
    ) -> None:
        """Stores parameters, in float64; `info` is what JSON can say."""
        arrays = {f"{n}/{name}": x for n, layer in enumerate(params) for name, x in layer.items()}
        self.write(self._path("checkpoints", place), _pack(arrays, len(params), info))

    def load_checkpoint(self, place: Place) -> Checkpoint | None:
        """The stored parameters, None where there are none; raises CorruptFile."""
        path = self._path("checkpoints", place)
        if not path.exists():
            return None
        arrays, layers, info = _unpack(path)
        params: tuple[dict[str, Floats], ...] = tuple({} for _ in range(layers))
        for key, array in arrays.items():
            layer, name = key.split("/", 1)
            params[int(layer)][name] = array
        return Checkpoint(params, info)

    def save_reference(
        self, place: Place, value: float, gradient: Sequence[Any], info: Mapping[str, Any]
    ) -> None:
        """Stores the exact value and the gradient, an array per layer; in float64."""
        arrays = {str(n): np.ravel(layer) for n, layer in enumerate(gradient)}
        data = _pack({"value": value, **arrays}, len(gradient), info)
        self.write(self._path("references", place), data)

    def load_reference(self, place: Place) -> Reference | None:
        """The stored exact gradient, None where there is none; raises CorruptFile."""
        path = self._path("references", place)
        if not path.exists():
            return None
        arrays, layers, info = _unpack(path)
        gradient = tuple(arrays[str(n)] for n in range(layers))
        return Reference(float(arrays["value"]), gradient, info)

    def cell(self, problem: str, replicate: int, checkpoint: str, estimator: str) -> "Cell":
        """The cell of that name, whether it has blocks or not."""
        return Cell(self, Place(problem, replicate, checkpoint), estimator)

    def cells(self) -> "list[Cell]":
        """All cells that have blocks, in natural order of their names ("2" before "10")."""
        found = set()
        for path in (self.directory / "shards").glob("*/*/*/*/*.parquet"):
            problem, replicate, checkpoint, estimator = map(unquote, path.parts[-5:-1])
            if replicate.isdecimal() and _SHARD.fullmatch(path.name):
                found.add((problem, int(replicate), checkpoint, estimator))
        return [self.cell(*names) for names in sorted(found, key=_natural)]

    def write(self, path: Path, data: bytes) -> None:
        """Writes a file below the directory as a whole or, raising GradbenchError, not at all."""
        if self._lock is None:
            raise GradbenchError(
                f"{str(self.directory)!r} is open to read only; use Results.open_or_create"
            )
        _write(path, data)

    def _path(self, kind: str, place: Place) -> Path:
        problem, checkpoint = encode(place.problem), encode(place.checkpoint)
        return self.directory / kind / problem / str(place.replicate) / f"{checkpoint}.npz"


class _Shard(NamedTuple):
    path: Path
    first: int
    last: int
    digest: str


@dataclass(frozen=True)
class Cell:
    """The blocks of one estimator in one place."""

    results: Results
    place: Place
    estimator: str

    @property
    def directory(self) -> Path:
        """Where the shards are."""
        problem, replicate, checkpoint = self.place
        folder = self.results.directory / "shards" / encode(problem) / str(replicate)
        return folder / encode(checkpoint) / encode(self.estimator)

    def append(self, blocks: Sequence[Block], meta: Mapping[str, Any]) -> None:
        """Writes one shard with the blocks that follow those already there.

        `meta` are the constants of the cell (block size, `averages`, `head_sizes`...): what JSON
        can say, the same in every shard. Raises GradbenchError, leaving the cell as it was.
        """
        shards = self._shards()
        first = shards[-1].last + 1 if shards else 0
        last = first + len(blocks) - 1
        if not blocks or [block.index for block in blocks] != list(range(first, last + 1)):
            raise GradbenchError(
                f"blocks {[block.index for block in blocks]} do not continue {self._name}; "
                f"append consecutive blocks from block {first} on"
            )
        if shards and self._read(shards[-1])[1] != _plain(meta):
            raise GradbenchError(
                f"{self._name} was begun with other settings than {_json(meta)}; discard it first"
            )
        data = _encode(blocks, self._header(first, last) | {"meta": meta})
        name = f"{first:06}-{last:06}.{_digest(data)}.parquet"
        self.results.write(self.directory / name, data)

    def blocks(self) -> list[Block]:
        """All blocks, in order; raises CorruptShard."""
        return [block for shard in self._shards() for block in _decode(self._read(shard)[0])]

    def meta(self) -> Json | None:
        """The constants of the cell, None where it has no blocks; raises CorruptShard."""
        metas = [self._read(shard)[1] for shard in self._shards()]
        return metas[0] if metas else None

    def done_blocks(self) -> int:
        """How many blocks are stored, all shards verified; raises CorruptShard."""
        shards = self._shards()
        for shard in shards:
            self._read(shard)
        return shards[-1].last + 1 if shards else 0

    def discard(self) -> None:
        """Deletes the shards of this cell, and nothing else."""
        with _guard("delete", self.directory):
            for path in self._paths():
                path.unlink()

    @property
    def _name(self) -> str:
        return f"the cell of {self.estimator!r} at {'/'.join(map(str, self.place))!r}"

    def _header(self, first: int, last: int) -> Json:
        """What a shard says about itself, so that one from elsewhere is not taken for its own."""
        run = {key: self.results.manifest[key] for key in ("suite_hash", "seed", "draws")}
        names = {**self.place._asdict(), "estimator": self.estimator}
        return {"schema": SCHEMA, **run, **names, "first": first, "last": last}

    def _paths(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        with _guard("read", self.directory):
            return sorted(p for p in self.directory.iterdir() if _SHARD.fullmatch(p.name))

    def _shards(self) -> list[_Shard]:
        """The shards by their names, which must follow one another."""
        fields = [(path, re.split(r"[-.]", path.name)) for path in self._paths()]
        shards = [_Shard(path, int(f[0]), int(f[1]), f[2]) for path, f in fields]
        shards.sort(key=lambda shard: (shard.first, shard.last))
        follows = 0
        for shard in shards:
            if shard.first != follows:
                raise _corrupt_shard(shard.path, f"does not begin with block {follows}")
            follows = shard.last + 1
        return shards

    def _read(self, shard: _Shard) -> tuple[pq.ParquetFile, Json]:
        """A verified shard, and its `meta`."""
        with _guard("read", shard.path):
            data = shard.path.read_bytes()
        if _digest(data) != shard.digest:
            raise _corrupt_shard(shard.path, "is corrupted")
        file = pq.ParquetFile(pa.BufferReader(data))
        header = json.loads(file.schema_arrow.metadata[b"gradbench"])
        _refuse_newer(shard.path, header["schema"])
        meta = header.pop("meta")
        if header != self._header(shard.first, shard.last) | {"schema": header["schema"]}:
            raise _corrupt_shard(shard.path, "belongs to another cell or another run")
        return file, meta


def suite_hash(suite: Mapping[str, Any]) -> str:
    """Equal for equal suites, whatever the order of their keys; the same as `Suite.digest`."""
    content = json.dumps(suite, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def encode(label: str) -> str:
    """A readable file name for a label; `urllib.parse.unquote` is the way back."""
    name = re.sub(r"^\.", "%2E", quote(label, safe="()=,[]+"))
    if not 1 <= len(name) <= 200:
        raise GradbenchError(
            f"the name {label!r} does not fit into a file name; use 1 to 200 plain letters"
        )
    return name


def _natural(names: tuple[object, ...]) -> list[list[str | int]]:
    parts = (re.split(r"(\d+)", str(name)) for name in names)
    return [[int(part) if part.isdecimal() else part for part in split] for split in parts]


def _json(value: object) -> str:
    """Canonical JSON; numbers and arrays of numpy and JAX are said as Python's."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=lambda x: x.tolist())


def _plain(value: object) -> Any:
    """As it comes back from a file."""
    return json.loads(_json(value))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data).hexdigest()[:16]


def _encode(blocks: Sequence[Block], header: Json) -> bytes:
    """Parquet, one row per block and layer."""
    rows = [(block.index, n, *layer) for block in blocks for n, layer in enumerate(block.layers)]
    columns = {
        name: pa.array([_nested(value, kind) for value in values], kind)
        for (name, kind), values in zip(_COLUMNS.items(), zip(*rows, strict=True), strict=True)
    }
    schema = pa.schema(_COLUMNS, metadata={"gradbench": _json(header)})
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema), buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue().to_pybytes()


def _nested(value: Any, kind: pa.DataType) -> Any:
    array = np.asarray(value, np.float64 if "double" in str(kind) else np.int64)
    return list(array) if array.ndim == 2 else array


def _flat(values: Any) -> np.ndarray:
    """The numbers of a list, or of all lists in a list, of Arrow."""
    return np.asarray(values.flatten() if isinstance(values, pa.ListArray) else values.values)


def _decode(file: pq.ParquetFile) -> list[Block]:
    blocks: dict[int, list[LayerBlock]] = {}
    table = file.read().combine_chunks()
    for row in zip(*(table[name] for name in _COLUMNS), strict=True):
        index, _, count, mean, m2, heads, groups, cosine, cosine_sq, histogram = row
        layer = LayerBlock(
            count.as_py(),
            _flat(mean),
            _flat(m2),
            _flat(heads.values).reshape(len(heads.values), len(mean.values)),
            _flat(groups),
            _flat(cosine),
            _flat(cosine_sq),
            _flat(histogram.values).reshape(len(histogram.values), BINS),
        )
        blocks.setdefault(index.as_py(), []).append(layer)
    return [Block(index, tuple(layers)) for index, layers in blocks.items()]


def _pack(arrays: Mapping[str, Any], layers: int, info: Mapping[str, Any]) -> bytes:
    """An npz of float64 arrays and a note, with a digest of both."""
    floats = {key: np.asarray(array, np.float64, order="C") for key, array in arrays.items()}
    note = _json({"schema": SCHEMA, "layers": layers, "info": dict(info)})
    buffer = io.BytesIO()
    members: Json = {"note": note, "digest": _content(floats, note), **floats}
    np.savez_compressed(buffer, **members)
    return buffer.getvalue()


def _content(arrays: Mapping[str, Floats], note: str) -> str:
    parts = [f"{key}{array.shape}".encode() + array.tobytes() for key, array in arrays.items()]
    return _digest(b"".join([note.encode(), *parts]))


def _unpack(path: Path) -> tuple[dict[str, Floats], int, Json]:
    """The arrays, the number of layers and the facts of a verified npz."""
    with _guard("read", path):
        data = path.read_bytes()
    try:
        arrays = dict(np.load(io.BytesIO(data)))
        text, digest = str(arrays.pop("note")), str(arrays.pop("digest"))
        if _content(arrays, text) != digest:
            raise ValueError("digest")
        note = json.loads(text)
    except Exception as error:  # of any kind: a damaged zip archive makes its reader raise them all
        raise CorruptFile(f"{str(path)!r} is corrupted; delete it and run again") from error
    _refuse_newer(path, note["schema"])
    return arrays, note["layers"], note["info"]


def _corrupt_shard(path: Path, what: str) -> CorruptShard:
    return CorruptShard(f"the shard {str(path)!r} {what}; discard its cell and run it again")


def _refuse_newer(path: Path, schema: int) -> None:
    if schema > SCHEMA:
        raise GradbenchError(
            f"{str(path)!r} has schema {schema}, newer than this gradbench reads ({SCHEMA}); "
            "update gradbench"
        )


def _refuse_foreign(directory: Path) -> None:
    """Refuses to write among files that gradbench has not made."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise GradbenchError(f"{str(directory)!r} is not a directory; choose another with --out")
    with _guard("read", directory):
        names = {path.name for path in directory.iterdir()}
    begun = {".lock", f".manifest.json{_PARTIAL}"}  # what is there when a first run dies at once
    if "manifest.json" not in names and names - begun:
        raise GradbenchError(
            f"{str(directory)!r} is not empty and has no manifest.json, so it holds no results; "
            "choose an empty or new directory with --out"
        )


def _refuse_other(directory: Path, manifest: Json, wanted: Json) -> None:
    """Refuses to add to the results of another suite, seed or number of draws."""
    old, new = manifest["suite"], wanted["suite"]
    other = ""
    if manifest["suite_hash"] != wanted["suite_hash"]:
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        other = f"of another suite (different in {', '.join(keys)})"
    for key in ("seed", "draws"):
        if manifest[key] != wanted[key]:
            other = other or f"with {key} = {manifest[key]}, not {wanted[key]}"
    if other:
        raise GradbenchError(
            f"{str(directory)!r} holds results {other}; choose another directory with --out"
        )


def _read_manifest(path: Path) -> Json:
    if not path.is_file():
        raise GradbenchError(
            f"there is no {str(path)!r}; name a directory that `gradbench run SUITE --out DIR` made"
        )
    with _guard("read", path):
        data = path.read_bytes()
    try:
        manifest: Json = json.loads(data)
        schema = int(manifest["schema"])
        # A newer schema may have other entries.
        if schema <= SCHEMA and (
            manifest["suite_hash"] != suite_hash(manifest["suite"])
            or not all(isinstance(manifest[key], int) for key in ("seed", "draws"))
            or not isinstance(manifest["provenance"], dict)
        ):
            raise ValueError("changed")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(
            f"{str(path)!r} is not a manifest as gradbench writes it; restore it, or choose "
            "another directory"
        ) from error
    _refuse_newer(path, schema)
    return manifest


def _locked(directory: Path) -> int:
    """The descriptor of the lock file, locked until it is closed or the process ends."""
    directory.mkdir(parents=True, exist_ok=True)
    lock = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise GradbenchError(
            f"another process is writing to {str(directory)!r}; wait for it, or choose another "
            "directory with --out"
        ) from None
    return lock


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}{_PARTIAL}")
    with _guard("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # makes the new name last, not only the content
        finally:
            os.close(directory)


@contextlib.contextmanager
def _guard(verb: str, path: Path) -> Iterator[None]:
    """Says the failures of the operating system in one sentence."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space" if full else "check the path and its permissions"
        raise GradbenchError(
            f"cannot {verb} {str(path)!r}: {error.strerror or error}; {remedy} and run again, "
            "earlier results are intact"
        ) from error
