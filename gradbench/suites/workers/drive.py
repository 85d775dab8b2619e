"""The loop of the parent: it gives jobs to workers, and writes the files that they send."""

import re
import time
import warnings
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import NamedTuple

import jax

from gradbench.core.arguments import at_least
from gradbench.core.atomic import read_file
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.progress import Progress
from gradbench.core.run import sites_of
from gradbench.estimators.registry import evaluations
from gradbench.results.shards import CheckpointId, is_shard
from gradbench.results.store import Results
from gradbench.suites.cells import Task
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.suite import Suite
from gradbench.suites.workers.cluster import Cluster
from gradbench.suites.workers.engine import Engine, Event, Failed, File, Lost, Refused, Warned
from gradbench.suites.workers.order import Queue, Unit
from gradbench.suites.workers.processes import Processes
from gradbench.suites.workers.unit import Job, versions

_TRIES = 3  # of a job whose workers die
_KINDS = ("checkpoints", "references", "moments", "costs", "shards")
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
    run = _Run(results, suite, problems, bar, retrain)
    if run.queue:
        bar.set_description("the workers")
        with engine:
            run.drive(engine)


@dataclass
class _Running:
    """A unit that a worker has since the time ``began``, and of which so many draws are stored."""

    unit: Unit[What]
    began: float
    draws: int = 0


class _Run:
    """A run while it goes on."""

    def __init__(
        self, results: Results, suite: Suite, problems: Problems, bar: Progress, retrain: bool
    ) -> None:
        self.results, self.problems, self.bar, self.retrain = results, problems, bar, retrain
        self.suite = replace(suite, problems=())
        manifest = results.manifest
        keys = ("schema", "suite_hash", "seed", "draws")
        self.manifest = {key: manifest[key] for key in keys} | {"suite": {"name": suite.name}}
        self.versions = versions()
        self.queue: Queue[What] = Queue()
        self.units: dict[tuple[Hashable, int], list[int]] = {}  # those of each network
        self.left = [_left(results, built, tasks) for built, tasks in problems]
        for number, left in enumerate(self.left):
            if left and not self._add_training(number):
                for epoch in left:
                    self._add_place(number, epoch)

    def drive(self, engine: Engine) -> None:
        """Give out units until all are done."""
        running: dict[Hashable, _Running] = {}
        while self.queue or running:
            for worker in engine.idle():
                if (unit := self.queue.take(worker)) is None:
                    break
                running[worker] = _Running(unit, time.monotonic())
                engine.start(worker, self._job(unit.what))
            for worker, event in engine.wait():
                if isinstance(event, Lost):
                    self.queue.forget(worker)
                if worker not in running:  # it died without a job
                    continue
                if self._is_over(running[worker], event):
                    del running[worker]

    def _is_over(self, running: _Running, event: Event) -> bool:
        """Do what an event asks for, and return whether the unit has ended with it.

        Raises:
            GradbenchError: it ends the run.
        """
        unit = running.unit
        if isinstance(event, File):
            draws = self._write(unit.what, event)
            running.draws += draws
            self.bar.update(draws)
            return False
        if isinstance(event, Warned):
            warnings.warn(event.message, GradbenchWarning, stacklevel=2)
            return False
        if isinstance(event, Refused):
            raise GradbenchError(event.message)
        if isinstance(event, Failed):
            raise RuntimeError(f"a worker failed\n{event.trace}")
        if isinstance(event, Lost):
            self._try_again(unit, event.why)
        else:
            seconds = time.monotonic() - running.began
            self.bar.tell(self._name(unit.what), running.draws, seconds)
            self._go_on(unit.what)
        return True

    def _try_again(self, unit: Unit[What], why: str) -> None:
        what = unit.what._replace(tries=unit.what.tries + 1)
        if what.tries >= _TRIES:
            raise GradbenchError(
                f"workers have died {_TRIES} times at {self._name(what)}, the last one {why}; "
                "perhaps there is not enough memory for so many, so give fewer, and run the same "
                "command to continue"
            )
        self.queue.add(unit._replace(what=what))

    def _go_on(self, what: What) -> None:
        """Add what has waited for a unit that is done."""
        if what.epoch is None:
            built, _ = self.problems[what.problem]
            for epoch in self.left[what.problem]:
                if self.results.load_checkpoint(_place(built, epoch)) is not None:
                    self._add_place(what.problem, epoch)  # else its training has diverged
        elif what.task is None:
            built, _ = self.problems[what.problem]
            self.results.remove_unfinished(_place(built, what.epoch))
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

    def _job(self, what: What) -> Job:
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
            tuple(self._files(built, what.epoch, spec)),
            self.retrain,
        )

    def _files(
        self, built: ProblemInstance, epoch: int | None, spec: str | None
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the files that a job needs, and those that it continues."""
        if epoch is None:
            return
        place, results = _place(built, epoch), self.results
        paths = [results._path("checkpoints", place), results._path("references", place)]
        if spec is not None:
            paths += [results._path(kind, place, spec) for kind in ("moments", "costs")]
            paths += results.cell(*place, spec).shards()
        for path in paths:
            if path.exists():
                yield path.relative_to(results.directory).as_posix(), read_file(path)

    def _write(self, what: What, file: File) -> int:
        """Write a file of a worker, and return how many draws it has."""
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or path.parts[0] not in _KINDS:
            raise GradbenchError(
                f"a worker has sent the file {file.path!r}, which is none of results; give it the "
                "version of gradbench that is here"
            )
        target = self.results.directory / path
        self.results.write(target, file.data)
        if what.task is not None and is_shard(target):
            first, last = map(int, re.split(r"[-.]", target.name)[:2])
            block, draws = what.task.plan.block, what.task.plan.draws
            return min((last + 1) * block, draws) - first * block
        return 0

    def _name(self, what: What) -> str:
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
