"""How much sooner two workers have drawn 50 equal cells: ``python benchmarks/workers.py``.

The cells are those of one problem, whose exact gradient takes seconds: relaxations that differ in
their temperature alone, and so share their programs. Serial runs and runs by workers take turns,
each in a process of its own, all with compiled programs in one folder, which a first run has
filled. Two ratios are printed: of the whole runs, with all that happens before the first cell, and
of the cells a second after each worker has done its first one. Times of draws are left out: one
process measures them, with and without workers. The machine has to be idle, as these are seconds of
a clock and not of a processor. XLA computes by all cores in a single process too, where blocks of
draws are large: ``--threads 1`` leaves each process one, so that two workers are compared with one
core.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

PROBLEM = """
title = "A small network on fixed data, at random parameters"

[data]
name = "overlapping_classes"
points = 20

[network]
hidden = [5, 5, 5]
noise = "logistic"
states = [-1, 1]
objective = "logistic_loss"
initialisation = "normalised"
"""
SUITE = """
title = "Equal cells"
problems = ["problem.toml"]
estimators = {estimators}
draws = {draws}
"""


class Found(NamedTuple):
    """Of a run: its ``seconds``, and the ``cells`` a second after the start of its workers."""

    seconds: float
    cells: float


def main() -> None:
    """Print the seconds of each run, its cells a second, and the ratios."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--draws", type=int, default=65_536, help="of each cell, a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of each process; all cores by default")
    asked = parser.parse_args()
    if asked.threads:
        os.environ["NPROC"] = str(asked.threads)  # read by XLA when it begins
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRADBENCH_CACHE"] = f"{folder}/cache"
        (folder / "problem.toml").write_text(PROBLEM)
        suite = folder / "suite.toml"
        specs = [f"concrete(temperature={0.5 + k / 100:.2f})" for k in range(asked.cells)]
        suite.write_text(SUITE.format(draws=asked.draws, estimators=specs))
        measured(suite, folder / "first", None, specs[:2])
        print("compiled", flush=True)
        ratios = []
        for turn in range(asked.rounds):
            one, several = (
                measured(suite, folder / f"{turn}-{workers}", workers)
                for workers in (None, asked.workers)
            )
            ratios.append(Found(one.seconds / several.seconds, several.cells / one.cells))
            print(
                f"serial {one.seconds:.1f} s, {one.cells:.3f} cells a second; {asked.workers} "
                f"workers {several.seconds:.1f} s, {several.cells:.3f} cells a second",
                flush=True,
            )
    whole, cells = (median(ratio) for ratio in zip(*ratios, strict=True))
    print(
        f"{asked.workers} workers are {cells:.2f} times as fast, and {whole:.2f} times with their "
        f"start, of {len(ratios)} rounds"
    )


def measured(suite: Path, out: Path, workers: int | None, only: Sequence[str] = ()) -> Found:
    """Measure a run in a process of its own, perhaps of some estimators only."""
    begin = time.perf_counter()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(run, suite, out, workers, only).result()
    seconds = time.perf_counter() - begin
    ends = defaultdict(float)
    for path in (out / "shards").rglob("*.parquet"):
        ends[path.parent] = max(ends[path.parent], path.stat().st_mtime)
    times = sorted(ends.values())
    first = workers or 1
    return Found(seconds, (len(times) - first) / (times[-1] - times[first - 1]))


def run(suite: Path, out: Path, workers: int | None, only: Sequence[str]) -> None:
    """Run a suite without the times of draws."""
    from gradbench.core.compiling import compile_quickly, kept_programs
    from gradbench.suites import runner

    compile_quickly()  # as the command does
    runner.lack_times = lambda *_: False
    with kept_programs():
        runner.run(suite, out, progress=False, workers=workers, estimators=only)


if __name__ == "__main__":
    main()
