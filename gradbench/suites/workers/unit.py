"""The work of a worker, from files to files: a training, an exact gradient, a cell, a method."""

import hashlib
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from filelock import BaseFileLock
from tqdm import tqdm

import gradbench
from gradbench.core import plugins
from gradbench.core.atomic import Json, locked
from gradbench.core.compiling import let_go
from gradbench.core.devices import computing_on, present
from gradbench.core.errors import GradbenchError, lacks_memory, shortened
from gradbench.core.precision import float64
from gradbench.core.progress import Progress
from gradbench.results.store import Results
from gradbench.suites import cells
from gradbench.suites.checkpoints import train_problem
from gradbench.suites.instance import ProblemInstance, build, estimator
from gradbench.suites.problem import Problem
from gradbench.suites.suite import Suite
from gradbench.suites.training.sweep import precision, train_methods

Send = Callable[[str, bytes], None]  # takes a file: its path below the results, and its content
_MOST_BUILT = 4  # problems that a worker keeps


class Job(NamedTuple):
    """What a worker does, with all that it needs.

    Attributes:
        versions: those of the parent, see ``versions``.
        manifest: what files say about the run that they belong to.
        suite: the suite without its problems.
        problem: the problem with its checkpoints, of which ``files`` may have some.
        seed: the seed of the run.
        replicate: the number of the replicate.
        epoch: the checkpoint to measure at; None where the problem is to be trained.
        estimator: the estimator to measure; None where the exact gradient is wanted.
        files: paths below the directory of results, and contents.
        retrain: whether to train what comes trained with the package.
        device: the kind of device that computes.
        optimiser: in a suite of training, the one that the estimator is trained with; the suite
            then has this estimator last, after the exact gradient.
    """

    versions: dict[str, str]
    manifest: Json
    suite: Suite
    problem: Problem
    seed: int
    replicate: int
    epoch: int | None
    estimator: str | None
    files: tuple[tuple[str, bytes], ...]
    retrain: bool
    device: str
    optimiser: str | None = None


def perform(job: Job, send: Send) -> None:
    """Do a job; each file is sent as soon as it is written.

    Jobs in several threads of a process wait for each other, as JAX would compile all at once.

    Raises:
        GradbenchError: what a serial run raises; versions or devices that are not those of the
            parent; or too little memory or disk.
    """
    with _one_at_a_time, _on_this_machine():
        _refuse_other(job.versions, job.device)
        with (
            computing_on(job.device),
            tempfile.TemporaryDirectory(prefix="gradbench-job-") as folder,
        ):
            directory = Path(folder)
            for path, data in job.files:
                target = directory / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            with (
                _Sent(directory, job.manifest, locked(directory), send) as results,
                _precision(job),
            ):
                _measure(job, results)
        if let_go(1):
            estimator.cache_clear()


_one_at_a_time = threading.Lock()


@contextmanager
def _on_this_machine() -> Iterator[None]:
    """Tell in a sentence, with the name of the machine, what it lacks."""
    worker = f"a worker on {os.uname().nodename}"
    try:
        yield
    except ConnectionError:  # the parent is no more
        raise
    except OSError as error:
        raise GradbenchError(
            f"{worker} cannot keep files of its own ({error}); free some space there or let TMPDIR "
            "name another folder, and run the same command to continue"
        ) from error
    except Exception as error:
        if not lacks_memory(error):
            raise
        what = shortened(" ".join(str(error).split()), 200)
        raise GradbenchError(
            f"{worker} has not enough memory ({what}); give fewer workers there, or narrower "
            "networks"
        ) from error


def _precision(job: Job) -> AbstractContextManager[None]:
    """Return the context of the precision that a job is done in."""
    return float64() if job.optimiser is None else precision(job.suite)


class _Sent(Results):
    """Results whose files are sent as soon as they are written."""

    def __init__(self, directory: Path, manifest: Json, lock: BaseFileLock, send: Send) -> None:
        super().__init__(directory, manifest, lock)
        self._send = send

    def write(self, path: Path, data: bytes) -> None:
        """Write a file below the directory, and send it."""
        try:
            super().write(path, data)
        except GradbenchError as error:
            raise error.__cause__ or error from None  # of the system: it is told with the machine
        self._send(path.relative_to(self.directory).as_posix(), data)


def _measure(job: Job, results: Results) -> None:
    built = _built(job.problem, job.seed, job.replicate)
    if job.optimiser is not None:
        with tqdm(total=0, disable=True) as bar:
            train_methods(results, job.suite, built, (job.optimiser,), bar)
        return
    if job.epoch is None:
        train_problem(results, built, job.retrain)
        return
    one = replace(built, problem=_at(built.problem, job.epoch))
    name = job.estimator or job.suite.estimators[0]
    suite = replace(job.suite, estimators=(name,))
    tasks = list(cells.list_tasks(results, suite, one))
    if job.estimator is None:  # with nothing to measure, so that the gradient alone is missing
        tasks = [task._replace(done=task.plan.blocks) for task in tasks]
    with Progress(show=False) as bar:
        cells.measure_problem(results, suite, one, tasks, bar, job.retrain)


def _at(problem: Problem, epoch: int) -> Problem:
    """Return the problem with one of its checkpoints."""
    if problem.training is None:
        return problem
    return replace(problem, training=replace(problem.training, checkpoints=(epoch,)))


_kept: OrderedDict[tuple[str, int, int], ProblemInstance] = OrderedDict()


def _built(problem: Problem, seed: int, replicate: int) -> ProblemInstance:
    """Return a problem made ready; the last ones are kept, as their cells follow each other."""
    key = (repr(problem), seed, replicate)
    if key not in _kept:
        _kept[key] = build(problem, seed, replicate)
        if len(_kept) > _MOST_BUILT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def versions() -> dict[str, str]:
    """Return what the numbers of a process depend on besides its processor.

    These are the sources of gradbench, the releases of JAX, the flags of its compiler, and the
    plugins.
    """
    flags = os.environ.get("XLA_FLAGS", "").split()
    known = sorted(one for one in flags if "host_platform_device_count" not in one)
    return {
        "gradbench": f"{gradbench.__version__} ({_sources()})",
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
        "XLA_FLAGS": " ".join(known) or "none",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "0"),
        **{f"the plugin {name}": version for name, version in _plugins()},
    }


@cache
def _sources() -> str:
    """Return a digest of the sources of the package."""
    found = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(__file__).parents[2].rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _plugins() -> list[tuple[str, str]]:
    """Return the loaded plugins with their versions, files with their digests."""
    parts = (text.rpartition(" ") for text in plugins.loaded())
    return [(name or version, version) for name, _, version in parts]


def _refuse_other(wanted: dict[str, str], device: str) -> None:
    """Refuse to measure by other versions than the parent, or without its kind of device.

    Installed plugins are loaded when they are needed, and may not be so far.
    """
    if device != "cpu" and not present(device):
        raise GradbenchError(
            f"a worker on {os.uname().nodename} has no {device}, and the run has; give all workers "
            "one, or run the command with --device cpu"
        )
    own = versions()
    for what, version in wanted.items():
        found = own.get(what) or _installed(what.removeprefix("the plugin "))
        if found != version:
            raise GradbenchError(
                f"a worker on {os.uname().nodename} has {what} {found}, and the run has {version}; "
                "give all workers the same, and run the same command to continue"
            )


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not at all"
