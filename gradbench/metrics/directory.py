"""What users ask of a directory of results: frames, tables, figures. Nothing is run again."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gradbench import metrics
from gradbench.core import index
from gradbench.core.atomic import CorruptFile, Json
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.metrics.stopping import is_check_due
from gradbench.results.shards import CellStore
from gradbench.results.store import Results


def read_cells(results: str | Path | Results) -> Iterator[metrics.Measurement]:
    """The finished cells of a directory with their exact gradients, for ``gradbench.metrics``.

    Cells appear in the order of the suite. ``info`` holds the family of the estimator, the exact
    loss at the checkpoint and, after a sweep, the number that it varied under its own name (width,
    depth, ...).

    Raises:
        GradbenchError: no results, damaged files (named), or no finished cell.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    suite = results.manifest["suite"]
    labels = {problem["name"]: problem["label"] for problem in suite["problems"]}
    families = index.families() | results.manifest.get("families", {})
    finished = False
    for cell in _in_order(results):
        meta, blocks = cell.load()
        if meta is None:
            continue
        reference = results.load_reference(cell.place)
        if reference is None:
            raise CorruptFile(
                f"the exact gradient at {'/'.join(map(str, cell.place))} is missing from "
                f"{str(results.directory)!r}; run the suite again"
            )
        label = labels[cell.place.problem]
        found = metrics.Measurement.stored(
            cell.place,
            cell.estimator,
            meta,
            blocks,
            reference.gradient,
            moments=results.load_moments(cell.place, cell.estimator),
            cost=results.load_cost(cell.place, cell.estimator) or {},
            info={"family": families.get(family(cell.estimator), family(cell.estimator))}
            | {"loss": reference.value}
            | ({suite["by"]: label} if suite["by"] else {})
            | ({"epoch": epoch} if (epoch := _epoch(cell.place.checkpoint)) is not None else {}),
        )
        if not _complete(found, meta, suite.get("until")):
            continue
        finished = True
        yield found
    if not finished:
        raise GradbenchError(
            f"{str(results.directory)!r} holds no finished cell yet; continue the run"
        )


def _complete(cell: metrics.Measurement, meta: Json, until: Json | None) -> bool:
    """Whether a cell has all its draws or, where the run asks for one, its precision."""
    if sum(block.layers[0].count for block in cell.blocks) >= meta["draws"]:
        return True
    if until is None or not is_check_due(len(cell.blocks)):
        return False
    return metrics.relative_error(cell, until["metrics"]) <= until["rel_se"]


def _epoch(checkpoint: str) -> int | None:
    """The number in the name of a checkpoint, see ``Problem.checkpoint_name``."""
    word, _, number = checkpoint.partition(" ")
    return int(number) if word == "epoch" and number.isdigit() else None


def _in_order(results: Results) -> list[CellStore]:
    """The cells that have blocks: problems and estimators in the order of the suite."""
    suite = results.manifest["suite"]
    problems = [problem["name"] for problem in suite["problems"]]
    cells = results.cells()
    places = list(dict.fromkeys(cell.place for cell in cells))  # "epoch 2" before "epoch 10"

    def rank(cell: CellStore) -> tuple[int, ...]:
        place = cell.place
        estimator = _index(suite["estimators"], cell.estimator)
        return _index(problems, place.problem), places.index(place), estimator

    return sorted(cells, key=rank)


def _index(names: list[str], name: str) -> int:
    """Its place; a cell from elsewhere comes last, and is refused when it is read."""
    return names.index(name) if name in names else len(names)


def summary(results: str | Path | Results, average: int = 1) -> pd.DataFrame:
    """One row per cell and layer, of the mean of M = ``average`` draws.

    See ``gradbench.metrics.summary``.

    Raises:
        GradbenchError: no results, damaged files (named), or no finished cell.
    """
    return metrics.summary(read_cells(results), average)


def curves(results: str | Path | Results) -> pd.DataFrame:
    """One row per cell, layer and M: see ``gradbench.metrics.curves``.

    Raises:
        GradbenchError: no results, damaged files (named), or no finished cell.
    """
    return metrics.curves(read_cells(results))


def coordinates(results: str | Path | Results) -> pd.DataFrame:
    """The bias of each coordinate of the gradient: see ``gradbench.metrics.coordinates``."""
    return metrics.coordinates(read_cells(results))


def rank(
    results: str | Path | Results,
    by: str = "rmse",
    at: str | metrics.Budget = "1-draw",
    layer: str = metrics.NETWORK,
) -> pd.DataFrame:
    """The estimators at an equal budget, best first: see ``gradbench.metrics.rank``.

    ``by`` is a metric, ``at`` a budget such as "100-evaluations", ``layer`` the name of one.

    Raises:
        GradbenchError: as ``summary``; also an unknown metric ``by``, a malformed budget or an
            unknown layer.
    """
    return metrics.rank(read_cells(results), by, at, layer)


def crossovers(
    results: str | Path | Results, cost: str = "draws", layer: str = metrics.NETWORK
) -> pd.DataFrame:
    """Where less bias overtakes less variance: see ``gradbench.metrics.crossovers``.

    ``cost`` is "draws", "evaluations" or "seconds", ``layer`` the name of one.

    Raises:
        GradbenchError: as ``summary``; also an unknown cost or layer.
    """
    return metrics.crossovers(read_cells(results), cost, layer)


def sample_complexity(
    results: str | Path | Results, eps: float, layer: str = metrics.NETWORK
) -> pd.DataFrame:
    """Draws for a relative RMSE of ``eps``: see ``gradbench.metrics.sample_complexity``.

    ``layer`` is the name of one.

    Raises:
        GradbenchError: as ``summary``; also an ``eps`` that is not positive, or an unknown layer.
    """
    return metrics.sample_complexity(read_cells(results), eps, layer)


def unbiasedness(results: str | Path | Results) -> pd.DataFrame:
    """Whether estimators are unbiased, layer by layer: see ``gradbench.metrics.unbiasedness``.

    Raises:
        GradbenchError: as ``summary``.
    """
    return metrics.unbiasedness(read_cells(results))


def compare(
    before: str | Path | Results,
    after: str | Path | Results,
    by: str = "rmse",
    average: int = 1,
    margin: float = 0.0,
) -> pd.DataFrame:
    """What has changed between results ``before`` and ``after``: see ``gradbench.metrics.compare``.

    ``by`` is a metric, ``average`` the M of the mean that it is of, ``margin`` the relative change
    that is allowed.

    Raises:
        GradbenchError: as ``summary``, of either; also results of different suites or seeds, or an
            unknown metric.
    """
    return metrics.compare(read_cells(before), read_cells(after), by, average, margin)


def unfinished(results: str | Path | Results) -> tuple[int, int]:
    """How many cells of the suite are not finished, and how many it has.

    Raises:
        GradbenchError: see ``read_cells``.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    total = expected(results)
    return total - sum(1 for _ in read_cells(results)), total


def unfinished_line(missing: int, total: int) -> str:
    """What ``unfinished`` returns as a sentence, empty where nothing is missing."""
    if not missing:
        return ""
    verb, them = ("is", "it") if missing == 1 else ("are", "them")
    what = f"{missing} of {total} cells {verb} not finished"
    return f"{what}; the same `gradbench run` continues {them}"


def expected(results: Results) -> int:
    """The number of cells of a suite: problems x replicates x checkpoints x estimators."""
    suite = results.manifest["suite"]
    trainings = [problem["training"] for problem in suite["problems"]]
    checkpoints = sum(len(training["checkpoints"]) if training else 1 for training in trainings)
    return checkpoints * suite["replicates"] * len(suite["estimators"])


def agreement(results: Results) -> str:
    """How far the checks of the exact gradients differ from them at worst, as a line."""
    places = dict.fromkeys(cell.place for cell in results.cells())
    references = [results.load_reference(place) for place in places]
    found = [reference.info["agreement"] for reference in references if reference is not None]
    differences = max(one["finite difference"] for one in found)
    line = f"exact gradients: finite differences agree to {differences:.0e}"
    # None where a network is too large for the second route.
    checks = [check for one in found for check in one.items()]
    routes = [value for name, value in checks if name != "finite difference" and value is not None]
    if routes:
        where = "" if len(routes) == len(found) else f" (at {len(routes)} of {len(found)} places)"
        line = (
            f"exact gradients: two routes agree to {max(routes):.0e}{where}, "
            f"finite differences to {differences:.0e}"
        )
    return f"{line}, relative"
