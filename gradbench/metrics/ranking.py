"""From metrics to decisions: which estimator is best at which budget, and how certain that is."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import family
from gradbench.metrics import times
from gradbench.metrics.accuracy import EXACT, ROUNDING, Gap, mse_gap
from gradbench.metrics.budget import Budget, budget
from gradbench.metrics.directory import Cells, Measurements, measurements, positions
from gradbench.metrics.distributions import t_two_sided
from gradbench.metrics.intervals import LEVEL, UNKNOWN, Estimate, least_difference, quantile
from gradbench.metrics.layers import LayerMetrics, layers_of, scopes_of
from gradbench.metrics.measurement import HIDDEN, KEYS, NETWORK, Measurement
from gradbench.metrics.registry import METRICS, check_metrics

BUDGET = Budget(100, "evaluations")  # of ``rank``, unless another one is asked for
_ROUNDING = 1e-9  # relative; a smaller difference of exact numbers is rounding


class Ranked(NamedTuple):
    """One estimator of a ranking.

    Attributes:
        metrics: what was measured of it.
        average: the number M of draws that the budget pays for, 0 if it pays for none.
        found: the metric at this M.
        timed: whether M follows from a time, which is uncertain itself.
    """

    metrics: LayerMetrics
    average: int
    found: Estimate
    timed: bool = False

    @property
    def known(self) -> bool:
        """True if the budget pays for a draw and the metric is known."""
        return self.average > 0 and not math.isnan(self.found.value)


def rank(
    results: Measurements,
    by: str = "rmse",
    at: str | Budget = BUDGET,
    layer: str = NETWORK,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Rank the estimators of each place at an equal budget.

    Each averages as many draws M as the budget pays for. Its rank is one more than the number of
    estimators that are significantly better, so estimators that do not differ significantly may
    share a rank. Each pair is compared at ``level``, without a correction for the number of pairs;
    squared errors of one run are compared block by block, as they share random numbers. A time is
    as uncertain as its repeats spread. ``gradbench.metrics.decide`` says which estimators are the
    best at all budgets. The exact one is left out.

    Args:
        results: a directory of results, its path, or measurements.
        by: the name of a metric.
        at: the budget: by default 100 evaluations of the objective per example. Equal draws,
            "1-draw", are no equal cost.
        layer: the name of a layer, "network", or "hidden layers" (all that feed units, as one).
        level: the level of the comparisons.

    Returns:
        A frame with a row per estimator, best first: problem, replicate, checkpoint, layer,
        estimator; rank (NaN where the budget pays for no draw, or the metric is not known); M; the
        metric with ``_se``, ``_low`` and ``_high``; zero_gradient; exact; bias_source; evaluations,
        seconds, seconds_spread, latency and latency_spread of a draw, as of ``summary``. A metric
        of groups is taken at the largest stored M that the budget pays for.

    Raises:
        GradbenchError: an unknown metric, budget or layer, costs that were not stored, gradients
            that are all zero, or a budget that pays for no draw of any estimator.
    """
    (by,) = check_metrics([by])
    allowed = budget(at)
    if layer == HIDDEN and METRICS[by].groups:
        raise GradbenchError(
            f"{by} of the hidden layers together is not stored; take rmse, or a single layer"
        )
    rows = []
    for place, group in by_place(results, layer, level):
        ranked = [at_budget(found, by, allowed) for found in group]
        ranks = _ranks(ranked, by, level)
        order = sorted(range(len(ranked)), key=lambda k: _sort_key(ranked[k], ranks[k], by))
        for one, number in ((ranked[k], ranks[k]) for k in order):
            value = {f"{by}{end}": x for end, x in zip(_ENDS, one.found, strict=True)}
            cell = one.metrics.cell
            rows.append(
                dict(zip(KEYS, [*place, one.metrics.layer, cell.estimator], strict=True))
                | {key: cell.info[key] for key in ("display_name",) if key in cell.info}
                | {"rank": number, "M": one.average}
                | value
                | {"zero_gradient": one.metrics.zero_gradient}
                | {"exact": one.metrics.exact and not METRICS[by].groups}
                | {"bias_source": one.metrics.source}
                | times.columns(cell.cost)
            )
    frame = pd.DataFrame(rows)
    if frame["zero_gradient"].all():
        raise GradbenchError(
            f"the gradient of {frame['layer'].iloc[0]!r} is zero, so no metric is known; take "
            "another layer"
        )
    if not frame["M"].any():
        raise GradbenchError(
            f"a budget of {allowed} pays for no draw of any estimator; give a larger one"
        )
    return frame


_ENDS = ("", "_se", "_low", "_high")


def by_place(
    results: Measurements, layer: str, level: float
) -> Iterator[tuple[tuple[Any, ...], list[LayerMetrics]]]:
    """Yield the metrics of one layer of all estimators but the exact one, place by place.

    Of a directory only the cells of one place are held at a time.
    """
    for place, cells in rivals_by_place(results):
        yield place, [_layer(cell, layer, level) for cell in cells]


def rivals_by_place(
    results: Measurements,
) -> Iterator[tuple[tuple[Any, ...], list[Measurement]]]:
    """Yield the cells of all estimators but the exact one, place by place.

    Raises:
        GradbenchError: there are none.
    """
    cells = measurements(results)
    if not isinstance(cells, Cells):  # which come place by place
        cells = list(cells)
        places = positions(cell.place for cell in cells)
        cells.sort(key=lambda cell: places[cell.place])
    none = True
    for place, group in groupby(cells, key=lambda cell: cell.place):
        found = [cell for cell in group if family(cell.estimator) != "exact"]
        if found:
            none = False
            yield place, found
    if none:
        raise GradbenchError("the only estimator is the exact one; measure others as well")


def _layer(cell: Measurement, layer: str, level: float) -> LayerMetrics:
    """Return the metrics of one layer of a cell.

    The network, and the hidden layers, are the only layer where they are one.
    """
    own = scopes_of(cell, level)
    if layer in own:
        return own[layer]
    if layer == NETWORK and len(own) == 1:
        return next(iter(own.values()))
    if layer == HIDDEN and len(cell.hidden) == 1 < len(cell.layer_names):
        return own[cell.hidden[0]]
    raise GradbenchError(
        f"there is no layer {layer!r} at {'/'.join(map(str, cell.place))}; "
        f"{did_you_mean(layer, own)}"
    )


def at_budget(found: LayerMetrics, by: str, allowed: Budget) -> Ranked:
    """Return an estimator with as many draws as a budget pays for.

    Raises:
        GradbenchError: the results do not say what a draw costs.
    """
    average = allowed.draws(found.cell)
    if METRICS[by].groups:
        stored = [m for m in found.cell.average_sizes() if m <= average]
        average = max(stored, default=0)
    estimate = found.estimate(by, max(average, 1))
    return Ranked(found, average, estimate, allowed.cost == "seconds")


def error_at_budget(found: LayerMetrics, allowed: Budget) -> Ranked:
    """Return what ``at_budget`` returns by RMSE, of which decisions need no interval.

    Raises:
        GradbenchError: the results do not say what a draw costs.
    """
    average = allowed.draws(found.cell)
    value = found.accuracy.error(max(average, 1))
    return Ranked(found, average, UNKNOWN._replace(value=value), allowed.cost == "seconds")


def _ranks(ranked: Sequence[Ranked], by: str, level: float) -> list[float]:
    """Return one more than the number that are significantly better; NaN if nothing is known."""
    able = [one for one in ranked if one.known]
    return [
        1.0 + sum(_beats(other, one, by, level) for other in able) if one.known else math.nan
        for one in ranked
    ]


def _beats(a: Ranked, b: Ranked, by: str, level: float) -> bool:
    """Return whether a is better than b, significantly."""
    sign = 1.0 if METRICS[by].better == "low" else -1.0
    return sign * a.found.value < sign * b.found.value and differs(a, b, by, level)


def unbeaten(ranked: Sequence[Ranked], level: float) -> list[Ranked]:
    """Return those that have rank 1 by their RMSE, the smallest first; see ``rank``."""
    able = sorted((one for one in ranked if one.known), key=lambda one: one.found.value)
    # All but a few are beaten by the first: the others need not be compared with all.
    near = [one for one in able if not _beats(able[0], one, "rmse", level)]
    return [one for one in near if not any(_beats(other, one, "rmse", level) for other in able)]


def _sort_key(one: Ranked, rank: float, by: str) -> tuple[bool, bool, float, float]:
    sign = 1.0 if METRICS[by].better == "low" else -1.0
    return one.average == 0, not one.known, rank, sign * one.found.value


def differs(a: Ranked, b: Ranked, by: str, level: float = LEVEL) -> bool:
    """Return whether a metric of two estimators of one run differs significantly."""
    scale = max(abs(a.found.value), abs(b.found.value))
    if by not in ("mse", "rmse"):
        gap = abs(a.found.value - b.found.value)
        least, rounding = least_difference(a.found, b.found), max(_ROUNDING * scale, EXACT)
        return math.isinf(gap) or (gap > least and gap > rounding)  # NaN where it is not known
    apart = _difference(a, b)
    rounding = max(_ROUNDING * (scale**2 if by == "rmse" else scale), ROUNDING**2)
    surely = math.copysign(1.0, apart.size) * apart.t > quantile(level, apart.dof)
    return abs(apart.size) > rounding and surely


def difference_p(
    results: Sequence[Measurement], rows: tuple[pd.Series, pd.Series], at: str | Budget = BUDGET
) -> float:
    """Return the p-value of the hypothesis that two estimators have the same RMSE.

    Args:
        results: measurements.
        rows: two rows of a ``rank`` by RMSE.
        at: the budget of that ``rank``.

    Returns:
        The p-value, 0 or 1 where both are exact.

    Raises:
        GradbenchError: ``at`` is not a budget, or its cost was not stored.
    """
    ranked: list[Ranked] = []
    for row in rows:
        (cell,) = (c for c in results if (*c.place, c.estimator) == tuple(row[_CELL]))
        (found,) = (x for x in layers_of(cell) if x.layer == row["layer"])
        ranked.append(at_budget(found, "rmse", budget(at)))
    first, second = ranked
    gap = _difference(first, second)
    if gap.se == 0.0:
        return float(not differs(first, second, "rmse"))
    return t_two_sided(abs(gap.t), gap.dof)


_CELL = ["problem", "replicate", "checkpoint", "estimator"]


def _difference(a: Ranked, b: Ranked) -> Gap:
    """Return the MSE of a minus the MSE of b, with the error of measured times."""
    pair, averages = (a.metrics.accuracy, b.metrics.accuracy), (a.average, b.average)
    gap = mse_gap(*pair, averages)
    if a.timed:
        gap = times.with_timing(gap, pair, averages, (a.metrics.cell.cost, b.metrics.cell.cost))
    return gap
