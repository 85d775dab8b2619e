"""Running suites: cells that are not finished yet are measured and stored, block by block."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from gradbench import exact
from gradbench.blocks import Block, is_finite
from gradbench.errors import GradbenchError, GradbenchWarning
from gradbench.estimators import check_spec
from gradbench.estimators.learned import fitted
from gradbench.estimators.registry import evaluations
from gradbench.files import encode
from gradbench.measure import (
    Plan,
    layer_moments,
    layer_names,
    layer_vectors,
    make_plan,
    measure,
    seconds_per_draw,
)
from gradbench.model import Loss, Params, sites_of
from gradbench.precision import float64
from gradbench.problems.build import Built, build, estimator
from gradbench.shards import Cell, CorruptShard, Place
from gradbench.store import Results
from gradbench.suite import Suite, load_suite, to_be_looked_at

_FLUSH_SECONDS = 3.0  # what a killed run loses at most
UNTIL_METRICS = ("rmse", "cosine")  # that are made precise unless others are named
_ENUMERATED = 1 << 23  # draws of one example that exact moments may take: some seconds


# Whether the blocks of a cell, with its constants, are enough.
Enough = Callable[[dict[str, Any] | None, list[Block]], bool]


class Task(NamedTuple):
    """A cell to measure: where it belongs, how its draws are cut, how many blocks are stored."""

    cell: Cell
    plan: Plan
    done: int


def run(
    suite: str | Suite,
    out: str | Path | None = None,
    seed: int = 0,
    draws: int | None = None,
    progress: bool = True,
    quick: bool = False,
    until: float | None = None,
    until_metrics: Sequence[str] = UNTIL_METRICS,
) -> Results:
    """Measures every cell of a suite that is not finished yet, and stores it in a directory.

    Args:
        suite: the name of a suite of the package, the path of a TOML file, or a ``Suite``.
        out: the directory of the results, ``results/SUITE`` unless given; one that holds results of
            the same suite, seed and draws is continued.
        seed: of data, initial parameters, training and draws.
        draws: per cell, in the place of the suite's own number.
        progress: whether to show a bar with draws per second and the time left.
        quick: the quick form of the suite, in ``results/SUITE-quick``.
        until: a relative standard error, such as 0.01, that every cell is drawn until; ``draws`` is
            then the most that it may take, 64 times those of the suite unless given.
        until_metrics: the metrics of one draw that have to be so precise in every layer.

    Raises:
        GradbenchError: anything wrong with the suite, its problems or the directory.
    """
    suite = _resolve(suite, draws, quick, until, until_metrics)
    problems = _build(suite, seed)
    results = Results.open_or_create(
        out or Path("results") / suite.name, suite.as_dict(), seed, suite.draws
    )
    with results, float64():
        tasks = [list(_tasks(results, suite, built)) for built in problems]
        everything = [task for group in tasks for task in group]
        with tqdm(
            total=None if suite.until else suite.draws * len(everything),
            initial=sum(min(task.done * task.plan.block, suite.draws) for task in everything),
            unit=" draws",
            unit_scale=True,
            dynamic_ncols=True,
            disable=not progress,
        ) as bar:
            for built, group in zip(problems, tasks, strict=True):
                _measure_problem(results, suite, built, group, bar)
    return results


def describe(
    suite: str | Suite,
    seed: int = 0,
    draws: int | None = None,
    quick: bool = False,
    until: float | None = None,
    until_metrics: Sequence[str] = UNTIL_METRICS,
) -> str:
    """What ``run`` would do, as text; everything that can be checked without running is checked.

    ``suite``, ``seed``, ``draws``, ``quick``, ``until`` and ``until_metrics`` are as there.

    Raises:
        GradbenchError: as ``run``.
    """
    suite = _resolve(suite, draws, quick, until, until_metrics)
    with float64():
        units = {built.problem.name: built.units for built in _build(suite, seed)}
    lines = [f"suite {suite.name!r}, seed {seed}: {suite.title}"]
    cells = 0
    for problem in suite.problems:
        places = len(problem.checkpoints) * suite.replicates
        cells += places * len(suite.estimators)
        names = ", ".join(problem.checkpoint_name(epoch) for epoch in problem.checkpoints)
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
    return "\n".join(lines)


def _resolve(
    suite: str | Suite,
    draws: int | None,
    quick: bool,
    until: float | None,
    until_metrics: Sequence[str],
) -> Suite:
    """The suite with its number of draws, all estimators in it known."""
    if isinstance(suite, Suite) and quick:
        raise GradbenchError("quick got a Suite; give its name or path, or load_suite(name, True)")
    suite = suite if isinstance(suite, Suite) else load_suite(suite, quick)
    if until is not None:
        from gradbench import metrics  # and pandas: only where precision is asked for

        suite = suite.with_until(until, metrics.check_metrics(until_metrics), draws)
    elif draws is not None:
        suite = suite.with_draws(draws)
    for spec in suite.estimators:
        check_spec(spec)
    for name in (*suite.estimators, *(problem.name for problem in suite.problems)):
        encode(name)  # refuses, before anything is written, what no folder can be called
    _plan(suite)
    return suite


def _plan(suite: Suite, coordinates: int = 1) -> Plan:
    """How the draws of a cell are cut; where they end with a precision, as if they were few."""
    if suite.until is None:
        return make_plan(suite.draws, suite.averages, coordinates)
    plan = make_plan(suite.until.first, suite.averages, coordinates)
    return plan._replace(draws=make_plan(suite.draws).draws)  # which refuses too many


def _build(suite: Suite, seed: int) -> list[Built]:
    """The problems of a suite and their replicates, networks small enough, estimators fitting."""
    ready = []
    with float64():
        for problem in suite.problems:
            for replicate in range(suite.replicates):
                built = build(problem, seed, replicate)
                try:
                    exact.check_size(built.network, jax.eval_shape(built.initial), built.batch)
                    for spec in suite.estimators:
                        estimator(spec, built.network)
                except GradbenchError as error:
                    raise GradbenchError(f"problem {problem.name!r}: {error}") from None
                ready.append(built)
    return ready


def _tasks(results: Results, suite: Suite, built: Built) -> Iterator[Task]:
    """The cells of a problem; those with damaged shards are emptied, to be run again."""
    params = jax.eval_shape(built.initial)
    coordinates = sum(leaf.size for leaf in jax.tree.leaves(params))
    plan = _plan(suite, coordinates)
    for place in _places(built):
        for spec in suite.estimators:
            cell = results.cell(*place, spec)
            try:
                done = cell.done_blocks()
            except CorruptShard as error:
                print(f"gradbench: {error}", file=sys.stderr)
                cell.discard()
                done = 0
            yield Task(cell, plan, done)


def _places(built: Built) -> list[Place]:
    names = (built.problem.checkpoint_name(epoch) for epoch in built.problem.checkpoints)
    return [Place(built.problem.name, built.replicate, name) for name in names]


def _measure_problem(
    results: Results, suite: Suite, built: Built, tasks: list[Task], bar: tqdm
) -> None:
    """Measures the unfinished cells of a problem, training it first where it is not stored.

    A reference that is missing is computed anew although its cells may be finished.
    """
    left: dict[Place, list[Task]] = {place: [] for place in _places(built)}
    for task in tasks:
        if task.done < task.plan.blocks:
            left[task.cell.place].append(task)
    todo = [place for place in left if left[place] or results.load_reference(place) is None]
    if not todo:
        return
    name = built.problem.name
    bar.set_description(f"{name}: training")
    _train(results, built)
    for place in todo:
        trained = results.load_checkpoint(place)
        assert trained is not None  # by _train
        bar.set_description(f"{name}, {place.checkpoint}: exact gradient")
        gradient = _reference(results, built, place, trained)
        params, batch = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, _dtype(leaf, suite.dtype)), (trained, built.batch)
        )
        for task in left[place]:
            bar.set_description(f"{name}, {place.checkpoint}: {task.cell.estimator}")
            enough = _enough(results, suite, task.cell, gradient)
            if enough and to_be_looked_at(task.done) and enough(*task.cell.load()):
                continue
            loss = fitted(
                estimator(task.cell.estimator, built.network),
                trained,
                built.key(f"fit at {place.checkpoint}"),
                built.batch,
            )
            _enumerate(results, task.cell, loss, trained, built.batch)
            _price(results, task, loss, built, params, batch)
            _measure_cell(task, loss, built, params, batch, gradient, bar, enough)


def _dtype(leaf: Any, dtype: str) -> Any:
    floating = np.issubdtype(np.asarray(leaf).dtype, np.floating)
    return np.dtype(dtype) if floating else np.asarray(leaf).dtype


def _train(results: Results, built: Built) -> None:
    """Stores the parameters at all checkpoints of a problem, unless they are there."""
    places = _places(built)
    if all(results.load_checkpoint(place) is not None for place in places):
        return
    for place, params in zip(places, built.checkpoints(), strict=True):
        results.save_checkpoint(place, params)


def _reference(results: Results, built: Built, place: Place, params: Params) -> Params:
    """The exact gradient at a checkpoint, computed and stored unless it is there: per layer."""
    stored = results.load_reference(place)
    if stored is None:
        reference = exact.reference(built.network, params, built.batch)
        info = {"route": reference.route, "agreement": reference.agreement}
        results.save_reference(place, reference.value, layer_vectors(reference.gradient), info)
        stored = results.load_reference(place)
        assert stored is not None
    return stored.gradient


def _enumerate(results: Results, cell: Cell, loss: Loss, params: Params, batch: Any) -> None:
    """Stores the exact moments of a cell, where they can be had in seconds, unless it has them."""
    if results.load_moments(cell.place, cell.estimator) is not None:
        return
    found = layer_moments(loss, params, batch, _ENUMERATED)
    if found is not None:
        mean, variance = zip(*found, strict=True)
        results.save_moments(cell.place, cell.estimator, mean, variance)


def _price(
    results: Results, task: Task, loss: Loss, built: Built, params: Params, batch: Any
) -> None:
    """Stores what a draw of a cell costs, unless it is known."""
    cell = task.cell
    if results.load_cost(cell.place, cell.estimator) is not None:
        return
    key = built.key(f"draws at {cell.place.checkpoint}")
    seconds = seconds_per_draw(loss, params, batch, key, task.plan)
    units = [site.size for site in sites_of(built.network, params, batch)]
    results.save_cost(cell.place, cell.estimator, seconds, evaluations(cell.estimator, units))


def _measure_cell(
    task: Task,
    loss: Loss,
    built: Built,
    params: Params,
    batch: Any,
    gradient: Any,
    bar: tqdm,
    enough: Enough | None,
) -> None:
    """Measures the blocks that are missing in a cell, storing them every few seconds."""
    cell, plan = task.cell, task.plan
    key = built.key(f"draws at {cell.place.checkpoint}")
    meta = {**plan._asdict(), "layer_names": layer_names(params)}
    known = cell.load()[1] if enough else []
    pending = []
    flushed = time.monotonic()
    try:
        todo = range(task.done, plan.blocks)
        for block in measure(loss, params, batch, gradient, key, plan, todo):
            if not is_finite(block):
                raise GradbenchError(
                    f"draws of {cell.estimator!r} at {'/'.join(map(str, cell.place))!r} are not "
                    "finite; mend the estimator or the problem, or leave it out of the suite"
                )
            pending.append(block)
            bar.update(block.layers[0].count)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                full, pending = pending, []
                cell.append(full, meta)
                flushed = time.monotonic()
            if enough:
                known.append(block)
                if to_be_looked_at(len(known)) and enough(meta, known):
                    break
        else:
            if enough and not enough(meta, known):
                warnings.warn(
                    f"{cell.estimator} at {'/'.join(map(str, cell.place))} is not as precise as "
                    f"asked for after {plan.draws:,} draws; give more with --draws",
                    GradbenchWarning,
                    stacklevel=2,
                )
    finally:  # also after Ctrl-C: what has been measured is kept
        if pending:
            cell.append(pending, meta)


def _enough(results: Results, suite: Suite, cell: Cell, gradient: Params) -> Enough | None:
    """Tells whether a cell with these constants and blocks is as precise as was asked for."""
    until = suite.until
    if until is None:
        return None
    from gradbench import metrics  # and pandas, as above

    def enough(meta: dict[str, Any] | None, blocks: list[Block]) -> bool:
        if meta is None:
            return False
        moments = results.load_moments(cell.place, cell.estimator)
        found = metrics.Cell.stored(
            cell.place, cell.estimator, meta, blocks, gradient, moments=moments
        )
        return metrics.relative_error(found, until.metrics) <= until.rel_se

    return enough
