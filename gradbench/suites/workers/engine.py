"""What the parent sees of workers: which of them wait for a job, and what happens to the others."""

from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from gradbench.suites.workers.unit import Job


class File(NamedTuple):
    """A file that a worker has written."""

    path: str
    data: bytes


class Done(NamedTuple):
    """A worker has done its job."""


class Lost(NamedTuple):
    """A worker has died, which lost what it has not sent; ``why`` ends a sentence."""

    why: str


class Refused(NamedTuple):
    """A job cannot be done; ``message`` is that of the ``GradbenchError``."""

    message: str


class Failed(NamedTuple):
    """A job has failed by an error that is none of the input; ``trace`` is where."""

    trace: str


class Warned(NamedTuple):
    """A worker warns."""

    message: str


Event = File | Done | Lost | Refused | Failed | Warned


class Engine(Protocol):
    """Workers, which are there inside of its context.

    A worker has one job at a time. Its name may be anything, and is never that of another one. A
    worker that is lost is not named again, but another one may come in its place.
    """

    def __enter__(self) -> Self:
        """Start workers, or find them."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End workers, at once if there is an error."""

    def idle(self) -> Iterable[Hashable]:
        """Return the workers without a job."""

    def start(self, worker: Hashable, job: Job) -> None:
        """Give a job to a worker without one."""

    def wait(self) -> list[tuple[Hashable, Event]]:
        """Return what has happened, after some time also if nothing has.

        Raises:
            GradbenchError: there are no workers any more.
        """
