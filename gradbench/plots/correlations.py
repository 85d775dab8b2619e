"""The correlation of the error of M draws with the result of training, against M."""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.metrics.places import member
from gradbench.plots.grid import grid
from gradbench.plots.layout import finish
from gradbench.plots.parts import Part, Suite
from gradbench.plots.registry import figure
from gradbench.plots.rows import only_one
from gradbench.plots.style import LINES
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View

_CHOSEN: Any = {"marker": "o", "ms": 6, "mew": 1.0, "mfc": "none"}


def _once_known(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    """Return one drawing of all problems, where errors of enough estimators were measured."""
    enough = suite["plan"]["measured"] and frame["estimator"].nunique() > 4
    return [Part(frame, {}, {"title": suite["title"]})] if enough else []


@figure(
    data="correlation",
    parts=_once_known,
    suites=["learning"],
    caption="Spearman's correlation, over estimators, of the relative RMSE of the mean of M draws "
    "with the final training loss: the mean over seeds, with a bootstrap interval at 95 % over "
    "seeds and estimators. Circles mark the M of the optimiser, fixed beforehand.",
    order=240,
)
def correlations(correlation: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the correlation of RMSE(M) with the result against M, a panel for each optimiser.

    Args:
        correlation: a ``gradbench.metrics.correlation``.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows.
    """
    only_one(correlation, [], "correlations")
    optimisers = list(correlation["optimiser"].unique())
    problems = list(correlation["problem"].unique())
    look = {name: LINES[k % len(LINES)] for k, name in enumerate(problems)}
    with rc_context(view.settings):
        figure, axes = grid(view, [""], optimisers)
        for optimiser, ax in zip(optimisers, axes[0], strict=True):
            own = correlation[correlation["optimiser"] == optimiser]
            for name in problems:
                rows, style = own[own["problem"] == name], look[name]
                ax.plot(rows["M"], rows["correlation"], color=style.color, ls=style.line)
                low, high = rows["correlation_low"], rows["correlation_high"]
                ax.fill_between(rows["M"], low, high, color=style.color, alpha=0.1, lw=0)
                at = rows[rows["chosen"]]
                ax.plot(at["M"], at["correlation"], ls="", color=style.color, **_CHOSEN)
            ax.axhline(0, color="0.6", lw=0.6)
            ax.set(xscale="log", xlabel="draws M", ylim=(-1.05, 1.05))
            logarithmic(ax, "x")
        axes[0, 0].set_ylabel("correlation with the loss")
        marks = [
            Line2D([], [], color=one.color, ls=one.line, label=member(name))
            for name, one in look.items()
        ]
        marks.append(Line2D([], [], ls="", color="0.3", **_CHOSEN, label="M of the optimiser"))
        finish(figure, title, {}, marks)
    return figure
