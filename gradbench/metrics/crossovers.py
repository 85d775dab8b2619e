"""Crossings of estimators with less bias and with less variance, and draws for a precision."""

import math
from collections.abc import Mapping, Sequence
from itertools import permutations

import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.metrics.accuracy import EXACT, Accuracy, mse_difference, mse_gap
from gradbench.metrics.budget import price
from gradbench.metrics.directory import Measurements
from gradbench.metrics.intervals import LEVEL, quantile
from gradbench.metrics.measurement import KEYS, NETWORK
from gradbench.metrics.ranking import by_place
from gradbench.metrics.times import columns as cost_columns
from gradbench.metrics.times import with_timing

_FAR = 32.0  # of a logarithm: costs farther apart are as good as zero and infinity


def crossovers(
    results: Measurements, cost: str = "draws", layer: str = NETWORK, level: float = LEVEL
) -> pd.DataFrame:
    """Return where estimators with less bias overtake ones with less variance, with intervals.

    At the cost C, M = C / c draws have the squared error |b|^2 + V c / C: two such curves cross at
    C = (V c - V' c') / (|b'|^2 - |b|^2). The interval has all C at which the two do not differ
    significantly. This is Fieller's theorem, for estimates that share their random numbers and
    whose errors are skewed. Times are as uncertain as their repeats spread.

    Args:
        results: a directory of results, its path, or measurements.
        cost: "draws", "evaluations" or "seconds".
        layer: the name of a layer, or "network".
        level: the level of the intervals.

    Returns:
        A frame with a row for each pair that crosses: problem, replicate, checkpoint, layer; first
        (better up to there) and then (better from there); at, low and high in the unit of the cost.
        The limits are 0 and inf where it is not certain that the two cross at all. first_source and
        then_source say where the biases are known from, as ``bias_source`` of ``summary``.

    Raises:
        GradbenchError: an unknown cost or layer, or costs that were not stored.
    """
    rows = []
    for place, group in by_place(results, layer, level):
        for a, b in permutations(group, 2):
            costs = price(a.cell, cost), price(b.cell, cost)
            averages = 1.0 / costs[0], 1.0 / costs[1]
            bias2, scatter, _ = mse_difference(a.accuracy, b.accuracy, averages)
            if not (bias2 > EXACT**2 and -scatter > bias2 * max(costs)):
                continue  # never, or before a draw of both is paid
            at = -scatter / bias2
            pair = a.accuracy, b.accuracy
            timings = (a.cell.cost, b.cell.cost) if cost == "seconds" else ()
            low, high = _limits(pair, timings, costs, at, level)
            names = [*place, a.layer, a.cell.estimator, b.cell.estimator]
            rows.append([*names, at, low, high, a.source, b.source])
    columns = [*KEYS[:4], "first", "then", "at", "low", "high", "first_source", "then_source"]
    return pd.DataFrame(rows, columns=columns)


def _limits(
    pair: tuple[Accuracy, Accuracy],
    timings: Sequence[Mapping[str, float]],
    costs: tuple[float, float],
    at: float,
    level: float,
) -> tuple[float, float]:
    """Return the limits of the costs around ``at`` where two squared errors may be equal.

    ``timings`` are the costs of both where the cost is a time, which is uncertain itself.
    """

    def equal(log: float) -> bool:
        averages = math.exp(log) / costs[0], math.exp(log) / costs[1]
        gap = mse_gap(*pair, averages)
        if timings:
            gap = with_timing(gap, pair, averages, timings)
        return not abs(gap.t) > quantile(level, gap.dof)

    def last(side: float) -> float:
        """Return the logarithm of the last cost on this side, infinite if there is none."""
        inner = outer = math.log(at)
        step = 0.125
        while equal(outer):
            if step > _FAR:
                return side * math.inf
            inner, outer, step = outer, math.log(at) + side * step, 2.0 * step
        for _ in range(30):
            middle = (inner + outer) / 2.0
            inner, outer = (middle, outer) if equal(middle) else (inner, middle)
        return inner

    return math.exp(last(-1.0)), math.exp(last(1.0))


def sample_complexity(
    results: Measurements, eps: float, layer: str = NETWORK, level: float = LEVEL
) -> pd.DataFrame:
    """Return how many draws each estimator needs for a relative RMSE of ``eps``, M*(eps).

    Args:
        results: a directory of results, its path, or measurements.
        eps: the relative RMSE.
        layer: the name of a layer, or "network".
        level: the level of the intervals.

    Returns:
        A frame with a row per place and estimator: problem, replicate, checkpoint, layer,
        estimator; draws, draws_low, draws_high (infinite where the bias alone exceeds eps); the
        same cost in evaluations and seconds, NaN where these were not stored; seconds_spread (see
        ``summary``); bias_source, where the bias that they are computed with is known from (see
        ``summary``); zero_gradient, where nothing is known.

    Raises:
        GradbenchError: an ``eps`` that is not positive, or an unknown layer.
    """
    if not 0.0 < eps < math.inf:
        raise GradbenchError(f"eps is {eps!r}; give a positive relative RMSE, such as 0.1")
    rows = []
    for place, group in by_place(results, layer, level):
        for found in group:
            needed = found.accuracy.draws_needed(eps, level)
            draws = {"draws": needed.value, "draws_low": needed.low, "draws_high": needed.high}
            cost = found.cell.cost
            paid = {
                name: math.ceil(needed.value) * cost[name]
                if name in cost and math.isfinite(needed.value)
                else needed.value * cost.get(name, math.nan)
                for name in ("evaluations", "seconds")
            }
            key = [*place, found.layer, found.cell.estimator]
            paid["seconds_spread"] = cost_columns(cost)["seconds_spread"]
            zero = {"bias_source": found.source, "zero_gradient": found.zero_gradient}
            rows.append(dict(zip(KEYS, key, strict=True)) | draws | paid | zero)
    return pd.DataFrame(rows)
