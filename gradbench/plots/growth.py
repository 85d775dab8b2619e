"""Bias and deviation against what a sweep varied, such as width or depth."""

from collections.abc import Callable, Iterator

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import family
from gradbench.plots.grid import grid, is_turned, label_outer
from gradbench.plots.layout import (
    NOTHING,
    band,
    curve,
    exactness_entries,
    finish,
    limit_entries,
    limits,
    zero_line,
    zeros,
)
from gradbench.plots.parts import Part, Suite
from gradbench.plots.registry import figure
from gradbench.plots.replicates import over_replicates
from gradbench.plots.rows import layers_only, only_one
from gradbench.plots.style import Style, styles
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


def _sweep(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield one drawing of everything, against what the suite has swept."""
    yield Part(summary, {}, {"by": suite["by"], "title": suite["title"]})


@figure(
    parts=_sweep,
    caption="Bias and standard deviation of a draw against size. Arrows are upper limits where no "
    "bias was seen; a 0 by theorem is certified.",
    order=70,
)
def growth(summary: pd.DataFrame, by: str, title: str = "", *, view: View) -> Figure:
    """Draw relative |bias| and standard deviation of a draw against size.

    A panel per layer that every size has, and a line per estimator through the root mean square
    over replicates, with a band from the least replicate to the greatest. Where the mean of the
    squared biases is within three standard errors of zero, no bias is seen: an arrow marks the
    upper limit, three standard errors above the mean. The exact estimator and biases of unknown
    error are left out; a value of zero at all sizes is a line at the bottom, with a note that says
    where it is zero by theorem, and one at some sizes is at the bottom edge. Lines are solid where
    moments are exact, else broken.

    Args:
        summary: the ``summary`` of a sweep.
        by: the column that the sweep varied, such as "width" or "depth".
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows besides those of the exact estimator, no such column, no layer that
            every size has, several checkpoints, or an option that does not fit.
    """
    only_one(summary, ["checkpoint"], "growth")
    return draw_against(summary, view, by, title, _whole_numbers)


def require_column(summary: pd.DataFrame, by: str) -> None:
    """Refuse a frame without the column ``by``."""
    if by not in summary:
        known = summary.select_dtypes("number").columns
        raise GradbenchError(f"the results have no column {by!r}; {did_you_mean(by, known)}")


def _whole_numbers(ax: Axes, values: pd.Series) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_against(
    summary: pd.DataFrame,
    view: View,
    by: str,
    title: str,
    axis: Callable[[Axes, pd.Series], None],
) -> Figure:
    """Return the figure of bias and deviation of all but the exact estimator against ``by``."""
    require_column(summary, by)
    summary = layers_only(summary[summary["estimator"].map(family) != "exact"])
    if summary.empty:
        raise GradbenchError(
            f"nothing to draw against {by}: no finished cell of an estimator besides exact; "
            "run the suite to its end, or one with more estimators"
        )
    layers = _common_layers(summary, by)
    style = view.styles(summary)
    with rc_context(view.settings):
        turned = is_turned(view, 2, len(layers))  # bias and deviation are side by side
        figure, axes = grid(view, ["", ""], layers, "none" if turned else "row")
        for j, layer in enumerate(layers):
            rows = summary[(summary["layer"] == layer) & ~summary["zero_gradient"]]
            bias_growth(rows, by, axes[0, j], style)
            deviation_growth(rows, by, axes[1, j], style)
        for ax in axes.flat:
            label_outer(ax, y=not turned)
            axis(ax, summary[by])
            logarithmic(ax, "y")
        more = [*_exactness(summary), *limit_entries(figure, "no bias seen (limit)")]
        finish(figure, title, style, more)
    return figure


def _exactness(summary: pd.DataFrame) -> list[Line2D]:
    return exactness_entries(summary["exact"]) if "exact" in summary else []


def _common_layers(summary: pd.DataFrame, by: str) -> list[str]:
    """Return the layers that every size has, in their order."""
    sizes = summary.groupby("layer", sort=False)[by].nunique()
    layers = list(sizes.index[sizes == summary[by].nunique()])
    if not layers:
        raise GradbenchError(f"growth(): no layer is at every {by}; select sizes that share one")
    return layers


def bias_growth(
    summary: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None = None
) -> Axes:
    """Draw relative |bias| of one layer against ``by``, as ``growth`` does."""
    frame = as_bias(summary)
    ax.set(yscale="log", xlabel=by, ylabel="relative |bias|")
    return growth_lines(frame, by, ax, style)


def as_bias(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a ``summary`` with the columns of ``growth_lines`` for its biases."""
    source = summary.get("bias_source", pd.Series("", summary.index))
    return summary.assign(square=summary["bias2"], se=summary["bias2_se"], source=source)


def deviation_growth(
    summary: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None = None
) -> Axes:
    """Draw relative standard deviation of one layer against ``by``, as ``growth`` does."""
    frame = summary.assign(square=summary["variance"], se=0.0)  # never a matter of limits
    ax.set(yscale="log", xlabel=by, ylabel="relative std")
    return growth_lines(frame, by, ax, style)


def growth_lines(frame: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None) -> Axes:
    """Draw a line per estimator through the root mean of ``square``, and mark upper limits.

    Zeros by theorem, which a column ``source`` tells, are said to be that.
    """
    for estimator, look in (style or styles(frame)).items():
        rows = frame[frame["estimator"] == estimator]
        if len(rows) and (rows["square"].abs() < NOTHING**2).all() and not rows["se"].any():
            theorem = "source" in rows and bool(rows["source"].eq("theorem").all())
            zero_line(ax, look, estimator, theorem=theorem)
            continue
        points = over_replicates(rows, by)
        unseen = points[~points["seen"]]
        limits(ax, look, unseen.index, unseen["value"], estimator)
        measured = rows.dropna(subset=["square", "se"])[by]
        zeros(ax, look, sorted(set(measured) - set(points.index)), estimator)
        if points["seen"].any():
            points = points.where(points["seen"])  # a line and its band have gaps at the limits
            sampled = "exact" in rows and not rows["exact"].all()
            curve(ax, look, points.index, points["value"], estimator, sampled)
            band(ax, look, points.index, points["low"], points["high"], estimator)
    return ax
