"""The training loss of each method against steps, and against seconds."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.plots.parts import each_problem
from gradbench.plots.registry import figure
from gradbench.plots.runs import log_axes, mark_second_phase, median_lines, run_panels
from gradbench.plots.style import Style
from gradbench.plots.view import View


@figure(
    data="learning",
    parts=each_problem,
    caption="The training loss, with sampled states, of each method at its best rate: the median "
    "over seeds, and the band from the least to the greatest.",
    order=200,
)
def learning(learning: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the training loss of each method against the step, a panel for each optimiser.

    It is the loss with sampled states, whatever the method trains with.

    Args:
        learning: a ``gradbench.metrics.learning`` of one problem.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or several problems.
    """
    return _drawn(learning, "learning", title, "step", "step", view)


@figure(
    data="learning",
    parts=each_problem,
    suites=["learning"],
    caption="The same against the time that the training of one run takes.",
    order=201,
)
def learning_time(learning: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the training loss of each method against measured time, as ``learning`` does.

    Args:
        learning: a ``gradbench.metrics.learning`` of one problem.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or several problems.
    """
    return _drawn(learning, "learning_time", title, "seconds", "seconds of one run", view)


def _drawn(frame: pd.DataFrame, what: str, title: str, x: str, label: str, view: View) -> Figure:
    frame = frame[frame["step"] > 0]

    def draw(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style]) -> None:
        median_lines(rows, x, "loss", ax, style)
        log_axes(ax, frame[x], label, "training loss", frame["loss"])
        if x == "step":
            mark_second_phase(frame, x, ax)

    return run_panels(frame, what, title, draw, view)
