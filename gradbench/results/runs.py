"""Runs of training in a directory of results.

    DIR/runs/PROBLEM/ESTIMATOR/OPTIMISER/PHASE-ID.npz      runs that are trained side by side: their
                                                           curves, their state, parameters kept
    DIR/errors/PROBLEM/ESTIMATOR/OPTIMISER/PATH-ID.npz     errors of gradients along such runs
    DIR/times/PROBLEM/ESTIMATOR/OPTIMISER/PHASE-ID.npz     the seconds of their steps

A file is found by its content: ID is a digest of all that decides it, the ``identity``, which is in
the file as well. So runs of other rates, seeds or networks never mix, and what is damaged or moved
is refused. Times are apart, as everything else is the same bits however often a run was killed.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gradbench.core.atomic import CorruptFile, Floats, Json, digest, pack, plain, to_json, unpack
from gradbench.core.names import file_name
from gradbench.results.contents import as_written
from gradbench.results.shape import (
    Shape,
    anything,
    fault,
    filled,
    flag,
    folder,
    name,
    natural,
    positive,
    spec,
)
from gradbench.results.store import Results

KINDS = ("runs", "errors", "times")
_NAME = re.compile(r"[a-z]+-([0-9a-f]{16})\.npz")
_IDENTITY: Shape = {
    "problem": folder,
    "estimator": spec,
    "optimiser": spec,
    "phase": name,
    "rates": filled(positive),
    "seeds": filled(natural),
    ...: anything,
}
_INFO: Shape = {"identity": _IDENTITY, "step": natural, "done": flag, ...: anything}


class Stored(NamedTuple):
    """What a file holds: of which runs it is, its arrays, the step reached, whether it is done."""

    identity: Json
    arrays: dict[str, Floats]
    step: int
    done: bool


def identifier(identity: Mapping[str, Any]) -> str:
    """Return the name of runs by their content, 16 hexadecimal digits."""
    return digest(to_json(identity).encode())


def path_of(results: Results, kind: str, identity: Mapping[str, Any]) -> Path:
    """Return the path of the file of some kind about runs."""
    names = (file_name(identity[key]) for key in ("problem", "estimator", "optimiser"))
    file = f"{identity['phase']}-{identifier(identity)}.npz"
    return results.directory.joinpath(kind, *names, file)


def save(
    results: Results,
    kind: str,
    identity: Mapping[str, Any],
    arrays: Mapping[str, Any],
    step: int,
    done: bool,
) -> None:
    """Store arrays about runs, which are float64 then, as a whole or not at all.

    Raises:
        GradbenchError: the file cannot be written, as on a full disk.
    """
    info = {"identity": dict(identity), "step": step, "done": done}
    whose = {"kind": kind, "id": identifier(identity)}
    results.write(path_of(results, kind, identity), pack(arrays, 0, info, whose))


def load(results: Results, kind: str, identity: Mapping[str, Any]) -> Stored | None:
    """Return what is stored about runs, None where nothing is.

    Raises:
        CorruptFile: the file is damaged, or that of other runs.
    """
    path = path_of(results, kind, identity)
    return _read(path, kind, identifier(identity)) if path.exists() else None


def stored(results: Results, kind: str = "runs") -> Iterator[Stored]:
    """Yield all that is stored of a kind, in the order of the names.

    Raises:
        CorruptFile: a file is damaged.
    """
    for path in sorted((results.directory / kind).glob("*/*/*/*.npz")):
        if found := _NAME.fullmatch(path.name):
            yield _read(path, kind, found[1])


def _read(path: Path, kind: str, own: str) -> Stored:
    arrays, _, info = unpack(path, {"kind": kind, "id": own})
    with as_written(path):
        if fault(info, _INFO, "info") or identifier(plain(info["identity"])) != own:
            raise ValueError("identity")
        identity = info["identity"]
        lanes = len(identity["rates"]) * len(identity["seeds"])
        for key, array in arrays.items():
            if key in CURVES and array.shape != (len(arrays["steps"]), lanes):
                raise ValueError(key)
        if kind == "runs" and arrays["diverged"].shape != (lanes,):
            raise ValueError("diverged")
        return Stored(identity, arrays, info["step"], info["done"])


# The curves of runs, each [steps, runs]: losses by sampling, and shares of test examples.
CURVES = ("loss", "test_loss", "accuracy", "ensemble_accuracy", "mean_field_accuracy")

__all__ = ["CURVES", "KINDS", "CorruptFile", "Stored", "identifier", "load", "save", "stored"]
