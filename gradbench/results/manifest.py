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
    digest,
    guard,
    is_partial,
    read_file,
    refuse_newer,
    to_json,
    whole,
    write_file,
)
from gradbench.core.errors import GradbenchError
from gradbench.core.names import unprintable
from gradbench.results.provenance import provenance
from gradbench.results.quantities import is_quantity
from gradbench.results.shape import (
    Shape,
    anything,
    count,
    fault,
    filled,
    flag,
    folder,
    integer,
    name,
    natural,
    not_negative,
    number,
    positive,
    spec,
    text,
)

# The columns of frames that no sweep can have the name of.
_TAKEN = {
    *("problem", "replicate", "checkpoint", "layer", "estimator", "family", "display_name"),
    *("loss", "epoch"),
}
_PROBLEM: Shape = {
    "name": folder,
    "label": (number, None),
    "training": ({"checkpoints": filled(natural), ...: anything}, None),
    "title?": name,
    "base?": name,
    "checkpoints?": filled(folder),
    "given?": {"parameters": {...: text}, "batch": text, "model": text, ...: anything},
    "network?": {...: anything},
    ...: anything,
}
_SUITE: Shape = {
    "name": name,
    "title": name,
    "problems": [_PROBLEM],
    "estimators": filled(spec),
    "draws": count,
    "averages": [count],
    "replicates": count,
    "dtype": ("float32", "float64"),
    "figure": name,
    "by": (lambda value: name(value) and value.isidentifier() and value not in _TAKEN, None),
    "plan?": (
        {
            "optimisers": filled(spec),
            "steps": count,
            "batch": count,
            "rates": filled(positive),
            "search_seeds": count,
            "examples": count,
            "measured": natural,
            "result?": (is_quantity, None),
            "continuation?": ({"estimator": spec, "steps": count}, None),
            "only?": ({...: filled(spec)}, None),
            ...: anything,
        },
        None,
    ),
    "until?": ({"rel_se": not_negative, "metrics": filled(name), "first": count}, None),
    ...: anything,
}
_PROVENANCE: Shape = {
    "gradbench?": (text, None),
    "device?": (text, None),
    "commit?": (text, None),
    "modified?": (flag, None),
    ...: anything,
}
_ORIGIN: Shape = {"provenance": _PROVENANCE, "created": text}
_MANIFEST: Shape = {
    "schema": count,
    "seed": integer,
    "draws": count,
    "suite": _SUITE,
    "suite_hash": text,
    **_ORIGIN,
    "continued?": [_ORIGIN | {...: anything}],
    "claims?": {...: text},
    "families?": {...: text},
    "names?": {...: text},
    "readout?": {...: [text]},
    "left_out?": {...: text},
    ...: anything,
}


def checkpoint_names(problem: Json) -> list[str]:
    """Return the names of the checkpoints of a problem, as a manifest describes it."""
    if problem.get("checkpoints"):  # those of a user's own model
        return list(problem["checkpoints"])
    training = problem["training"]
    return [f"epoch {n}" for n in training["checkpoints"]] if training else ["untrained"]


def suite_hash(suite: Mapping[str, Any]) -> str:
    """Return a hash of ``Suite.as_dict()``, without the estimators on a user's own model."""
    # They become more as they are named, and each file says whose it is.
    grow = {"estimators"} if any(one.get("given") for one in suite.get("problems", ())) else ()
    parts = {key: part for key, part in suite.items() if key not in grow}
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


def _refuse_foreign(directory: Path) -> None:
    """Refuse to write among files that gradbench has not made."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise GradbenchError(f"{str(directory)!r} is not a directory; choose another with --out")
    with guard("read", directory):
        names = {path.name for path in directory.iterdir()}
    # The files that are there when a first run dies at once.
    others = {name for name in names - {".lock"} if not is_partial(name, "manifest.json")}
    if "manifest.json" not in names and others:
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
    elif other_model := _other_model(old, new):
        other = f"of {other_model}"
    elif manifest["suite_hash"] != wanted["suite_hash"]:
        keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        other = f"of another suite (different in {', '.join(keys)})"
    else:
        return
    raise GradbenchError(
        f"{str(directory)!r} holds results {other}; choose another directory with --out"
    )


def _other_model(old: Json, new: Json) -> str:
    """Return what differs where both are of a user's own model, "" where nothing does.

    The model is told last, as its digest is made at the parameters and the batch.
    """
    one, two = (suite["problems"][0].get("given", {}) for suite in (old, new))
    if not one or not two:
        return ""
    words = {"parameters": "other parameters", "batch": "another batch", "model": "another model"}
    return next((said for key, said in words.items() if one.get(key) != two.get(key)), "")


def _begin_or_continue(
    directory: Path,
    wanted: Json,
    families: Mapping[str, str],
    claims: Mapping[str, str],
    names: Mapping[str, str],
) -> Json:
    """Return the manifest of a run; write it where the run is new or its provenance has changed.

    ``families`` are those of the estimators: figures draw them alike, wherever they come from.
    ``claims`` are what the estimators are exact for: a theorem knows more than draws do.
    ``names`` are what figures call those of plugins.
    """
    path = directory / "manifest.json"
    manifest = _read_manifest(path) if path.exists() else None
    if manifest is not None:
        _refuse_other(directory, manifest, wanted)
    elif (hidden := unprintable(wanted)) is not None:
        raise GradbenchError(
            f"the suite has the text {hidden!r}; leave out characters that cannot be printed"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    origin: Json = {"provenance": provenance(), "created": now}
    if manifest is None:
        new = wanted | origin | {"continued": []}
    elif _origins(manifest)[-1]["provenance"] != origin["provenance"]:
        new = manifest | {"continued": [*_origins(manifest)[1:], origin]}
    else:
        new = manifest
    new = new | {"suite": wanted["suite"]}
    for entry, facts in (("families", families), ("claims", claims), ("names", names)):
        known = new.get(entry, {}) | facts
        new = new | ({entry: dict(sorted(known.items()))} if known else {})
    if new != manifest:
        write_file(path, written(new))
    return new


def written(manifest: Json) -> bytes:
    """Return a manifest as it is in its file, with its digest."""
    return json.dumps(manifest | {"digest": _digest(manifest)}, indent=2).encode()


def _digest(manifest: Json) -> str:
    """Return the digest of all of a manifest."""
    return digest(to_json(manifest).encode())


def _origins(manifest: Json) -> list[Json]:
    """Return what began a run and what continued it; the oldest manifests lack the latter."""
    return [manifest, *manifest.get("continued", [])]


def versions(manifest: Json) -> list[str]:
    """Return what the parts of results were measured by, a line for each that differs."""
    lines = []
    for origin in _origins(manifest):
        made = origin["provenance"]
        facts = [f"{name} {made[name]}" for name in ("gradbench", "jax", "jaxlib") if name in made]
        commit = f"commit {str(made['commit'])[:9]}" if made.get("commit") else ""
        on = f"on {made.get('device')}, {made.get('platform')}"
        lines.append(", ".join(filter(None, [*facts, *made.get("plugins", []), commit, on])))
    return list(dict.fromkeys(lines))


def _read_manifest(path: Path) -> Json:
    """Return the checked manifest, without its digest.

    Raises:
        GradbenchError: there is none, or it is of a newer schema.
        CorruptFile: it is not what gradbench writes.
    """
    if not path.is_file():
        raise GradbenchError(
            f"there is no {str(path)!r}; name a directory that `gradbench run SUITE --out DIR` made"
        )
    data = read_file(path)
    wrong = ""
    try:
        manifest: Json = json.loads(data)
        schema = whole(manifest["schema"], 1)
        if schema <= SCHEMA:  # a newer one may have other entries
            wrong = _what_is_wrong(manifest, schema)
            if wrong:
                raise ValueError(wrong)
            manifest.pop("digest", None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        at = f" ({wrong})" if wrong else ""
        raise CorruptFile(
            f"{str(path)!r} is not a manifest as gradbench writes it{at}; restore it, or choose "
            "another directory"
        ) from error
    refuse_newer(path, schema)
    return manifest


def _what_is_wrong(manifest: Json, schema: int) -> str:
    """Return what is wrong in a manifest of a known schema, "" if nothing is."""
    if (hidden := unprintable(manifest)) is not None:
        return f"it has the text {hidden[:60]!r}, which cannot be printed"
    content = {key: value for key, value in manifest.items() if key != "digest"}
    # Manifests of schema 2 have no digest, until they are written again.
    if (schema >= 3 or "digest" in manifest) and manifest.get("digest") != _digest(content):
        return "its content was changed"
    if at := fault(manifest, _MANIFEST, "manifest"):
        return f"{at.removeprefix('manifest.')[:80]} is missing or not what it has to be"
    if manifest["suite_hash"] != suite_hash(manifest["suite"]):
        return "its suite was changed"
    problems = [problem["name"] for problem in manifest["suite"]["problems"]]
    if not problems or len(set(problems)) < len(problems):
        return "its problems are none or have one name"
    if manifest["suite"]["by"] and not all(
        number(problem["label"]) for problem in manifest["suite"]["problems"]
    ):
        return "the values of its sweep are missing"
    return ""
