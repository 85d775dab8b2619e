"""A directory of results, in which measurements are kept and found after any interruption.

    DIR/manifest.json                                   what was run, by what, on what (`continued`:
                                                        and by what else, each time that changed)
    DIR/checkpoints/PROBLEM/REPLICATE/CHECKPOINT.npz    parameters
    DIR/references/PROBLEM/REPLICATE/CHECKPOINT.npz     the exact gradient per layer, or a sampled
                                                        one with the blocks of its draws
    DIR/moments/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR.npz    exact mean and variance per layer,
                                                        where they can be enumerated
    DIR/costs/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR.npz      evaluations and times of a draw
    DIR/shards/PROBLEM/REPLICATE/CHECKPOINT/ESTIMATOR/FIRST-LAST.DIGEST.parquet    blocks of a cell
    DIR/unfinished/                                     what is being computed, ``unfinished.py``
    DIR/figures/, DIR/figures.json                      what they were drawn of, see ``drawn.py``

Every file but the figures says which run, place and estimator it is of, and is refused elsewhere;
the manifest has a digest of all of itself. How files are written and verified is in
``gradbench.core.atomic``, what a shard holds in ``gradbench.results.rows``. One process at a time
may write, any number may read. The file has over 300 lines, as it holds what is said of each kind
of file, which is to stand in one place.
"""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
from filelock import BaseFileLock

from gradbench.core.atomic import (
    SCHEMA,
    CorruptFile,
    Floats,
    Json,
    guard,
    locked,
    pack,
    plain,
    remove_partials,
    unpack,
    write_file,
)
from gradbench.core.errors import GradbenchError
from gradbench.core.names import file_name
from gradbench.measure.blocks import Blocks
from gradbench.results.contents import (
    FACTS,
    Reference,
    as_written,
    blocks_apart,
    natural_order,
    put_together,
    take_apart,
    vector,
)
from gradbench.results.manifest import (
    _begin_or_continue,
    _read_manifest,
    _refuse_foreign,
    suite_hash,
    written,
)
from gradbench.results.shape import fault
from gradbench.results.shards import CellStore, CheckpointId, is_shard


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
        names: Mapping[str, str] | None = None,
    ) -> Self:
        """Open the results of a suite, seed and number of draws, or begin them, to write.

        Files that a killed run left half written are removed. Versions, commit or machine that
        differ from the last ones in the manifest are added to it, as are the ``families`` of
        estimators, by their names without arguments, and their ``claims`` and display ``names``,
        by their specs.

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
            facts = (families or {}, claims or {}, names or {})
            manifest = _begin_or_continue(directory, wanted, *facts)
            undo.pop_all()
        return cls(directory, manifest, lock)

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open existing results, to read only.

        Raises:
            GradbenchError: there are none.
        """
        return cls(Path(directory), _read_manifest(Path(directory) / "manifest.json"))

    def record(self, **entries: Mapping[str, Any]) -> None:
        """Store what the manifest says besides: ``readout`` and ``left_out``.

        Args:
            entries: the layers behind the last units, by problem; why estimators were not measured.

        Raises:
            GradbenchError: the results are open to read only, or the file cannot be written.
        """
        new = self.manifest | plain(entries)
        if new != self.manifest:
            self.write(self.directory / "manifest.json", written(new))
            self.manifest = new

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
        return self.folder_of_figures("figures")

    def folder_of_figures(self, name: str) -> Path:
        """Return a directory for figures beside the results, which is made where it is missing.

        Raises:
            GradbenchError: a link leads out of the results, or it cannot be made.
        """
        path = self.directory / name
        self.refuse_outside(path)
        with guard("write", path):
            path.mkdir(exist_ok=True)
        return path

    def save_checkpoint(self, place: CheckpointId, params: Sequence[Any]) -> None:
        """Store parameters in float64: tuples and dictionaries of arrays, however nested."""
        arrays: dict[str, Any] = {}
        tree = take_apart(params, "", arrays)
        info = {"tree": json.dumps(tree)}  # as text: the order of keys is kept
        self._save("checkpoints", place, None, arrays, len(params), info)

    def load_checkpoint(self, place: CheckpointId) -> tuple[Any, ...] | None:
        """Return the stored parameters, None where there are none.

        Raises:
            CorruptFile: the file is damaged.
        """
        if (found := self._load("checkpoints", place)) is None:
            return None
        arrays, layers, info = found
        with as_written(self._path("checkpoints", place)):
            tree = json.loads(info["tree"])
            if not isinstance(tree, list) or len(tree) != layers:
                raise ValueError("tree")
            return tuple(put_together(tree, arrays))

    def save_reference(
        self,
        place: CheckpointId,
        value: float,
        gradient: Sequence[Any],
        info: Mapping[str, Any],
        blocks: Sequence[Blocks] | None = None,
    ) -> None:
        """Store the value and the gradient, an array per layer, in float64.

        ``info`` holds facts that JSON can say, ``blocks`` the draws of a sampled gradient,
        None if it is exact.
        """
        arrays = {str(n): np.ravel(layer) for n, layer in enumerate(gradient)}
        arrays = {"value": np.asarray(value), **arrays, **blocks_apart(blocks or ())}
        self._save("references", place, None, arrays, len(gradient), info)

    def load_reference(self, place: CheckpointId) -> Reference | None:
        """Return the stored gradient, None where there is none.

        Raises:
            CorruptFile: the file is damaged.
        """
        if (found := self._load("references", place)) is None:
            return None
        with as_written(self._path("references", place)):
            return Reference.stored(*found)

    def save_moments(
        self, place: CheckpointId, estimator: str, mean: Sequence[Any], variance: Sequence[Any]
    ) -> None:
        """Store the exact mean and variance of a draw, an array per layer each, in float64."""
        layers = zip(mean, variance, strict=True)
        arrays = {f"{n}/{k}": x for n, pair in enumerate(layers) for k, x in enumerate(pair)}
        self._save("moments", place, estimator, arrays, len(mean), {})

    def load_moments(
        self, place: CheckpointId, estimator: str
    ) -> tuple[tuple[Floats, Floats], ...] | None:
        """Return the stored exact mean and variance per layer, None where there are none.

        Raises:
            CorruptFile: the file is damaged.
        """
        if (found := self._load("moments", place, estimator)) is None:
            return None
        arrays, layers, _ = found
        with as_written(self._path("moments", place, estimator)):
            pairs = tuple(
                (vector(arrays, f"{n}/0"), vector(arrays, f"{n}/1")) for n in range(layers)
            )
            if any(len(mean) != len(square) or (square < 0).any() for mean, square in pairs):
                raise ValueError("variance")
            return pairs

    def save_cost(self, place: CheckpointId, estimator: str, cost: Mapping[str, Any]) -> None:
        """Store what a draw costs: ``evaluations`` and, once measured, a ``DrawTime``."""
        self._save("costs", place, estimator, {}, 0, cost)

    def load_cost(self, place: CheckpointId, estimator: str) -> Json | None:
        """Return what ``save_cost`` stored, in old files without a spread; None if nothing is.

        Raises:
            CorruptFile: the file is damaged.
        """
        return (self._load("costs", place, estimator) or (None,))[-1]

    def cell(self, problem: str, replicate: int, checkpoint: str, estimator: str) -> CellStore:
        """Return the cell of an estimator at a checkpoint, whether it has blocks or not."""
        folder = self.directory / "shards" / file_name(problem) / str(replicate)
        return CellStore(
            CheckpointId(problem, replicate, checkpoint),
            estimator,
            directory=folder / file_name(checkpoint) / file_name(estimator),
            run=self._run,
            write=self.write,
        )

    def cells(self) -> list[CellStore]:
        """Return all cells that have blocks, in natural order of their names ("2" before "10")."""
        found = set()
        for path in (self.directory / "shards").glob("*/*/*/*/*.parquet"):
            problem, replicate, checkpoint, estimator = map(unquote, path.parts[-5:-1])
            if re.fullmatch(r"\d{1,15}", replicate, re.ASCII) and is_shard(path):
                found.add((problem, int(replicate), checkpoint, estimator))
        return [self.cell(*names) for names in sorted(found, key=natural_order)]

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the directory, as a whole or not at all.

        Raises:
            GradbenchError: the results are open to read only, or the file cannot be written.
        """
        if self._lock is None:
            raise GradbenchError(
                f"{str(self.directory)!r} is open to read only; use Results.open_or_create"
            )
        self.refuse_outside(path)
        write_file(path, data)

    @cached_property
    def _run(self) -> Json:
        """What files say about their run, one object for all cells."""
        return {key: self.manifest[key] for key in ("suite_hash", "seed", "draws")}

    def refuse_outside(self, path: Path) -> None:
        """Refuse a path that a link leads out of the directory, as results of others may."""
        with guard("write", path):
            inside = path.resolve().is_relative_to(self.directory.resolve())
        if not inside:
            raise GradbenchError(f"{str(path)!r} leads out of the results by a link; delete it")

    def _save(
        self,
        kind: str,
        place: CheckpointId,
        estimator: str | None,
        arrays: Mapping[str, Any],
        layers: int,
        info: Mapping[str, Any],
    ) -> None:
        """Write a file that says whose it is."""
        data = pack(arrays, layers, info, self.whose(kind, place, estimator))
        self.write(self._path(kind, place, estimator), data)

    def _load(
        self, kind: str, place: CheckpointId, estimator: str | None = None
    ) -> tuple[dict[str, Floats], int, Json] | None:
        """Return the content of a file that says whose it is, None where there is none."""
        path, whose = self._path(kind, place, estimator), self.whose(kind, place, estimator)
        if not path.exists():
            return None
        arrays, layers, info = unpack(path, whose, self.manifest["schema"])
        if at := fault(info, FACTS[kind], "info"):
            at = at.removeprefix("info.")[:80]
            raise CorruptFile(f"{str(path)!r} has no right {at!r}; delete it and run again")
        return arrays, layers, info

    def whose(self, kind: str, place: CheckpointId, estimator: str | None) -> Json:
        """Return what a file says that it belongs to."""
        of = {} if estimator is None else {"estimator": estimator}
        name = self.manifest["suite"]["name"]
        return {"kind": kind, "suite": name, **self._run, **place._asdict(), **of}

    def _path(self, kind: str, place: CheckpointId, estimator: str | None = None) -> Path:
        """Return the path of a file about a checkpoint, or about one estimator there."""
        names = [place.checkpoint] if estimator is None else [place.checkpoint, estimator]
        name = f"{'/'.join(map(file_name, names))}.npz"
        return self.directory.joinpath(kind, file_name(place.problem), str(place.replicate), name)
