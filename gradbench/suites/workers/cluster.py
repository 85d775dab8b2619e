"""Workers of a Dask cluster, which may be anywhere: jobs bring all that they need."""

import itertools
import queue
import time
import traceback
import warnings
from collections.abc import Hashable
from types import TracebackType
from typing import Any, Self

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.suites.workers.engine import Done, Event, Failed, File, Lost, Refused, Warned
from gradbench.suites.workers.unit import Job, perform

_ANSWER = 10.0  # seconds in which a scheduler answers
_AGAIN = 60.0  # seconds in which one that was restarted does
_LONELY = 30.0  # seconds without any worker, after which this is said


class Cluster:
    """The workers of the Dask scheduler at an address, such as "tcp://10.0.0.1:8786".

    Workers may come and go. One that dies while it has a job is replaced by Dask.
    """

    def __init__(self, address: str, keep: bool) -> None:
        self._address, self._keep = address, keep
        self._client: Any = None
        self._names = itertools.count()
        self._futures: dict[Hashable, Any] = {}  # by worker
        self._ended: queue.SimpleQueue[tuple[Hashable, Any]] = queue.SimpleQueue()
        self._lonely: float | None = time.monotonic()

    def __enter__(self) -> Self:
        """Find the scheduler."""
        self._connect(_ANSWER)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel what is left, and leave the cluster as it is."""
        if self._futures and self._client.status == "running":  # else there is nobody to ask
            self._client.cancel(list(self._futures.values()))
        self._client.close()

    def idle(self) -> list[Hashable]:
        """Return the workers without a job."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if workers:
            self._lonely = None
        elif self._lonely is not None and time.monotonic() - self._lonely > _LONELY:
            self._lonely = None
            warnings.warn(
                f"the scheduler at {self._address!r} has no workers yet; the run waits for them",
                GradbenchWarning,
                stacklevel=2,
            )
        return [worker for worker in workers if worker not in self._futures]

    def start(self, worker: Hashable, job: Job) -> None:
        """Give a job to a worker, or to another one if it is no more."""
        key = f"gradbench-{next(self._names)}-{job.problem.name}-{job.epoch}-{job.estimator}"
        future = self._client.submit(
            collect,
            job,
            self._keep,
            key=key,
            workers=[worker],
            allow_other_workers=True,
            pure=False,
        )
        self._futures[worker] = future
        future.add_done_callback(lambda ended: self._ended.put((worker, ended)))

    def wait(self) -> list[tuple[Hashable, Event]]:
        """Return what has happened, after a second also if nothing has.

        Raises:
            GradbenchError: the scheduler is no more.
        """
        if self._client.status == "closed":
            self._connect(_AGAIN)
            lost, self._futures = list(self._futures), {}
            return [(worker, Lost("with its scheduler")) for worker in lost]
        try:
            worker, future = self._ended.get(timeout=1.0)
        except queue.Empty:
            return []
        if self._futures.get(worker) is not future:  # of a scheduler that is no more
            return []
        del self._futures[worker]
        return [(worker, event) for event in _events_of(future)]

    def _connect(self, timeout: float) -> None:
        """Find the scheduler, and let its workers load the plugins of the parent."""
        try:
            from distributed import Client
        except ImportError:
            raise GradbenchError(
                "the workers of a Dask cluster need the package distributed; install it with "
                'pip install "distributed", or take --workers for processes of this machine'
            ) from None
        try:
            self._client = Client(self._address, timeout=timeout, set_as_default=False)
            if files := plugins.files():
                self._client.register_plugin(_loading(files), name="gradbench")
        except (OSError, ValueError) as error:
            if isinstance(error, GradbenchError):
                raise
            raise GradbenchError(
                f"no Dask scheduler answers at {self._address!r} (what was measured is kept); "
                "start one with `dask scheduler`, and give the address that it prints"
            ) from error


def _loading(files: list[str]) -> Any:
    """Return what loads plugin files in all workers, also in those that come later."""
    from distributed import WorkerPlugin

    class Loading(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            for file in files:
                plugins.load(file)

    return Loading()


def _events_of(future: Any) -> list[Event]:
    """Return what has happened to a job that has ended."""
    if future.status in ("cancelled", "lost"):
        return [Lost("with its scheduler")]
    if future.status == "error":
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return [Lost("again and again")]
        return [Lost(f"with {type(error).__name__}")]
    found: list[Event] = future.result()
    return found


def collect(job: Job, keep: bool) -> list[Event]:
    """Do a job on a worker of Dask, and return all that it has written and said."""
    from gradbench.core.compiling import kept_programs

    events: list[Event] = []
    try:
        with warnings.catch_warnings(record=True) as seen, kept_programs(keep):
            warnings.simplefilter("always", GradbenchWarning)
            perform(job, lambda path, data: events.append(File(path, data)))
        events.append(Done())
    except GradbenchError as error:
        events.append(Refused(str(error)))
    except Exception:
        events.append(Failed(traceback.format_exc()))
    said = [Warned(str(one.message)) for one in seen if one.category is GradbenchWarning]
    return [*said, *events]
