"""Tasks that take turns, in CPU time of all threads: what the comparisons with others share."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

Task = Callable[[], Any]
ROUNDS, SECONDS = 7, 0.5


def rate(n: int, task: Task, seconds: float = SECONDS) -> float:
    """Things per second of CPU time of a task that makes n, after a call that warms up."""
    task()
    calls, begin = 0, time.process_time()
    while (spent := time.process_time() - begin) < seconds:
        task()
        calls += 1
    return n * calls / spent


def rates(tasks: Sequence[tuple[int, Task]], rounds: int = ROUNDS) -> list[tuple[float, ...]]:
    """Return the rate of each task, (n, task), in each round; in a round they take turns."""
    found = [[rate(n, task) for n, task in tasks] for _ in range(rounds)]
    return list(zip(*found, strict=True))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and range of the ratios within the rounds."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{median(ratios):7.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
