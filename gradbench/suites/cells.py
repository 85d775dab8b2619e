"""The cells of a suite, measured and stored until they are done."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from gradbench.core.atomic import plain
from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchWarning
from gradbench.core.names import visible_lines
from gradbench.core.progress import Progress
from gradbench.estimators.registry import claims_of
from gradbench.measure.blocks import Block
from gradbench.measure.cell import Cell, coordinates_of, prepare
from gradbench.measure.draws import Plan, make_plan
from gradbench.measure.stack import Stack
from gradbench.metrics.stopping import is_check_due
from gradbench.results.consistent import Stored, fitting
from gradbench.results.shards import CellStore, CheckpointId, CorruptShard
from gradbench.results.store import Results
from gradbench.suites.checkpoints import train_problem
from gradbench.suites.gradients import Instance, load_or_compute_gradient, load_params
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.part import Part
from gradbench.suites.suite import Suite

_FLUSH_SECONDS = 3.0  # the work that a killed run loses, at most
ENUMERATED = 1 << 23  # draws of one example that exact moments may take: some seconds

# Returns whether the blocks of a cell, with its constants, are enough.
Enough = Callable[[dict[str, Any] | None, list[Block]], bool]


class Task(NamedTuple):
    """A cell to measure: where it is stored, how its draws are cut, how many blocks are done."""

    cell: CellStore
    plan: Plan
    done: int


def make_suite_plan(suite: Suite, coordinates: int = 1) -> Plan:
    """Return how the draws of each cell are cut into blocks.

    Where cells are drawn until they are precise, the blocks are those of the first look.

    Raises:
        GradbenchError: too many draws, or averages of more draws than there are.
    """
    if suite.until is None:
        return make_plan(suite.draws, suite.averages, coordinates)
    plan = make_plan(suite.until.first, suite.averages, coordinates)
    return plan._replace(draws=make_plan(suite.draws).draws)  # which refuses too many


def list_tasks(
    results: Results,
    suite: Suite,
    built: Instance,
    plan: Plan | None = None,
    part: Part | None = None,
) -> Iterator[Task]:
    """Yield the cells of a problem, or those of a part.

    Cells with damaged shards are emptied, to be run again. Draws are cut by a ``plan``, by default
    that of the suite.
    """
    plan = plan or make_suite_plan(suite, coordinates_of(built.shapes()))
    for place in built.places:
        for spec in suite.estimators:
            if part is not None and not part.has(place, spec):
                continue
            cell = results.cell(*place, spec)
            try:
                done = cell.done_blocks()
            except CorruptShard as error:
                print(f"gradbench: {visible_lines(str(error))}", file=sys.stderr)
                cell.discard()
                done = 0
            yield Task(cell, plan, done)


def measure_problem(
    results: Results,
    suite: Suite,
    built: ProblemInstance,
    tasks: list[Task],
    bar: Progress,
    retrain: bool,
    part: Part | None = None,
) -> dict[tuple[CheckpointId, str], Cell]:
    """Measure the unfinished cells of a problem, after training it where it is not stored.

    A reference that is missing is computed again, even if the cells that need it are finished. The
    cells that were measured are returned, by place and estimator. With a ``part`` only its places
    count.

    Raises:
        GradbenchError: a draw is not finite, or a file is damaged.
    """
    left: dict[CheckpointId, list[Task]] = {
        place: [] for place in built.places if part is None or part.has_place(place)
    }
    for task in tasks:
        if task.done < task.plan.blocks:
            left[task.cell.place].append(task)
    todo = [place for place in left if left[place] or results.load_reference(place) is None]
    measured: dict[tuple[CheckpointId, str], Cell] = {}
    if not todo:
        return measured
    name = built.problem.name
    bar.set_description(f"{name}: training")
    train_problem(results, built, retrain)
    for place in todo:
        if results.load_checkpoint(place) is None:  # its training has diverged
            continue
        params = load_params(results, built, place)
        bar.set_description(f"{name}, {place.checkpoint}: {gradient_of(built)}")
        gradient = load_or_compute_gradient(results, built, place, params, not bar.disable)
        for task in left[place]:
            bar.set_description(f"{name}, {place.checkpoint}: {task.cell.estimator}")
            cell = measure_cell(results, suite, built, task, (params, gradient), bar)
            if cell is not None:
                measured[place, task.cell.estimator] = cell
    return measured


def measure_cell(
    results: Results,
    suite: Suite,
    built: Instance,
    task: Task,
    at: tuple[Params, Params],
    bar: Progress,
    work: float = ENUMERATED,
    end: float | None = None,
) -> Cell | None:
    """Measure what is left of a cell, and store it.

    Args:
        results: where it is stored.
        suite: what it is measured for.
        built: the problem.
        task: the cell.
        at: the parameters and the gradient there.
        bar: the bar of progress.
        work: draws of one example that exact moments may take.
        end: the time, of ``time.monotonic``, at which it is left as it is; None for none.

    Returns:
        The cell; None if it was precise enough already.

    Raises:
        GradbenchError: the estimator does not take the model, or a draw is not finite.
    """
    params, gradient = at
    enough = _precision_check(results, suite, task.cell, gradient)
    if enough and is_check_due(task.done) and enough(*task.cell.load()):
        return None
    cell = prepare_cell(task.cell, built, params)
    _store_moments(results, task.cell, cell, work)
    cell = cell.cast(suite.dtype)
    _store_evaluations(results, task.cell, cell, built)
    _store_blocks(task, cell, gradient, bar, enough, end)
    return cell


def gradient_of(built: Instance) -> str:
    """Return what the progress of a gradient is called."""
    return "exact gradient" if built.reference is None else "gradient"


def prepare_cell(store: CellStore, built: Instance, params: Params) -> Cell:
    """Return the estimator of a cell at the parameters of its checkpoint, in float64."""
    checkpoint = store.place.checkpoint
    return prepare(
        built.loss(store.estimator),
        params,
        built.batch,
        key=built.key(f"draws at {checkpoint}"),
        fit_key=built.key(f"fit at {checkpoint}"),
        name=f"{store.estimator!r} at {_path(store)!r}",
        remedy="correct the estimator or the problem, or leave it out of the suite",
    )


def _path(store: CellStore) -> str:
    return "/".join(map(str, store.place))


def _store_moments(results: Results, store: CellStore, cell: Cell, work: float) -> None:
    """Store the exact moments of a cell, if they can be had in seconds, unless they are there."""
    if results.load_moments(store.place, store.estimator) is not None:
        return
    found = cell.exact_moments(work)
    if found is not None:
        mean, variance = zip(*found, strict=True)
        results.save_moments(store.place, store.estimator, mean, variance)


def _store_evaluations(results: Results, store: CellStore, cell: Cell, built: Instance) -> None:
    """Store the evaluations of a draw, unless its cost is there; its time is measured later."""
    if results.load_cost(store.place, store.estimator) is None:
        results.save_cost(store.place, store.estimator, built.cost(cell, store.estimator))


def _store_blocks(
    task: Task,
    cell: Cell,
    gradient: Params,
    bar: Progress,
    enough: Enough | None,
    end: float | None = None,
) -> None:
    """Measure the missing blocks of a cell, until ``end``, and store them every few seconds."""
    store, plan = task.cell, task.plan
    meta = cell.meta(plan)
    known = store.load()[1] if enough else []
    pending = []
    flushed = time.monotonic()
    try:
        for block in cell.blocks(gradient, plan, range(task.done, plan.blocks)):
            pending.append(block)
            bar.update(block.layers[0].count)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                full, pending = pending, []
                store.append(full, meta)
                flushed = time.monotonic()
            if enough:
                known.append(block)
                if is_check_due(len(known)) and enough(meta, known):
                    break
            if end is not None and time.monotonic() > end:
                break
        else:
            if enough and not enough(meta, known):
                warnings.warn(
                    f"{store.estimator} at {_path(store)} is not as precise as asked for after "
                    f"{plan.draws:,} draws; give more with --draws",
                    GradbenchWarning,
                    stacklevel=2,
                )
    finally:  # also after Ctrl-C: what has been measured is kept
        if pending:
            store.append(pending, meta)


def _precision_check(
    results: Results, suite: Suite, store: CellStore, gradient: Params
) -> Enough | None:
    """Return the check of whether a cell is as precise as was asked for; None if nothing was."""
    until = suite.until
    if until is None:
        return None
    from gradbench import metrics

    claim = claims_of([store.estimator])[store.estimator]

    def enough(meta: dict[str, Any] | None, blocks: list[Block]) -> bool:
        if meta is None:
            return False
        moments = results.load_moments(store.place, store.estimator)
        stacks = [Stack.of([block]) for block in blocks]
        stack = fitting(store.directory, Stored(plain(meta), stacks, gradient, moments))
        found = metrics.Measurement.stored(
            store.place, store.estimator, meta, stack, gradient, moments=moments, claim=claim
        )
        return metrics.relative_error(found, until.metrics) <= until.rel_se

    return enough
