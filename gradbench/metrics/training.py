"""Runs of training as frames: curves, errors of gradients on the way, and results of methods.

Losses and accuracies are of networks whose states are sampled, whatever a method trained with.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from gradbench.core import index
from gradbench.core.atomic import Json
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family, parse_spec
from gradbench.metrics.directory import Directory, opened
from gradbench.metrics.distributions import t_quantile
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.untrained import METHOD, is_training
from gradbench.results import runs
from gradbench.results.runs import CURVES
from gradbench.results.store import Results

RUN = [*METHOD, "seed"]
_ADAM = 0.9  # the momentum of Adam where none is given


def averaging(optimiser: str) -> int:
    """Return the steps that an optimiser averages over, (1 + m) / (1 - m) with momentum m.

    It is the M at which the error of a mean of M draws is compared with the result, fixed before
    anything is trained.
    """
    name, arguments = parse_spec(optimiser)
    m = float(arguments.get("momentum") or (_ADAM if name == "adam" else 0.0))
    return round((1 + m) / (1 - m))


def learning(results: Directory) -> pd.DataFrame:
    """Return the reported runs, a row for each step that was recorded.

    Returns:
        A frame with the columns problem, optimiser, estimator, seed, what a sweep varies, family,
        rate, step, seconds (of training this one run, as measured among the runs beside it), loss
        and test_loss (of the data and of test examples), accuracy, ensemble_accuracy and
        mean_field_accuracy (of test examples, with one sample, the mean of ten, and the mean field;
        NaN without classes) and diverged (the step, NaN of others). After a divergence there is
        NaN. Runs that are not finished end where they are.

    Raises:
        GradbenchError: the results are not of training, or none is stored.
    """
    found = _of_training(results)
    pace = {
        runs.identifier(one.identity): float(one.arrays["seconds"][0] / one.arrays["steps"][0])
        / float(one.arrays["runs"][0])
        for one in runs.stored(found, "times")
        if {"seconds", "steps", "runs"} <= set(one.arrays) and one.arrays["steps"].all()
    }
    rows: list[dict[str, Any]] = []
    for one in runs.stored(found):
        if one.identity["phase"] != "report":
            continue
        seconds = pace.get(runs.identifier(one.identity), math.nan)
        for lane, (rate, seed) in enumerate(_lanes(one.identity)):
            ended = one.arrays["diverged"][lane]
            head = _head(found, one.identity, seed) | {"rate": rate}
            for k, step in enumerate(one.arrays["steps"]):
                curves = {name: one.arrays[name][k, lane] for name in CURVES}
                rows.append(
                    head
                    | {"step": int(step), "seconds": seconds * step}
                    | curves
                    | {"diverged": ended if ended >= 0 else math.nan, "done": one.done}
                )
    if not rows:
        raise GradbenchError(
            f"{str(found.directory)!r} has no reported run yet; give the same `gradbench run` again"
        )
    return pd.DataFrame(rows)


def gradient_errors(results: Directory) -> pd.DataFrame:
    """Return the errors of gradients along the runs, a row for each run, path and step.

    Returns:
        A frame with the columns problem, optimiser, estimator, seed, what a sweep varies, family,
        path ("own", or "exact" along the run with the exact gradient), step, bias2 (|E g - G|^2 /
        |G|^2, de-biased, so perhaps negative) and variance (tr Cov g / |G|^2 of a draw on a batch
        of the size that was trained with), of all layers together. It is empty where nothing was
        measured.

    Raises:
        GradbenchError: the results are not of training.
    """
    found = _of_training(results)
    batch = found.manifest["suite"]["plan"]["batch"]
    rows: list[dict[str, Any]] = []
    for one in runs.stored(found, "errors"):
        of, arrays = one.identity, one.arrays
        norm2 = arrays["norm2"].sum(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            bias2 = arrays["bias2"].sum(-1) / norm2
            variance = arrays["variance"].sum(-1) / norm2 * of["examples"] / batch
        for lane, (_, seed) in enumerate(_lanes(of)):
            head = _head(found, of, seed) | {"path": of["phase"]}
            for k, step in enumerate(arrays["steps"]):
                values = {"bias2": bias2[k, lane], "variance": variance[k, lane]}
                rows.append(head | {"step": int(step)} | values)
    columns = [*RUN, "family", "path", "step", "bias2", "variance"]
    numbers = {"step": int, "bias2": float, "variance": float}
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns).astype(numbers)


def rmse_along(errors: pd.DataFrame, average: int, path: str = "own") -> pd.Series:
    """Return the relative RMSE of the mean of M draws, the geometric mean over steps of each run.

    Args:
        errors: a frame of ``gradient_errors``.
        average: M.
        path: "own" or "exact".
    """
    rows = errors[errors["path"] == path]
    mse = rows["bias2"].clip(lower=0) + rows["variance"] / average
    logs = np.log(mse.clip(lower=1e-30)) / 2
    return np.exp(logs.groupby([rows[column] for column in RUN], sort=False).mean())


def trained(results: Directory, level: float = LEVEL) -> pd.DataFrame:
    """Rank the methods by their result: the final training loss, by sampling, over seeds.

    The rank is one more than the number of estimators that are significantly better with the same
    problem and optimiser: differences of losses are paired by seed and compared by Student's t. A
    method that diverged with some seed is behind all that did not.

    Args:
        results: a directory of results of training, or its path.
        level: the level of the comparisons and of the intervals.

    Returns:
        A frame with a row for each method, best first: problem, optimiser, rank, estimator, family,
        what a sweep varies, rate, seeds, diverged (how many of them), the means of loss, test_loss,
        accuracy, ensemble_accuracy and mean_field_accuracy at the last step, loss_se, loss_low and
        loss_high, and seconds of a run. Runs that are not finished are left out.

    Raises:
        GradbenchError: the results are not of training, or no run is finished.
    """
    rows = final(learning(results))
    found = []
    for place, group in rows.groupby(METHOD[:2], sort=False):
        table = group.pivot(index="seed", columns="estimator", values="loss")
        own = [
            dict(zip(METHOD[:2], place, strict=True))
            | {"rank": 1 + _better(table, name, level), "estimator": name}
            | _summary(group[group["estimator"] == name], level)
            for name in table.columns
        ]
        found += sorted(own, key=lambda row: (row["rank"], row["diverged"], row["loss"]))
    frame = pd.DataFrame(found)
    return frame.drop(
        columns=[c for c in frame if frame[c].isna().all() and c.endswith("accuracy")]
    )


def final(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the last step of each finished run, in a frame of ``learning``.

    Raises:
        GradbenchError: no run is finished.
    """
    done = curves[curves["done"]]
    if done.empty:
        raise GradbenchError("no run is finished; give the same `gradbench run` again")
    return done.loc[done.groupby(RUN, sort=False)["step"].idxmax()].reset_index(drop=True)


def _better(table: pd.DataFrame, name: str, level: float) -> int:
    """Return how many methods have significantly less loss than one."""
    own, count = table[name].to_numpy(), 0
    for other in table.columns:
        losses = table[other].to_numpy()
        gap = own - losses
        both = np.isfinite(gap)
        if np.isfinite(losses).all() and not np.isfinite(own).all():
            count += 1
        elif both.all() and len(gap) > 1 and gap.mean() > 0:
            error = gap.std(ddof=1) / math.sqrt(len(gap))
            count += gap.mean() > t_quantile((1 + level) / 2, len(gap) - 1) * error
    return int(count)


def _summary(group: pd.DataFrame, level: float) -> dict[str, Any]:
    first, losses = group.iloc[0], group["loss"]
    se = losses.std(ddof=1) / math.sqrt(len(losses)) if len(losses) > 1 else math.nan
    half = t_quantile((1 + level) / 2, len(losses) - 1) * se if len(losses) > 1 else math.nan
    mean = losses.mean(skipna=False)
    others = {c: first[c] for c in group if c not in {*RUN, *CURVES, *_OF_STEPS}}
    return (
        others
        | {"seeds": len(losses), "diverged": int(group["diverged"].notna().sum())}
        | {name: group[name].mean() for name in CURVES}
        | {"loss": mean, "loss_se": se, "loss_low": mean - half, "loss_high": mean + half}
        | {"seconds": group["seconds"].mean()}
    )


_OF_STEPS = {"step", "seconds", "diverged", "done"}


def _of_training(results: Directory) -> Results:
    found = opened(results)
    if not is_training(found.manifest):
        raise GradbenchError(
            f"{str(found.directory)!r} holds measurements, not runs of training; name the results "
            "of a suite with [training], such as train-digits"
        )
    return found


def _lanes(identity: Json) -> list[tuple[float, int]]:
    return [(rate, seed) for rate in identity["rates"] for seed in identity["seeds"]]


def _head(results: Results, identity: Json, seed: int) -> dict[str, Any]:
    """Return the columns that every row of a run begins with."""
    suite = results.manifest["suite"]
    labels = {problem["name"]: problem["label"] for problem in suite["problems"]}
    families = index.families() | results.manifest.get("families", {})
    name = family(identity["estimator"])
    return (
        {key: identity[key] for key in METHOD}
        | {"seed": seed}
        | ({suite["by"]: labels.get(identity["problem"])} if suite["by"] else {})
        | {"family": families.get(name, name)}
    )
