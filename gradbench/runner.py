"""Running suites: cells that are not finished yet are measured and stored, block by block."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from gradbench import exact
from gradbench.errors import GradbenchError
from gradbench.estimators import check_spec
from gradbench.estimators.learned import fitted
from gradbench.files import encode
from gradbench.measure import Plan, layer_names, layer_vectors, make_plan, measure
from gradbench.model import Loss, Params
from gradbench.precision import float64
from gradbench.problems.build import Built, build, estimator
from gradbench.shards import Cell, CorruptShard, Place
from gradbench.store import Results
from gradbench.suite import Suite, load_suite

_FLUSH_SECONDS = 3.0  # what a killed run loses at most
_ENUMERATED = 1 << 23  # draws of one example that exact moments may take: some seconds


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

    Raises:
        GradbenchError: anything wrong with the suite, its problems or the directory.
    """
    suite = _resolve(suite, draws, quick)
    problems = _build(suite, seed)
    results = Results.open_or_create(
        out or Path("results") / suite.name, suite.as_dict(), seed, suite.draws
    )
    with results, float64():
        tasks = [list(_tasks(results, suite, built)) for built in problems]
        everything = [task for group in tasks for task in group]
        with tqdm(
            total=suite.draws * len(everything),
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
    suite: str | Suite, seed: int = 0, draws: int | None = None, quick: bool = False
) -> str:
    """What ``run`` would do, as text; everything that can be checked without running is checked.

    Raises:
        GradbenchError: as ``run``.
    """
    suite = _resolve(suite, draws, quick)
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
    total = cells * suite.draws
    lines.append(f"  {cells} cells of {suite.draws:,} draws, {total:,} draws in all")
    return "\n".join(lines)


def _resolve(suite: str | Suite, draws: int | None, quick: bool) -> Suite:
    """The suite with its number of draws, all estimators in it known."""
    if isinstance(suite, Suite) and quick:
        raise GradbenchError("quick got a Suite; give its name or path, or load_suite(name, True)")
    suite = suite if isinstance(suite, Suite) else load_suite(suite, quick)
    suite = suite if draws is None else suite.with_draws(draws)
    for spec in suite.estimators:
        check_spec(spec)
    for name in (*suite.estimators, *(problem.name for problem in suite.problems)):
        encode(name)  # refuses, before anything is written, what no folder can be called
    make_plan(suite.draws, suite.averages)
    return suite


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
    plan = make_plan(suite.draws, suite.averages, coordinates)
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
            loss = fitted(
                estimator(task.cell.estimator, built.network),
                trained,
                built.key(f"fit at {place.checkpoint}"),
                built.batch,
            )
            _enumerate(results, task.cell, loss, trained, built.batch)
            _measure_cell(task, loss, built, params, batch, gradient, bar)


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
    if exact.moments_work(loss, params, batch) > _ENUMERATED:
        return
    found = exact.moments(loss, params, batch)
    mean, variance = layer_vectors(found.mean), layer_vectors(found.variance)
    results.save_moments(cell.place, cell.estimator, mean, variance)


def _measure_cell(
    task: Task, loss: Loss, built: Built, params: Params, batch: Any, gradient: Any, bar: tqdm
) -> None:
    """Measures the blocks that are missing in a cell, storing them every few seconds."""
    cell, plan = task.cell, task.plan
    key = built.key(f"draws at {cell.place.checkpoint}")
    meta = {**plan._asdict(), "layer_names": layer_names(params)}
    pending = []
    flushed = time.monotonic()
    try:
        todo = range(task.done, plan.blocks)
        for block in measure(loss, params, batch, gradient, key, plan, todo):
            pending.append(block)
            bar.update(block.layers[0].count)
            if time.monotonic() - flushed > _FLUSH_SECONDS:
                full, pending = pending, []
                cell.append(full, meta)
                flushed = time.monotonic()
    finally:  # also after Ctrl-C: what has been measured is kept
        if pending:
            cell.append(pending, meta)
