"""Runs that are trained side by side, stored on the way, and continued after any interruption."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.atomic import Floats
from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.seeds import named_seed
from gradbench.results import runs
from gradbench.results.store import Results
from gradbench.suites.train import CALL_SECONDS, SAVE_SECONDS
from gradbench.suites.training.engine import State, advance
from gradbench.suites.training.evaluate import evaluate
from gradbench.suites.training.lanes import Group
from gradbench.suites.training.stored import flattened, load, restored
from gradbench.suites.training.work import is_small, sampled_loss


@dataclass
class Progress:
    """How far runs are: the step, their state, and what was recorded."""

    step: int
    state: State
    curves: dict[str, list[Floats]]
    kept: list[tuple[Params, Any]]


def train_group(results: Results, group: Group, say: Callable[[int], None]) -> None:
    """Train runs to their end, from where they were when they were last interrupted.

    Args:
        results: the directory of results, open to write.
        group: the runs.
        say: is called with the number of steps made, times runs.

    Raises:
        GradbenchError: the results cannot be written at the end.
    """
    plan, identity, lanes = group.plan, group.identity, len(group.lanes)
    if (found := load(results, "runs", identity)) is not None and found.done:
        say(plan.steps * lanes)
        return
    if found is not None:
        progress = _resumed(group, found)
    elif group.begin_after is None:
        progress = _begun(group)
    else:
        progress = _continued(results, group, group.begin_after)
    say(progress.step * lanes)
    rates = jnp.asarray([rate for rate, _ in group.lanes])
    make, numbers = group.make
    how = (group.loss, make, plan.batch, is_small(group.built), numbers, rates, group.keys)
    advance(*how, progress.state, group.built.data, 0, 0)  # compiled before anything is timed
    saved, pace, spent, timed = time.monotonic(), 10.0, 0.0, 0
    while progress.step < plan.steps:
        target = next(p for p in plan.recorded if p > progress.step)
        last = min(target, progress.step + max(int(pace), 1))
        start = time.perf_counter()
        state = advance(*how, progress.state, group.built.data, progress.step, last)
        jax.block_until_ready(state)
        seconds, steps = time.perf_counter() - start, last - progress.step
        pace = min(2 * pace, CALL_SECONDS * steps / max(seconds, 1e-9))
        spent, timed = spent + seconds, timed + steps
        progress.step, progress.state = last, state
        if last == target:
            _record(group, progress)
        say(steps * lanes)
        if progress.step < plan.steps and time.monotonic() - saved > SAVE_SECONDS:
            _save_on_the_way(results, group, progress)
            saved = time.monotonic()
    _save(results, group, progress)
    times = {"seconds": [spent], "steps": [timed], "runs": [lanes]}
    runs.save(results, "times", identity, times, plan.steps, True)


def _begun(group: Group) -> Progress:
    params = group.stacked(lambda built: built.initial())
    zero = jnp.zeros(len(group.lanes), jax.tree.leaves(params)[0].dtype)
    progress = Progress(0, group.begin(zero), {name: [] for name in group.curves}, [])
    _record(group, progress)
    initial = jnp.asarray(progress.curves["loss"][0], zero.dtype)
    progress.state = progress.state._replace(initial=initial)
    return progress


def _continued(results: Results, group: Group, before: Group) -> Progress:
    """Return the first progress of runs that begin where those ``before`` end.

    Raises:
        GradbenchError: these are not finished.
        CorruptFile: their file does not have the state that they ended in.
    """
    stored = runs.load(results, "runs", before.identity)
    if stored is None or not stored.done:
        raise GradbenchError("the runs to go on with are not finished; run again")
    zero = jnp.zeros(len(group.lanes))
    state = restored(stored.arrays, "state", before.begin(zero))
    state = state._replace(learned=group.begin(zero).learned)
    progress = Progress(0, state, {name: [] for name in group.curves}, [])
    _record(group, progress)
    return progress


def _record(group: Group, progress: Progress) -> None:
    """Take the losses and accuracies at a step, and keep parameters that are asked for."""
    built, step, state = group.built, progress.step, progress.state
    key = jax.random.key(named_seed(built.seed, built.problem.base, "evaluation"))
    key = jax.random.fold_in(key, group.offset + step)
    first = slice(group.plan.evaluated)
    found = evaluate(
        built.network,
        sampled_loss(built.network),
        group.plan.samples,
        is_small(built),
        state.params,
        key,
        *jax.tree.map(lambda leaf: leaf[first], (built.data, built.batch)),
    )
    if group.judged and group.judge is not None:
        found[group.curves[-1]] = group.judge(state.params, jax.random.fold_in(key, 1))
    ended = np.asarray(state.diverged) >= 0
    for name in group.curves:
        values = np.asarray(found[name], np.float64)
        progress.curves[name].append(np.where(ended, np.nan, values))
    if step in group.kept:
        progress.kept.append((state.params, state.learned))


def _save_on_the_way(results: Results, group: Group, progress: Progress) -> None:
    """Store where runs are; where that fails, as on a full disk, they go on and say so."""
    try:
        _save(results, group, progress)
    except GradbenchError as error:
        warnings.warn(f"{error}; the training goes on", GradbenchWarning, stacklevel=2)


def _save(results: Results, group: Group, progress: Progress) -> None:
    done = progress.step == group.plan.steps
    arrays: dict[str, Any] = {name: np.stack(rows) for name, rows in progress.curves.items()}
    arrays["steps"] = [step for step in group.plan.recorded if step <= progress.step]
    arrays["diverged"] = np.asarray(progress.state.diverged)
    trees: dict[str, Any] = {f"kept/{k}": tree for k, tree in enumerate(progress.kept)}
    if not done or group.goes_on:
        trees["state"] = progress.state
    for name, tree in trees.items():
        arrays |= flattened(name, tree)
    runs.save(results, "runs", group.identity, arrays, progress.step, done)


def _resumed(group: Group, found: runs.Stored) -> Progress:
    """Return the progress that is stored.

    Raises:
        CorruptFile: what is stored is not the state of such runs.
    """
    start = group.begin(jnp.zeros(len(group.lanes)))
    state = restored(found.arrays, "state", start)
    points = [step for step in group.kept if step <= found.step]
    kept = [
        restored(found.arrays, f"kept/{k}", (start.params, start.learned))
        for k in range(len(points))
    ]
    curves = {name: list(found.arrays[name]) for name in group.curves}
    return Progress(found.step, state, curves, kept)
