"""A directory of results, in which measurements are kept and found after any interruption.

    DIR/manifest.json                                   what was run, by what, on what (`continued`:
                                                        and by what else, each time that changed)
    DIR/checkpoints/PROBLEM/REPLICATE/CHECKPOINT.npz    parameters
    DIR/references/PROBLEM/REPLICATE/CHECKPOINT.npz     the exact gradient per layer
    DIR/moments/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR.npz    exact mean and variance per layer,
                                                        where they can be enumerated
    DIR/costs/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR.npz      seconds and evaluations per draw
    DIR/shards/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR/FIRST-LAST.DIGEST.parquet    blocks of a cell
    DIR/figures/

How files are written and verified is in ``gradbench.core.atomic``, what a shard holds in
``gradbench.results.shards``. One process at a time may write, any number may read.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

import numpy as np
from filelock import BaseFileLock

from gradbench.core.atomic import (
    SCHEMA,
    Floats,
    Json,
    encode,
    guard,
    locked,
    pack,
    plain,
    remove_partials,
    unpack,
    write_file,
)
from gradbench.core.errors import GradbenchError
from gradbench.results.manifest import (
    _begin_or_continue,
    _read_manifest,
    _refuse_foreign,
    suite_hash,
)
from gradbench.results.shards import CellStore, CheckpointId, is_shard


class Reference(NamedTuple):
    """The exact value, the gradient ``[P]`` per layer, and facts about them such as the route."""

    value: float
    gradient: tuple[Floats, ...]
    info: Json


def _take_apart(tree: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return a tree as JSON with a name for each array, such as "0/weight", and fill ``arrays``."""
    if isinstance(tree, Mapping):
        return {
            key: _take_apart(part, f"{name}/{quote(key, safe='')}", arrays)
            for key, part in tree.items()
        }
    if isinstance(tree, Sequence):
        return [_take_apart(part, f"{name}/{n}", arrays) for n, part in enumerate(tree)]
    arrays[name[1:]] = tree
    return name[1:]


def _put_together(tree: Any, arrays: Mapping[str, Floats]) -> Any:
    if isinstance(tree, dict):
        return {key: _put_together(part, arrays) for key, part in tree.items()}
    if isinstance(tree, list):
        return tuple(_put_together(part, arrays) for part in tree)
    return arrays[tree]


class Results:
    """A directory of results; ``open_or_create`` opens it to write, ``open`` to read only."""

    def __init__(self, directory: Path, manifest: Json, lock: BaseFileLock | None = None) -> None:
        self.directory = directory
        self.manifest = manifest
        self._lock = lock

    @classmethod
    def open_or_create(
        cls,
        directory: str | Path,
        suite: Mapping[str, Any],
        seed: int,
        draws: int,
        families: Mapping[str, str] | None = None,
        claims: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the results of a suite, seed and number of draws, or begin them, to write.

        Files that a killed run left half written are removed. Versions, commit or machine that
        differ from the last ones in the manifest are added to it, as are the ``families`` of
        estimators, by their names without arguments, and their ``claims``, by their specs.

        Raises:
            GradbenchError: the directory holds something else, has a newer schema, cannot be
                written, or is in use by another writer.
        """
        directory = Path(directory)
        wanted = {"schema": SCHEMA, "suite": suite, "suite_hash": suite_hash(suite)}
        wanted = plain(wanted | {"seed": seed, "draws": draws})
        _refuse_foreign(directory)
        with contextlib.ExitStack() as undo, guard("write", directory):
            lock = locked(directory)
            undo.callback(lock.release)
            remove_partials(directory)
            manifest = _begin_or_continue(directory, wanted, families or {}, claims or {})
            undo.pop_all()
        return cls(directory, manifest, lock)

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open existing results, to read only.

        Raises:
            GradbenchError: there are none.
        """
        return cls(Path(directory), _read_manifest(Path(directory) / "manifest.json"))

    def close(self) -> None:
        """Let another process write; when a process dies, the operating system does so."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def figures(self) -> Path:
        """The directory of the figures, which is made where it is missing."""
        path = self.directory / "figures"
        with guard("write", path):
            path.mkdir(exist_ok=True)
        return path

    def save_checkpoint(self, place: CheckpointId, params: Sequence[Any]) -> None:
        """Store parameters in float64: tuples and dictionaries of arrays, however nested."""
        arrays: dict[str, Any] = {}
        tree = _take_apart(params, "", arrays)
        info = {"tree": json.dumps(tree)}  # as text: the order of keys is kept
        self.write(self._path("checkpoints", place), pack(arrays, len(params), info))

    def load_checkpoint(self, place: CheckpointId) -> tuple[Any, ...] | None:
        """Return the stored parameters, None where there are none.

        Raises:
            CorruptFile: the file is damaged.
        """
        path = self._path("checkpoints", place)
        if not path.exists():
            return None
        arrays, _, info = unpack(path)
        return tuple(_put_together(json.loads(info["tree"]), arrays))

    def save_reference(
        self, place: CheckpointId, value: float, gradient: Sequence[Any], info: Mapping[str, Any]
    ) -> None:
        """Store the exact value and the gradient, an array per layer, in float64.

        ``info`` holds facts that JSON can say.
        """
        arrays = {str(n): np.ravel(layer) for n, layer in enumerate(gradient)}
        data = pack({"value": value, **arrays}, len(gradient), info)
        self.write(self._path("references", place), data)

    def load_reference(self, place: CheckpointId) -> Reference | None:
        """Return the stored exact gradient, None where there is none.

        Raises:
            CorruptFile: the file is damaged.
        """
        path = self._path("references", place)
        if not path.exists():
            return None
        arrays, layers, info = unpack(path)
        gradient = tuple(arrays[str(n)] for n in range(layers))
        return Reference(float(arrays["value"]), gradient, info)

    def save_moments(
        self, place: CheckpointId, estimator: str, mean: Sequence[Any], variance: Sequence[Any]
    ) -> None:
        """Store the exact mean and variance of a draw, an array per layer each, in float64."""
        layers = zip(mean, variance, strict=True)
        arrays = {f"{n}/{k}": x for n, pair in enumerate(layers) for k, x in enumerate(pair)}
        self.write(self._own_path("moments", place, estimator), pack(arrays, len(mean), {}))

    def load_moments(
        self, place: CheckpointId, estimator: str
    ) -> tuple[tuple[Floats, Floats], ...] | None:
        """Return the stored exact mean and variance per layer, None where there are none.

        Raises:
            CorruptFile: the file is damaged.
        """
        path = self._own_path("moments", place, estimator)
        if not path.exists():
            return None
        arrays, layers, _ = unpack(path)
        return tuple((arrays[f"{n}/0"], arrays[f"{n}/1"]) for n in range(layers))

    def save_cost(
        self, place: CheckpointId, estimator: str, seconds: float, evaluations: int
    ) -> None:
        """Store the cost of a draw: measured seconds on this machine, evaluations per example."""
        info = {"seconds": seconds, "evaluations": evaluations}
        self.write(self._own_path("costs", place, estimator), pack({}, 0, info))

    def load_cost(self, place: CheckpointId, estimator: str) -> Json | None:
        """Return the stored ``seconds`` and ``evaluations`` per draw, None where there are none.

        Raises:
            CorruptFile: the file is damaged.
        """
        path = self._own_path("costs", place, estimator)
        return unpack(path)[2] if path.exists() else None

    def cell(self, problem: str, replicate: int, checkpoint: str, estimator: str) -> CellStore:
        """Return the cell of an estimator at a checkpoint, whether it has blocks or not."""
        folder = self.directory / "shards" / encode(problem) / str(replicate)
        return CellStore(
            CheckpointId(problem, replicate, checkpoint),
            estimator,
            directory=folder / encode(checkpoint) / encode(estimator),
            run={key: self.manifest[key] for key in ("suite_hash", "seed", "draws")},
            write=self.write,
        )

    def cells(self) -> list[CellStore]:
        """Return all cells that have blocks, in natural order of their names ("2" before "10")."""
        found = set()
        for path in (self.directory / "shards").glob("*/*/*/*/*.parquet"):
            problem, replicate, checkpoint, estimator = map(unquote, path.parts[-5:-1])
            if replicate.isdecimal() and is_shard(path):
                found.add((problem, int(replicate), checkpoint, estimator))
        return [self.cell(*names) for names in sorted(found, key=_natural)]

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the directory, as a whole or not at all.

        Raises:
            GradbenchError: the results are open to read only, or the file cannot be written.
        """
        if self._lock is None:
            raise GradbenchError(
                f"{str(self.directory)!r} is open to read only; use Results.open_or_create"
            )
        write_file(path, data)

    def _own_path(self, kind: str, place: CheckpointId, estimator: str) -> Path:
        """Return the path of a file about one estimator at a checkpoint."""
        folder = self.directory / kind / encode(place.problem) / str(place.replicate)
        return folder / encode(place.checkpoint) / f"{encode(estimator)}.npz"

    def _path(self, kind: str, place: CheckpointId) -> Path:
        problem, checkpoint = encode(place.problem), encode(place.checkpoint)
        return self.directory / kind / problem / str(place.replicate) / f"{checkpoint}.npz"


def _natural(names: tuple[object, ...]) -> list[list[str | int]]:
    parts = (re.split(r"(\d+)", str(name)) for name in names)
    return [[int(part) if part.isdecimal() else part for part in split] for split in parts]
