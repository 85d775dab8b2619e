"""Two sets of results side by side: what has changed, and whether it is more than noise."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.metrics.accuracy import ROUNDING, Accuracy, mse_gap
from gradbench.metrics.comparable import Comparable, Key, comparables, retrained
from gradbench.metrics.directory import Measurements
from gradbench.metrics.distributions import t_two_sided
from gradbench.metrics.intervals import LEVEL, UNKNOWN, least_difference, quantile
from gradbench.metrics.measurement import KEYS
from gradbench.metrics.registry import METRICS, check_metrics
from gradbench.metrics.significance import holm
from gradbench.results.shards import CheckpointId

ALPHA = 0.01  # the chance of reporting any change if nothing changed, over all rows together
_SQUARES = ("mse", "bias2", "variance")
RETRAINED = "trained differently"
_SAME = 1e-9  # exact gradients and exact moments differ by no more between machines


def compare(
    before: Measurements,
    after: Measurements,
    by: str = "rmse",
    average: int = 1,
    margin: float = 0.0,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Compare a metric of the same cells in two sets of results.

    Squared errors are compared pairwise, as draws of the same number have the same random numbers
    in both. Other metrics are compared as if they were independent, which errs to the side of no
    change. Each row is tested for a change larger than the margin, with Holm's method over all
    rows: if nothing changed, the chance of reporting any change is at most 1 %.

    Args:
        before: a directory of results, its path, ``gradbench:SUITE`` for the results that come
            with the package, or measurements.
        after: the same of what it is compared with.
        by: the name of a metric.
        average: the number M of draws that are averaged.
        margin: a relative change that is not reported.
        level: the level of the intervals.

    Returns:
        A frame with a row per layer and estimator: the keys; M; the metric before and after with
        their limits; ratio (after to before); p and p_adjusted; change: "better", "worse", "same"
        (no significant change), "zero gradient", "trained differently" (the same problem and
        seed, but other parameters, as another machine or version has trained them, so that exact
        gradients differ, by ``gradient_gap``), "gone" or "new" (only in one of the two);
        bias_source (after, where it is known from). Values that differ by rounding are the same.

    Raises:
        GradbenchError: an unknown metric; no common cell; exact gradients that differ, so that the
            problems are not the same; an M that was not stored; draws that are not finite.
    """
    (by,) = check_metrics([by])
    old, new = (comparables(one, by, average, level) for one in (before, after))
    differs = retrained(before, after)
    if not old.keys() & new.keys():
        raise GradbenchError(
            f"the two results have no cell in common: the first has {_first(old)}, the second "
            f"{_first(new)}; compare results of the same suite"
        )
    rows = []
    for name in old | new:
        pair = old.get(name), new.get(name)
        row: dict[str, Any] = dict(zip(KEYS, name, strict=True)) | {"M": average}
        for when, one in zip(("before", "after"), pair, strict=True):
            found = one.estimate if one else UNKNOWN
            row |= {when: found.value, f"{when}_low": found.low, f"{when}_high": found.high}
        ratio = row["after"] / row["before"] if row["before"] else math.nan
        row |= {"ratio": ratio, "p": math.nan, "sign": 0.0, "change": "", "gradient_gap": 0.0}
        a, b = pair
        row["bias_source"] = next(one.source for one in (b, a) if one)
        if a and b and (off := _gap(a, b)) > _SAME:
            if not differs(CheckpointId(*name[:3])):
                raise GradbenchError(
                    f"the exact gradients at {'/'.join(map(str, name[:4]))} differ: the results "
                    "are of different problems or seeds; compare runs of one suite with one seed"
                )
            row |= {"ratio": math.nan, "change": RETRAINED, "gradient_gap": off}
        elif a and b:
            row["p"], row["sign"] = _test(a, b, by, average, margin)
        else:
            row["change"] = "gone" if a else "new"
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.insert(frame.columns.get_loc("change"), "p_adjusted", holm(frame["p"].to_numpy()))
    changed = frame["p_adjusted"] < ALPHA
    better = frame.pop("sign") < 0 if METRICS[by].better == "low" else frame.pop("sign") > 0
    words = np.where(changed, np.where(better, "better", "worse"), "same")
    words = np.where(frame["p"].isna(), "zero gradient", words)
    frame["change"] = np.where(frame["change"] == "", words, frame["change"])
    return frame


def _first(cells: dict[Key, Comparable]) -> str:
    return repr("/".join(map(str, next(iter(cells))))) if cells else "none"


def _gap(a: Comparable, b: Comparable) -> float:
    """Return how far apart two exact gradients are, relative to the larger one."""
    if a.gradient.shape != b.gradient.shape:
        return math.inf
    largest = max(np.linalg.norm(a.gradient), np.linalg.norm(b.gradient))
    gap = np.linalg.norm(a.gradient - b.gradient)
    return float(gap / largest) if largest else 0.0


def _test(
    a: Comparable, b: Comparable, by: str, average: int, margin: float
) -> tuple[float, float]:
    """Return the p-value of no change beyond the margin, and the sign of the change."""
    if a.zero_gradient:
        return math.nan, 0.0
    old, new = a.estimate, b.estimate
    difference = new.value - old.value  # NaN where both are infinite: no change
    if math.isinf(difference):
        return 0.0, difference
    dof = min(a.dof, b.dof)
    # The nearest value within the margin, as a multiple of the old one, never of the other sign.
    toward = max(1.0 + math.copysign(margin, difference * old.value), 0.0)
    if by in ("mse", "rmse") and a.accuracy and b.accuracy:
        scale = toward**2 if by == "rmse" else toward
        gap = mse_gap(b.accuracy, _scaled(a.accuracy, scale), (average, average))
        size, se, dof = gap.size, gap.se, min(dof, gap.dof)
        t = gap.t
        size = size if abs(difference) > _least(by, old.value, new.value) else 0.0
    else:
        old = old.times(toward)
        size = new.value - old.value
        se = least_difference(old, new) / quantile(a.level, dof)
        t = size / se if se else math.copysign(math.inf, size)
        size = size if abs(size) > _least(by, old.value, new.value) else 0.0
    if not size * difference > 0.0 or math.isnan(se):
        return 1.0, 0.0
    return (t_two_sided(max(t * math.copysign(1.0, size), 0.0), dof) if se else 0.0), difference


def _least(by: str, *values: float) -> float:
    """Return the largest difference of two values of a metric that is rounding."""
    return max(_SAME * max(map(abs, values)), ROUNDING ** (2 if by in _SQUARES else 1))


def _scaled(accuracy: Accuracy, factor: float) -> Accuracy:
    """Return the accuracy of an estimator with ``factor`` times the squared error."""
    noise = accuracy.reference_noise
    return accuracy._replace(
        bias2=factor * accuracy.bias2,
        variance=factor * accuracy.variance,
        covariance=factor**2 * accuracy.covariance,
        influence=factor * accuracy.influence,
        reference_noise=noise.times(factor) if noise else None,
    )
