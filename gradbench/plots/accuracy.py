"""RMSE and cosine against the number of draws, and against what they cost."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.metrics import COSTS, best, check_cost
from gradbench.plots.layout import (
    MANY,
    NOTHING,
    band,
    curve,
    finish,
    grid,
    groups,
    layers_only,
    logarithmic,
    no_cost,
    notice_zero_gradient,
    only_one,
    panels,
    place_of,
    rows_of,
    whole,
    zero_line,
)
from gradbench.plots.style import CROWDED, SETTINGS, Style, styles

FEW_GROUPS = 20  # fewer groups of M draws carry no band
AXES = dict(zip(COSTS, ("draws M", "evaluations", "measured time"), strict=True))
_CHANGE: Any = {"marker": "o", "ms": 5.5, "mew": 0.8, "color": "0.2", "mfc": "none"}


def rmse_curve(
    curves: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "draws",
) -> Axes:
    """Relative RMSE against what it costs, on logarithmic axes, with bands of 95 % intervals.

    A small circle with a tick is where another estimator becomes the best, by
    ``gradbench.metrics.best``. Points that their error does not tell from zero are left out; an
    estimator without error (the exact one) is a line at the bottom. Styles without a marker have no
    band.

    Args:
        curves: the rows of one layer and checkpoint.
        ax: where to draw.
        style: the estimators to draw and how; that of ``gradbench.style`` for all by default.
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
    """Mean cosine against what it costs, with the band from the 15 to the 85 % quantile.

    The arguments are those of ``rmse_curve``. M with few groups carry no band.

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
    """The rows whose cost is known, which is the column ``x``."""
    if check_cost(cost) == "draws":
        return curves.assign(x=curves["M"])
    frame = curves.assign(x=curves["M"] * curves[cost]).dropna(subset=["x"])
    # More draws of what is not random are the same, and only stretch the axis.
    longest = frame["x"][frame["variance"] > 0.0].max()
    return frame[~(frame["x"] > longest)]


def _changes(frame: pd.DataFrame, cost: str) -> tuple[pd.Series, pd.Series]:
    """Where the RMSE of the best estimator crosses that of another, which then is the best.

    Not where one becomes the best with its first draw: that is a jump and no crossing.
    """
    once = frame.drop_duplicates("estimator")
    found = best(once, cost).merge(once, on="estimator")
    draws = found["start"] / (1.0 if cost == "draws" else found[cost])
    y = np.sqrt(found["bias2"].clip(lower=0.0) + found["variance"] / draws)
    measured = found["start"] <= frame["x"][frame["variance"] > 0.0].max()
    crossing = (draws > 1.0 + 1e-9) & measured
    crossing.iloc[:1] = False
    return found["start"][crossing], y[crossing]


def rmse(curves: pd.DataFrame, title: str = "", group: str | None = None) -> Figure:
    """Relative RMSE against the number of draws: a panel per layer (columns) and checkpoint (rows).

    ``curves`` is that of one problem and replicate. A column ``loss`` is printed beside the
    checkpoint. The layer "network" is left out unless it is given alone. With ``group`` the
    figure is of these families alone, see ``gradbench.style.GROUPS``, without the exact estimator.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    figure, axes, shown, name, style = _panels(curves, title, group, rmse_curve)
    with rc_context(SETTINGS):
        for ax in axes.flat:
            logarithmic(ax, "x")
            logarithmic(ax, "y")
        known = set(shown["estimator"][shown["exact"]])
        finish(figure, name, style, [change_mark()], known)
    return figure


def cosine(curves: pd.DataFrame, title: str = "", group: str | None = None) -> Figure:
    """Mean cosine against the number of draws, laid out as ``rmse``, of a ``group`` as there.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    figure, axes, _, name, style = _panels(curves, title, group, cosine_curve)
    with rc_context(SETTINGS):
        for ax in axes.flat:
            logarithmic(ax, "x")
            _below_one(ax)
        finish(figure, name, style)
    return figure


def accuracy(curves: pd.DataFrame, title: str = "") -> dict[str, Figure]:
    """The figures ``rmse`` and ``cosine``, of more than 12 estimators one for each group of them.

    They are called "rmse" and "cosine", or "rmse-score" and so on.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    only_one(curves, ["problem", "replicate"], "accuracy")
    return {
        f"{kind}-{group}" if group else kind: draw(curves, title, group)
        for kind, draw in (("rmse", rmse), ("cosine", cosine))
        for group in groups_to_draw(curves)
    }


def groups_to_draw(frame: pd.DataFrame) -> list[str | None]:
    """The groups of families in a ``frame`` that have a figure each; None for all together."""
    return list(groups(frame)) if frame["estimator"].nunique() > MANY else [None]


def change_mark() -> Line2D:
    """What the legend says of the places where the best estimator changes."""
    return Line2D([], [], ls="", **_CHANGE, label="change of the best")


def _below_one(ax: Axes) -> None:
    """A cosine ends at 1, with some air."""
    ax.set_ylim(top=1.0 + 0.05 * (1.0 - ax.get_ylim()[0]))


def _panels(
    curves: pd.DataFrame, title: str, group: str | None, draw: Callable[..., Axes]
) -> tuple[Figure, Any, pd.DataFrame, str, dict[str, Style]]:
    """Figure, axes, the rows shown, title and styles."""
    only_one(curves, ["problem", "replicate"], draw.__name__.partition("_")[0])
    curves = layers_only(curves)
    if group:
        curves = groups(curves)[group]
        title = f"{title}: {group}"
    style = styles(curves)
    checkpoints, layers = curves["checkpoint"].unique(), curves["layer"].unique()
    with rc_context(SETTINGS):
        share: Literal["row", "all"] = "row" if draw is rmse_curve else "all"
        figure, axes = grid(len(checkpoints), len(layers), share)
        for (i, j), ax in np.ndenumerate(axes):
            rows = curves[(curves["checkpoint"] == checkpoints[i]) & (curves["layer"] == layers[j])]
            ax.set_title(f"{layers[j]}\n{place_of(rows)}")
            notice_zero_gradient(rows, ax)
            draw(rows[~rows["zero_gradient"]], ax, style)
            ax.label_outer()
    return figure, axes, curves, title, style


def cost(curves: pd.DataFrame, title: str = "") -> Figure:
    """RMSE and cosine of the whole network against evaluations of the objective and measured time.

    A row per checkpoint; of more than 12 estimators one per group of families with its own legend,
    the others in grey. Cosines are left out where none is known.

    Args:
        curves: that of one problem and replicate; of more than 12 estimators, of one checkpoint.
        title: printed above.

    Raises:
        GradbenchError: no rows, several problems, replicates or (of many estimators) checkpoints,
            several layers without "network", or costs that were not stored.
    """
    only_one(curves, ["problem", "replicate"], "cost")
    curves = whole(curves, "cost").dropna(subset=list(COSTS[1:]))
    if curves.empty:
        raise no_cost("cost")
    rows = rows_of(curves, "cost")
    draws = (rmse_curve, cosine_curve) if (curves["groups"] > 0).any() else (rmse_curve,)
    with rc_context(CROWDED if rows[0].legend else SETTINGS):
        figure, axes = panels(rows, 2 * len(draws), sharex="col", sharey="none")
        for row, line in zip(rows, axes, strict=True):
            for k, ax in enumerate(line):
                notice_zero_gradient(row.frame, ax)
                shown = row.frame[~row.frame["zero_gradient"]]
                draws[k // 2](shown, ax, row.style, COSTS[1 + k % 2])
                if k % 2:
                    ax.sharey(line[k - 1])
                    ax.set_ylabel("")
                    ax.tick_params(labelleft=False)
                if not row.legend:
                    ax.set_title(row.name)
                if row is not rows[-1]:
                    ax.set_xlabel("")
        for k, ax in enumerate(axes.flat):
            logarithmic(ax, "x", "s" if k % 2 else "")
            if k % axes.shape[1] < 2:
                logarithmic(ax, "y")
            else:
                _below_one(ax)
        finish(figure, title, {} if rows[0].legend else rows[0].style, [change_mark()])
    return figure
