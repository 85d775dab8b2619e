"""Bias and deviation along training, and losses."""

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gradbench.plots.grid import grid
from gradbench.plots.growth import draw_against, require_column
from gradbench.plots.layout import band, curve, finish
from gradbench.plots.parts import each_problem
from gradbench.plots.registry import figure
from gradbench.plots.rows import only_one
from gradbench.plots.style import LINES, Style
from gradbench.plots.view import View


@figure(
    parts=each_problem,
    caption="Bias and standard deviation of a draw along training. Arrows are upper limits where "
    "no bias was seen.",
    order=80,
)
def training(summary: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw relative |bias| and standard deviation of a draw along training, as ``growth`` does.

    The axis of epochs is linear up to 1, and logarithmic from there.

    Args:
        summary: the ``summary`` of one problem.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: as ``growth``; no column ``epoch``, as nothing is trained.
    """
    only_one(summary, ["problem"], "training")
    return draw_against(summary, view, "epoch", title, _epochs)


@figure(suites=["training"], caption="The exact expected loss along training.", order=90)
def losses(summary: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the exact expected loss along training, a line for each problem.

    The line is the mean over replicates, with a band from the least to the greatest.

    Args:
        summary: the ``summary`` of results.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or no column ``epoch``.
    """
    only_one(summary, [], "losses")
    require_column(summary, "epoch")
    problems = list(summary["problem"].unique())
    look = {name: LINES[k % len(LINES)] for k, name in enumerate(problems)}
    with rc_context(view.settings):
        figure, axes = grid(view, [""], [""])
        ax = axes[0, 0]
        wide = 5.0 if view.width is None else view.width
        figure.set_size_inches(wide, 3.0 if wide > 4.0 else 2.4)
        for name in problems:
            loss_curve(summary[summary["problem"] == name], ax, look[name])
        _epochs(ax, summary["epoch"])
        finish(figure, title, look if len(problems) > 1 else {})
    return figure


def loss_curve(summary: pd.DataFrame, ax: Axes, look: Style) -> Axes:
    """Draw the exact expected loss of one problem against the epoch, in the style ``look``."""
    ax.set(xlabel="epoch", ylabel="exact expected loss")
    once = summary.drop_duplicates(["replicate", "epoch"]).groupby("epoch")["loss"]
    curve(ax, look, once.mean().index, once.mean())
    if (once.size() > 1).any():
        band(ax, look, once.mean().index, once.min(), once.max())
    return ax


def _epochs(ax: Axes, values: pd.Series) -> None:
    """Make an axis of epochs, 0 included, with ticks where something was measured."""
    ax.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    epochs = sorted(values.unique())
    ax.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.05)
