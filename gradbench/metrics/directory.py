"""Read a directory of results: its finished cells, and how far the run has come."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gradbench.core import index
from gradbench.core.atomic import CorruptFile, Json
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.measure.stack import Stack
from gradbench.metrics.measurement import OUTPUT, Measurement
from gradbench.metrics.sampled_truth import SampledTruth
from gradbench.metrics.selection import Selection
from gradbench.metrics.stopping import is_check_due, relative_error
from gradbench.metrics.untrained import is_training, unfinished_runs, untrained
from gradbench.results.consistent import Stored, fitting
from gradbench.results.contents import Reference
from gradbench.results.manifest import checkpoint_names
from gradbench.results.published import located, refuse_without_draws
from gradbench.results.shards import CellStore, CheckpointId
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
    """Return the results in a directory or of ``gradbench:SUITE``, or the given ones.

    Raises:
        GradbenchError: there are none, or the manifest is damaged.
    """
    return results if isinstance(results, Results) else Results.open(located(os.fspath(results)))


class Cells(Iterable[Measurement]):
    """The finished cells of a directory; each iteration reads them anew, one after the other.

    ``read_cells`` makes it. The cells of a place follow one another, so that whoever needs those of
    one place alone can let them go. After an iteration ``finished`` says how many there were.
    """

    def __init__(self, results: Results, selection: Selection) -> None:
        self.results, self.selection, self.finished = results, selection, 0

    def __iter__(self) -> Iterator[Measurement]:
        results = self.results
        suite = results.manifest["suite"]
        labels = {problem["name"]: problem["label"] for problem in suite["problems"]}
        claims = results.manifest.get("claims", {})
        families = index.families() | results.manifest.get("families", {})
        names = results.manifest.get("names", {})
        readout = results.manifest.get("readout", {})
        refuse_unknown = _unknown(results)
        reference: tuple[CheckpointId, Reference, SampledTruth | None] | None = None
        finished = 0
        for cell in _in_order(results):
            refuse_unknown(cell)
            if not self.selection.has(cell.place.problem, cell.estimator):
                continue
            meta, stacks = cell.load_stacks()
            if meta is None:
                continue
            if reference is None or reference[0] != cell.place:
                known = _reference(results, cell.place)
                # One for all cells of a place: what follows from it takes time in wide models.
                sampled = None if known.blocks is None else SampledTruth(known.blocks)
                reference = cell.place, known, sampled
            _, (value, gradient, *_), sampled = reference
            moments = results.load_moments(cell.place, cell.estimator)
            label = labels[cell.place.problem]
            blocks = fitting(cell.directory, Stored(meta, stacks, gradient, moments))
            found = Measurement.stored(
                cell.place,
                cell.estimator,
                meta,
                blocks,
                gradient,
                moments=moments,
                cost=results.load_cost(cell.place, cell.estimator) or {},
                reference=sampled,
                # The index knows the defaults, which any argument may change.
                claim=claims.get(cell.estimator, index.claims().get(cell.estimator, "")),
                readout=tuple(readout.get(cell.place.problem, (OUTPUT,))),
                info={"family": families.get(family(cell.estimator), family(cell.estimator))}
                | ({"display_name": name} if (name := names.get(cell.estimator)) else {})
                | {"loss": value}
                | ({suite["by"]: label} if suite["by"] else {})
                | ({"epoch": n} if (n := _epoch(cell.place.checkpoint)) is not None else {}),
            )
            # Before claims were stored, runs ended at the standard error alone.
            skewed = "claims" in results.manifest
            if _complete(found, blocks, meta, suite.get("until"), skewed):
                finished += 1
                self.finished = finished
                yield found
        self.finished = finished
        if not finished:
            if is_training(results.manifest):
                raise GradbenchError(
                    f"{str(results.directory)!r} holds runs of training, not measurements; take "
                    "show, plot, report, or rank --by training"
                )
            refuse_without_draws(results)
            what = "holds no finished cell yet"
            if self.selection != Selection.of(suite):
                what = "holds no finished cell of these problems and estimators yet"
            raise GradbenchError(f"{str(results.directory)!r} {what}; continue the run")

    def unfinished(self) -> str:
        """Return how many of these cells were not finished when they were read, "" if none."""
        if is_training(self.results.manifest):
            return unfinished_runs(self.results)
        total = expected(self.results, self.selection)
        return unfinished_line(total - self.finished, total, is_given(self.results))


def read_cells(
    results: "Directory | Cells", problems: Sequence[str] = (), estimators: Sequence[str] = ()
) -> Cells:
    """Return the finished cells of a directory with their exact gradients, in the suite's order.

    Their ``info`` holds the family of the estimator, the exact loss at the checkpoint and, after a
    sweep, the number that it varied under its own name (width, depth, ...).

    Args:
        results: a directory of results, or its path; cells are returned as given.
        problems: read the cells of these problems alone; of all by default.
        estimators: the same of estimators, see ``Selection``.

    Raises:
        GradbenchError: there are no results, or no such problem or estimator in them; and, when
            they are read, files are damaged (the sentence names them), or no cell is finished.
    """
    if isinstance(results, Cells):
        return results
    found = opened(results)
    return Cells(found, Selection.of(found.manifest["suite"], problems, estimators))


def _reference(results: Results, place: CheckpointId) -> Reference:
    """Return the exact gradient at a place.

    Raises:
        CorruptFile: it is missing or damaged.
    """
    reference = results.load_reference(place)
    if reference is None:
        raise CorruptFile(
            f"the exact gradient at {'/'.join(map(str, place))} is missing from "
            f"{str(results.directory)!r}; run the suite again"
        )
    return reference


def _unknown(results: Results) -> Callable[[CellStore], None]:
    """Return a function that refuses a cell which is none of the suite."""
    suite = results.manifest["suite"]
    problems = {problem["name"]: problem for problem in suite["problems"]}

    def refuse(cell: CellStore) -> None:
        place = cell.place
        known = place.problem in problems and place.replicate < suite["replicates"]
        if known and results.manifest["schema"] >= 3:
            names = checkpoint_names(problems[place.problem])
            known = place.checkpoint in names and cell.estimator in suite["estimators"]
        if not known:
            raise CorruptFile(
                f"the cell in {str(cell.directory)!r} is none of its suite; delete that folder"
            )

    return refuse


def _complete(
    cell: Measurement, blocks: Stack, meta: Json, until: Json | None, skewed: bool
) -> bool:
    """Return whether a cell has all its draws or, if the run asks for a precision, reached it."""
    if int(blocks.layers[0].count.sum()) >= meta["draws"]:
        return True
    if until is None or not is_check_due(len(blocks)):
        return False
    return relative_error(cell, until["metrics"], skewed) <= until["rel_se"]


def _epoch(checkpoint: str) -> int | None:
    """Return the number in the name of a checkpoint such as "epoch 10", else None."""
    word, _, number = checkpoint.partition(" ")
    return int(number) if word == "epoch" and re.fullmatch(r"[0-9]{1,15}", number) else None


def _in_order(results: Results) -> list[CellStore]:
    """Return the cells that have blocks: problems and estimators in the order of the suite."""
    suite = results.manifest["suite"]
    problems = positions(problem["name"] for problem in suite["problems"])
    estimators = positions(suite["estimators"])
    cells = results.cells()
    places = positions(cell.place for cell in cells)  # "epoch 2" before "epoch 10"

    def rank(cell: CellStore) -> tuple[int, ...]:
        # A cell from elsewhere comes last, and is refused when it is read.
        estimator = estimators.get(cell.estimator, len(estimators))
        return problems.get(cell.place.problem, len(problems)), places[cell.place], estimator

    return sorted(cells, key=rank)


def positions(names: Iterable[Any]) -> dict[Any, int]:
    """Return the position of each name, of a repeated one that of the first."""
    return {name: k for k, name in enumerate(dict.fromkeys(names))}


def unfinished(results: Directory) -> tuple[int, int]:
    """Return how many cells of the suite are not finished, and how many it has.

    Raises:
        GradbenchError: as ``read_cells``.
    """
    cells = read_cells(results)
    total = expected(cells.results)
    return total - sum(1 for _ in cells), total


def left_to_run(results: Results) -> str:
    """Return how many cells, or methods of training, are not finished, in words; "" if none."""
    if is_training(results.manifest):
        missing, kind = len(untrained(results)), "method"
    else:
        missing, kind = unfinished(results)[0], "cell"
    return f"{missing} {kind}{'s' * (missing != 1)}" if missing else ""


def is_given(results: Results) -> bool:
    """Return whether results are those of ``evaluate``, of a model of a user's own."""
    return bool(results.manifest["suite"]["problems"][0].get("given"))


def unfinished_line(missing: int, total: int, given: bool = False) -> str:
    """Return the numbers of ``unfinished`` as a sentence, empty if nothing is missing.

    Args:
        missing: how many cells are not finished.
        total: how many there are.
        given: whether they are of a model of a user's own.
    """
    if not missing:
        return ""
    verb, them = ("is", "it") if missing == 1 else ("are", "them")
    what = f"{missing} of {total} cells {verb} not finished"
    remedy = "the same `gradbench run` continues"
    if given:
        remedy = "the same call of `evaluate`, or `gradbench run FILE.py:NAME`, continues"
    return f"{what}; {remedy} {them}"


def expected(results: Results, selection: Selection | None = None) -> int:
    """Return the number of cells of a suite: problems x replicates x checkpoints x estimators."""
    suite = results.manifest["suite"]
    chosen = selection or Selection.of(suite)
    problems = [problem for problem in suite["problems"] if problem["name"] in chosen.problems]
    checkpoints = sum(len(checkpoint_names(problem)) for problem in problems)
    return checkpoints * suite["replicates"] * len(chosen.estimators)
