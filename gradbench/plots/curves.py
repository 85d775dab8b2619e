"""RMSE and 1 - cosine in one panel, against the number of draws or what they cost."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.metrics import COSTS, check_cost
from gradbench.metrics.changes import Change
from gradbench.plots.layout import NOTHING, band, curve, is_drawn, limits, zero_line, zeros
from gradbench.plots.style import Style, styles

FEW_GROUPS = 20  # fewer groups of M draws carry no band
_ROUNDING = 1e-12  # a lesser 1 - cosine is rounding
AXES = dict(zip(COSTS, ("draws M", "evaluations", "measured time"), strict=True))
_CHANGES = "_changes"  # the label of these marks, which no legend shows
_CHANGE: Any = {"marker": "o", "ms": 5.5, "mew": 0.8, "color": "0.2", "mfc": "none"}


def rmse_curve(
    curves: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "draws",
    relative: bool = False,
) -> Axes:
    """Draw relative RMSE against its cost, on logarithmic axes, with bands of 95 % intervals.

    A small circle with a tick marks where another estimator becomes the best of all that were
    measured, by the decision rule of ``gradbench.metrics.decide``. Points within
    their standard error of zero have the mark of an upper limit; an estimator without error (the
    exact one) is a line at the bottom. Lines of estimators whose moments are not exact are broken.
    Styles without a marker have no band.

    Args:
        curves: the rows of one layer and checkpoint.
        ax: where to draw.
        style: the estimators to draw and how; all of them by default, as ``plots.style`` has it.
        cost: "draws" (M), "evaluations" of the objective per example, or "seconds"; estimators of
            unknown cost are left out.
        relative: whether to draw the ratio to the least RMSE at the same cost, for curves that lie
            on one another.

    Raises:
        GradbenchError: an unknown cost.
    """
    frame = _priced(curves, cost)
    ax.set(yscale="log", xscale="log", xlabel=AXES[cost])
    ax.set_ylabel("RMSE / least RMSE" if relative else "relative RMSE")
    style = style or styles(frame)
    if relative:
        frame = _to_the_best(frame, cost, style)
    zeros = {}
    for estimator, look in style.items():
        rows = frame[frame["estimator"] == estimator].sort_values("M")
        if len(rows) and (rows["rmse"] < NOTHING).all():
            zeros[estimator] = 0.0 if cost == "draws" else rows["x"].iloc[0]
            continue
        seen = rows[(rows["rmse"] > rows["rmse_se"].fillna(0.0)) & (rows["rmse"] >= NOTHING)]
        sampled = bool(look.marker) and "exact" in rows and not rows["exact"].all()
        curve(ax, look, seen["x"], seen["rmse"], estimator, sampled)
        unseen = rows.drop(seen.index)
        unseen = unseen[unseen["rmse_high"] > 0.0]
        limits(ax, look, unseen["x"], unseen["rmse_high"], estimator)
        sure = seen.dropna(subset=["rmse_low", "rmse_high"]) if look.marker else seen[:0]
        low = sure["rmse_low"].clip(lower=sure["rmse"] / 3.0)
        band(ax, look, sure["x"], low, sure["rmse_high"], estimator)
    if changes := _changes(frame, style, cost):
        x = [one.at for one in changes]
        y = [1.0 if relative else one.rmse for one in changes]
        ax.plot(x, y, ls="", marker="|", ms=12, mew=0.5, color="0.2", zorder=4)
        ax.plot(x, y, ls="", **_CHANGE, zorder=4, label=_CHANGES)
    for estimator, start in zeros.items():
        zero_line(ax, style[estimator], estimator, start)
    return ax


def cosine_curve(
    curves: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "draws",
) -> Axes:
    """Draw 1 - cosine against its cost, with a band from the 15 % to the 85 % quantile.

    It is the mean over groups of M draws, on logarithmic axes; the arguments are those of
    ``rmse_curve``. M of fewer than ``FEW_GROUPS`` groups have no band. An estimator whose direction
    is exact is a line at the bottom, and single points of that kind are at the edge.

    Raises:
        GradbenchError: an unknown cost.
    """
    frame = _priced(curves, cost)
    ax.set(xscale="log", yscale="log", xlabel=AXES[cost], ylabel="1 \N{MINUS SIGN} cosine")
    style = style or styles(frame)
    lowest = 1.0 - frame["cosine"][frame["cosine"] < 1.0 - _ROUNDING].max()
    straight = {}
    for estimator, look in style.items():
        rows = frame[(frame["estimator"] == estimator) & (frame["groups"] > 0)].sort_values("M")
        apart = 1.0 - rows["cosine"]
        if len(rows) and (apart < _ROUNDING).all():
            straight[estimator] = 0.0 if cost == "draws" else rows["x"].iloc[0]
            continue
        seen = rows[apart >= _ROUNDING]
        curve(ax, look, seen["x"], 1.0 - seen["cosine"], estimator, sampled=bool(look.marker))
        zeros(ax, look, rows["x"][apart < _ROUNDING], estimator)
        sure = seen[seen["groups"] >= (FEW_GROUPS if look.marker else np.inf)]
        low, high = (1.0 - sure[name] for name in ("cosine_q85", "cosine_q15"))
        band(ax, look, sure["x"], low.clip(lower=0.5 * lowest), high, estimator)
    for estimator, start in straight.items():
        zero_line(ax, style[estimator], estimator, start)
    return ax


def _to_the_best(frame: pd.DataFrame, cost: str, style: Mapping[str, Style]) -> pd.DataFrame:
    """Return the rows with their RMSE, and its limits, divided by the least at the same cost.

    It is that of the estimators of ``style`` which this cost pays for, but for those without error.
    """
    once = frame[frame["estimator"].isin(style)].drop_duplicates("estimator")
    price = np.ones(len(once)) if cost == "draws" else once[cost].to_numpy()
    x = frame["x"].to_numpy()[:, None]
    square = once["bias2"].clip(lower=0.0).to_numpy() + once["variance"].to_numpy() * price / x
    square = np.where((square > NOTHING**2) & (x > price * (1.0 - 1e-9)), square, np.nan)
    least = np.sqrt(np.nanmin(np.column_stack([square, np.full(len(x), np.inf)]), axis=1))
    ratios = {name: frame[name] / least for name in ("rmse", "rmse_se", "rmse_low", "rmse_high")}
    return frame.assign(**ratios)


def _priced(curves: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the rows whose cost is known, with the cost as the column ``x``."""
    if check_cost(cost) == "draws":
        return curves.assign(x=curves["M"])
    frame = curves.assign(x=curves["M"] * curves[cost]).dropna(subset=["x"])
    # More draws of an estimator that is not random change nothing, and only stretch the axis.
    longest = frame["x"][frame["variance"] > 0.0].max()
    return frame[~(frame["x"] > longest)]


def _changes(frame: pd.DataFrame, style: Mapping[str, Style], cost: str) -> list[Change]:
    """Return where the best estimator changes, as far as both of a change are drawn here."""
    longest = frame["x"][frame["variance"] > 0.0].max()
    known = frame["changes"].iloc[0] if len(frame) and "changes" in frame else ()
    shown = {name for name in frame["estimator"].unique() if name in style and style[name].marker}
    return [
        one
        for one in known
        if one.cost == cost and {one.before, one.after} <= shown and one.at <= longest
    ]


def change_entries(figure: Figure) -> list[Line2D]:
    """Return the legend's entry for the places where the best estimator changes, if any does."""
    entry = Line2D([], [], ls="", **_CHANGE, label="change of the best")
    return [entry] if is_drawn(figure, _CHANGES) else []
