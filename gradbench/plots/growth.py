"""Bias and deviation against size or along training, and losses."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import family
from gradbench.plots.layout import (
    NOTHING,
    band,
    curve,
    finish,
    grid,
    layers_only,
    limit_mark,
    logarithmic,
    only_one,
    zero_line,
)
from gradbench.plots.save import owned
from gradbench.plots.style import LINES, SETTINGS, Style, styles


def growth(summary: pd.DataFrame, by: str, title: str = "") -> Figure:
    """Relative |bias| and standard deviation of a draw against the column ``by`` (width, depth).

    A panel per layer that every size has; a line per estimator through the root mean square over
    replicates, with a band from the least replicate to the greatest. Where the mean of the squared
    biases is within three of its standard errors of zero, no bias is seen: an open triangle marks
    the upper limit, at three standard errors above the mean. The exact estimator is left out, as
    are biases of unknown error; a value of zero at all sizes is a line at the bottom.

    Raises:
        GradbenchError: no rows besides those of the exact estimator, no such column, no layer that
            every size has, or several checkpoints.
    """
    only_one(summary, ["checkpoint"], "growth")
    return _against(summary, by, title, _whole_numbers)


def training(summary: pd.DataFrame, title: str = "") -> Figure:
    """Relative |bias| and standard deviation of a draw along training, as ``growth`` draws them.

    ``summary`` is that of one problem; its column ``epoch`` goes to the right, on an axis that is
    linear up to 1 and logarithmic from there.

    Raises:
        GradbenchError: as ``growth``; no column ``epoch`` where nothing is trained.
    """
    only_one(summary, ["problem"], "training")
    return _against(summary, "epoch", title, _epochs)


def losses(summary: pd.DataFrame, title: str = "") -> Figure:
    """The exact expected loss along training, a line for each problem.

    The line is the mean over replicates, with a band from the least to the greatest.

    Raises:
        GradbenchError: no rows, or no column ``epoch``.
    """
    only_one(summary, [], "losses")
    _has_column(summary, "epoch")
    problems = list(summary["problem"].unique())
    look = {name: LINES[k % len(LINES)] for k, name in enumerate(problems)}
    with rc_context(SETTINGS):
        figure, axes = grid(1, 1, "row")
        ax = axes[0, 0]
        figure.set_size_inches(5.0, 3.0)
        for name in problems:
            loss_curve(summary[summary["problem"] == name], ax, look[name])
        _epochs(ax, summary["epoch"])
        finish(figure, title, look if len(problems) > 1 else {})
    return figure


def loss_curve(summary: pd.DataFrame, ax: Axes, look: Style) -> Axes:
    """The exact expected loss of one problem against the epoch, over replicates, as a ``look``."""
    ax.set(xlabel="epoch", ylabel="exact expected loss")
    once = summary.drop_duplicates(["replicate", "epoch"]).groupby("epoch")["loss"]
    curve(ax, look, once.mean().index, once.mean())
    if (once.size() > 1).any():
        band(ax, look, once.mean().index, once.min(), once.max())
    return ax


def _has_column(summary: pd.DataFrame, by: str) -> None:
    if by not in summary:
        known = summary.select_dtypes("number").columns
        raise GradbenchError(f"the results have no column {by!r}; {did_you_mean(by, known)}")


def _whole_numbers(ax: Axes, values: pd.Series) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _epochs(ax: Axes, values: pd.Series) -> None:
    """An axis of epochs, 0 included, with ticks where something was measured."""
    ax.set_xscale("symlog", linthresh=1.0, linscale=0.4)
    epochs = sorted(values.unique())
    ax.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(x=0.05)


def _against(
    summary: pd.DataFrame, by: str, title: str, axis: Callable[[Axes, pd.Series], None]
) -> Figure:
    """Bias and deviation of all estimators but the exact one against a column."""
    _has_column(summary, by)
    summary = layers_only(summary[summary["estimator"].map(family) != "exact"])
    if summary.empty:
        raise GradbenchError(
            f"nothing to draw against {by}: no finished cell of an estimator besides exact; "
            "run the suite to its end, or one with more estimators"
        )
    layers = _common_layers(summary, by)
    style = styles(summary)
    with rc_context(SETTINGS):
        figure, axes = grid(2, len(layers), "row")
        for j, layer in enumerate(layers):
            rows = summary[(summary["layer"] == layer) & ~summary["zero_gradient"]]
            bias_growth(rows, by, axes[0, j], style).set_title(layer)
            deviation_growth(rows, by, axes[1, j], style)
        for ax in axes.flat:
            ax.label_outer()
            axis(ax, summary[by])
            logarithmic(ax, "y")
        limit = limit_mark("0.4", "v", "no bias seen (upper limit)")
        finish(figure, title, style, [limit])
    return figure


def _common_layers(summary: pd.DataFrame, by: str) -> list[str]:
    """The layers that every size has, in their order."""
    sizes = summary.groupby("layer", sort=False)[by].nunique()
    layers = list(sizes.index[sizes == summary[by].nunique()])
    if not layers:
        raise GradbenchError(f"growth(): no layer is at every {by}; select sizes that share one")
    return layers


def bias_growth(
    summary: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None = None
) -> Axes:
    """Relative |bias| of one layer against ``by``, a line per estimator, as in ``growth``."""
    frame = summary.assign(square=summary["bias2"], se=summary["bias2_se"])
    ax.set(yscale="log", xlabel=by, ylabel="relative |bias|")
    return growth_lines(frame, by, ax, style)


def deviation_growth(
    summary: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None = None
) -> Axes:
    """Relative standard deviation of one draw of one layer against ``by``, as in ``growth``."""
    frame = summary.assign(square=summary["variance"], se=0.0)  # never a matter of limits
    ax.set(yscale="log", xlabel=by, ylabel="relative std")
    return growth_lines(frame, by, ax, style)


def growth_lines(frame: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None) -> Axes:
    """A line per estimator through the root mean of ``square``, and markers for upper limits."""
    for estimator, look in (style or styles(frame)).items():
        rows = frame[frame["estimator"] == estimator]
        if len(rows) and (rows["square"].abs() < NOTHING**2).all() and not rows["se"].any():
            ax.margins(y=0.18)  # room for the note
            zero_line(ax, look, estimator)
            continue
        points = over_replicates(rows, by)
        limits = points[~points["seen"]]
        (marks,) = ax.plot(
            limits.index, limits["value"], color=look.color, ls="", marker="v", mfc="none", zorder=3
        )
        owned(marks, estimator)
        if points["seen"].any():
            points = points.where(points["seen"])  # a line and its band have gaps at the limits
            curve(ax, look, points.index, points["value"], estimator)
            band(ax, look, points.index, points["low"], points["high"], estimator)
    return ax


def over_replicates(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    """Per size, from ``square`` and its error ``se``: RMS or upper limit, band, whether it is seen.

    A single replicate may have a negative square: the band ends at the error of the mean.
    """
    frame = frame.dropna(subset=["square", "se"])
    groups = frame["square"].groupby(frame[by])
    mean = groups.mean()
    se = np.sqrt((frame["se"] ** 2).groupby(frame[by]).sum()) / groups.size()
    seen = mean > 3.0 * se
    floor = se.clip(lower=NOTHING**2)
    square = mean.where(seen, mean.clip(lower=0.0) + 3.0 * se)
    low, high = groups.min().clip(lower=floor), groups.max().clip(lower=floor)
    points = np.sqrt(pd.DataFrame({"value": square, "low": low, "high": high}))
    return points.assign(seen=seen)[points["value"] > NOTHING]


def bias_and_deviation(summary: pd.DataFrame) -> pd.DataFrame:
    """Relative |bias| and standard deviation of one draw per estimator, over replicates.

    Args:
        summary: the rows of one layer at M = 1, those of zero gradient left out.

    Returns:
        A frame indexed by estimator with the columns ``bias`` (root mean square; where none is seen
        the upper limit, as in ``growth``), ``seen`` and ``std``. What is zero is 0, what is unknown
        is NaN.
    """
    known = summary.dropna(subset=["bias2", "bias2_se"])
    bias = over_replicates(known.assign(square=known["bias2"], se=known["bias2_se"]), "estimator")
    std = over_replicates(summary.assign(square=summary["variance"], se=0.0), "estimator")
    columns = {"bias": bias["value"], "seen": bias["seen"], "std": std["value"]}
    points = pd.DataFrame(columns).reindex(summary["estimator"].unique())
    # What is known and has no point is nothing but rounding.
    for column, rows in (("bias", known), ("std", summary.dropna(subset=["variance"]))):
        points.loc[points[column].isna() & points.index.isin(rows["estimator"]), column] = 0.0
    return points.assign(seen=points["seen"].ne(False))
