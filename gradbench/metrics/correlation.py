"""Does a smaller error of the gradient go with a better result? Correlations with intervals."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gradbench.core.specs import family
from gradbench.metrics.directory import Directory
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.training import (
    RUN,
    averaging,
    final,
    gradient_errors,
    learning,
    rmse_along,
)

AVERAGES = tuple(2**k for k in range(13))  # the M of the curve, beside that of the optimiser
_RESAMPLES = 400
_FEW = 4  # estimators; fewer have no correlation worth a number
_SAME = 1e-4  # relative, of moments in float32: estimators that are equal draw by draw


def correlation(
    results: Directory, result: str = "loss", path: str = "own", level: float = LEVEL
) -> pd.DataFrame:
    """Return how well the RMSE of the mean of M draws predicts the order of results.

    For each seed it is Spearman's correlation, over estimators, of RMSE(M) along the training and
    the final loss; then the mean over seeds. The interval is a bootstrap over seeds and estimators.
    Estimators that are equal draw by draw count once, the exact gradient not at all, and runs that
    diverged are the worst.

    Args:
        results: a directory of results of training, or its path.
        result: "loss" or "test_loss".
        path: where gradients were measured: "own", or "exact", along the exact gradient's run.
        level: the level of the interval.

    Returns:
        A frame with a row for each problem, optimiser and M: problem, optimiser, what a sweep
        varies, M, chosen (whether M is the number of steps that the optimiser averages over, fixed
        beforehand), correlation, with ``_low`` and ``_high``, estimators and seeds. It is empty
        where no error was measured of at least four estimators, or all results are equal.

    Raises:
        GradbenchError: the results are not of training, or no run is finished.
    """
    errors = gradient_errors(results)
    last = final(learning(results))
    by = [column for column in last if column in ("width", "depth")]
    rows: list[dict[str, Any]] = []
    for (problem, optimiser), group in last.groupby(["problem", "optimiser"], sort=False):
        of = errors[(errors["problem"] == problem) & (errors["optimiser"] == optimiser)]
        names = [name for name in distinct(of) if family(name) != "exact"]
        scores = group.pivot(index="seed", columns="estimator", values=result)
        scores = scores[[name for name in names if name in scores]].fillna(math.inf)
        if scores.shape[1] < _FEW:
            continue
        chosen = averaging(optimiser)
        drawn = _resamples(*scores.shape)
        for average in sorted({*AVERAGES, chosen}):
            found = rmse_along(of, average, path).reset_index(name="rmse")
            table = found.pivot(index="seed", columns="estimator", values="rmse")
            table = table.reindex(index=scores.index, columns=scores.columns).fillna(math.inf)
            x, y = table.to_numpy(), scores.to_numpy()
            value = _mean_of_known(spearman(x, y))
            if math.isnan(value):
                continue
            low, high = _interval(x, y, drawn, level)
            rows.append(
                {"problem": problem, "optimiser": optimiser}
                | {column: group[column].iloc[0] for column in by}
                | {"M": average, "chosen": average == chosen, "path": path, "result": result}
                | {"correlation": value}
                | {"correlation_low": low, "correlation_high": high}
                | {"estimators": scores.shape[1], "seeds": scores.shape[0]}
            )
    return pd.DataFrame(rows)


def error_results(results: Directory, path: str = "own") -> pd.DataFrame:
    """Return the result of each finished run beside the error of its gradients.

    Args:
        results: a directory of results of training, or its path.
        path: where gradients were measured: "own", or "exact", along the exact gradient's run.

    Returns:
        The last row of each run in ``learning``, with M, the steps that its optimiser averages
        over, and rmse, the relative RMSE of the mean of M draws, NaN where none was measured.

    Raises:
        GradbenchError: the results are not of training, or no run is finished.
    """
    last, errors = final(learning(results)), gradient_errors(results)
    parts = []
    for optimiser, rows in last.groupby("optimiser", sort=False):
        average = averaging(str(optimiser))
        of = errors[errors["optimiser"] == optimiser]
        found = rmse_along(of, average, path).reset_index(name="rmse")
        parts.append(rows.assign(M=average).merge(found, on=RUN, how="left"))
    return pd.concat(parts, ignore_index=True)


def distinct(errors: pd.DataFrame) -> list[str]:
    """Return the estimators without those that equal an earlier one draw by draw.

    They share their random numbers, so equal ones have the same moments at the first step.

    Args:
        errors: ``gradient_errors`` of one problem and optimiser.
    """
    own = errors[(errors["path"] == "own") & (errors["step"] == errors["step"].min())]
    found: dict[str, np.ndarray] = {}
    for name, rows in own.groupby("estimator", sort=False):
        moments = rows.sort_values("seed")[["bias2", "variance"]].to_numpy()
        size = np.abs(moments).max(1, keepdims=True)
        if not any(
            other.shape == moments.shape and (np.abs(other - moments) <= _SAME * size).all()
            for other in found.values()
        ):
            found[str(name)] = moments
    return list(found)


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation along the last axis; NaN where all are tied."""
    a, b = (_ranks(values) for values in (x, y))
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last axis, those of ties their mean."""
    one, other = values[..., :, None], values[..., None, :]
    return (other < one).sum(-1) + (other == one).sum(-1) / 2


def _resamples(seeds: int, estimators: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of seeds and estimators of each resample, the same for all M."""
    rng = np.random.default_rng(0)
    return (
        rng.integers(seeds, size=(_RESAMPLES, seeds)),
        rng.integers(estimators, size=(_RESAMPLES, estimators)),
    )


def _interval(
    x: np.ndarray, y: np.ndarray, drawn: tuple[np.ndarray, np.ndarray], level: float
) -> tuple[float, float]:
    seeds, estimators = drawn[0][:, :, None], drawn[1][:, None, :]
    values = spearman(x[seeds, estimators], y[seeds, estimators])
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(values)
        means = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
    means = means[known.any(1)]
    if not len(means):
        return math.nan, math.nan
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
