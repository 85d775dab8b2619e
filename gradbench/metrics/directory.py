"""Read a directory of results: its finished cells, and how far the run has come."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from gradbench.core import index
from gradbench.core.atomic import CorruptFile, Json
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.metrics.measurement import Measurement
from gradbench.metrics.stopping import is_check_due, relative_error
from gradbench.results.consistent import Stored, refuse_contradiction
from gradbench.results.shards import CellStore
from gradbench.results.store import Results

Directory = str | os.PathLike[str] | Results
Measurements = Directory | Iterable[Measurement]


def measurements(results: Measurements) -> Iterable[Measurement]:
    """Return the finished cells of a directory of results; measurements are returned as given.

    Raises:
        GradbenchError: as ``read_cells``.
    """
    if isinstance(results, str | os.PathLike | Results):
        return read_cells(results)
    return results


def opened(results: Directory) -> Results:
    """Return the results in a directory, or the given ones.

    Raises:
        GradbenchError: there are none, or the manifest is damaged.
    """
    return results if isinstance(results, Results) else Results.open(Path(results))


def read_cells(results: Directory) -> Iterator[Measurement]:
    """Yield the finished cells of a directory with their exact gradients, in the suite's order.

    Their ``info`` holds the family of the estimator, the exact loss at the checkpoint and, after a
    sweep, the number that it varied under its own name (width, depth, ...).

    Raises:
        GradbenchError: there are no results, files are damaged (the sentence names them), or no
            cell is finished.
    """
    results = opened(results)
    suite = results.manifest["suite"]
    labels = {problem["name"]: problem["label"] for problem in suite["problems"]}
    claims = results.manifest.get("claims", {})
    families = index.families() | results.manifest.get("families", {})
    finished = False
    for cell in _in_order(results):
        _refuse_unknown(results, cell)
        meta, blocks = cell.load()
        if meta is None:
            continue
        reference = results.load_reference(cell.place)
        if reference is None:
            raise CorruptFile(
                f"the exact gradient at {'/'.join(map(str, cell.place))} is missing from "
                f"{str(results.directory)!r}; run the suite again"
            )
        moments = results.load_moments(cell.place, cell.estimator)
        refuse_contradiction(cell.directory, Stored(meta, blocks, reference.gradient, moments))
        label = labels[cell.place.problem]
        found = Measurement.stored(
            cell.place,
            cell.estimator,
            meta,
            blocks,
            reference.gradient,
            moments=moments,
            cost=results.load_cost(cell.place, cell.estimator) or {},
            # The index knows the defaults, which any argument may change.
            claim=claims.get(cell.estimator, index.claims().get(cell.estimator, "")),
            info={"family": families.get(family(cell.estimator), family(cell.estimator))}
            | {"loss": reference.value}
            | ({suite["by"]: label} if suite["by"] else {})
            | ({"epoch": epoch} if (epoch := _epoch(cell.place.checkpoint)) is not None else {}),
        )
        # Before claims were stored, runs ended at the standard error alone.
        if not _complete(found, meta, suite.get("until"), "claims" in results.manifest):
            continue
        finished = True
        yield found
    if not finished:
        raise GradbenchError(
            f"{str(results.directory)!r} holds no finished cell yet; continue the run"
        )


def _refuse_unknown(results: Results, cell: CellStore) -> None:
    """Refuse a cell of a problem, checkpoint or estimator that the suite does not have."""
    suite, place = results.manifest["suite"], cell.place
    problems = {problem["name"]: problem for problem in suite["problems"]}
    known = place.problem in problems and place.replicate < suite["replicates"]
    if known and results.manifest["schema"] >= 3:
        training = problems[place.problem]["training"]
        names = [f"epoch {n}" for n in training["checkpoints"]] if training else ["untrained"]
        known = place.checkpoint in names and cell.estimator in suite["estimators"]
    if not known:
        raise CorruptFile(
            f"the cell in {str(cell.directory)!r} is none of its suite; delete that folder"
        )


def _complete(cell: Measurement, meta: Json, until: Json | None, skewed: bool) -> bool:
    """Return whether a cell has all its draws or, if the run asks for a precision, reached it."""
    if sum(block.layers[0].count for block in cell.blocks) >= meta["draws"]:
        return True
    if until is None or not is_check_due(len(cell.blocks)):
        return False
    return relative_error(cell, until["metrics"], skewed) <= until["rel_se"]


def _epoch(checkpoint: str) -> int | None:
    """Return the number in the name of a checkpoint such as "epoch 10", else None."""
    word, _, number = checkpoint.partition(" ")
    return int(number) if word == "epoch" and re.fullmatch(r"[0-9]{1,15}", number) else None


def _in_order(results: Results) -> list[CellStore]:
    """Return the cells that have blocks: problems and estimators in the order of the suite."""
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
    """Return its position; a cell from elsewhere comes last, and is refused when it is read."""
    return names.index(name) if name in names else len(names)


def unfinished(results: Directory) -> tuple[int, int]:
    """Return how many cells of the suite are not finished, and how many it has.

    Raises:
        GradbenchError: as ``read_cells``.
    """
    results = opened(results)
    total = expected(results)
    return total - sum(1 for _ in read_cells(results)), total


def unfinished_line(missing: int, total: int) -> str:
    """Return the numbers of ``unfinished`` as a sentence, empty if nothing is missing."""
    if not missing:
        return ""
    verb, them = ("is", "it") if missing == 1 else ("are", "them")
    what = f"{missing} of {total} cells {verb} not finished"
    return f"{what}; the same `gradbench run` continues {them}"


def expected(results: Results) -> int:
    """Return the number of cells of a suite: problems x replicates x checkpoints x estimators."""
    suite = results.manifest["suite"]
    trainings = [problem["training"] for problem in suite["problems"]]
    checkpoints = sum(len(training["checkpoints"]) if training else 1 for training in trainings)
    return checkpoints * suite["replicates"] * len(suite["estimators"])


def agreement(results: Results) -> str:
    """Return a line that tells how well the exact gradients were confirmed, at worst."""
    places = dict.fromkeys(cell.place for cell in results.cells())
    references = [results.load_reference(place) for place in places]
    known = [reference.info.get("agreement") for reference in references if reference is not None]
    found = [one for one in known if one is not None]
    if not found:
        return "exact gradients: no check of them is stored"
    differences = max(one["finite difference"] for one in found)
    line = f"exact gradients: finite differences agree to {differences:.0e}"
    # None where a network is too large for the second route.
    routes = [one["brute force"] for one in found if one.get("brute force") is not None]
    if routes:
        where = "" if len(routes) == len(found) else f" (at {len(routes)} of {len(found)} places)"
        line = (
            f"exact gradients: two routes agree to {max(routes):.0e}{where}, "
            f"finite differences to {differences:.0e}"
        )
    return f"{line}, relative"
