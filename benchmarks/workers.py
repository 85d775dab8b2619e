"""How much sooner two workers have drawn 50 equal cells: ``python benchmarks/workers.py``.

Serial runs and runs by workers take turns, all with compiled programs in one folder, which a first
run has filled. Times of draws are left out: one process measures them, with and without workers.
The machine has to be idle, as these are seconds of a clock and not of a processor. XLA computes by
all cores in a single process too, where blocks of draws are large: ``--threads 1`` leaves each
process one, so that two workers are compared with one core.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from gradbench.core.compiling import kept_programs
from gradbench.suites import runner

PROBLEM = """
title = "A small network on fixed data, at random parameters"

[data]
name = "overlapping_classes"
points = 200

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
estimators = ["psa"]
draws = {draws}
replicates = {cells}
"""


def main() -> None:
    """Print the seconds of each run, and the ratio."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cells", type=int, default=50)
    parser.add_argument("--draws", type=int, default=32_768, help="of each cell, some seconds")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of each process; all cores by default")
    asked = parser.parse_args()
    if asked.threads:
        os.environ["NPROC"] = str(asked.threads)  # read by XLA when it begins, here and in workers
    runner.lack_times = lambda *_: False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["GRADBENCH_CACHE"] = f"{folder}/cache"
        (folder / "problem.toml").write_text(PROBLEM)
        suite = folder / "suite.toml"
        suite.write_text(SUITE.format(draws=asked.draws, cells=asked.cells))
        seconds(suite, folder / "first", None)  # which compiles
        found = []
        for turn in range(asked.rounds):
            one, several = (
                seconds(suite, folder / f"{turn}-{workers}", workers)
                for workers in (None, asked.workers)
            )
            found.append(one / several)
            print(f"serial {one:6.1f} s, {asked.workers} workers {several:6.1f} s", flush=True)
    print(f"{asked.workers} workers are {median(found):.2f} times as fast, of {len(found)} rounds")


def seconds(suite: Path, out: Path, workers: int | None) -> float:
    """Seconds of a run, from the beginning to the last cell, with the start of its workers."""
    begin = time.perf_counter()
    with kept_programs():
        runner.run(suite, out, progress=False, workers=workers)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
