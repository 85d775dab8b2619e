"""From metrics to decisions: which estimator at which budget, and how sure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
from scipy import stats

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import family
from gradbench.metrics.accuracy import EXACT, Accuracy, mse_difference
from gradbench.metrics.budget import Budget, budget
from gradbench.metrics.intervals import LEVEL, Estimate, least_difference, quantile
from gradbench.metrics.layers import METRICS, LayerMetrics, check_metrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement

ONE_DRAW = Budget(1, "draws")
TIMING = 0.1  # the standard error, relative, that a measured time is taken to have
_ROUNDING = 1e-9  # relative; a smaller difference of exact numbers is none


class Ranked(NamedTuple):
    """One estimator of a ranking; ``average`` is the M that the budget pays for, 0 for none.

    ``blur`` is the standard error of its MSE that comes from M, where M follows from a time.
    """

    metrics: LayerMetrics
    average: int
    found: Estimate
    blur: float = 0.0

    @property
    def known(self) -> bool:
        """Whether a draw is paid for, and the metric known."""
        return self.average > 0 and not math.isnan(self.found.value)


def rank(
    results: Iterable[Measurement],
    by: str = "rmse",
    at: str | Budget = ONE_DRAW,
    layer: str = NETWORK,
    level: float = LEVEL,
) -> pd.DataFrame:
    """The estimators of each place in their order at an equal budget, ties as ties.

    They are ranked ``by`` a metric. Each averages as many draws M as the budget ``at`` which they
    are compared pays for. Its rank is one more than the number of estimators that are significantly
    better, so that those not told apart may share one: each two are compared at ``level``, without
    a correction for their number, and the squared errors of one run draw by draw, as they share
    random numbers. Times are taken to be known to 10 %. The exact gradient is left out.

    Returns:
        A frame with a row per estimator, best first: problem, replicate, checkpoint, layer,
        estimator, rank (NaN where the budget does not pay a draw, or the metric is not known), M,
        the metric with ``_se``, ``_low`` and ``_high``, zero_gradient, exact, evaluations and
        seconds per draw. A metric of groups is that at the largest M stored that the budget pays
        for.

    Raises:
        GradbenchError: unknown metric, budget or layer, costs that were not stored, gradients that
            are all zero, or a budget that pays no draw of any estimator.
    """
    (by,) = check_metrics([by])
    allowed = budget(at)
    rows = []
    for place, group in _places(results, layer, level):
        ranked = [_at_budget(found, by, allowed) for found in group]
        ranks = _ranks(ranked, by, level)
        order = sorted(range(len(ranked)), key=lambda k: _place_in_order(ranked[k], ranks[k], by))
        for one, number in ((ranked[k], ranks[k]) for k in order):
            value = {f"{by}{end}": x for end, x in zip(_ENDS, one.found, strict=True)}
            cell = one.metrics.cell
            rows.append(
                dict(zip(KEYS, [*place, one.metrics.layer, cell.estimator], strict=True))
                | {"rank": number, "M": one.average}
                | value
                | {"zero_gradient": one.metrics.zero_gradient}
                | {"exact": one.metrics.exact and not METRICS[by].groups}
                | {cost: cell.cost.get(cost, math.nan) for cost in ("evaluations", "seconds")}
            )
    frame = pd.DataFrame(rows)
    if frame["zero_gradient"].all():
        raise GradbenchError(
            f"zero gradient in {frame['layer'].iloc[0]!r}: nothing relative to it can be ranked; "
            "take another layer"
        )
    if not frame["M"].any():
        raise GradbenchError(
            f"a budget of {allowed} pays no draw of any estimator; give a larger one"
        )
    return frame


_ENDS = ("", "_se", "_low", "_high")


def _places(
    results: Iterable[Measurement], layer: str, level: float
) -> Iterator[tuple[tuple[Any, ...], list[LayerMetrics]]]:
    """The metrics of one layer of all estimators but the exact one, place by place."""
    groups: dict[tuple[Any, ...], list[LayerMetrics]] = {}
    for cell in results:
        if family(cell.estimator) == "exact":
            continue
        own = {found.layer: found for found in layers_of(cell, level)}
        if layer == NETWORK and len(own) == 1:
            (found,) = own.values()
        elif layer in own:
            found = own[layer]
        else:
            raise GradbenchError(
                f"there is no layer {layer!r} at {'/'.join(map(str, cell.place))}; "
                f"{did_you_mean(layer, own)}"
            )
        groups.setdefault(cell.place, []).append(found)
    if not groups:
        raise GradbenchError("there is no estimator besides the exact one; measure some more")
    yield from groups.items()


def _at_budget(found: LayerMetrics, by: str, allowed: Budget) -> Ranked:
    average = allowed.draws(found.cell)
    if METRICS[by].groups:
        stored = [m for m in found.cell.average_sizes() if m <= average]
        average = max(stored, default=0)
    blur = TIMING * found.accuracy.variance / max(average, 1) if allowed.cost == "seconds" else 0.0
    return Ranked(found, average, found.estimate(by, max(average, 1)), blur)


def _ranks(ranked: Sequence[Ranked], by: str, level: float) -> list[float]:
    """One more than the number that are significantly better; NaN where nothing is known."""
    sign = 1.0 if METRICS[by].better == "low" else -1.0

    def better(a: Ranked, b: Ranked) -> bool:
        return sign * a.found.value < sign * b.found.value and differs(a, b, by, level)

    able = [one for one in ranked if one.known]
    return [
        1.0 + sum(better(other, one) for other in able) if one.known else math.nan for one in ranked
    ]


def _place_in_order(one: Ranked, rank: float, by: str) -> tuple[bool, bool, float, float]:
    sign = 1.0 if METRICS[by].better == "low" else -1.0
    return one.average == 0, not one.known, rank, sign * one.found.value


def differs(a: Ranked, b: Ranked, by: str, level: float = LEVEL) -> bool:
    """Whether a metric of two estimators of one run differs by more than its uncertainty."""
    scale = max(abs(a.found.value), abs(b.found.value))
    if by not in ("mse", "rmse"):
        gap = abs(a.found.value - b.found.value)
        least, rounding = least_difference(a.found, b.found), max(_ROUNDING * scale, EXACT)
        return math.isinf(gap) or (gap > least and gap > rounding)  # NaN where it is not known
    gap, se, dof = _difference(a, b)
    rounding = max(_ROUNDING * (scale**2 if by == "rmse" else scale), EXACT**2)
    return abs(gap) > quantile(level, dof) * se and abs(gap) > rounding


def difference_p(
    results: Sequence[Measurement], rows: tuple[pd.Series, pd.Series], at: str | Budget = ONE_DRAW
) -> float:
    """The p-value of "two rows of a ``rank`` by RMSE are equal"; 0 or 1 where both are exact.

    ``at`` is the budget of that ``rank``.

    Raises:
        GradbenchError: a budget that is none, or in what a draw is not known to cost.
    """
    ranked: list[Ranked] = []
    for row in rows:
        (cell,) = (c for c in results if (*c.place, c.estimator) == tuple(row[_CELL]))
        (found,) = (x for x in layers_of(cell) if x.layer == row["layer"])
        ranked.append(_at_budget(found, "rmse", budget(at)))
    first, second = ranked
    gap, se, dof = _difference(first, second)
    if se == 0.0:
        return float(not differs(first, second, "rmse"))
    return 2.0 * float(stats.t.sf(abs(gap) / se, dof))


_CELL = ["problem", "replicate", "checkpoint", "estimator"]


def _difference(a: Ranked, b: Ranked) -> tuple[float, float, float]:
    """The MSE of a minus that of b, its error and degrees of freedom."""
    gap, se, dof = _mse_gap(a.metrics.accuracy, b.metrics.accuracy, (a.average, b.average))
    return gap, math.hypot(se, a.blur, b.blur), dof


def _mse_gap(a: Accuracy, b: Accuracy, averages: tuple[float, float]) -> tuple[float, float, float]:
    bias2, variance, covariance = mse_difference(a, b, averages)
    dof = min((x.dof for x in (a, b) if len(x.counts)), default=math.inf)
    return bias2 + variance, math.sqrt(max(covariance.sum(), 0.0)), dof
