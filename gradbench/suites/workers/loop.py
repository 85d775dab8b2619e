"""The loop of the parent: it gives jobs to workers, and writes the files that they send."""

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from gradbench.core.atomic import read_file
from gradbench.core.devices import kind
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.results.store import Results
from gradbench.suites.suite import Suite
from gradbench.suites.workers.engine import Engine, Event, Failed, File, Lost, Refused, Warned
from gradbench.suites.workers.order import Queue, Unit
from gradbench.suites.workers.unit import Job, versions

_TRIES = 3  # of a job whose workers die


class What(Protocol):
    """What a unit is: a named tuple that says, among others, how often its worker has died."""

    @property
    def tries(self) -> int:
        """How often its worker has died."""

    def _replace(self, *, tries: int = ...) -> Self:
        """Return it with another number of tries, as a named tuple does."""


W = TypeVar("W", bound=What)


@dataclass
class _Running(Generic[W]):
    """A unit that a worker has since the time ``began``, of which so many draws are stored."""

    unit: Unit[W]
    began: float
    draws: int = 0


class Loop(ABC, Generic[W]):
    """A run by workers while it goes on.

    Args:
        results: where all is stored.
        suite: what is done.
        bar: the bar of progress.
        retrain: whether to train what comes trained with the package.
    """

    kinds: ClassVar[tuple[str, ...]]  # of the files that workers may send

    def __init__(self, results: Results, suite: Suite, bar: Any, retrain: bool = False) -> None:
        self.results, self.bar, self.retrain = results, bar, retrain
        self.suite = replace(suite, problems=())
        keys = ("schema", "suite_hash", "seed", "draws")
        self.manifest = {key: results.manifest[key] for key in keys}
        self.manifest |= {"suite": {"name": suite.name}}
        self.versions, self.device = versions(), kind()
        self.queue: Queue[W] = Queue()

    @abstractmethod
    def job(self, what: W) -> Job:
        """Return what a worker needs to do a unit."""

    @abstractmethod
    def name(self, what: W) -> str:
        """Return what a unit is called."""

    def draws(self, what: W, path: Path) -> int:
        """Return how many draws a file has that a worker has sent."""
        return 0

    def ended(self, what: W, draws: int, seconds: float) -> None:
        """Tell that a unit is done, and add what has waited for it."""

    def drive(self, engine: Engine) -> None:
        """Give out units until all are done; the engine is started if there is anything to do.

        Raises:
            GradbenchError: what a serial run raises; a unit whose workers die again and again; or
                no workers.
            RuntimeError: a worker failed by an error that is none of the input.
        """
        if not self.queue:
            return
        self.bar.set_description("the workers")
        running: dict[Hashable, _Running[W]] = {}
        with engine:
            while self.queue or running:
                for worker in engine.idle():
                    if (unit := self.queue.take(worker)) is None:
                        break
                    running[worker] = _Running(unit, time.monotonic())
                    engine.start(worker, self.job(unit.what))
                for worker, event in engine.wait():
                    if isinstance(event, Lost):
                        self.queue.forget(worker)
                    if worker not in running:  # it died without a job
                        continue
                    if self._is_over(running[worker], event):
                        del running[worker]

    def _is_over(self, running: _Running[W], event: Event) -> bool:
        """Do what an event asks for, and return whether the unit has ended with it.

        Raises:
            GradbenchError: it ends the run.
        """
        unit = running.unit
        if isinstance(event, File):
            draws = self.draws(unit.what, self._write(event))
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
            self.ended(unit.what, running.draws, time.monotonic() - running.began)
        return True

    def _try_again(self, unit: Unit[W], why: str) -> None:
        what = unit.what._replace(tries=unit.what.tries + 1)
        if what.tries >= _TRIES:
            raise GradbenchError(
                f"workers have died {_TRIES} times at {self.name(what)}, the last one {why}; "
                "perhaps there is not enough memory for so many, so give fewer, and run the same "
                "command to continue"
            )
        self.queue.add(unit._replace(what=what))

    def files(self, paths: Iterable[Path]) -> tuple[tuple[str, bytes], ...]:
        """Return those of some files that are there, as jobs have them."""
        directory = self.results.directory
        return tuple(
            (path.relative_to(directory).as_posix(), read_file(path))
            for path in paths
            if path.exists()
        )

    def _write(self, file: File) -> Path:
        """Write a file of a worker, and return its path."""
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts or path.parts[0] not in self.kinds:
            raise GradbenchError(
                f"a worker has sent the file {file.path!r}, which is none of results; give it the "
                "version of gradbench that is here"
            )
        target = self.results.directory / path
        self.results.write(target, file.data)
        return target
