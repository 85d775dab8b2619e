"""What a suite asks for, computed from its text before anything is built; too much is refused.

The numbers of a suite are someone's, and a slip of the pen in one of them, or an attack, would run
for years or fill the memory. The hours are a guess to be right within a factor of some five on a
laptop: each cell compiles its programs, each draw evaluates its network.
"""

import math
import os
from typing import NamedTuple

from gradbench.core.errors import GradbenchError
from gradbench.estimators.registry import evaluations
from gradbench.models.layer import Shape, units
from gradbench.suites.forms import Data
from gradbench.suites.networks import layer_form
from gradbench.suites.problem import Problem
from gradbench.suites.suite import Suite

MOST_HOURS = 48.0
MOST_GIGABYTES = 8.0
_CELL = 1.5  # seconds: a cell is traced and compiled, timed and stored
_EVALUATION = 2e-8  # seconds: a small network on one example, within a large batch
_STEP = 2e-5  # seconds: a step of training
_USUAL = 200  # examples, where a data set is not asked for so many
_SINGLE = ("nothing", "quadratic_form")  # data sets of one example
_CHECKPOINT = 0.1  # seconds: the checks of an exact gradient
_TRANSITION = 1.5e-8  # seconds: a pair of states of two neighbouring layers, for an exact gradient
_GRADIENT = 600.0  # seconds: what is more work is refused, or sampled


class Budget(NamedTuple):
    """What a suite takes: numbers of cells and draws, hours, and gigabytes of memory."""

    cells: int
    draws: int
    epochs: int
    hours: float
    gigabytes: float

    def check(self, name: str) -> None:
        """Refuse more than a slip of the pen would be told from a wish.

        Raises:
            GradbenchError: names what is too much.
        """
        what = f"{self.cells:,} cells, {self.draws:,} draws and {self.epochs:,} epochs"
        refuse_too_much(name, what, self.hours, self.gigabytes)


def refuse_too_much(name: str, what: str, hours: float, gigabytes: float) -> None:
    """Refuse a suite that asks for days, or for more memory than is likely to be meant.

    Args:
        name: the suite.
        what: what it asks for, in words.
        hours: the time that this takes.
        gigabytes: the memory.

    Raises:
        GradbenchError: names what is too much.
    """
    remedy = "make it smaller, or run it with --force"
    if hours > MOST_HOURS:
        raise GradbenchError(
            f"the suite {name!r} asks for {what}, some {_rounded(hours)} hours, more than "
            f"{MOST_HOURS:.0f}; {remedy}"
        )
    if gigabytes > MOST_GIGABYTES:
        raise GradbenchError(
            f"the suite {name!r} asks for some {_rounded(gigabytes)} GB of memory, more "
            f"than {MOST_GIGABYTES:.0f}; {remedy}"
        )


def budget(suite: Suite) -> Budget:
    """Return what a suite takes, without making anything of it."""
    cells = draws = epochs = 0
    seconds = gigabytes = 0.0
    for problem in suite.problems:
        places = len(problem.checkpoints) * suite.replicates
        measured, data = (_examples(part) for part in (problem.measured, problem.data))
        sizes = _units(problem)
        cells += places * len(suite.estimators)
        draws += places * len(suite.estimators) * suite.draws
        trained = max(problem.checkpoints) * suite.replicates
        epochs += trained
        of_one = [_evaluations(spec, sizes) * measured for spec in suite.estimators]
        seconds += places * (len(suite.estimators) * _CELL + _CHECKPOINT)
        seconds += places * suite.draws * sum(of_one) * _EVALUATION
        seconds += places * min(measured * _transitions(sizes) * _TRANSITION, _GRADIENT)
        if problem.training:
            seconds += trained * max(1, data // problem.training.batch) * _STEP
        # The data, and all states that one draw looks at.
        numbers = [_entries(problem.measured), _entries(problem.data), max(of_one) * sum(sizes)]
        gigabytes = max(gigabytes, 8e-9 * max(numbers))
    return Budget(cells, draws, epochs, seconds / 3600, gigabytes)


def _evaluations(spec: str, units: list[int]) -> float:
    if spec.partition("(")[0] == "exact":  # every draw is the same
        return 0.0
    return min(float(evaluations(spec, units)), 1e30)


def _examples(data: Data) -> int:
    """Return the number of examples of a data set, which is the first of its whole numbers."""
    return next(iter(_sizes(data)), _USUAL) if data.name not in _SINGLE else 1


def _entries(data: Data) -> int:
    """Return the most numbers that a data set may consist of: the product of its whole numbers.

    One of a single example with one size is a square, as that of a quadratic form.
    """
    sizes = _sizes(data)
    return math.prod(sizes) ** (2 if data.name in _SINGLE else 1)


def _sizes(data: Data) -> list[int]:
    values = data.arguments.values()
    return [value for value in values if type(value) is int and value > 0]


def _units(problem: Problem) -> list[int]:
    """Return the numbers of units of the stochastic layers, 8 where only the data tell it."""
    network, found = problem.network, []
    below: Shape = 8 if network.inputs is None else network.inputs
    for described in network.hidden:
        try:
            below = layer_form(described).layer(below, network.noise).outputs
        except GradbenchError:  # which is told when the network is made
            below = 8
        found.append(units(below))
    return found


def _transitions(sizes: list[int]) -> float:
    """Return the number of pairs of states of neighbouring layers, of a chain of these sizes."""
    pairs = zip([0, *sizes], sizes, strict=False)
    return float(sum(2.0 ** min(m + n, 100) for m, n in pairs))


def _rounded(number: float) -> str:
    """Return a number with two digits, as 0.012, 3.4, 120 or 2,800,000."""
    if not math.isfinite(number) or number <= 0:
        return "0" if number <= 0 else "endless"
    digits = 1 - math.floor(math.log10(number))
    return f"{round(number, digits):,.{max(0, digits)}f}"


def in_words(hours: float, gigabytes: float, disk: float) -> str:
    """Return what a suite takes in words, such as "some 0.02 hours ..., 3 MB on disk".

    Args:
        hours: of time.
        gigabytes: of memory.
        disk: the bytes of the results.
    """
    memory = f" and {_rounded(gigabytes)} GB of memory" if gigabytes > 0.01 else ""
    time = f"some {_rounded(hours)}" if hours >= 0.01 else "less than 0.01"
    size = f"{disk / 1e9:.2g} GB" if disk > 1e9 else f"{max(1, disk / 1e6):.0f} MB"
    return f"{time} hours on this machine's {os.cpu_count()} cores{memory}, {size} on disk"
