"""What figures of training share: a column of panels for each optimiser, a line for each method."""

import math
from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradbench.plots.grid import label_outer
from gradbench.plots.layout import band, curve, finish, panels
from gradbench.plots.parts import Part, Suite, each_problem
from gradbench.plots.rows import MANY, Row, groups, only_one
from gradbench.plots.style import Style, family_of
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View

_GREY = Style("#d9d9d9", "")
_SPREAD = 4  # of losses: times the least
# Draws the rows of one optimiser into a panel.
Draw = Callable[[pd.DataFrame, Axes, Mapping[str, Style]], object]


def each_measured(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    """Return a drawing of each problem, where errors of gradients were measured."""
    if not suite["plan"]["measured"]:
        return []
    parts = each_problem(suite, frame)
    return [part for part in parts if (part.rows["family"] != "exact").any()]


def run_panels(frame: pd.DataFrame, what: str, title: str, draw: Draw, view: View) -> Figure:
    """Return a figure with a column for each optimiser, and a row for each group of many methods.

    Args:
        frame: rows of one problem.
        what: the name of the figure, for errors.
        title: printed above.
        draw: draws the rows of an optimiser.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or those of several problems.
    """
    only_one(frame, ["problem"], what)
    return method_panels(frame, title, draw, view)


def method_panels(frame: pd.DataFrame, title: str, draw: Draw, view: View) -> Figure:
    """Return the figure of ``run_panels`` of rows of one problem or several."""
    rows, optimisers = run_rows(frame, view), list(frame["optimiser"].unique())
    with rc_context(view.settings):
        figure, axes = panels(view, rows, optimisers, sharey="all", sharex="all")
        for row, line in zip(rows, axes, strict=True):
            for optimiser, ax in zip(optimisers, line, strict=True):
                draw(frame[frame["optimiser"] == optimiser], ax, row.style)
        for ax in axes.flat:
            label_outer(ax)
        finish(figure, title, {} if rows[0].legend else rows[0].style)
    return figure


def run_rows(frame: pd.DataFrame, view: View) -> list[Row]:
    """Return one row of panels, or one for each group of more than 12 estimators, others grey."""
    look = view.styles(frame)
    if len(look) <= MANY:
        return [Row("", frame, look, {})]
    exact = {name: one for name, one in look.items() if family_of(name) == "exact"}
    rows = []
    for name, part in groups(frame).items():
        own = view.styles(part)
        grey = {other: _GREY for other in look if other not in own and other not in exact}
        rows.append(Row(name, frame, grey | exact | own, exact | own))
    return rows


def median_lines(
    frame: pd.DataFrame, x: str, y: str, ax: Axes, style: Mapping[str, Style], by: str = "step"
) -> Axes:
    """Draw the median over seeds of each method, with a band from the least to the greatest.

    A run that has diverged counts as infinite. Styles without a marker have no band. A point is of
    all rows with one value of the column ``by``.
    """
    for estimator, look in style.items():
        rows = frame[frame["estimator"] == estimator]
        at = rows.groupby(by, sort=True)
        values = rows[y].fillna(math.inf if rows[y].notna().any() else math.nan)
        lines = values.groupby(rows[by]).agg(["median", "min", "max"])
        lines = lines[lines["median"] < math.inf]
        places = at[x].mean().reindex(lines.index)
        curve(ax, look, places, lines["median"], estimator)
        if look.marker and len(style) <= MANY:
            sure = lines[lines["max"] < math.inf]
            band(ax, look, places[sure.index], sure["min"], sure["max"], estimator)
    return ax


def mark_second_phase(frame: pd.DataFrame, x: str, ax: Axes) -> None:
    """Draw a line where the second phase of runs begins, in a frame of ``learning``."""
    if "continued" in frame and frame["continued"].any():
        first = frame[~frame["continued"]]
        ax.axvline(first[x].max(), color="0.6", lw=0.6, ls=":", zorder=0)


def log_axes(
    ax: Axes, values: pd.Series, label: str, name: str, losses: pd.Series | None = None
) -> None:
    """Set a logarithmic axis of steps or seconds, and one of what is along them.

    That is logarithmic too if it has ``losses`` of which the largest is several times the least.
    """
    known = values[values > 0]
    ax.set(xscale="log", xlabel=label, ylabel=name)
    if len(known):
        ax.set_xlim(known.min() / 1.2, known.max() * 1.2)
        logarithmic(ax, "x")
    finite = pd.Series(dtype=float) if losses is None else losses[losses.abs() < math.inf]
    if len(finite) and 0 < _SPREAD * finite.min() < finite.max():
        ax.set_yscale("log")
        logarithmic(ax, "y")
    else:
        ax.yaxis.set_major_locator(MaxNLocator(5))
