"""Run suites: the cells that are not finished yet are measured and stored, block by block."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

from gradbench import exact
from gradbench.core.compiling import let_go
from gradbench.core.display import names_to_keep
from gradbench.core.errors import GradbenchError
from gradbench.core.names import file_name
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64
from gradbench.core.progress import Progress
from gradbench.core.specs import family
from gradbench.estimators.registry import check_spec, claims_of, families_of, make_estimator
from gradbench.measure.cell import coordinates_of
from gradbench.metrics.directory import read_cells
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.asked import UNTIL_METRICS, asked_suite, directory_of
from gradbench.suites.budget import budget, in_words
from gradbench.suites.cells import Task, list_tasks, make_suite_plan, measure_problem
from gradbench.suites.instance import ProblemInstance, build, estimator
from gradbench.suites.part import Part
from gradbench.suites.suite import Suite
from gradbench.suites.times import Ready, lack_times, measure_times
from gradbench.suites.training.describe import describe_training
from gradbench.suites.training.sweep import train_suite
from gradbench.suites.workers.drive import distribute, engine_of
from gradbench.suites.workers.methods import distribute_training


def run(
    suite: str | Suite,
    out: str | Path | None = None,
    seed: int = 0,
    draws: int | None = None,
    progress: bool = True,
    quick: bool = False,
    until: float | None = None,
    until_metrics: Sequence[str] = UNTIL_METRICS,
    retrain: bool = False,
    workers: int | None = None,
    dask: str | None = None,
    problems: Sequence[str] = (),
    estimators: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
    force: bool = False,
) -> Results:
    """Measure every cell of a suite that is not finished yet, and store it in a directory.

    When all draws on a network are made, the times of draws are measured, of all its cells in
    turns.

    Args:
        suite: the name of a suite of the package, the path of a TOML file, or a ``Suite``.
        out: the directory of the results, ``results/SUITE`` by default. If it holds results of the
            same suite, seed and draws, they are continued.
        seed: of data, initial parameters, training and draws.
        draws: the number per cell, instead of the suite's own.
        progress: whether to show a bar with the time left, or lines off a terminal.
        quick: run the quick form of the suite, by default in ``results/SUITE-quick``.
        until: draw every cell until this relative standard error, such as 0.01, is reached.
            ``draws`` is then the most that a cell may take, by default 64 times the suite's number.
        until_metrics: the metrics of one draw that must be so precise in every layer.
        retrain: train anew also what comes trained with the package, see
            ``ProblemInstance.checkpoints``.
        workers: measure by so many processes of this machine, with the same numbers. The times of
            draws are measured afterwards, by one process.
        dask: measure by the workers of the Dask scheduler at this address, likewise.
        problems: measure only these problems of the suite. What is missing is measured when the
            same suite is run again without ``problems``, ``estimators`` and ``checkpoints``.
        estimators: measure only these estimators, with arguments or all of a name.
        checkpoints: measure only at these checkpoints, such as "epoch 100"; suites of training
            have none.
        force: also run a suite that asks for days or for more memory than is likely to be meant.

    Returns:
        The results, closed to writing.

    Raises:
        GradbenchError: anything wrong with the suite, its problems or the directory, or a platform
            that computes wrong values.
    """
    suite = _resolve(suite, draws, quick, until, until_metrics)
    engine = engine_of(workers, dask)
    part = Part.of(suite, problems, estimators, checkpoints)
    if suite.plan is not None:
        spread = None if engine is None else partial(distribute_training, engine)
        return train_suite(suite, part, directory_of(suite, out), seed, progress, force, spread)
    if not force:
        budget(suite).check(suite.name)
    instances = _build(suite, seed)
    check_platform()  # before anything is written: the provenance says that it passed
    results = Results.open_or_create(
        directory_of(suite, out),
        suite.as_dict(),
        seed,
        suite.draws,
        families_of(suite.estimators),
        claims_of(suite.estimators),
        names_to_keep(suite.estimators),
    )
    with results, float64():
        tasks = [list(list_tasks(results, suite, built, part=part)) for built in instances]
        everything = [task for group in tasks for task in group]
        with Progress(
            total=None if suite.until else suite.draws * len(everything),
            unit="draws",
            initial=sum(min(task.done * task.plan.block, suite.draws) for task in everything),
            show=progress,
        ) as bar:
            missing = lack_times(results, everything)
            if engine is not None:
                pairs = list(zip(instances, tasks, strict=True))
                distribute(engine, results, suite, pairs, bar, retrain)
            for group in _by_network(instances, tasks):
                measured: Ready = {}
                for built, own in group if engine is None else ():
                    measured |= measure_problem(results, suite, built, own, bar, retrain, part)
                if missing:
                    measure_times(results, suite, group, measured, bar)
                if let_go(len(measured)):
                    estimator.cache_clear()
    return results


def describe(
    suite: str | Suite,
    seed: int = 0,
    draws: int | None = None,
    quick: bool = False,
    until: float | None = None,
    until_metrics: Sequence[str] = UNTIL_METRICS,
    out: str | Path | None = None,
    force: bool = False,
    problems: Sequence[str] = (),
    estimators: Sequence[str] = (),
    checkpoints: Sequence[str] = (),
) -> str:
    """Describe what ``run`` would do, and check all that can be checked without running.

    It ends with the time that all of it takes, roughly, and the size of the results, and how much
    is there already. ``suite``, ``seed``, ``draws``, ``quick``, ``until``, ``until_metrics``,
    ``out``, ``force``, ``problems``, ``estimators`` and ``checkpoints`` are those of ``run``.

    Raises:
        GradbenchError: as ``run``.
    """
    suite = _resolve(suite, draws, quick, until, until_metrics)
    part, directory = Part.of(suite, problems, estimators, checkpoints), directory_of(suite, out)
    suite = part.of_suite(suite)
    if suite.plan is not None:
        return describe_training(suite, seed, directory, force)
    asked = budget(suite)
    if not force:
        asked.check(suite.name)
    with float64():
        instances = _build(suite, seed)
        units = {built.problem.name: built.units for built in instances}
        disk = sum(_bytes(suite, built) for built in instances)
    lines = [f"suite {suite.name!r}, seed {seed}: {suite.title}"]
    cells = 0
    for problem in suite.problems:
        chosen = [problem.checkpoint_name(epoch) for epoch in problem.checkpoints]
        chosen = [name for name in chosen if name in part.checkpoints]
        cells += len(chosen) * suite.replicates * len(suite.estimators)
        names = ", ".join(chosen)
        lines.append(
            f"  problem {problem.name}: {units[problem.name]}, {names}"
            + (f", {suite.replicates} replicates" if suite.replicates > 1 else "")
        )
    lines.append(f"  estimators: {', '.join(suite.estimators)}")
    total = f"{cells * suite.draws:,} draws in all"
    if suite.until:
        lines.append(f"  {cells} cells until {suite.until}, of at most {suite.draws:,} draws")
    else:
        lines.append(f"  {cells} cells of {suite.draws:,} draws, {total}")
    lines.append(f"  {in_words(asked.hours, asked.gigabytes, disk)}")
    lines.append(f"  {directory}: {_finished(directory, part)} of {cells} cells are done")
    return "\n".join(lines)


def _bytes(suite: Suite, built: ProblemInstance) -> float:
    """Return the size of the files of a problem, roughly: mean, M2 and cross terms per block."""
    coordinates = coordinates_of(built.shapes())
    blocks = make_suite_plan(suite, coordinates).blocks
    cells = len(built.problem.checkpoints) * len(suite.estimators)
    return cells * (8.0 * 3 * coordinates * blocks + 3e4)


def _finished(directory: Path, part: Part) -> int:
    """Return how many cells of a part are finished in a directory, 0 where there are no results."""
    try:
        return sum(
            part.has(
                CheckpointId(cell.problem, cell.replicate, str(cell.checkpoint)), cell.estimator
            )
            for cell in read_cells(directory)
        )
    except GradbenchError:
        return 0


def _resolve(
    suite: str | Suite,
    draws: int | None,
    quick: bool,
    until: float | None,
    until_metrics: Sequence[str],
) -> Suite:
    """Return the suite with its number of draws, after a check of its names and its plan.

    Raises:
        GradbenchError: an unknown suite or estimator, a name that no folder can have, too many
            draws, or ``quick`` with a ``Suite``.
    """
    suite = asked_suite(suite, draws, quick, until, until_metrics)
    for spec in suite.estimators:
        check_spec(spec)
    for name in (*suite.estimators, *(problem.name for problem in suite.problems)):
        file_name(name)  # refuses names that no folder can have, before anything is written
    make_suite_plan(suite)
    return suite


def _by_network(
    problems: Sequence[ProblemInstance], tasks: Sequence[list[Task]]
) -> list[list[tuple[ProblemInstance, list[Task]]]]:
    """Return consecutive problems with the same network, which share compiled programs."""
    pairs = zip(problems, tasks, strict=True)
    return [list(group) for _, group in groupby(pairs, key=lambda pair: pair[0].network)]


def _build(suite: Suite, seed: int) -> list[ProblemInstance]:
    """Return the problems of a suite with their replicates, ready to be measured.

    Raises:
        GradbenchError: a network is too large, or an estimator does not take it.
    """
    ready = []
    with float64():
        for problem in suite.problems:
            for replicate in range(suite.replicates):
                ready.append(build(problem, seed, replicate))
                if replicate == 0:  # the others differ in numbers alone
                    try:
                        _check(ready[-1], suite.estimators)
                    except GradbenchError as error:
                        raise GradbenchError(f"problem {problem.name!r}: {error}") from None
    return ready


def _check(built: ProblemInstance, estimators: Sequence[str]) -> None:
    """Refuse a network that is too wide, unless its gradient may be sampled, and what is unfit.

    Raises:
        GradbenchError: names the remedy.
    """
    network, shapes, batch = built.network, built.shapes(), built.batch
    wide = not exact.is_small(network, shapes, batch)
    if wide and built.reference is None:
        try:
            exact.check_size(network, shapes, batch)
        except GradbenchError as error:
            raise GradbenchError(
                f"{error}, or add a table [reference] with rel_se = 0.05, to measure against a "
                "gradient that is sampled to 5 %"
            ) from None
    for spec in estimators:
        if wide and family(spec) == "exact":
            raise GradbenchError(
                "the estimator 'exact' enumerates all states, which are too many here; leave it out"
            )
        make_estimator(spec, network)
