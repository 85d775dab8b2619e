"""The cells of a suite, measured and stored until they are done."""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from gradbench.core.contract import Loss, Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.pytrees import layer_names, layer_vectors
from gradbench.core.run import sites_of
from gradbench.estimators.adaptive import fitted
from gradbench.estimators.registry import evaluations
from gradbench.measure import exact_reference
from gradbench.measure.blocks import Block, is_finite
from gradbench.measure.draws import (
    Plan,
    layer_moments,
    make_plan,
    measure,
    seconds_per_draw,
)
from gradbench.metrics.stopping import is_check_due
from gradbench.results.shards import CellStore, CheckpointId, CorruptShard
from gradbench.results.store import Results
from gradbench.suites.build import ProblemInstance, estimator
from gradbench.suites.suite import Suite

_FLUSH_SECONDS = 3.0  # what a killed run loses at most
_ENUMERATED = 1 << 23  # draws of one example that exact moments may take: some seconds

# Whether the blocks of a cell, with its constants, are enough.
Enough = Callable[[dict[str, Any] | None, list[Block]], bool]


class Task(NamedTuple):
    """A cell to measure: where it belongs, how its draws are cut, how many blocks are stored."""

    cell: CellStore
    plan: Plan
    done: int


def _plan(suite: Suite, coordinates: int = 1) -> Plan:
    """How the draws of a cell are cut; where they end with a precision, as if they were few."""
    if suite.until is None:
        return make_plan(suite.draws, suite.averages, coordinates)
    plan = make_plan(suite.until.first, suite.averages, coordinates)
    return plan._replace(draws=make_plan(suite.draws).draws)  # which refuses too many


def _tasks(results: Results, suite: Suite, built: ProblemInstance) -> Iterator[Task]:
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


def _places(built: ProblemInstance) -> list[CheckpointId]:
    names = (built.problem.checkpoint_name(epoch) for epoch in built.problem.checkpoints)
    return [CheckpointId(built.problem.name, built.replicate, name) for name in names]


def _measure_problem(
    results: Results, suite: Suite, built: ProblemInstance, tasks: list[Task], bar: tqdm
) -> None:
    """Measures the unfinished cells of a problem, training it first where it is not stored.

    A reference that is missing is computed anew although its cells may be finished.
    """
    left: dict[CheckpointId, list[Task]] = {place: [] for place in _places(built)}
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
            if enough and is_check_due(task.done) and enough(*task.cell.load()):
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


def _train(results: Results, built: ProblemInstance) -> None:
    """Stores the parameters at all checkpoints of a problem, unless they are there."""
    places = _places(built)
    if all(results.load_checkpoint(place) is not None for place in places):
        return
    for place, params in zip(places, built.checkpoints(), strict=True):
        results.save_checkpoint(place, params)


def _reference(
    results: Results, built: ProblemInstance, place: CheckpointId, params: Params
) -> Params:
    """The exact gradient at a checkpoint, computed and stored unless it is there: per layer."""
    stored = results.load_reference(place)
    if stored is None:
        reference = exact_reference.exact_gradient(built.network, params, built.batch)
        info = {"route": reference.route, "agreement": reference.agreement}
        results.save_reference(place, reference.value, layer_vectors(reference.gradient), info)
        stored = results.load_reference(place)
        assert stored is not None
    return stored.gradient


def _enumerate(results: Results, cell: CellStore, loss: Loss, params: Params, batch: Any) -> None:
    """Stores the exact moments of a cell, where they can be had in seconds, unless it has them."""
    if results.load_moments(cell.place, cell.estimator) is not None:
        return
    found = layer_moments(loss, params, batch, _ENUMERATED)
    if found is not None:
        mean, variance = zip(*found, strict=True)
        results.save_moments(cell.place, cell.estimator, mean, variance)


def _price(
    results: Results, task: Task, loss: Loss, built: ProblemInstance, params: Params, batch: Any
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
    built: ProblemInstance,
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
                if is_check_due(len(known)) and enough(meta, known):
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


def _enough(results: Results, suite: Suite, cell: CellStore, gradient: Params) -> Enough | None:
    """Tells whether a cell with these constants and blocks is as precise as was asked for."""
    until = suite.until
    if until is None:
        return None
    from gradbench import metrics

    def enough(meta: dict[str, Any] | None, blocks: list[Block]) -> bool:
        if meta is None:
            return False
        moments = results.load_moments(cell.place, cell.estimator)
        found = metrics.Measurement.stored(
            cell.place, cell.estimator, meta, blocks, gradient, moments=moments
        )
        return metrics.relative_error(found, until.metrics) <= until.rel_se

    return enough
