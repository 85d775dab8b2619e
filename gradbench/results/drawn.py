"""What figures were drawn of, by which they need not be drawn again where nothing has changed."""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from gradbench.core import plugins
from gradbench.core.archives import read_plain_file
from gradbench.core.atomic import to_json, write_file
from gradbench.results.shards import is_shard
from gradbench.results.store import Results

_RECORD = "figures.json"  # beside the figures: what they were drawn of, and their names
_READ = (
    "references",
    "moments",
    "costs",
    "runs",
    "errors",
    "times",
)  # what figures read beside the manifest and the shards


def state(results: Results) -> str:
    """Return a digest of all that figures are drawn from: results, code, matplotlib and plugins.

    It changes with every byte of what is stored, but not with the times of files.
    """
    found = hashlib.blake2b(digest_size=16)
    found.update(to_json([version("matplotlib"), plugins.loaded(), results.manifest]).encode())
    for path in _sources():
        found.update(path.read_bytes())
    for path in _stored(results.directory):
        found.update(path.relative_to(results.directory).as_posix().encode())
        if not is_shard(path):  # the name of a shard has its digest
            found.update(read_plain_file(path))
    return found.hexdigest()


def _sources() -> list[Path]:
    return sorted(Path(__file__).parents[1].rglob("*.py"))


def _stored(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in (directory / "shards").rglob("*") if is_shard(path))
    for kind in _READ:
        yield from sorted((directory / kind).rglob("*.npz"))


def record_figures(results: Results, drawn_of: str, paths: list[Path]) -> None:
    """Store the ``state`` that figures were drawn of, and which files they are.

    Raises:
        GradbenchError: the file cannot be written.
    """
    content = {"state": drawn_of, "files": [path.name for path in paths]}
    write_file(results.directory / _RECORD, json.dumps(content, indent=1).encode())


def current_figures(results: Results) -> list[Path] | None:
    """Return the files of the figures if all are there, drawn of what is stored; else None."""
    try:
        known = json.loads(read_plain_file(results.directory / _RECORD))
        paths = [results.directory / "figures" / Path(name).name for name in known["files"]]
        same = known["state"] == state(results)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return paths if same and paths and all(path.is_file() for path in paths) else None
