"""Unite directories of results, in which parts of one suite were measured, in a new one.

Every file is read and checked before it is taken, as whoever reads results does. What several
directories have must be the same: parameters and blocks bit for bit, exact gradients to rounding.
The manifest of the new directory names all that the parts were measured by.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from gradbench.core.atomic import (
    SCHEMA,
    CorruptFile,
    Floats,
    Json,
    guard,
    locked,
    pack,
    read_file,
    remove_partials,
    write_file,
)
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import Block
from gradbench.results.consistent import Stored, fitting
from gradbench.results.manifest import _digest, _origins, _refuse_foreign, checkpoint_names
from gradbench.results.shards import CellStore, CheckpointId
from gradbench.results.store import Results

_ROUNDING = 1e-9  # relative, of two exact gradients: as their routes agree
_KINDS = ("checkpoints", "references", "moments", "costs")  # before the blocks, which need them
_PARTS = (3, 3, 4, 4)  # of their paths: PROBLEM/REPLICATE/CHECKPOINT, perhaps with an estimator


class _File(NamedTuple):
    """A file that is stored about a place, or about an estimator there."""

    kind: str
    place: CheckpointId
    estimator: str | None


def merge(directories: Sequence[str | Path], out: str | Path) -> Results:
    """Unite results of one suite, seed and number of draws, which are left as they are.

    A merge that was interrupted is continued by the same call. Where several directories have the
    time of a draw, that of the first one is kept: times of two machines cannot be compared.

    Args:
        directories: the directories, at least two.
        out: the new directory, or one that an interrupted merge of the same directories has begun.

    Returns:
        The results, closed to writing.

    Raises:
        GradbenchError: there are fewer than two directories, they hold results of different runs,
            or parts of them that are not the same; ``out`` is one of them, or holds something else;
            or a file is damaged, foreign, or cannot be written.
    """
    if isinstance(directories, str | Path) or len(directories) < 2:
        raise GradbenchError("merge got fewer than two directories; give all that are to be united")
    target = Path(out)
    sources = [Results.open(directory) for directory in directories]
    for source in sources:
        if _is_inside(target, source.directory) or _is_inside(source.directory, target):
            raise GradbenchError(
                f"the merged results cannot be in {str(source.directory)!r}, which is one of their "
                "parts; choose a new directory with --out"
            )
        _refuse_other_run(sources[0], source)
    manifest = _united(sources)
    _refuse_foreign(target)
    with guard("write", target):
        lock = locked(target)
    with Results(target, manifest, lock) as merged:
        with guard("write", target):
            remove_partials(target)
        _begin(merged)
        for source in sources:
            for file in _files(source):
                _add_file(merged, source, file)
        for source in sources:
            for cell in source.cells():
                _add_cell(merged, source, cell)
    return merged


def _is_inside(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())


def _refuse_other_run(first: Results, other: Results) -> None:
    """Refuse results of another suite, seed or number of draws, and old ones."""
    for results in (first, other):
        if (schema := results.manifest["schema"]) != SCHEMA:
            raise GradbenchError(
                f"{str(results.directory)!r} has schema {schema}, whose files do not say what they "
                f"belong to; only those of schema {SCHEMA} can be merged, so run the suite again"
            )
        if results.manifest["suite"].get("plan"):
            raise GradbenchError(
                f"{str(results.directory)!r} holds training runs, and only draws can be merged; "
                "run such a suite in one directory"
            )
    one, two = first.manifest, other.manifest
    different = [key for key in ("seed", "draws") if one[key] != two[key]]
    what = [f"{key} = {one[key]} and {two[key]}" for key in different]
    if not what and one["suite_hash"] != two["suite_hash"]:
        old, new = one["suite"], two["suite"]
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        what = [f"suites that differ in {', '.join(keys)}"]
    if what:
        raise GradbenchError(
            f"{str(first.directory)!r} and {str(other.directory)!r} are of different runs, with "
            f"{' and '.join(what)}; merge parts of one run"
        )


def _united(sources: Sequence[Results]) -> Json:
    """Return the manifest of all, which names all origins, each once."""
    manifests = [source.manifest for source in sources]
    origins = [
        {"provenance": origin["provenance"], "created": origin["created"]}
        for manifest in manifests
        for origin in _origins(manifest)
    ]
    first, *others = [one for n, one in enumerate(origins) if one not in origins[:n]]
    facts = {
        entry: dict(sorted(reduce(lambda known, own: own | known, found).items()))
        for entry in ("families", "claims", "names")
        if any(found := [manifest.get(entry, {}) for manifest in manifests])
    }
    united: Json = manifests[0] | facts | first | {"continued": others}
    return united


def _begin(merged: Results) -> None:
    """Write the manifest, or find that it is there: the merge was interrupted."""
    path = merged.directory / "manifest.json"
    if path.exists():
        if Results.open(merged.directory).manifest != merged.manifest:
            raise GradbenchError(
                f"{str(merged.directory)!r} holds other results; choose a new directory with --out"
            )
        return
    content = merged.manifest | {"digest": _digest(merged.manifest)}
    write_file(path, json.dumps(content, indent=2).encode())


def _files(source: Results) -> Iterator[_File]:
    """Yield what is stored beside the blocks, in an order in which it can be used at any time.

    Raises:
        CorruptFile: a file belongs to none of the checkpoints and estimators of the suite.
    """
    for kind, parts in zip(_KINDS, _PARTS, strict=True):
        folder = source.directory / kind
        for path in sorted(folder.rglob("*.npz")):
            if path.name.startswith("."):  # half written by a run that was killed
                continue
            names = [unquote(part) for part in path.relative_to(folder).with_suffix("").parts]
            if len(names) != parts or not names[1].isdecimal():
                raise _none_of_its_suite(path)
            place = CheckpointId(names[0], int(names[1]), names[2])
            file = _File(kind, place, names[3] if parts == 4 else None)
            if not _belongs(source, file) or source._path(*file) != path:
                raise _none_of_its_suite(path)
            yield file


def _none_of_its_suite(path: Path) -> CorruptFile:
    return CorruptFile(f"{str(path)!r} is none of its suite; delete it")


def _belongs(source: Results, file: _File) -> bool:
    """Return whether a file is about a checkpoint and an estimator of the suite."""
    suite, place = source.manifest["suite"], file.place
    problem = {own["name"]: own for own in suite["problems"]}.get(place.problem)
    return (
        problem is not None
        and place.replicate < suite["replicates"]
        and place.checkpoint in checkpoint_names(problem)
        and (file.estimator is None or file.estimator in suite["estimators"])
    )


def _add_file(merged: Results, source: Results, file: _File) -> None:
    """Copy a file, or compare it with the one that is there."""
    _check(source, file)
    new = source._load(*file)
    known = merged._load(*file)
    assert new is not None
    if known is None:
        merged.write(merged._path(*file), read_file(source._path(*file)))
    elif file.kind == "costs":
        if known[2]["evaluations"] != new[2]["evaluations"]:
            raise _different(merged, source, file)
        if "seconds" in new[2] and "seconds" not in known[2]:
            merged.save_cost(file.place, str(file.estimator), new[2])
    elif not _are_same(file, known, new):
        raise _different(merged, source, file)


def _check(source: Results, file: _File) -> None:
    """Read a file as those do who use it."""
    read: dict[str, Callable[[], Any]] = {
        "checkpoints": lambda: source.load_checkpoint(file.place),
        "references": lambda: source.load_reference(file.place),
        "moments": lambda: source.load_moments(file.place, str(file.estimator)),
        "costs": lambda: source.load_cost(file.place, str(file.estimator)),
    }
    read[file.kind]()


Content = tuple[dict[str, Floats], int, Json]


def _are_same(file: _File, one: Content, two: Content) -> bool:
    """Return whether two files of a kind say the same."""
    if file.kind == "references" and not {"samples"} & (one[2].keys() | two[2].keys()):
        return one[0].keys() == two[0].keys() and all(
            _are_near(array, two[0][name]) for name, array in one[0].items()
        )
    return pack(*one) == pack(*two)


def _are_near(one: Floats, two: Floats) -> bool:
    """Return whether two exact gradients differ by rounding alone."""
    scale = np.abs(one).max(initial=0.0)
    return one.shape == two.shape and bool((np.abs(one - two) <= _ROUNDING * scale).all())


def _different(merged: Results, source: Results, what: _File) -> GradbenchError:
    names = "/".join([*map(str, what.place), *([what.estimator] if what.estimator else [])])
    return GradbenchError(
        f"the {what.kind} at {names!r} in {str(source.directory)!r} are not those that another "
        "directory has, which was perhaps measured by another version or on another machine; "
        f"leave one of the two out, and delete {str(merged.directory)!r}"
    )


def _add_cell(merged: Results, source: Results, cell: CellStore) -> None:
    """Copy the blocks of a cell that are not there yet, and compare those that are."""
    file = _File("shards", cell.place, cell.estimator)
    if not _belongs(source, file):
        raise CorruptFile(
            f"the cell in {str(cell.directory)!r} is none of its suite; delete that folder"
        )
    meta, stacks = cell.load_stacks()
    reference = source.load_reference(cell.place)
    if meta is None or reference is None:
        raise CorruptFile(
            f"the exact gradient of the cell in {str(cell.directory)!r} is missing; run the suite "
            "again, which computes it"
        )
    moments = source.load_moments(cell.place, cell.estimator)
    blocks = list(fitting(cell.directory, Stored(meta, stacks, reference.gradient, moments)))
    own = merged.cell(*cell.place, cell.estimator)
    known_meta, known = own.load()
    shared = zip(known, blocks, strict=False)
    if known and (known_meta != meta or not all(_are_equal(a, b) for a, b in shared)):
        raise _different(merged, source, file)
    if len(known) >= len(blocks):
        return
    shards = cell.shards()
    if not {path.name for path in own.shards()} <= {path.name for path in shards}:
        own.discard()  # the same blocks, cut elsewhere
    for path in shards:
        if not (own.directory / path.name).exists():
            merged.write(own.directory / path.name, read_file(path))


def _are_equal(one: Block, two: Block) -> bool:
    """Return whether two blocks are the same, bit for bit."""
    if (one.index, len(one.layers), one.network is None) != (
        two.index,
        len(two.layers),
        two.network is None,
    ):
        return False
    pairs = zip((*one.layers, one.network), (*two.layers, two.network), strict=True)
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for left, right in pairs
        for a, b in zip(left or (), right or (), strict=True)
    )
