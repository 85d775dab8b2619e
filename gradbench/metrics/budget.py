"""The budget of an estimate: draws, evaluations of the objective, or measured time."""

import math
import re
from typing import NamedTuple

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics.measurement import Measurement

COSTS = ("draws", "evaluations", "seconds")
_MOST_DRAWS = 2.0**60  # as good as infinitely many
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_FORM = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?)[\s-]*([a-zµ]+)\s*")


class Budget(NamedTuple):
    """An ``amount`` of a ``cost`` for one estimate: draws, evaluations per example, or seconds."""

    amount: float
    cost: str

    def __str__(self) -> str:
        if self.cost != "seconds":
            one = self.cost.removesuffix("s") if self.amount == 1 else self.cost
            return f"{self.amount:g} {one}"
        unit = next(name for name in ("s", "ms", "us", "ns") if self.amount >= 0.999 * _UNITS[name])
        return f"{self.amount / _UNITS[unit]:g} {unit}"

    def draws(self, cell: Measurement) -> int:
        """Return how many draws of a cell's estimator the budget pays for.

        Raises:
            GradbenchError: the results do not say what a draw costs.
        """
        paid = self.amount / max(price(cell, self.cost), 1e-300) * (1.0 + 1e-12)
        return math.floor(min(paid, _MOST_DRAWS))


def budget(text: str | Budget) -> Budget:
    """Read a budget from a ``text`` such as "64-draws", "100-evaluations" or "1ms".

    Raises:
        GradbenchError: the text is not a budget.
    """
    if isinstance(text, Budget):
        return text
    found = _FORM.fullmatch(str(text))
    amount = float(found[1]) if found else 0.0
    if found and 0.0 < amount < math.inf:
        if found[2] in _UNITS:
            return Budget(max(amount * _UNITS[found[2]], 1e-9), "seconds")
        for cost in COSTS[:2]:
            if found[2] in (cost, cost.removesuffix("s")):
                return Budget(amount, cost)
    raise GradbenchError(
        f"{text!r} is not a budget; give draws, evaluations or a time, such as 64-draws, "
        "100-evaluations or 1ms"
    )


def check_cost(cost: str) -> str:
    """Return ``cost`` if it is one of ``COSTS``.

    Raises:
        GradbenchError: it is not.
    """
    if cost not in COSTS:
        raise GradbenchError(f"unknown cost {cost!r}; {did_you_mean(cost, COSTS)}")
    return cost


def price(cell: Measurement, cost: str) -> float:
    """Return what a draw of a cell's estimator costs.

    Raises:
        GradbenchError: the results do not say.
    """
    if check_cost(cost) == "draws":
        return 1.0
    if cost not in cell.cost:
        raise _no_cost(cost, cell.estimator)
    return float(cell.cost[cost])


def _no_cost(cost: str, estimator: str) -> GradbenchError:
    return GradbenchError(
        f"the results do not say how many {cost} a draw of {estimator!r} takes, as the run is not "
        "finished (times are measured at its end) or was made by an older gradbench; continue the "
        "run, run the suite again in another directory, or count draws"
    )
