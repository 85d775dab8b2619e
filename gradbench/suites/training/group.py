"""Runs that are trained side by side, stored on the way, and continued after any interruption."""

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.atomic import CorruptFile, Floats, Json
from gradbench.core.contract import Loss, Params
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.names import visible_lines
from gradbench.core.seeds import named_seed
from gradbench.results import runs
from gradbench.results.runs import CURVES
from gradbench.results.store import Results
from gradbench.suites.instance import ProblemInstance, estimator
from gradbench.suites.plan import Plan, read_optimiser
from gradbench.suites.problem import as_json
from gradbench.suites.train import OPTIMISERS
from gradbench.suites.training.engine import Make, State, advance, begin
from gradbench.suites.training.evaluate import evaluate
from gradbench.suites.training.work import is_small

SAVE_SECONDS = 15.0  # between two states on disk
_CALL_SECONDS = 3.0  # of one call of compiled code: Ctrl-C and the disk wait no longer


@dataclass(frozen=True)
class Group:
    """Runs of one problem, estimator and optimiser, at several rates and seeds.

    ``built`` is the problem; seeds are numbers of its replicates, which differ in their initial
    parameters, batches and draws, not in the data. ``phase`` is "search" or "report", and ``plan``
    the plan of the runs of that phase.
    """

    built: ProblemInstance
    estimator: str
    optimiser: str
    phase: str
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    plan: Plan
    dtype: str

    @property
    def identity(self) -> Json:
        """All that decides the runs, to the bit on one machine."""
        plan = self.plan
        return {
            "problem": self.built.problem.name,
            "problem_is": as_json(self.built.problem),
            "seed": self.built.seed,
            "estimator": self.estimator,
            "optimiser": self.optimiser,
            "phase": self.phase,
            "rates": list(self.rates),
            "seeds": list(self.seeds),
            "steps": plan.steps,
            "batch": plan.batch,
            "points": list(plan.recorded),
            "kept": list(self.kept),
            "samples": plan.samples,
            "dtype": self.dtype,
            **({} if plan.evaluated is None else {"evaluated": plan.evaluated}),
        }

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps whose parameters are kept."""
        return self.plan.measured_steps if self.phase == "report" else ()

    @property
    def lanes(self) -> list[tuple[float, int]]:
        """The rate and the seed of each run, in order."""
        return [(rate, seed) for rate in self.rates for seed in self.seeds]

    @property
    def loss(self) -> Loss:
        """The estimator."""
        return estimator(self.estimator, self.built.network)

    def stacked(self, each: Callable[[ProblemInstance], Any]) -> Any:
        """Return what a function gives for each run, stacked along a first axis."""
        of = {seed: each(replace(self.built, replicate=seed)) for seed in self.seeds}
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(of[s] for _, s in self.lanes))

    def begin(self, initial: Array) -> State:
        """Return the state before the first step, given the ``initial`` losses [runs]."""
        make, momentum = self.make
        params = self.stacked(lambda built: built.initial())
        return begin(self.loss, make, momentum, params, initial, self.built.data, self.plan.batch)

    @property
    def make(self) -> tuple[Make, Any]:
        """What makes the optimiser, and its momentum."""
        name, momentum = read_optimiser(self.optimiser)
        # As an array it is no constant of the compiled program, which all momenta share.
        return OPTIMISERS.find(name), 0.0 if momentum is None else jnp.asarray(momentum)


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
    progress = _begun(group) if found is None else _resumed(group, found)
    say(progress.step * lanes)
    rates = jnp.asarray([rate for rate, _ in group.lanes])
    keys = group.stacked(lambda built: built.key("training"))
    make, momentum = group.make
    how = (group.loss, make, plan.batch, is_small(group.built), momentum, rates, keys)
    advance(*how, progress.state, group.built.data, 0, 0)  # compiled before anything is timed
    saved, pace, spent, timed = time.monotonic(), 10.0, 0.0, 0
    while progress.step < plan.steps:
        target = next(p for p in plan.recorded if p > progress.step)
        last = min(target, progress.step + max(int(pace), 1))
        start = time.perf_counter()
        state = advance(*how, progress.state, group.built.data, progress.step, last)
        jax.block_until_ready(state)
        seconds, steps = time.perf_counter() - start, last - progress.step
        pace = min(2 * pace, _CALL_SECONDS * steps / max(seconds, 1e-9))
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


def load(results: Results, kind: str, identity: Json) -> runs.Stored | None:
    """Return what is stored, None where nothing is or it is damaged, which is printed."""
    try:
        return runs.load(results, kind, identity)
    except CorruptFile as error:
        print(f"gradbench: {visible_lines(str(error))}; it is begun anew", file=sys.stderr)
        return None


def _begun(group: Group) -> Progress:
    params = group.stacked(lambda built: built.initial())
    zero = jnp.zeros(len(group.lanes), jax.tree.leaves(params)[0].dtype)
    progress = Progress(0, group.begin(zero), {name: [] for name in CURVES}, [])
    _record(group, progress)
    initial = jnp.asarray(progress.curves["loss"][0], zero.dtype)
    progress.state = progress.state._replace(initial=initial)
    return progress


def _record(group: Group, progress: Progress) -> None:
    """Take the losses and accuracies at a step, and keep parameters that are asked for."""
    built, step, state = group.built, progress.step, progress.state
    key = jax.random.key(named_seed(built.seed, built.problem.base, "evaluation"))
    sampled = estimator("reinforce", built.network)
    first = slice(group.plan.evaluated)
    found = evaluate(
        built.network,
        sampled,
        group.plan.samples,
        is_small(built),
        state.params,
        jax.random.fold_in(key, step),
        *jax.tree.map(lambda leaf: leaf[first], (built.data, built.batch)),
    )
    ended = np.asarray(state.diverged) >= 0
    for name in CURVES:
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
    if not done:
        trees["state"] = progress.state
    for name, tree in trees.items():
        leaves = jax.tree.leaves(tree)
        arrays |= {f"{name}/{k}": np.asarray(leaf) for k, leaf in enumerate(leaves)}
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
    curves = {name: list(found.arrays[name]) for name in CURVES}
    return Progress(found.step, state, curves, kept)


def restored(arrays: dict[str, Floats], name: str, like: Any) -> Any:
    """Return the tree that was stored under a name, in the form and the types of another.

    Raises:
        CorruptFile: its arrays are missing, or of another shape.
    """
    leaves, form = jax.tree.flatten(like)
    found = [arrays.get(f"{name}/{k}") for k in range(len(leaves))]
    fits = all(
        one is not None and one.shape == leaf.shape for one, leaf in zip(found, leaves, strict=True)
    )
    if not fits:
        raise CorruptFile(
            f"the stored runs have no {name!r} of the right shapes; delete the directory 'runs' of "
            "the results and run again"
        )
    return jax.tree.unflatten(
        form,
        [jnp.asarray(one).astype(leaf.dtype) for one, leaf in zip(found, leaves, strict=True)],
    )
