"""Workers that are processes of this machine, each with a pipe to the parent."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Hashable
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, NamedTuple, Self

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.suites.workers.engine import Done, Event, Failed, File, Lost, Refused, Warned
from gradbench.suites.workers.unit import Job, perform
from gradbench.suites.workers.watch import signals_wait

_CODE = """
from gradbench.suites.workers import watch
watch.end_with({parent})
from gradbench.suites.workers.processes import work
work({pipe})
"""
_PATIENCE = 10.0  # seconds in which a worker that has nothing to do ends


class _Worker(NamedTuple):
    """A process, and the parent's end of its pipe."""

    number: int
    process: subprocess.Popen[bytes]
    pipe: Connection


class Processes:
    """So many processes of this machine; one that dies is replaced.

    They keep compiled programs in the same folder as the parent, if it does.
    """

    def __init__(self, count: int, keep: bool) -> None:
        self._count, self._keep = count, keep
        self._numbers = itertools.count()
        self._workers: dict[Hashable, _Worker] = {}
        self._busy: set[Hashable] = set()

    def __enter__(self) -> Self:
        """Start the processes."""
        try:
            for _ in range(self._count):
                self._begin()
        except BaseException:
            self._end(at_once=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes, at once if there is an error."""
        self._end(at_once=kind is not None)

    def idle(self) -> list[Hashable]:
        """Return the workers without a job."""
        return [number for number in self._workers if number not in self._busy]

    def start(self, worker: Hashable, job: Job) -> None:
        """Give a job to a worker without one."""
        self._busy.add(worker)
        with contextlib.suppress(OSError):  # it has died, which is seen by the next `wait`
            self._workers[worker].pipe.send(job)

    def wait(self) -> list[tuple[Hashable, Event]]:
        """Return what has happened, after a second also if nothing has."""
        pipes = {worker.pipe: worker for worker in self._workers.values()}
        events: list[tuple[Hashable, Event]] = []
        for pipe in wait(list(pipes), timeout=1.0):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                event: Event = worker.pipe.recv()
            except (EOFError, OSError):
                event = self._replace(worker)
            if isinstance(event, Done | Refused | Failed | Lost):
                self._busy.discard(worker.number)
            events.append((worker.number, event))
        return events

    def _begin(self) -> None:
        ours, theirs = Pipe()
        paths = [os.path.abspath(path) for path in sys.path]  # where the parent finds its modules
        with theirs, signals_wait():
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c"),
                    _CODE.format(parent=os.getpid(), pipe=theirs.fileno()),
                ],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
            worker = _Worker(next(self._numbers), process, ours)
            self._workers[worker.number] = worker
        with contextlib.suppress(OSError):
            ours.send((self._keep, plugins.files()))

    def _replace(self, worker: _Worker) -> Lost:
        """Begin another worker in the place of one that has died."""
        del self._workers[worker.number]
        worker.pipe.close()
        code = worker.process.wait()
        self._begin()
        return Lost(f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}")

    def _end(self, at_once: bool) -> None:
        for worker in self._workers.values():
            if at_once:
                worker.process.kill()
            worker.pipe.close()  # which tells it to end
        for worker in self._workers.values():
            try:
                worker.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers.clear()


def work(descriptor: int) -> None:
    """Do the jobs of the parent until it closes the pipe with this ``descriptor``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    pipe = Connection(descriptor)
    try:
        keep, files = pipe.recv()
        warnings.showwarning = _sending(pipe)
        _work(pipe, keep, files)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent has ended
        return


def _work(pipe: Connection, keep: bool, files: list[str]) -> None:
    from gradbench.core.compiling import collect_less, kept_programs

    collect_less()
    with kept_programs(keep):
        while True:
            try:
                for file in files:
                    plugins.load(file)
                job = pipe.recv()  # which may hold objects of plugins
                perform(job, lambda path, data: pipe.send(File(path, data)))
                pipe.send(Done())
            except GradbenchError as error:
                pipe.send(Refused(str(error)))
            except (EOFError, BrokenPipeError, ConnectionResetError):
                raise
            except Exception:
                pipe.send(Failed(traceback.format_exc()))


def _sending(pipe: Connection) -> Any:
    """Return a function that shows a warning of gradbench where the parent is seen."""
    show = warnings.showwarning

    def send(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, GradbenchWarning):
            pipe.send(Warned(str(message)))
        else:
            show(message, category, *where, **more)

    return send
