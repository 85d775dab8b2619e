"""RMSE against the cost of a draw, and the Pareto front."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from gradbench.core.display import display_name
from gradbench.metrics import COSTS, check_cost
from gradbench.plots.curves import AXES
from gradbench.plots.grid import grid, label_outer
from gradbench.plots.layout import NOTHING, finish, notice_zero_gradient
from gradbench.plots.parts import Part, Suite, each_problem, has_costs
from gradbench.plots.plane import label_all
from gradbench.plots.registry import Panel, figure
from gradbench.plots.rows import MANY, no_cost, only_one, place_of, whole
from gradbench.plots.save import lay_out, number_owned, owned
from gradbench.plots.style import Style, families_in, family_of, family_styles, styles
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


def error_and_cost(summary: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the cost of a draw of each estimator and its relative RMSE, over replicates.

    Args:
        summary: the rows of one layer and checkpoint at M = 1.
        cost: "evaluations" of the objective per example, or "seconds".

    Returns:
        A frame indexed by estimator with the columns ``x`` (the cost), ``y`` (the RMSE; 0 if it is
        only rounding) and ``front`` (no other is better in one and as good in the other), without
        estimators of unknown cost. An estimator without error is not on the front.

    Raises:
        GradbenchError: an unknown cost.
    """
    check_cost(cost)
    means = summary[~summary["zero_gradient"]].groupby("estimator", sort=False)[["mse", cost]]
    points = means.mean().dropna().rename(columns={cost: "x"})
    points["y"] = np.sqrt(points.pop("mse").clip(lower=0.0))
    points.loc[points["y"] < NOTHING, "y"] = 0.0
    seen = points[points["y"] > 0.0]
    x, y = seen["x"].to_numpy(), seen["y"].to_numpy()
    no_worse = (x <= x[:, None]) & (y <= y[:, None])
    better = no_worse & ((x < x[:, None]) | (y < y[:, None]))
    return points.assign(front=points.index.isin(seen.index[~better.any(1)]))


def pareto_front(
    summary: pd.DataFrame,
    ax: Axes,
    style: Mapping[str, Style] | None = None,
    cost: str = "evaluations",
) -> Axes:
    """Draw relative RMSE of one draw against its cost, on logarithmic axes.

    The line joins the estimators that no other beats in both, which are filled; the others are
    hollow. The cost of the exact estimator is written at the bottom. Bars along a time show how far
    its repeats spread.

    Args:
        summary: the rows of one layer and checkpoint at M = 1; replicates are taken together.
        ax: where to draw.
        style: the estimators to draw and how; all of them by default, as ``plots.style`` has it.
        cost: "evaluations" of the objective per example, or "seconds"; estimators of unknown cost
            are left out.

    Raises:
        GradbenchError: an unknown cost.
    """
    points = error_and_cost(summary, cost)
    spread = _spreads(summary)
    ax.set(xscale="log", yscale="log", ylabel="relative RMSE of a draw")
    ax.set_xlabel(f"{AXES[cost]} per draw")
    ax.add_artist(Line2D(*_steps(points), color="0.6", lw=0.8, zorder=1))
    for name, look in (style or styles(summary)).items():
        if name not in points.index:
            continue
        x, y, on_front = points.loc[name]
        if y == 0.0:
            what = f"{look.label or display_name(name)}: 0 at {_AMOUNT[cost](x)}"
            place: dict[str, Any] = {"transform": ax.transAxes, "ha": "right", "fontsize": 6.5}
            owned(ax.text(0.99, 0.02, what, color=look.color, **place), name)
            continue
        fill: dict[str, Any] = {"mew": 0} if on_front else {"mfc": "none", "alpha": 0.7}
        if cost == "seconds" and spread.get(name, 0.0) > 0.0:
            low, high = x / (1.0 + spread[name]), x * (1.0 + spread[name])
            (bar,) = ax.plot([low, high], [y, y], color=look.color, lw=0.8, alpha=0.7)
            owned(bar, name)
        (mark,) = ax.plot(x, y, color=look.color, ls="", marker=look.marker or "*", **fill)
        owned(mark, name)
    return ax


def _spreads(summary: pd.DataFrame) -> dict[str, float]:
    """Return how far the repeats of the time of a draw spread, the largest over the rows."""
    if "seconds_spread" not in summary:
        return {}
    return summary.groupby("estimator")["seconds_spread"].max().dropna().to_dict()


_AMOUNT = {
    "evaluations": EngFormatter(places=0, sep=""),
    "seconds": EngFormatter("s", places=0),
}


def _steps(points: pd.DataFrame) -> Any:
    """Return the corners [2, n] of the front, which goes on to the right."""
    front = points[points["front"]].sort_values(["x", "y"])
    x = np.append(np.repeat(front["x"], 2)[1:], front["x"].tail(1) * 1e9)
    return np.array([x, np.repeat(front["y"], 2)])


def _with_costs(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each problem whose costs are known."""
    return (part for part in each_problem(suite, summary) if has_costs(part.rows))


def _panel(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style], cost: str) -> None:
    pareto_front(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")
    logarithmic(ax, "y")


@figure(
    parts=_with_costs,
    suites=["accuracy", "training"],
    panel=Panel(
        "Error against cost of a draw",
        "RMSE of one draw. The line joins the estimators that no other beats in both; dominated "
        "estimators are hollow. Bars along a time show how far its repeats spread.",
        _panel,
        COSTS[1:],
    ),
    order=50,
)
def pareto(summary: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw RMSE of one draw of the whole network against evaluations and measured time.

    A row per checkpoint. Up to 12 estimators are named beside their points; if there are more, only
    those on the front are, and the legend shows families.

    Args:
        summary: the ``summary`` of one problem at M = 1.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, several problems, several layers without "network", costs that
            were not stored, or an option that does not fit.
    """
    only_one(summary, ["problem"], "pareto")
    frame = whole(summary, "pareto").dropna(subset=list(COSTS[1:]))
    if frame.empty:
        raise no_cost("pareto")
    parts = [part for _, part in frame.groupby("checkpoint", sort=False)]
    few = frame["estimator"].nunique() <= MANY
    style = view.styles(frame) if few else view.dressed(family_styles(frame))
    with rc_context(view.settings):
        headers = [place_of(part) for part in parts]
        height = (1.5 if view.narrow else 2.2) if few else 3.2
        figure, axes = grid(view, headers, ["", ""], sharex="col", height=height)
        figure.set_figwidth(view.inches())
        for part, line in zip(parts, axes, strict=True):
            for cost, ax in zip(COSTS[1:], line, strict=True):
                notice_zero_gradient(part, ax)
                pareto_front(part, ax, style, cost)
                label_outer(ax)
        for k, ax in enumerate(axes.flat):
            logarithmic(ax, "x", "s" if k % 2 else "")
            logarithmic(ax, "y")
        known = families_in(frame)
        families = {
            (own := family_of(name, known)): look._replace(
                label=display_name(own).replace("_", " ")
            )
            for name, look in style.items()
            if look.marker
        }
        marks = [
            Line2D([], [], color="0.4", ls="", marker="o", mew=0, label="on the front"),
            Line2D([], [], color="0.4", ls="", marker="o", mfc="none", label="dominated"),
        ]
        named = few and not view.narrow  # beside the points
        legend = {} if named else style if few else families
        finish(figure, title, legend, marks, lines=False)
        lay_out(figure)
        for part, line in zip(parts, axes, strict=True):
            for cost, ax in zip(COSTS[1:], line, strict=True):
                if view.narrow and few:
                    continue
                points = error_and_cost(part, cost)
                seen = points[points["y"] > 0.0]
                x, y = _steps(points)
                corners = ax.transData.transform(np.stack([x.clip(max=ax.get_xlim()[1]), y], 1))
                along = [
                    place
                    for a, b in pairwise(corners)
                    for place in np.linspace(a, b, int(min(np.hypot(*(b - a)), 1e3) / 3) + 1)
                ]
                others = ax.transData.inverted().transform(np.reshape(along, (-1, 2)))
                others = [*others, *seen[["x", "y"]].to_numpy()]
                label_all(ax, seen if few else seen[seen["front"]], style, others)
        number_owned(figure)
    return figure
