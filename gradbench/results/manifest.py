"""The manifest of a directory of results."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gradbench.core.atomic import (
    SCHEMA,
    CorruptFile,
    Json,
    guard,
    partial,
    refuse_newer,
    write_file,
)
from gradbench.core.errors import GradbenchError
from gradbench.results.provenance import provenance


def suite_hash(suite: Mapping[str, Any]) -> str:
    """Return a hash of ``Suite.as_dict()``, whatever the order of its keys."""
    content = json.dumps(suite, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _refuse_foreign(directory: Path) -> None:
    """Refuse to write among files that gradbench has not made."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise GradbenchError(f"{str(directory)!r} is not a directory; choose another with --out")
    with guard("read", directory):
        names = {path.name for path in directory.iterdir()}
    # The files that are there when a first run dies at once.
    begun = {".lock", partial(directory / "manifest.json").name}
    if "manifest.json" not in names and names - begun:
        raise GradbenchError(
            f"{str(directory)!r} is not empty and has no manifest.json, so it holds no results; "
            "choose an empty or new directory with --out"
        )


def _refuse_other(directory: Path, manifest: Json, wanted: Json) -> None:
    """Refuse to add to the results of another suite, seed or number of draws."""
    old, new = manifest["suite"], wanted["suite"]
    # The number of draws and what follows from it are in the suite too: they are told first.
    numbers = [
        f"{key} = {manifest[key]}, not {wanted[key]}"
        for key in ("seed", "draws")
        if manifest[key] != wanted[key]
    ]
    if numbers and old.get("name") == new.get("name"):
        other = f"with {' and '.join(numbers)}"
    elif manifest["suite_hash"] != wanted["suite_hash"]:
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        other = f"of another suite (different in {', '.join(keys)})"
    else:
        return
    raise GradbenchError(
        f"{str(directory)!r} holds results {other}; choose another directory with --out"
    )


def _begin_or_continue(
    directory: Path, wanted: Json, families: Mapping[str, str], claims: Mapping[str, str]
) -> Json:
    """Return the manifest of a run; write it where the run is new or its provenance has changed.

    ``families`` are those of the estimators: figures draw them alike, wherever they come from.
    ``claims`` are what the estimators are exact for: a theorem knows more than draws do.
    """
    path = directory / "manifest.json"
    manifest = _read_manifest(path) if path.exists() else None
    if manifest is not None:
        _refuse_other(directory, manifest, wanted)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    origin: Json = {"provenance": provenance(), "created": now}
    if manifest is None:
        new = wanted | origin | {"continued": []}
    elif _origins(manifest)[-1]["provenance"] != origin["provenance"]:
        new = manifest | {"continued": [*_origins(manifest)[1:], origin]}
    else:
        new = manifest
    for name, facts in (("families", families), ("claims", claims)):
        known = new.get(name, {}) | facts
        new = new | ({name: dict(sorted(known.items()))} if known else {})
    if new == manifest:
        return new
    write_file(path, json.dumps(new, indent=2).encode())
    return new


def _origins(manifest: Json) -> list[Json]:
    """Return what began a run and what continued it; the oldest manifests lack the latter."""
    return [manifest, *manifest.get("continued", [])]


def _read_manifest(path: Path) -> Json:
    if not path.is_file():
        raise GradbenchError(
            f"there is no {str(path)!r}; name a directory that `gradbench run SUITE --out DIR` made"
        )
    with guard("read", path):
        data = path.read_bytes()
    try:
        manifest: Json = json.loads(data)
        schema = int(manifest["schema"])
        # A newer schema may have other entries.
        if schema <= SCHEMA and (
            manifest["suite_hash"] != suite_hash(manifest["suite"])
            or not all(isinstance(manifest[key], int) for key in ("seed", "draws"))
            or not all(isinstance(by["provenance"], dict) for by in _origins(manifest))
            or not all(
                isinstance(one, str)
                for name in ("families", "claims")
                for one in manifest.get(name, {}).values()
            )
        ):
            raise ValueError("changed")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f"{str(path)!r} is not a manifest as gradbench writes it; restore it, or choose "
            "another directory"
        ) from error
    refuse_newer(path, schema)
    return manifest
