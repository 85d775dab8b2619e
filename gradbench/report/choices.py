"""The best estimator for each range of budgets."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.metrics import Measurement
from gradbench.report.numbers import amount
from gradbench.report.places import Place

_SHORT = 1.1  # ranges of time shorter than this factor say more about the machine
_FAR = {"draws": 1e9, "evaluations": 1e9, "seconds": 1e5}  # nobody asks beyond these budgets
_CERTAIN = 1.25  # a change whose limits are closer than this factor needs no remark


class Range(NamedTuple):
    """A range of budgets with its best estimator; ``note`` tells how certain its beginning is."""

    estimator: str
    text: str
    note: str


class Choice(NamedTuple):
    """The best estimators of a layer at a place, for each cost, by budget."""

    place: Place
    layer: str
    ranges: dict[str, list[Range]]


def choices(
    cells: Sequence[Measurement], summary: pd.DataFrame, places: Sequence[Place], layers: bool
) -> list[Choice]:
    """Return the best estimators by budget, for whole networks or for single layers.

    Args:
        cells: the measurements.
        summary: their ``summary`` at M = 1.
        places: the places.
        layers: whether to choose for single layers.
    """
    here: dict[tuple[str, int, str | int], list[Measurement]] = {}
    for cell in cells:
        here.setdefault(cell.place, []).append(cell)
    found = []
    for place in places:
        own = here[place.key]
        for layer in place.layers[1:] if layers else [place.whole]:
            rows = place.rows(summary, layer)
            ranges = {
                cost: _ranges(rows, own, cost)
                for cost in metrics.COSTS
                if cost == "draws" or rows[cost].notna().all()
            }
            found.append(Choice(place, layer, ranges))
    return found


def _ranges(rows: pd.DataFrame, cells: Sequence[Measurement], cost: str) -> list[Range]:
    best = metrics.best(rows, cost)
    names = set(best["estimator"])
    contenders = [cell for cell in cells if cell.estimator in names]
    layer = rows["layer"].iloc[0]
    crossings = (
        metrics.crossovers(contenders, cost, layer).set_index(["first", "then"])
        if len(best) > 1
        else pd.DataFrame(columns=["low", "high"])
    )
    return usable_ranges(best, crossings, cost)


def usable_ranges(best: pd.DataFrame, crossings: pd.DataFrame, cost: str) -> list[Range]:
    """Return the ranges that somebody could use: whole numbers of draws, no moments of time.

    Args:
        best: the best estimators, as ``metrics.best`` returns them.
        crossings: the limits of crossings, indexed by the better estimator first and then.
        cost: one of ``metrics.COSTS``.
    """
    found: list[Range] = []
    last = None
    for name, start, end in best[["estimator", "start", "end"]].itertuples(index=False):
        if start > _FAR[cost] and found:
            break
        end = end if end < _FAR[cost] else math.inf
        if cost != "seconds":  # whole numbers of them
            start, end = math.ceil(start), end if end == math.inf else math.ceil(end) - 1
            if end < start:
                continue
        elif end < _SHORT * start:
            continue
        text = _interval_text(start, end, cost, first=not found)
        at = crossings.loc[(last, name)] if (last, name) in crossings.index else None
        found.append(Range(name, text, "" if at is None else _note(at["low"], at["high"], cost)))
        last = name
    return found


def _interval_text(start: float, end: float, cost: str, first: bool) -> str:
    low, high = amount(start, cost), amount(end, cost)
    if first and cost == "draws":
        return "any number" if end == math.inf else "1" if end == 1 else f"up to {high}"
    if end == math.inf:
        return f"from {low} on"
    return low if low == high else f"{low} to {high}"


def _note(low: float, high: float, cost: str) -> str:
    """Return the interval of a change, if it is worth a remark."""
    if high == math.inf or low == 0.0:
        return "uncertain"
    return "" if high < _CERTAIN * low else f"{amount(low, cost)} to {amount(high, cost)}"
