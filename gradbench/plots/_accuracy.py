"""RMSE and cosine against the number of draws."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.plots._layout import (
    NOTHING,
    band,
    curve,
    finish,
    grid,
    logarithmic,
    notice_zero_gradient,
    only_one,
    zero_line,
)
from gradbench.spec import family
from gradbench.style import GROUPS, SETTINGS, Style, group_of, styles

FEW_GROUPS = 20  # fewer groups of M draws carry no band
MANY = 12  # more estimators do not fit in one panel, nor in one legend


def rmse_curve(curves: pd.DataFrame, ax: Axes, style: dict[str, Style] | None = None) -> Axes:
    """Relative RMSE against M, on logarithmic axes, with a band of two standard errors.

    ``curves`` holds the rows of one layer and checkpoint. Points that their error does not tell
    from zero are left out; an estimator without error (the exact one) is a line at the bottom.
    """
    ax.set(yscale="log", xscale="log", xlabel="draws M", ylabel="relative RMSE")
    for estimator, look in (style or styles(curves["estimator"])).items():
        rows = curves[curves["estimator"] == estimator].sort_values("M")
        if len(rows) and (rows["rmse"] < NOTHING).all():
            zero_line(ax, look, estimator)
            continue
        seen = rows[(rows["rmse"] > rows["rmse_se"].fillna(0.0)) & (rows["rmse"] >= NOTHING)]
        curve(ax, look, seen["M"], seen["rmse"])
        low = (seen["rmse"] - 2.0 * seen["rmse_se"]).clip(lower=seen["rmse"] / 3.0)
        band(ax, look, seen["M"], low, seen["rmse"] + 2.0 * seen["rmse_se"])
    return ax


def cosine_curve(curves: pd.DataFrame, ax: Axes, style: dict[str, Style] | None = None) -> Axes:
    """Mean cosine against M on a logarithmic axis, with the band from the 15 to the 85 % quantile.

    ``curves`` holds the rows of one layer and checkpoint. M with few groups carry no band.
    """
    ax.set(xscale="log", xlabel="draws M", ylabel="cosine")
    for estimator, look in (style or styles(curves["estimator"])).items():
        rows = curves[(curves["estimator"] == estimator) & (curves["groups"] > 0)].sort_values("M")
        curve(ax, look, rows["M"], rows["cosine"])
        rows = rows[rows["groups"] >= FEW_GROUPS]
        band(ax, look, rows["M"], rows["cosine_low"], rows["cosine_high"])
    return ax


def accuracy(curves: pd.DataFrame, title: str = "") -> dict[str, Figure]:
    """The figures "rmse" and "cosine": a panel per layer (columns) and checkpoint (rows).

    ``curves`` is that of one problem and replicate. A column ``loss`` is printed beside the
    checkpoint. Of more than 12 estimators there is a figure for each group of families,
    "rmse-score" and so on, without the exact one.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    only_one(curves, ["problem", "replicate"], "accuracy")
    groups = {"": curves}
    if curves["estimator"].nunique() > MANY:
        curves = curves[curves["estimator"].map(family) != "exact"]
        own = curves["estimator"].map(group_of)
        groups = {f"-{name}": curves[own == name] for name in (*GROUPS, "other")}
    return {
        f"{kind}{suffix}": _panels(rows, f"{title}{suffix.replace('-', ': ', 1)}", draw, share)
        for kind, draw, share in _KINDS
        for suffix, rows in groups.items()
        if len(rows)
    }


_KINDS: tuple[tuple[str, Callable[..., Axes], Literal["row", "all"]], ...] = (
    ("rmse", rmse_curve, "row"),
    ("cosine", cosine_curve, "all"),
)


def _panels(
    curves: pd.DataFrame, title: str, draw: Callable[..., Axes], share: Literal["row", "all"]
) -> Figure:
    style = styles(curves["estimator"])
    checkpoints, layers = curves["checkpoint"].unique(), curves["layer"].unique()
    with rc_context(SETTINGS):
        figure, axes = grid(len(checkpoints), len(layers), share)
        for (i, j), ax in np.ndenumerate(axes):
            rows = curves[(curves["checkpoint"] == checkpoints[i]) & (curves["layer"] == layers[j])]
            loss = f", loss {rows['loss'].iloc[0]:.3g}" if "loss" in rows and len(rows) else ""
            ax.set_title(f"{layers[j]}\n{checkpoints[i]}{loss}")
            notice_zero_gradient(rows, ax)
            draw(rows[~rows["zero_gradient"]], ax, style)
            ax.label_outer()
        for ax in axes.flat:
            logarithmic(ax, "x")
            if draw is rmse_curve:
                logarithmic(ax, "y")
            else:
                ax.set_ylim(top=1.0 + 0.05 * (1.0 - ax.get_ylim()[0]))
        exact = curves[curves["exact"]] if draw is rmse_curve else curves[:0]  # not the cosine
        finish(figure, title, style, known=set(exact["estimator"]))
    return figure
