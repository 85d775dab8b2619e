"""Suites of cells by workers: units are trainings of problems, exact gradients and cells."""

import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from gradbench.core.arguments import at_least
from gradbench.core.errors import GradbenchError
from gradbench.core.progress import Progress
from gradbench.core.run import sites_of
from gradbench.estimators.registry import evaluations
from gradbench.results.shards import CheckpointId, is_shard
from gradbench.results.store import Results
from gradbench.suites import unfinished
from gradbench.suites.cells import Task
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.suite import Suite
from gradbench.suites.workers.cluster import Cluster
from gradbench.suites.workers.engine import Engine
from gradbench.suites.workers.loop import Loop
from gradbench.suites.workers.order import Unit
from gradbench.suites.workers.processes import Processes
from gradbench.suites.workers.unit import Job

Problems = Sequence[tuple[ProblemInstance, Sequence[Task]]]


def engine_of(workers: int | None, dask: str | None) -> Engine | None:
    """Return the workers that are asked for, None for a serial run.

    Raises:
        GradbenchError: not a number of workers, or workers of both kinds.
    """
    keep = bool(jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]
    if dask is not None:
        if workers is not None:
            raise GradbenchError(
                f"the run got {workers} workers here and those of {dask!r}; give one of the two"
            )
        return Cluster(dask, keep)
    if workers is None:
        return None
    return Processes(at_least(1, "the number of workers", workers), keep)


class What(NamedTuple):
    """A unit: the training of a problem, or an exact gradient or a cell at one of its checkpoints.

    Attributes:
        problem: the number of the problem.
        epoch: the checkpoint, None for the training.
        task: the cell, None for the training and the exact gradient.
        tries: how often its worker has died.
    """

    problem: int
    epoch: int | None = None
    task: Task | None = None
    tries: int = 0


def distribute(
    engine: Engine, results: Results, suite: Suite, problems: Problems, bar: Progress, retrain: bool
) -> None:
    """Let workers measure what is left of cells, as ``measure_problem`` does.

    Args:
        engine: the workers, which are started here if there is anything to do.
        results: where all is stored.
        suite: what is measured.
        problems: the problems with their cells.
        bar: the bar of progress.
        retrain: whether to train what comes trained with the package.

    Raises:
        GradbenchError: what a serial run raises; a job whose workers die again and again; or no
            workers.
        RuntimeError: a worker failed by an error that is none of the input.
    """
    _Cells(results, suite, problems, bar, retrain).drive(engine)


class _Cells(Loop[What]):
    """A run while it goes on."""

    kinds = ("checkpoints", "references", "moments", "costs", "shards", "unfinished")

    def __init__(
        self, results: Results, suite: Suite, problems: Problems, bar: Progress, retrain: bool
    ) -> None:
        super().__init__(results, suite, bar, retrain)
        self.problems = problems
        self.units: dict[tuple[Hashable, int], list[int]] = {}  # those of each network
        self.left = [_left(results, built, tasks) for built, tasks in problems]
        for number, left in enumerate(self.left):
            if left and not self._add_training(number):
                for epoch in left:
                    self._add_place(number, epoch)

    def ended(self, what: What, draws: int, seconds: float) -> None:
        """Tell that a unit is done, and add what has waited for it."""
        self.bar.tell(self.name(what), draws, seconds)
        if what.epoch is None:
            built, _ = self.problems[what.problem]
            unfinished.remove_training(self.results, built.problem.name, built.replicate)
            for epoch in self.left[what.problem]:
                if self.results.load_checkpoint(_place(built, epoch)) is not None:
                    self._add_place(what.problem, epoch)  # else its training has diverged
        elif what.task is None:
            built, _ = self.problems[what.problem]
            unfinished.remove_gradient(self.results, _place(built, what.epoch))
            self._add_cells(what.problem, what.epoch)

    def _add_training(self, number: int) -> bool:
        """Add the training of a problem, if a checkpoint is missing."""
        built, _ = self.problems[number]
        places = (_place(built, epoch) for epoch in built.problem.checkpoints)
        if all(self.results.load_checkpoint(place) is not None for place in places):
            return False
        training = built.problem.training
        cost = 0.0
        if training is not None:
            cost = max(training.checkpoints) * self._cost(built, training.estimator)
        self.queue.add(Unit(What(number), (built.network, "training"), 0, cost))
        return True

    def _add_place(self, number: int, epoch: int) -> None:
        """Add what can be measured at a checkpoint whose parameters are there."""
        built, _ = self.problems[number]
        if self.results.load_reference(_place(built, epoch)) is not None:
            self._add_cells(number, epoch)
        else:
            self.queue.add(Unit(What(number, epoch), (built.network, "gradient"), 1))

    def _add_cells(self, number: int, epoch: int) -> None:
        built, _ = self.problems[number]
        for task in self.left[number][epoch]:
            spec = task.cell.estimator
            draws = task.plan.draws - task.done * task.plan.block
            cost = draws * self._cost(built, spec)
            self.queue.add(Unit(What(number, epoch, task), (built.network, spec), 2, cost))

    def _cost(self, built: ProblemInstance, spec: str) -> float:
        """Return about how long a draw takes: evaluations, of all examples, of so many units."""
        examples = len(jax.tree.leaves(built.batch)[0])
        key = (built.network, examples)
        if key not in self.units:
            sites = sites_of(built.network, built.shapes(), built.batch)
            self.units[key] = [site.size for site in sites]
        units = self.units[key]
        return float(evaluations(spec, units) * examples * sum(units))

    def job(self, what: What) -> Job:
        """Return what a worker needs to do a unit."""
        built, _ = self.problems[what.problem]
        spec = what.task.cell.estimator if what.task else None
        return Job(
            self.versions,
            self.manifest,
            self.suite,
            built.problem,
            built.seed,
            built.replicate,
            what.epoch,
            spec,
            self.files(self._paths(built, what.epoch, spec)),
            self.retrain,
            self.device,
        )

    def _paths(self, built: ProblemInstance, epoch: int | None, spec: str | None) -> Iterator[Path]:
        """Yield the files that a job needs, and those that it continues, if they are there."""
        results = self.results
        if epoch is None:
            yield from (results._path("checkpoints", place) for place in built.places)
            yield unfinished.training_file(results, built.problem.name, built.replicate)
            return
        place = _place(built, epoch)
        yield results._path("checkpoints", place)
        yield results._path("references", place)
        if spec is not None:
            yield from (results._path(kind, place, spec) for kind in ("moments", "costs"))
            yield from results.cell(*place, spec).shards()

    def draws(self, what: What, path: Path) -> int:
        """Return how many draws a file has that a worker has sent."""
        if what.task is None or not is_shard(path):
            return 0
        first, last = map(int, re.split(r"[-.]", path.name)[:2])
        block, draws = what.task.plan.block, what.task.plan.draws
        return min((last + 1) * block, draws) - first * block

    def name(self, what: What) -> str:
        """Return what a unit is called."""
        problem = self.problems[what.problem][0].problem
        if what.epoch is None:
            return f"{problem.name}: training"
        doing = what.task.cell.estimator if what.task else "exact gradient"
        return f"{problem.name}, {problem.checkpoint_name(what.epoch)}: {doing}"


def _place(built: ProblemInstance, epoch: int) -> CheckpointId:
    """Return the place of a checkpoint."""
    problem = built.problem
    return CheckpointId(problem.name, built.replicate, problem.checkpoint_name(epoch))


def _left(results: Results, built: ProblemInstance, tasks: Sequence[Task]) -> dict[int, list[Task]]:
    """Return the cells that are not finished, by checkpoint; also where a gradient is missing."""
    epochs = {built.problem.checkpoint_name(epoch): epoch for epoch in built.problem.checkpoints}
    left: dict[int, list[Task]] = {epochs[task.cell.place.checkpoint]: [] for task in tasks}
    for task in tasks:
        if task.done < task.plan.blocks:
            left[epochs[task.cell.place.checkpoint]].append(task)
    return {
        epoch: own
        for epoch, own in left.items()
        if own or results.load_reference(_place(built, epoch)) is None
    }
