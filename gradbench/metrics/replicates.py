"""Statistics over replicates: means, spread, and which order of estimators holds in all."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.metrics.accuracy import EXACT
from gradbench.metrics.intervals import LEVEL, quantile, share
from gradbench.metrics.registry import check_metrics

_PLACE = ["problem", "checkpoint", "layer"]
_EQUAL = 1e-9  # relative; less is rounding


def over_replicates(
    frame: pd.DataFrame, metrics: Sequence[str] = ("bias", "std", "rmse"), level: float = LEVEL
) -> pd.DataFrame:
    """Return the mean of metrics over replicates with its interval, least and greatest value.

    Args:
        frame: a ``summary`` with several replicates; layers of zero gradient do not count.
        metrics: names of metrics.
        level: the level of the interval of the mean, by Student's t over replicates. Uncertainty
            within a replicate is part of the variation between them.

    Returns:
        A frame with a row per problem, checkpoint, layer, estimator and metric: replicates, mean,
        low, high, least, greatest.

    Raises:
        GradbenchError: fewer than two replicates, or an unknown metric.
    """
    metrics = _checked(frame, metrics)
    rows = []
    groups = frame[~frame["zero_gradient"]].groupby([*_PLACE, "estimator"], sort=False)
    for key, group in groups:
        for metric in metrics:
            values = group[metric].dropna().to_numpy()
            n = len(values)
            if not n:
                continue
            mean = float(values.mean())
            spread = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
            reach = quantile(level, n - 1) * spread
            limits = [mean - reach, mean + reach, float(values.min()), float(values.max())]
            rows.append([*key, metric, n, mean, *limits])
    columns = ["metric", "replicates", "mean", "low", "high", "least", "greatest"]
    return pd.DataFrame(rows, columns=[*_PLACE, "estimator", *columns])


def orderings(frame: pd.DataFrame, metric: str = "bias", level: float = LEVEL) -> pd.DataFrame:
    """Count the replicates in which one estimator has less of a metric than another.

    A replicate counts where the two differ significantly, by variance recovery of their intervals.

    Args:
        frame: a ``summary`` with several replicates.
        metric: the name of a metric.
        level: the level of the interval of the share.

    Returns:
        A frame with a row per problem, checkpoint, layer and pair of estimators: first (the one
        that is less more often) and second; the numbers of replicates less, greater and equal (no
        significant difference); share (of replicates in which the first is less), low and high.

    Raises:
        GradbenchError: fewer than two replicates, or an unknown metric.
    """
    (metric,) = _checked(frame, [metric])
    frame = frame[~frame["zero_gradient"] & (frame["estimator"].map(family) != "exact")]
    rows = []
    for key, group in frame.groupby(_PLACE, sort=False):
        values = group.pivot(index="replicate", columns="estimator", values=metric)
        low, high = (
            group.pivot(index="replicate", columns="estimator", values=f"{metric}_{end}")
            for end in ("low", "high")
        )
        names = list(dict.fromkeys(group["estimator"]))
        for a, b in combinations(names, 2):
            gap = values[a] - values[b]
            rounding = np.maximum(_EQUAL * np.maximum(values[a].abs(), values[b].abs()), EXACT)
            # As `least_difference`, at the level of the intervals of the frame.
            below = np.maximum(np.hypot(high[a] - values[a], values[b] - low[b]), rounding)
            above = np.maximum(np.hypot(values[a] - low[a], high[b] - values[b]), rounding)
            less, greater = int((gap < -below).sum()), int((gap > above).sum())
            total = int(gap.notna().sum())
            first, second = (a, b) if less >= greater else (b, a)
            less, greater = max(less, greater), min(less, greater)
            found = share(less, total, level)
            counts = [less, greater, total - less - greater]
            rows.append([*key, first, second, *counts, found.value, found.low, found.high])
    columns = ["first", "second", "less", "greater", "equal", "share", "low", "high"]
    return pd.DataFrame(rows, columns=[*_PLACE, *columns])


def _checked(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Return the registered names of metrics, of a frame with several replicates."""
    names = check_metrics(metrics)
    count = frame["replicate"].nunique()
    if count < 2:
        raise GradbenchError(
            f"the results have {count} replicate; run a suite with several, such as `gradbench "
            "run seeds`"
        )
    return names
