"""RMSE and cosine in one panel, against the number of draws or what they cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from gradbench.metrics import COSTS, best, check_cost
from gradbench.plots.layout import NOTHING, band, curve, zero_line
from gradbench.plots.style import Style, styles

FEW_GROUPS = 20  # fewer groups of M draws carry no band
AXES = dict(zip(COSTS, ("draws M", "evaluations", "measured time"), strict=True))
_CHANGE: Any = {"marker": "o", "ms": 5.5, "mew": 0.8, "color": "0.2", "mfc": "none"}


def rmse_curve(
    curves: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "draws",
) -> Axes:
    """Draw relative RMSE against its cost, on logarithmic axes, with bands of 95 % intervals.

    A small circle with a tick marks where another estimator becomes the best, by
    ``gradbench.metrics.best``. Points within their standard error of zero are left out; an
    estimator without error (the exact one) is a line at the bottom. Styles without a marker have no
    band.

    Args:
        curves: the rows of one layer and checkpoint.
        ax: where to draw.
        style: the estimators to draw and how; all of them by default, as ``plots.style`` has it.
        cost: "draws" (M), "evaluations" of the objective per example, or "seconds"; estimators of
            unknown cost are left out.

    Raises:
        GradbenchError: an unknown cost.
    """
    frame = _priced(curves, cost)
    ax.set(yscale="log", xscale="log", xlabel=AXES[cost], ylabel="relative RMSE")
    style = style or styles(frame)
    zeros = {}
    for estimator, look in style.items():
        rows = frame[frame["estimator"] == estimator].sort_values("M")
        if len(rows) and (rows["rmse"] < NOTHING).all():
            zeros[estimator] = 0.0 if cost == "draws" else rows["x"].iloc[0]
            continue
        seen = rows[(rows["rmse"] > rows["rmse_se"].fillna(0.0)) & (rows["rmse"] >= NOTHING)]
        curve(ax, look, seen["x"], seen["rmse"], estimator)
        sure = seen.dropna(subset=["rmse_low", "rmse_high"]) if look.marker else seen[:0]
        low = sure["rmse_low"].clip(lower=sure["rmse"] / 3.0)
        band(ax, look, sure["x"], low, sure["rmse_high"], estimator)
    x, y = _changes(frame, cost)
    ax.plot(x, y, ls="", marker="|", ms=12, mew=0.5, color="0.2", zorder=4)
    ax.plot(x, y, ls="", **_CHANGE, zorder=4)
    if zeros:
        ax.margins(y=0.18)  # room for the notes
    for estimator, start in zeros.items():
        zero_line(ax, style[estimator], estimator, start)
    return ax


def cosine_curve(
    curves: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "draws",
) -> Axes:
    """Draw the mean cosine against its cost, with a band from the 15 % to the 85 % quantile.

    The arguments are those of ``rmse_curve``. M of fewer than ``FEW_GROUPS`` groups have no band.

    Raises:
        GradbenchError: an unknown cost.
    """
    frame = _priced(curves, cost)
    ax.set(xscale="log", xlabel=AXES[cost], ylabel="cosine")
    for estimator, look in (style or styles(frame)).items():
        rows = frame[(frame["estimator"] == estimator) & (frame["groups"] > 0)].sort_values("M")
        curve(ax, look, rows["x"], rows["cosine"], estimator)
        rows = rows[rows["groups"] >= (FEW_GROUPS if look.marker else np.inf)]
        band(ax, look, rows["x"], rows["cosine_q15"], rows["cosine_q85"], estimator)
    return ax


def _priced(curves: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the rows whose cost is known, with the cost as the column ``x``."""
    if check_cost(cost) == "draws":
        return curves.assign(x=curves["M"])
    frame = curves.assign(x=curves["M"] * curves[cost]).dropna(subset=["x"])
    # More draws of an estimator that is not random change nothing, and only stretch the axis.
    longest = frame["x"][frame["variance"] > 0.0].max()
    return frame[~(frame["x"] > longest)]


def _changes(frame: pd.DataFrame, cost: str) -> tuple[pd.Series, pd.Series]:
    """Return where the RMSE of another estimator crosses that of the best and becomes the best.

    An estimator that becomes the best with its first draw does not cross: that is a jump.
    """
    once = frame.drop_duplicates("estimator")
    found = best(once, cost).merge(once, on="estimator")
    draws = found["start"] / (1.0 if cost == "draws" else found[cost])
    y = np.sqrt(found["bias2"].clip(lower=0.0) + found["variance"] / draws)
    measured = found["start"] <= frame["x"][frame["variance"] > 0.0].max()
    crossing = (draws > 1.0 + 1e-9) & measured
    crossing.iloc[:1] = False
    return found["start"][crossing], y[crossing]


def change_mark() -> Line2D:
    """Return the legend's entry for the places where the best estimator changes."""
    return Line2D([], [], ls="", **_CHANGE, label="change of the best")


def end_below_one(ax: Axes) -> None:
    """End the axis of a cosine a little above 1."""
    ax.set_ylim(top=1.0 + 0.05 * (1.0 - ax.get_ylim()[0]))
