"""Runs of training in a directory of results.

    DIR/runs/PROBLEM/ESTIMATOR/OPTIMISER/PHASE-ID.npz      runs that are trained side by side: their
                                                           curves, their state, parameters kept
    DIR/errors/PROBLEM/ESTIMATOR/OPTIMISER/PATH-ID.npz     errors of gradients along such runs
    DIR/times/PROBLEM/ESTIMATOR/OPTIMISER/PHASE-ID.npz     the seconds of their steps

A file is found by its content: ID is a digest of all that decides it, the ``identity``, which is in
the file as well. So runs of other rates, seeds or networks never mix, and what is damaged or moved
is refused. Times are apart, as everything else is the same bits however often a run was killed.

Results that come with the package have all that their readers need in one file, ``KEPT``: what is
reported, to some four digits, with the errors of all layers together, and without the states and
parameters of networks.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import (
    CorruptFile,
    Floats,
    Json,
    digest,
    pack,
    plain,
    to_json,
    unpack,
    write_file,
)
from gradbench.core.names import file_name
from gradbench.results.contents import as_written
from gradbench.results.quantities import is_quantity, read_quantity
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
KEPT = "runs.npz"
_NAME = re.compile(r"[a-z]+-([0-9a-f]{16})\.npz")
_IDENTITY: Shape = {
    "problem": folder,
    "estimator": spec,
    "optimiser": spec,
    "phase": name,
    "rates": filled(positive),
    "seeds": filled(natural),
    "after?": name,
    "result?": is_quantity,
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
    if (results.directory / KEPT).is_file():
        yield from _kept(results, kind)
    for path in sorted((results.directory / kind).glob("*/*/*/*.npz")):
        if found := _NAME.fullmatch(path.name):
            yield _read(path, kind, found[1])


def keep(results: Results, directory: Path) -> None:
    """Write what is reported of the runs of results into one file of another directory."""
    arrays, info = {}, {}
    for kind in KINDS:
        every = [one for one in stored(results, kind) if one.identity["phase"] != "search"]
        parts = [_read_of(kind, one.arrays) for one in every]
        info[kind] = [
            {
                "identity": one.identity,
                "step": one.step,
                "done": one.done,
                "shapes": {name: list(part[name].shape) for name in sorted(part)},
            }
            for one, part in zip(every, parts, strict=True)
        ]
        flat = [part[name].ravel() for part in parts for name in sorted(part)]
        arrays[kind] = _few_digits(np.concatenate([*flat, []]))
    write_file(directory / KEPT, pack(arrays, 0, info, _whose(results)))


def _read_of(kind: str, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the arrays that are read by their names, and not only by the runs that go on."""
    if kind == "errors":
        return {n: a if n == "steps" else a.sum(-1, keepdims=True) for n, a in arrays.items()}
    return {n: a for n, a in arrays.items() if not n.startswith(("kept/", "state/"))}


def _few_digits(numbers: Floats) -> Floats:
    """Return numbers of 15 binary digits, which take little room when they are packed."""
    mantissa, exponent = np.frexp(numbers)
    return np.where(numbers % 1 == 0, numbers, np.ldexp(np.round(mantissa * 2**15), exponent - 15))


def _kept(results: Results, kind: str) -> Iterator[Stored]:
    path = results.directory / KEPT
    arrays, _, info = unpack(path, _whose(results))
    with as_written(path):
        numbers, start = arrays[kind], 0
        for one in info[kind]:
            parts = {}
            for name, shape in one["shapes"].items():
                end = start + math.prod(shape)
                parts[name] = numbers[start:end].reshape(shape)
                start = end
            yield _checked(kind, parts, one)
        if start != len(numbers):
            raise ValueError(kind)


def _whose(results: Results) -> Json:
    manifest = results.manifest
    run = {key: manifest[key] for key in ("suite_hash", "seed", "draws")}
    return {"kind": "runs", "suite": manifest["suite"]["name"], **run}


def _read(path: Path, kind: str, own: str) -> Stored:
    arrays, _, info = unpack(path, {"kind": kind, "id": own})
    with as_written(path):
        if identifier(plain(info["identity"])) != own:
            raise ValueError("identity")
        return _checked(kind, arrays, info)


def _checked(kind: str, arrays: dict[str, Floats], info: Json) -> Stored:
    """Return what is stored about runs, as ``info`` says.

    Raises:
        ValueError: the facts or the arrays are not those of such runs.
    """
    if fault(info, _INFO, "info"):
        raise ValueError("info")
    identity = info["identity"]
    if wrong := _unfit(kind, arrays, identity):
        raise ValueError(wrong)
    return Stored(identity, arrays, info["step"], info["done"])


def _unfit(kind: str, arrays: Mapping[str, Floats], identity: Json) -> str:
    """Return the name of an array that is missing or not of the shape it has to be, else ""."""
    points, lanes = len(arrays["steps"]), len(identity["rates"]) * len(identity["seeds"])
    if kind == "times":
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(("seconds", "steps", "runs"), (1,))
    elif kind == "errors":
        layers = arrays["norm2"].shape[-1]
        shapes = dict.fromkeys(("bias2", "variance", "norm2"), (points, lanes, layers))
    else:
        judged = [read_quantity(identity["result"]).name] if "result" in identity else []
        more = [name for name in AT_MODE if name in arrays]
        shapes = {"diverged": (lanes,)} | dict.fromkeys((*CURVES, *more, *judged), (points, lanes))
    for key, shape in (shapes | {"steps": (points,)}).items():
        if arrays[key].shape != shape:
            return key
    whole = [arrays["steps"], *([arrays["diverged"]] if kind == "runs" else [])]
    fits = all(((one >= -1) & (one <= 2**53) & (one % 1 == 0)).all() for one in whole)
    return "" if fits else "steps"


# The curves of runs, each [steps, runs]: losses by sampling, and shares of test examples.
CURVES = ("loss", "test_loss", "accuracy", "ensemble_accuracy", "mean_field_accuracy")
# Those of binary weights at their more probable states: the training loss, and the test accuracy.
AT_MODE = ("mode_loss", "mode_accuracy")

__all__ = [
    "AT_MODE",
    "CURVES",
    "KEPT",
    "KINDS",
    "CorruptFile",
    "Stored",
    "identifier",
    "keep",
    "load",
    "save",
    "stored",
]
