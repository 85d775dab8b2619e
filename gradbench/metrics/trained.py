"""Methods of training, ranked by their results over seeds."""

import math
from typing import Any

import numpy as np
import pandas as pd

from gradbench.metrics.directory import Directory, opened
from gradbench.metrics.distributions import t_quantile
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.training import RUN, final, learning, quantity_of
from gradbench.metrics.untrained import METHOD
from gradbench.results.methods import are_paired
from gradbench.results.runs import AT_MODE, CURVES

_AGREE = 8  # seeds: so many that all say the same are believed


def trained(results: Directory, level: float = LEVEL) -> pd.DataFrame:
    """Rank the methods by their result, over seeds: the final training loss if nothing else.

    The rank is one more than the number of estimators that are significantly better with the same
    problem and optimiser: results are paired by seed and their differences compared by Student's t.
    A method that is worse with each of eight seeds or more is worse too, so that one seed that went
    wrong does not hide what all say; by chance that happens once in 128 times. A method that
    diverged with some seed is behind all that did not. Where a suite says which estimators train
    with which optimiser, it is the rank among all methods of the problem.

    Args:
        results: a directory of results of training, or its path.
        level: the level of the comparisons and of the intervals.

    Returns:
        A frame with a row for each method, best first: problem, optimiser, rank, estimator, family,
        what a sweep varies, rate, seeds, diverged (how many of them), the means of loss, test_loss,
        accuracy, ensemble_accuracy and mean_field_accuracy at the last step, loss_se, loss_low and
        loss_high, and seconds of a run. Where a suite judges by something else there are also
        judged_by, result, result_se, result_low and result_high; with a second phase continued_loss
        and continued_result, the means at its end. Networks of binary weights have mode_loss and
        mode_accuracy. Where all methods of a problem are ranked together there is method, such as
        "psa with adam". Runs that are not finished are left out.

    Raises:
        GradbenchError: the results are not of training, or no run is finished.
    """
    curves = learning(results)
    quantity = quantity_of(curves)
    columns = [*dict.fromkeys(("loss", quantity.column))]
    rows, ended = final(curves), _after_continuing(curves)
    paired = are_paired(opened(results).manifest["suite"]["plan"])
    found = []
    for _, group in rows.groupby(METHOD[: 1 if paired else 2], sort=False):
        names = group.groupby(METHOD).ngroup()
        table = quantity.cost(
            group.assign(name=names).pivot(index="seed", columns="name", values=quantity.column)
        )
        own = []
        for name in table.columns:
            one = group[names == name]
            method = dict(zip(METHOD, one.iloc[0][METHOD], strict=True))
            problem, optimiser, estimator = method.values()
            own.append(
                {"problem": problem, "optimiser": optimiser}
                | {"rank": 1 + _better(table, name, level), "estimator": estimator}
                | ({"method": f"{estimator} with {optimiser}"} if paired else {})
                | _summary(one, columns, level)
                | _means(ended, tuple(method.values()), columns)
            )
        order = [(row["rank"], row["diverged"], quantity.cost(row[quantity.column])) for row in own]
        found += [own[k] for k in sorted(range(len(own)), key=order.__getitem__)]
    frame = pd.DataFrame(found)
    return frame.drop(
        columns=[c for c in frame if frame[c].isna().all() and c.endswith("accuracy")]
    )


def _after_continuing(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the last step of each second phase that is finished, empty where there is none."""
    done = curves[curves["done"] & curves.get("continued", False)]
    return done.loc[done.groupby(RUN, sort=False)["step"].idxmax()]


def _means(rows: pd.DataFrame, method: tuple[Any, ...], names: list[str]) -> dict[str, float]:
    """Return the means of one method after its second phase."""
    own = rows[(rows[METHOD] == list(method)).all(axis=1)]
    return {f"continued_{name}": own[name].mean() for name in names} if len(own) else {}


def _better(table: pd.DataFrame, name: int, level: float) -> int:
    """Return how many methods are significantly better than one, by values of which less is."""
    own, count = table[name].to_numpy(), 0
    for other in table.columns:
        losses = table[other].to_numpy()
        if np.isfinite(losses).all() and not np.isfinite(own).all():
            count += 1
        elif np.isfinite(own).all() and np.isfinite(losses).all() and len(own) > 1:
            gap = own - losses
            error = gap.std(ddof=1) / math.sqrt(len(gap))
            far = gap.mean() > t_quantile((1 + level) / 2, len(gap) - 1) * error
            count += int(far or (len(gap) >= _AGREE and np.all(gap > 0)))
    return count


def _summary(group: pd.DataFrame, names: list[str], level: float) -> dict[str, Any]:
    first, count = group.iloc[0], len(group)
    curves = [*CURVES, *(name for name in AT_MODE if name in group)]
    left_out = {*RUN, *curves, *names, *_OF_STEPS}
    found: dict[str, Any] = {c: first[c] for c in group if c not in left_out}
    found |= {"seeds": count, "diverged": int(group["diverged"].notna().sum())}
    found |= {name: group[name].mean() for name in curves}
    for name in names:
        values = group[name]
        se = values.std(ddof=1) / math.sqrt(count) if count > 1 else math.nan
        half = t_quantile((1 + level) / 2, count - 1) * se if count > 1 else math.nan
        mean = values.mean(skipna=False)
        found |= {name: mean, f"{name}_se": se}
        found |= {f"{name}_low": mean - half, f"{name}_high": mean + half}
    return found | {"seconds": group["seconds"].mean()}


_OF_STEPS = {"step", "seconds", "diverged", "done", "continued"}
