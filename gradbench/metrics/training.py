"""Runs of training as frames: curves, and errors of gradients on the way.

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
from gradbench.metrics.untrained import METHOD, is_training
from gradbench.results import runs
from gradbench.results.quantities import LOSS, Quantity, judged_by, read_quantity
from gradbench.results.runs import AT_MODE, CURVES
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
        NaN. Runs that are not finished end where they are. Networks of binary weights have
        mode_loss and mode_accuracy too, with the weights at their more probable states. Where a
        suite judges by something else than the loss there are also result and judged_by, such as
        "precision(at=100)"; where it has a second phase, continued, whether the step is of that.

    Raises:
        GradbenchError: the results are not of training, or none is stored.
    """
    found = _of_training(results)
    suite = found.manifest["suite"]
    quantity = judged_by(found.manifest)
    pace = {
        runs.identifier(one.identity): float(one.arrays["seconds"][0] / one.arrays["steps"][0])
        / float(one.arrays["runs"][0])
        for one in runs.stored(found, "times")
        if {"seconds", "steps", "runs"} <= set(one.arrays) and one.arrays["steps"].all()
    }
    # Without parameters, which may be large.
    every = [
        one._replace(arrays={key: array for key, array in one.arrays.items() if "/" not in key})
        for one in runs.stored(found)
        if one.identity["phase"] != "search"
        and one.identity.get("result") == suite["plan"].get("result")
    ]
    place = {problem["name"]: number for number, problem in enumerate(suite["problems"])}
    every.sort(key=lambda one: place.get(one.identity["problem"], len(place)))
    reported = {
        runs.identifier(one.identity): one for one in every if one.identity["phase"] == "report"
    }
    rows = [
        row for key, one in reported.items() for row in _rows(found, one, quantity, pace.get(key))
    ]
    if suite["plan"].get("continuation"):
        rows = [row | {"continued": False} for row in rows]
        for one in every:
            if (after := one.identity.get("after")) in reported:
                own = _rows(found, one, quantity, pace.get(runs.identifier(one.identity)))
                rows += _continued(own, reported[after], pace.get(after, math.nan))
    if not rows:
        raise GradbenchError(
            f"{str(found.directory)!r} has no reported run yet; give the same `gradbench run` again"
        )
    return pd.DataFrame(rows)


def _rows(
    results: Results, one: runs.Stored, quantity: Quantity, pace: float | None
) -> list[dict[str, Any]]:
    """Return the rows of runs, given the seconds of one step."""
    rows: list[dict[str, Any]] = []
    for lane, (rate, seed) in enumerate(_lanes(one.identity)):
        ended = one.arrays["diverged"][lane]
        head = _head(results, one.identity, seed) | {"rate": rate}
        for k, step in enumerate(one.arrays["steps"]):
            names = (*CURVES, *(name for name in AT_MODE if name in one.arrays))
            curves = {name: one.arrays[name][k, lane] for name in names}
            if quantity != LOSS:
                result = one.arrays[quantity.name][k, lane]
                curves |= {"result": result, "judged_by": quantity.spec}
            rows.append(
                head
                | {"step": int(step), "seconds": math.nan if pace is None else pace * step}
                | curves
                | {"diverged": ended if ended >= 0 else math.nan, "done": one.done}
            )
    return rows


def _continued(
    rows: list[dict[str, Any]], before: runs.Stored, pace: float
) -> list[dict[str, Any]]:
    """Return the rows of a second phase with the steps and the seconds of the first one added."""
    base = before.step
    lanes = zip(_lanes(before.identity), before.arrays["diverged"], strict=True)
    ended = {seed: float(step) for (_, seed), step in lanes if step >= 0}
    return [
        row
        | {"step": row["step"] + base, "seconds": row["seconds"] + pace * base, "continued": True}
        | {"diverged": ended.get(row["seed"], row["diverged"] + base)}
        for row in rows
        if row["step"] > 0  # at 0 they are what the first phase ended with
    ]


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


def quantity_of(frame: pd.DataFrame) -> Quantity:
    """Return what methods are judged by, in a frame of ``learning`` or ``trained``."""
    return read_quantity(frame["judged_by"].iloc[0]) if "judged_by" in frame else LOSS


def final(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the last step of each finished run, in a frame of ``learning``.

    Of runs with a second phase it is the last one before that.

    Raises:
        GradbenchError: no run is finished.
    """
    done = curves[curves["done"]]
    if "continued" in done:
        done = done[~done["continued"]]
    if done.empty:
        raise GradbenchError("no run is finished; give the same `gradbench run` again")
    return done.loc[done.groupby(RUN, sort=False)["step"].idxmax()].reset_index(drop=True)


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
