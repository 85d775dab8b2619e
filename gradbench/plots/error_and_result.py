"""The scatter of the error of gradients against the result of training with them."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.plots.registry import figure
from gradbench.plots.runs import each_measured, run_panels
from gradbench.plots.save import owned
from gradbench.plots.style import Style
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


@figure(
    data="error_results",
    parts=each_measured,
    suites=["learning"],
    caption="Each point is a method with one seed: the relative RMSE of the mean of M draws along "
    "its training, and its final training loss. The line is the loss with the exact gradient.",
    order=230,
)
def error_and_result(results: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the final training loss of each run against the RMSE of its gradients.

    Args:
        results: a ``gradbench.metrics.error_results`` of one problem.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, or several problems.
    """
    exact = results[results["family"] == "exact"].groupby("optimiser")["loss"].median()
    frame = results[results["family"] != "exact"]

    def draw(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style]) -> None:
        ax.set(xscale="log", xlabel="relative RMSE", ylabel="final training loss")
        optimiser = rows["optimiser"].iloc[0]
        if optimiser in exact:
            ax.axhline(exact[optimiser], color="0.4", lw=0.8, ls=":")
        for name, look in style.items():
            own = rows[rows["estimator"] == name]
            (marks,) = ax.plot(
                own["rmse"], own["loss"], ls="", marker=look.marker or ".", color=look.color, mew=0
            )
            owned(marks, name)
        ax.text(0.03, 0.93, f"M = {rows['M'].iloc[0]}", transform=ax.transAxes, fontsize=7)
        if (rows["rmse"].notna() & rows["loss"].notna()).any():
            logarithmic(ax, "x")

    return run_panels(frame, "error_and_result", title, draw, view)
