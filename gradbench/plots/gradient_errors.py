"""The errors of gradients along runs of training."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.core.specs import family
from gradbench.metrics.training import averaging
from gradbench.plots.registry import figure
from gradbench.plots.runs import each_measured, median_lines, run_panels
from gradbench.plots.style import Style
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View

_FLOOR = 1e-4  # below it only rounding is left


@figure(
    data="gradient_errors",
    parts=each_measured,
    suites=["learning"],
    caption="The relative RMSE of the mean of M draws along the training itself, where M is the "
    "number of steps that the optimiser averages over.",
    order=220,
)
def error_along(errors: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the relative RMSE of the mean of M draws along training, M of the optimiser.

    M is the number of steps that the optimiser averages over, (1 + m) / (1 - m) with momentum m.

    Args:
        errors: a ``gradbench.metrics.gradient_errors`` of one problem.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or several problems.
    """
    frame = errors[(errors["path"] == "own") & (errors["estimator"].map(family) != "exact")]
    averages = frame["optimiser"].map(averaging)
    mse = frame["bias2"].clip(lower=0) + frame["variance"] / averages
    frame = frame.assign(rmse=np.sqrt(mse.clip(lower=_FLOOR**2)))
    first = frame["step"][frame["step"] > 0].min() if (frame["step"] > 0).any() else 1
    frame = frame.assign(at=frame["step"].clip(lower=first / 3))  # 0 has a place at the left

    def draw(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style]) -> None:
        average = averaging(rows["optimiser"].iloc[0])
        median_lines(rows, "at", "rmse", ax, style)
        ax.set(
            xscale="log", yscale="log", xlabel="step (0 at the left edge)", ylabel="relative RMSE"
        )
        ax.text(0.03, 0.03, f"M = {average}", transform=ax.transAxes, fontsize=7, color="0.3")
        logarithmic(ax, "x")
        logarithmic(ax, "y")

    return run_panels(frame, "error_along", title, draw, view)
