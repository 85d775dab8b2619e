"""What a command takes to schedule a sweep of many cells: ``python benchmarks/scheduling.py``.

Its workers do nothing, and say at once that they are done. So all that is seen is the command's own
work: the list of cells, their order, and a job with its files for each, in the directory of a real
run. A network and its estimators are those of a sweep; there are as many replicates as the cells
need. Seconds are those of the processor. Memory is what Python has allocated, in a second run: at
the list of cells, at the most, and when all cells are done, above what there was before the list.
"""

import argparse
import multiprocessing
import tempfile
import time
import tracemalloc
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from unittest import mock

ESTIMATORS = 100  # at each of the checkpoints
PROBLEM = """
title = "A small network"

[data]
name = "overlapping_classes"
points = 4

[network]
hidden = [2]
noise = "logistic"
states = [-1, 1]
objective = "logistic_loss"
initialisation = "normalised"
"""
SUITE = """
title = "Many cells"
problems = ["problem.toml"]
estimators = {estimators}
draws = 64
replicates = {replicates}
"""


class Idle:
    """Workers that end each job at once."""

    def __init__(self, count):
        self._workers, self._running = range(count), deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def idle(self):
        """Return the workers without a job."""
        return [worker for worker in self._workers if worker not in self._running]

    def start(self, worker, job):
        """Take a job."""
        self._running.append(worker)

    def wait(self):
        """End the first job."""
        from gradbench.suites.workers.engine import Done

        return [(self._running.popleft(), Done())]


def main() -> None:
    """Print time and memory of sweeps."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[1000, 10_000, 30_000])
    parser.add_argument("--workers", type=int, default=8)
    asked = parser.parse_args()
    for cells in asked.cells:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            seconds = process.submit(scheduled, cells, asked.workers, False).result()["seconds"]
            found = process.submit(scheduled, cells, asked.workers, True).result()
        memory = ", ".join(f"{found[at] / 2**20:.1f} MB {at}" for at in ("listed", "most", "done"))
        print(f"{cells:,} cells: {1e3 * seconds / cells:.3f} ms and", end=" ")
        print(f"{found['most'] / cells / 2**10:.1f} kB a cell; {memory}", flush=True)


def scheduled(cells: int, workers: int, traced: bool) -> dict[str, float]:
    """Return seconds, or bytes, of a sweep in a fresh directory."""
    from gradbench.results.store import Results
    from gradbench.suites import runner

    found: dict[str, float] = {}
    honest_list, honest = runner.list_tasks, runner.distribute

    def list_tasks(*args, **options):
        if traced and not tracemalloc.is_tracing():
            tracemalloc.start()  # the problems are there
        return honest_list(*args, **options)

    def distribute(*args):
        begin = time.process_time()
        found["listed"] = tracemalloc.get_traced_memory()[0]
        honest(*args)
        found["seconds"] = time.process_time() - begin
        found["done"], found["most"] = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    specs = [f"concrete(temperature={0.5 + k / 1000:.3f})" for k in range(ESTIMATORS)]
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.object(Results, "load_checkpoint", lambda *_: ()),
        mock.patch.object(Results, "load_reference", lambda *_: ()),
        mock.patch.object(runner, "engine_of", lambda *_: Idle(workers)),
        mock.patch.object(runner, "lack_times", lambda *_: False),
        mock.patch.object(runner, "list_tasks", list_tasks),
        mock.patch.object(runner, "distribute", distribute),
    ):
        folder = Path(name)
        (folder / "problem.toml").write_text(PROBLEM)
        suite = SUITE.format(estimators=specs, replicates=cells // ESTIMATORS)
        (folder / "suite.toml").write_text(suite)
        runner.run(folder / "suite.toml", folder / "out", progress=False, force=True)
    return found


if __name__ == "__main__":
    main()
