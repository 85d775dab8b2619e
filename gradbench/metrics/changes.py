"""Where another estimator becomes the best, by the decision rule: the circles of figures."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from gradbench.core.specs import family
from gradbench.metrics.budget import COSTS, price
from gradbench.metrics.decision import decide
from gradbench.metrics.decisions import Range
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import LayerMetrics, scopes_of
from gradbench.metrics.measurement import Measurement
from gradbench.metrics.places import Place


class Change(NamedTuple):
    """Another estimator becomes the best of a layer at a place.

    Attributes:
        cost: what ``at`` is an amount of: "draws", "evaluations" or "seconds".
        at: where the curves of the two cross; where they do not, the first draw of the new one.
        rmse: the relative RMSE of the new one there.
        before: the estimator that was the best.
        after: the one that becomes the best.
    """

    cost: str
    at: float
    rmse: float
    before: str
    after: str


Changes = dict[tuple[Place, str], tuple[Change, ...]]


def changes(cells: Sequence[Measurement], level: float = LEVEL) -> Changes:
    """Return where the best estimator changes, for each place and layer.

    There is one change between any two neighbouring ranges of budgets of ``decide``, whose budgets
    go on here as far as draws were made.

    Args:
        cells: measurements.
        level: the level of the comparisons.
    """
    cells = [cell for cell in cells if family(cell.estimator) != "exact"]
    found: dict[tuple[Place, str], list[Change]] = {}
    rivals: dict[tuple[Place, str], dict[str, LayerMetrics]] = {}
    for cell in cells:
        for layer, one in scopes_of(cell, level).items():
            rivals.setdefault((cell.place, layer), {})[cell.estimator] = one
    for cost in COSTS:
        priced = [cell for cell in cells if cost == "draws" or cost in cell.cost]
        if not priced:
            continue
        most = max(
            price(cell, cost) * one.sample.draws
            for cell in priced
            for one in scopes_of(cell).values()
        )
        verdict = decide(priced, cost, level=level, upto=most)
        for (place, layer), known in rivals.items():
            ranges = verdict.ranges(layer, place)
            found.setdefault((place, layer), []).extend(_between(ranges, known, cost))
    return {key: tuple(own) for key, own in found.items()}


def _between(
    ranges: Sequence[Range], known: dict[str, LayerMetrics], cost: str
) -> Iterator[Change]:
    """Yield the changes between ranges of budgets that leave a choice."""
    for before, after in pairwise(one for one in ranges if one.is_choice):
        one, two = before.best[0], after.best[0]
        bias2, scatter = zip(*(_curve(known[name], cost) for name in (one, two)), strict=True)
        first = price(known[two].cell, cost)
        at = -1.0
        if bias2[0] != bias2[1]:
            at = (scatter[1] - scatter[0]) / (bias2[0] - bias2[1])
        # Not before the old one was the best, and not after the new one is.
        at = min(max(at, first, before.start), max(after.start, first))
        rmse = math.sqrt(max(bias2[1] + scatter[1] / at, 0.0))
        yield Change(cost, at, rmse, one, two)


def _curve(found: LayerMetrics, cost: str) -> tuple[float, float]:
    """Return |b|^2 and V c, of which |b|^2 + V c / C is the squared error at the cost C."""
    return found.accuracy.bias2, found.accuracy.variance * price(found.cell, cost)
