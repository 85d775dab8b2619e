"""Results that come with the package: of its suites with seed 0, without the draws.

    gradbench/suites/published/SUITE/manifest.json, checkpoints/, references/    as in any results
    gradbench/suites/published/SUITE/estimates.npz    every metric with its interval, of some suites
    gradbench/suites/published/SUITE/runs.npz         the reported runs of a suite of training

``python -m gradbench.suites.publish`` makes them. Commands name them ``gradbench:SUITE``. A trained
network differs between instruction sets and versions of the compiler: runs with seed 0 take the
published parameters, so that results of two machines are about the same networks.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import CorruptFile, Floats, Json, pack, unpack, write_file
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.results.shape import Shape, anything, count, fault, flag, name, natural, number
from gradbench.results.store import Results

FOLDER = Path(__file__).resolve().parents[1] / "suites" / "published"
PREFIX = "gradbench:"
FILE = "estimates.npz"
_ROW: Shape = {
    "problem": name,
    "replicate": natural,
    "checkpoint": name,
    "layer": name,
    "estimator": name,
    "M": count,
    "source": lambda value: value in ("", "theorem", "enumeration", "test"),
    "zero_gradient": flag,
    "dof": number,
}
_INFO: Shape = {"metrics": [name], "rows": [_ROW], "level": number, ...: anything}


class Estimates(NamedTuple):
    """Metrics of cells: what each of the ``rows`` is about, and ``values`` [rows, metrics, 4].

    The last axis is the value, its standard error, and the limits of its interval at ``level``.
    """

    rows: list[Json]
    metrics: list[str]
    values: Floats
    level: float


def published_suites(estimates: bool = False) -> list[str]:
    """Return the names of the suites whose results, or also estimates, come with the package."""
    file = FILE if estimates else "manifest.json"
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{file}"))


def located(where: str | Path) -> Path:
    """Return the directory that a path, or the name ``gradbench:SUITE``, stands for.

    Raises:
        GradbenchError: the package has no results of that suite.
    """
    if not str(where).startswith(PREFIX):
        return Path(where)
    suite = str(where).removeprefix(PREFIX)
    if suite not in (known := published_suites()):
        raise GradbenchError(
            f"the package has no results of {suite!r}; {did_you_mean(suite, known)}"
        )
    return FOLDER / suite


def is_published(results: Results) -> bool:
    """Return whether results are those in the package."""
    return results.directory.resolve().parent == FOLDER


def refuse_without_draws(results: Results) -> None:
    """Refuse results in the package where draws are needed.

    Raises:
        GradbenchError: they are those in the package.
    """
    if is_published(results):
        raise GradbenchError(
            f"{PREFIX}{results.directory.name}, which is in the package, has no draws; take show, "
            "compare or table without --unbiasedness and --costs, or run the suite"
        )


def beside(results: Results) -> Path:
    """Return the directory of results, to write into what is made of them.

    Raises:
        GradbenchError: they are those in the package, which nothing is written to.
    """
    if is_published(results):
        raise GradbenchError(
            f"nothing is written beside {PREFIX}{results.directory.name}, which is in the package; "
            "give another place, as with --out"
        )
    return results.directory


def has_estimates(directory: str | Path) -> bool:
    """Return whether a directory holds published results, without draws."""
    return (Path(directory) / FILE).is_file()


def save_estimates(results: Results, found: Estimates) -> None:
    """Store the metrics of results."""
    info = {"rows": found.rows, "metrics": found.metrics, "level": found.level}
    data = pack({"values": found.values}, len(found.rows), info, _whose(results))
    write_file(results.directory / FILE, data)


def load_estimates(results: Results) -> Estimates:
    """Return the stored metrics of results.

    Raises:
        CorruptFile: the file is damaged, or belongs to other results.
    """
    path = results.directory / FILE
    arrays, rows, info = unpack(path, _whose(results))
    values = arrays.get("values", np.zeros(0))
    wrong = fault(info, _INFO, "info")
    if wrong or values.shape != (rows, len(info["metrics"]), 4) or len(info["rows"]) != rows:
        raise CorruptFile(f"{str(path)!r} is not as gradbench writes it; install gradbench again")
    return Estimates(info["rows"], info["metrics"], values, info["level"])


def _whose(results: Results) -> dict[str, Any]:
    manifest = results.manifest
    run = {key: manifest[key] for key in ("suite_hash", "seed", "draws")}
    return {"kind": "estimates", "suite": manifest["suite"]["name"], **run}
