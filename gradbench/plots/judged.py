"""What methods of training are judged by beside their loss: along the runs, and by size."""

from collections.abc import Iterator, Mapping
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gradbench.metrics.places import base
from gradbench.metrics.training import final, quantity_of
from gradbench.plots.parts import Part, Suite, each_problem
from gradbench.plots.registry import figure
from gradbench.plots.runs import (
    log_axes,
    mark_second_phase,
    median_lines,
    method_panels,
    run_panels,
)
from gradbench.plots.style import Style
from gradbench.plots.view import View

_LONGEST = 20  # characters of a line beside an axis: those of two panels must not meet


def _each_judged(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    return list(each_problem(suite, frame)) if "judged_by" in frame else []


def _each_swept(suite: Suite, frame: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of all sizes of each problem, where a sweep varies them."""
    if suite["by"] is None or "judged_by" not in frame:
        return
    bases = frame["problem"].map(base)
    for name, rows in frame.groupby(bases, sort=False):
        titles = [one["title"] for one in suite["problems"] if base(one["name"]) == name]
        before = f"{name}-" * (bases.nunique() > 1)
        selected = {"problem": list(rows["problem"].unique())}
        yield Part(rows, selected, {"title": titles[0], "by": suite["by"]}, before)


@figure(
    data="learning",
    parts=_each_judged,
    suites=["learning"],
    caption="What the methods are judged by along the training: the median over "
    "seeds, and the band from the least to the greatest. A dotted line is where the second phase "
    "begins, with one estimator for all methods.",
    order=190,
)
def result_along(learning: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the result of each method against the step, a panel for each optimiser.

    Args:
        learning: a ``gradbench.metrics.learning`` of one problem, with a result beside the loss.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or several problems.
    """
    quantity = quantity_of(learning)
    frame, label = _scaled(learning[learning["step"] > 0])
    losses = frame["value"] if quantity.better == "smaller" else None

    def draw(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style]) -> None:
        median_lines(rows, "step", "value", ax, style)
        log_axes(ax, frame["step"], "step", label, losses)
        mark_second_phase(frame, "step", ax)

    return run_panels(frame, "result_along", title, draw, view)


@figure(
    data="learning",
    parts=_each_swept,
    suites=["learning"],
    caption="The result against the size of the network: the median over seeds, and the band from "
    "the least to the greatest.",
    order=191,
)
def result_by_size(
    learning: pd.DataFrame, title: str = "", by: str = "width", *, view: View
) -> Figure:
    """Draw the result of each method at its end against what a sweep varies.

    Args:
        learning: a ``gradbench.metrics.learning`` with a result beside the loss.
        title: printed above.
        by: the column of what the sweep varies.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or no finished run.
    """
    frame, label = _scaled(final(learning))
    sizes = sorted(frame[by].unique())

    def draw(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style]) -> None:
        median_lines(rows, by, "value", ax, style, by=by)
        ax.set(xscale="log", xlabel=by, ylabel=label)
        ax.set_xticks(sizes, [f"{size:g}" for size in sizes])
        ax.xaxis.set_minor_locator(NullLocator())

    return method_panels(frame, title, draw, view)


def _scaled(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return a frame with the column "value" to draw, and the label of its axis."""
    quantity = quantity_of(frame)
    unit, label = (100, f"{quantity.title}, %") if quantity.share else (1, quantity.title)
    label = f"{fill(label, _LONGEST)}\n({quantity.better} is better)"
    return frame.assign(value=unit * frame[quantity.column]), label
