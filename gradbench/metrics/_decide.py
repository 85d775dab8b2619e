"""From metrics to decisions: which estimator at which budget, and how sure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from gradbench.blocks import Floats, Moments, pool
from gradbench.errors import GradbenchError, did_you_mean
from gradbench.metrics._accuracy import EXACT, Accuracy, mse_difference
from gradbench.metrics._budget import Budget, budget, price, prices
from gradbench.metrics._cells import KEYS, NETWORK, Cell, Sample, samples
from gradbench.metrics._intervals import LEVEL, Estimate, fieller, least_difference, quantile
from gradbench.metrics._layers import METRICS, LayerMetrics, check_metrics, layers_of
from gradbench.spec import family

ONE_DRAW = Budget(1, "draws")
TIMING = 0.1  # the standard error, relative, that a measured time is taken to have
FALSE_ALARMS = 0.01  # of all tests of unbiasedness of a set of results together
_ROUNDING = 1e-9  # relative; a smaller difference of exact numbers is none
_POWER = 0.9  # with which a detectable bias would have been found


# ------------------------------------------------------------------------------ at equal cost


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
    results: Iterable[Cell],
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
    results: Iterable[Cell], layer: str, level: float
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
    gap, se, freedom = _difference(a, b)
    rounding = max(_ROUNDING * (scale**2 if by == "rmse" else scale), EXACT**2)
    return abs(gap) > quantile(level, freedom) * se and abs(gap) > rounding


def difference_p(
    results: Sequence[Cell], rows: tuple[pd.Series, pd.Series], at: str | Budget = ONE_DRAW
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
    gap, se, freedom = _difference(first, second)
    if se == 0.0:
        return float(not differs(first, second, "rmse"))
    return 2.0 * float(stats.t.sf(abs(gap) / se, freedom))


_CELL = ["problem", "replicate", "checkpoint", "estimator"]


def _difference(a: Ranked, b: Ranked) -> tuple[float, float, float]:
    """The MSE of a minus that of b, its error and degrees of freedom."""
    gap, se, freedom = _mse_gap(a.metrics.accuracy, b.metrics.accuracy, (a.average, b.average))
    return gap, math.hypot(se, a.blur, b.blur), freedom


def _mse_gap(a: Accuracy, b: Accuracy, averages: tuple[float, float]) -> tuple[float, float, float]:
    bias2, variance, covariance = mse_difference(a, b, averages)
    freedom = min((x.freedom for x in (a, b) if len(x.counts)), default=math.inf)
    return bias2 + variance, math.sqrt(max(covariance.sum(), 0.0)), freedom


# ------------------------------------------------------------------ as a function of the cost


def best(frame: pd.DataFrame, cost: str = "draws") -> pd.DataFrame:
    """Which estimator has the least RMSE at which cost: the lower envelope of |b|^2 + V/M.

    Args:
        frame: rows of one place and layer of ``summary`` at M = 1.
        cost: "draws", "evaluations" or "seconds"; an estimator begins at what a draw of it costs.

    Returns:
        A frame with the columns estimator, start and end (inf for the last), in order. A bias that
        is not told from zero counts as none; the exact gradient is left out.

    Raises:
        GradbenchError: an unknown cost, or one that was not stored.
    """
    known = ~frame["zero_gradient"] & frame["variance"].notna()
    frame = frame[(frame["estimator"].map(family) != "exact") & known]
    if frame.empty:
        return pd.DataFrame(columns=["estimator", "start", "end"])
    draw = prices(frame, cost).to_numpy()
    told = (frame["bias2_low"] > 0.0) & (frame["bias2"] > EXACT**2)
    bias2 = frame["bias2"].where(told, 0.0).to_numpy()
    scatter = frame["variance"].to_numpy() * draw
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.subtract.outer(scatter, scatter) / -np.subtract.outer(bias2, bias2)
    places = np.concatenate([draw, crossings[np.isfinite(crossings) & (crossings > draw.min())]])
    starts = np.unique(places)
    middles = np.append(np.sqrt(starts[:-1] * starts[1:]), 2.0 * starts[-1])
    mse = bias2 + scatter / middles[:, None]
    mse[middles[:, None] < draw] = math.inf
    names = frame["estimator"].to_numpy()[mse.argmin(1)]
    change = np.append(True, names[1:] != names[:-1])
    start = starts[change]
    return pd.DataFrame(
        {"estimator": names[change], "start": start, "end": np.append(start[1:], math.inf)}
    )


def crossovers(
    results: Iterable[Cell], cost: str = "draws", layer: str = NETWORK, level: float = LEVEL
) -> pd.DataFrame:
    """Where an estimator with less bias overtakes one with less variance, with its interval.

    At the cost C, M = C / c draws have the squared error |b|^2 + V c / C: two such curves cross at
    C = (V c - V' c') / (|b'|^2 - |b|^2). The interval is Fieller's, of estimates that share their
    random numbers.

    Returns:
        A row for each pair that crosses: problem, replicate, checkpoint, layer, first (better up to
        there), then (better from there), at, low, high in the unit of the cost; limits are 0 and
        inf where the crossing itself is not sure.

    Raises:
        GradbenchError: an unknown cost or layer, or costs that were not stored.
    """
    rows = []
    for place, group in _places(results, layer, level):
        for a, b in permutations(group, 2):
            costs = price(a.cell, cost), price(b.cell, cost)
            averages = 1.0 / costs[0], 1.0 / costs[1]
            bias2, scatter, covariance = mse_difference(a.accuracy, b.accuracy, averages)
            if not (bias2 > EXACT**2 and -scatter > bias2 * max(costs)):
                continue  # never, or before a draw of both is paid
            freedom = _mse_gap(a.accuracy, b.accuracy, averages)[2]
            limits = fieller(bias2, scatter, covariance, quantile(level, freedom))
            low, high = limits or (0.0, math.inf)
            names = [*place, a.layer, a.cell.estimator, b.cell.estimator]
            rows.append([*names, -scatter / bias2, low, high])
    columns = [*KEYS[:4], "first", "then", "at", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def sample_complexity(
    results: Iterable[Cell], eps: float, layer: str = NETWORK, level: float = LEVEL
) -> pd.DataFrame:
    """How many draws each estimator needs for a relative RMSE of ``eps``, M*(eps).

    Returns:
        A row per place and estimator: problem, replicate, checkpoint, layer, estimator, draws,
        draws_low, draws_high (infinite where the bias alone exceeds eps), and the same cost in
        evaluations and seconds, NaN where these were not stored; zero_gradient, where nothing is
        known.

    Raises:
        GradbenchError: an ``eps`` that is not positive, or an unknown layer.
    """
    if not 0.0 < eps < math.inf:
        raise GradbenchError(f"eps is {eps!r}; give a positive relative RMSE, such as 0.1")
    rows = []
    for place, group in _places(results, layer, level):
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
            zero = {"zero_gradient": found.zero_gradient}
            rows.append(dict(zip(KEYS, key, strict=True)) | draws | paid | zero)
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------- tests of the bias


def unbiasedness(results: Iterable[Cell], alpha: float = FALSE_ALARMS) -> pd.DataFrame:
    """Whether each estimator is unbiased in each layer, with control over all that is tested.

    Of exact moments it is known. Else the p-value is that of the largest |t| over the coordinates
    of the layer (Sidak), adjusted over all rows by Holm's method: a false alarm anywhere has a
    probability of at most ``alpha``, given that means of draws are normal; coordinates ruled by
    rare events, of which this is not so, are not tested.

    Returns:
        A row per cell and layer: the keys; bias (relative, exact or estimated); p and p_adjusted,
        NaN where it is known; detectable, the relative bias of any single coordinate that would
        have been found with probability 0.9; verdict: "unbiased" and "biased" where it is known,
        "bias found", "no bias seen", or "zero gradient".

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    rows, alone = [], []
    for cell in results:
        for found, sample in zip(layers_of(cell), samples(cell), strict=True):
            if found.layer == NETWORK:
                continue
            key = dict(zip(KEYS, [*cell.place, found.layer, cell.estimator], strict=True))
            bias = found.estimate("bias").value
            steady = found.accuracy.variance == 0.0 and sample.noise is None
            known = found.exact or steady
            p = math.nan if known else found.unbiased_p
            rows.append(key | {"bias": bias, "p": p})
            alone.append((sample, found.zero_gradient, known))
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["p_adjusted"] = holm(frame["p"].to_numpy())
    tests = int(frame["p"].notna().sum())
    frame["detectable"] = [
        math.nan if zero or known else _detectable(sample, alpha / max(tests, 1))
        for sample, zero, known in alone
    ]
    frame["verdict"] = [
        "zero gradient" if zero else _verdict(known, bias, p < alpha)
        for (_, zero, known), bias, p in zip(alone, frame["bias"], frame["p_adjusted"], strict=True)
    ]
    return frame


def _verdict(known: bool, bias: float, found: bool) -> str:
    if known:
        return "biased" if bias > EXACT else "unbiased"
    return "bias found" if found else "no bias seen"


def _detectable(sample: Sample, alpha: float) -> float:
    draws = sample.draws
    if draws < 2:
        return math.inf
    variances = _mean_and_variance(sample)[1]
    coordinates = max(int((variances > 0).sum()), 1)
    limit = stats.t.isf(-np.expm1(np.log1p(-alpha) / coordinates) / 2.0, draws - 1)
    return float((limit + stats.norm.ppf(_POWER)) * math.sqrt(variances.max()))


def _mean_and_variance(sample: Sample) -> tuple[Floats, Floats]:
    """The mean of a draw [P], and the variance [P] of its distance from the reference."""
    if sample.moments is not None:
        mean, variances = sample.moments[0], np.zeros_like(sample.direction)
    else:
        _, mean, squares = pool(map(Moments, sample.counts, sample.means, sample.m2))
        variances = squares / max(sample.draws - 1, 1) / sample.draws
    return mean, variances if sample.noise is None else variances + sample.noise.variances


def holm(p: np.ndarray) -> np.ndarray:
    """The p-values adjusted by Holm's method (1979); NaN stay, and are not counted."""
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted


def coordinates(results: Iterable[Cell]) -> pd.DataFrame:
    """The bias of each coordinate of the gradient, relative to |G| of its layer.

    Returns:
        A row per cell, layer and coordinate: the keys, coordinate (from 0, leaves of the layer in
        the order of JAX, each row by row), gradient, bias, bias_se (0 where moments and reference
        are exact), all in units of |G|; layers whose gradient is zero are left out.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    parts = []
    for cell in results:
        for sample in samples(cell):
            if sample.name == NETWORK or sample.zero:
                continue
            mean, variances = _mean_and_variance(sample)
            key = dict(zip(KEYS, [*cell.place, sample.name, cell.estimator], strict=True))
            values = {
                "coordinate": np.arange(len(mean)),
                "gradient": sample.direction,
                "bias": mean - sample.direction,
                "bias_se": np.sqrt(variances),
            }
            parts.append(pd.DataFrame(values).assign(**key)[[*KEYS, *values]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=KEYS)
