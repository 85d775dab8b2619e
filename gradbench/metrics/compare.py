"""Two sets of results side by side: what has changed, and whether it is more than noise."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from gradbench.core.errors import GradbenchError
from gradbench.metrics.accuracy import EXACT, Accuracy, mse_difference
from gradbench.metrics.intervals import LEVEL, UNKNOWN, least_difference, quantile
from gradbench.metrics.layers import METRICS, LayerMetrics, check_metrics, layers_of
from gradbench.metrics.measurement import KEYS, Measurement
from gradbench.metrics.significance import holm

ALPHA = 0.01  # the chance that anything at all is called changed where nothing is
_SAME = 1e-9  # exact gradients and exact moments differ by no more between machines


def compare(
    before: Iterable[Measurement],
    after: Iterable[Measurement],
    by: str = "rmse",
    average: int = 1,
    margin: float = 0.0,
    level: float = LEVEL,
) -> pd.DataFrame:
    """The metric ``by`` of the same cells in two sets of results, ``before`` and ``after``.

    Squared errors are compared pairwise, as draws of the same number have the same random numbers
    in both; other metrics as if they were independent, which errs to the side of no change. What
    differs in either direction by more than the ``margin`` (relative) is tested, with Holm's method
    over all rows: anything is called changed with a probability of at most 0.01 where nothing is.

    Returns:
        A row per layer and estimator: the keys, M, the metric before and after with their limits,
        ratio (after to before), p and p_adjusted, change: "better", "worse", "same" (not told
        apart), "zero gradient", "gone" or "new" (in one of the two alone).

    Raises:
        GradbenchError: unknown metric; no common cell; exact gradients that differ, which are of
            different problems; an M that was not stored; draws that are not finite.
    """
    (by,) = check_metrics([by])
    old, new = (_by_name(cells, level) for cells in (before, after))
    if not old.keys() & new.keys():
        raise GradbenchError(
            f"the two results have no cell in common: one has {_first(old)}, the other "
            f"{_first(new)}; compare results of the same suite"
        )
    rows = []
    for name in old | new:
        pair = old.get(name), new.get(name)
        row: dict[str, Any] = dict(zip(KEYS, name, strict=True)) | {"M": average}
        for when, one in zip(("before", "after"), pair, strict=True):
            found = one.estimate(by, average) if one else UNKNOWN
            row |= {when: found.value, f"{when}_low": found.low, f"{when}_high": found.high}
        ratio = row["after"] / row["before"] if row["before"] else math.nan
        row |= {"ratio": ratio, "p": math.nan, "sign": 0.0, "change": ""}
        a, b = pair
        if a and b:
            _same_gradient(name, a, b)
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


def _by_name(cells: Iterable[Measurement], level: float) -> dict[tuple[Any, ...], LayerMetrics]:
    found = {}
    for cell in cells:
        for layer in layers_of(cell, level):
            name = (*cell.place, layer.layer, cell.estimator)
            if not np.isfinite(layer.sample.means).all():
                raise GradbenchError(
                    f"draws of {cell.estimator!r} at {'/'.join(map(str, name[:4]))} are not "
                    "finite, and compare with nothing; mend the estimator, or leave it out"
                )
            found[name] = layer
    return found


def _first(cells: dict[tuple[Any, ...], LayerMetrics]) -> str:
    return repr("/".join(map(str, next(iter(cells))))) if cells else "none"


def _same_gradient(name: tuple[Any, ...], a: LayerMetrics, b: LayerMetrics) -> None:
    one, two = (x.sample.direction * x.sample.norm for x in (a, b))
    if one.shape != two.shape or np.linalg.norm(one - two) > _SAME * max(
        a.sample.norm, b.sample.norm
    ):
        raise GradbenchError(
            f"the exact gradients at {'/'.join(map(str, name[:4]))} differ: the results are of "
            "different problems or seeds; compare runs of one suite with one seed"
        )


def _test(
    a: LayerMetrics, b: LayerMetrics, by: str, average: int, margin: float
) -> tuple[float, float]:
    """The p-value of no change beyond the margin, and the sign of the change."""
    if a.zero_gradient:
        return math.nan, 0.0
    old, new = (x.estimate(by, average) for x in (a, b))
    difference = new.value - old.value  # NaN where both are infinite: no change
    if math.isinf(difference):
        return 0.0, difference
    dof = max(min(len(x.sample.counts) for x in (a, b)) - 1, 1)
    # The nearest value within the margin, as a multiple of the old one; no sign changes within it.
    toward = max(1.0 + math.copysign(margin, difference * old.value), 0.0)
    if by in ("mse", "rmse"):
        scale = toward**2 if by == "rmse" else toward
        parts = mse_difference(b.accuracy, _scaled(a.accuracy, scale), (average, average))
        size, se = parts[0] + parts[1], math.sqrt(max(parts[2].sum(), 0.0))
        least = max(_SAME * max(old.value, new.value) ** (2 if by == "rmse" else 1), EXACT**2)
    else:
        old = old.times(toward)
        size = new.value - old.value
        se = least_difference(old, new) / quantile(a.level, dof)
        least = max(_SAME * max(abs(old.value), abs(new.value)), EXACT)
    if not size * difference > 0.0 or abs(size) <= least or math.isnan(se):
        return 1.0, 0.0
    return (2.0 * float(stats.t.sf(abs(size) / se, dof)) if se else 0.0), difference


def _scaled(accuracy: Accuracy, factor: float) -> Accuracy:
    """The accuracy of what has so many times the squared error."""
    return accuracy._replace(
        bias2=factor * accuracy.bias2,
        variance=factor * accuracy.variance,
        covariance=factor**2 * accuracy.covariance,
        influence=factor * accuracy.influence,
        blur=accuracy.blur.times(factor) if accuracy.blur else None,
    )
