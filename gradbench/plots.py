"""The figures: RMSE and cosine against the number of draws, bias and variance against size.

A function per panel, ``(data, ax) -> ax``, and functions that lay out a whole figure from the
frames of ``gradbench.metrics``. Matplotlib's objects only: no pyplot, no display, no global state.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.spec import family, label
from gradbench.style import LINES, SETTINGS, Style, styles

FULL_WIDTH = 7.0  # inches: the text width of a paper
FEW_GROUPS = 20  # fewer groups of M draws carry no band
NOTHING = 1e-6  # relative values below are rounding (of float32): no logarithmic axis shows them


def rmse_curve(curves: pd.DataFrame, ax: Axes, style: dict[str, Style] | None = None) -> Axes:
    """Relative RMSE against M, on logarithmic axes, with a band of two standard errors.

    ``curves`` holds the rows of one layer and checkpoint. Points that their error does not tell
    from zero are left out; an estimator without error (the exact one) is a line at the bottom.
    """
    ax.set(yscale="log", xscale="log", xlabel="draws M", ylabel="relative RMSE")
    for estimator, look in (style or styles(curves["estimator"])).items():
        rows = curves[curves["estimator"] == estimator].sort_values("M")
        if len(rows) and (rows["rmse"] < NOTHING).all():
            _zero_line(ax, look, estimator)
            continue
        seen = rows[(rows["rmse"] > rows["rmse_se"].fillna(0.0)) & (rows["rmse"] >= NOTHING)]
        _curve(ax, look, seen["M"], seen["rmse"])
        low = (seen["rmse"] - 2.0 * seen["rmse_se"]).clip(lower=seen["rmse"] / 3.0)
        _band(ax, look, seen["M"], low, seen["rmse"] + 2.0 * seen["rmse_se"])
    return ax


def cosine_curve(curves: pd.DataFrame, ax: Axes, style: dict[str, Style] | None = None) -> Axes:
    """Mean cosine against M on a logarithmic axis, with the band from the 15 to the 85 % quantile.

    ``curves`` holds the rows of one layer and checkpoint. M with few groups carry no band.
    """
    ax.set(xscale="log", xlabel="draws M", ylabel="cosine")
    for estimator, look in (style or styles(curves["estimator"])).items():
        rows = curves[(curves["estimator"] == estimator) & (curves["groups"] > 0)].sort_values("M")
        _curve(ax, look, rows["M"], rows["cosine"])
        rows = rows[rows["groups"] >= FEW_GROUPS]
        _band(ax, look, rows["M"], rows["cosine_low"], rows["cosine_high"])
    return ax


def _zero_line(ax: Axes, look: Style, estimator: str) -> None:
    """A line near the bottom edge of a panel, with a note: zero, on a logarithmic axis."""
    place = ax.transAxes
    edge = Line2D([0.02, 1], [0.03, 0.03], color=look.color, ls=look.line, transform=place)
    ax.add_artist(edge)
    ax.text(0.03, 0.05, f"{label(estimator)}: 0", transform=place, fontsize=6, color=look.color)


def _curve(ax: Axes, look: Style, x: Any, y: Any) -> None:
    ax.plot(x, y, color=look.color, ls=look.line, marker=look.marker, mew=0)


def _band(ax: Axes, look: Style, x: Any, low: Any, high: Any) -> None:
    if len(x):  # an empty band would give the axis limits that are not of the data
        ax.fill_between(x, low, high, color=look.color, alpha=0.13, lw=0)


def accuracy(curves: pd.DataFrame, title: str = "") -> dict[str, Figure]:
    """The figures "rmse" and "cosine": a panel per layer (columns) and checkpoint (rows).

    ``curves`` is that of one problem and replicate. A column ``loss`` is printed beside the
    checkpoint.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    _only_one(curves, ["problem", "replicate"], "accuracy")
    return {
        "rmse": _panels(curves, title, rmse_curve, "row"),
        "cosine": _panels(curves, title, cosine_curve, "all"),
    }


def _panels(
    curves: pd.DataFrame, title: str, draw: Callable[..., Axes], share: Literal["row", "all"]
) -> Figure:
    style = styles(curves["estimator"])
    checkpoints, layers = curves["checkpoint"].unique(), curves["layer"].unique()
    with rc_context(SETTINGS):
        figure, axes = _grid(len(checkpoints), len(layers), share)
        for (i, j), ax in np.ndenumerate(axes):
            rows = curves[(curves["checkpoint"] == checkpoints[i]) & (curves["layer"] == layers[j])]
            loss = f", loss {rows['loss'].iloc[0]:.3g}" if "loss" in rows and len(rows) else ""
            ax.set_title(f"{layers[j]}\n{checkpoints[i]}{loss}")
            _notice_zero_gradient(rows, ax)
            draw(rows[~rows["zero_gradient"]], ax, style)
            ax.label_outer()
        for ax in axes.flat:
            _logarithmic(ax, "x")
            if draw is rmse_curve:
                _logarithmic(ax, "y")
            else:
                ax.set_ylim(top=1.0 + 0.05 * (1.0 - ax.get_ylim()[0]))
        _finish(figure, title, style)
    return figure


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
    _only_one(summary, ["checkpoint"], "growth")
    return _against(summary, by, title, _whole_numbers)


def training(summary: pd.DataFrame, title: str = "") -> Figure:
    """Relative |bias| and standard deviation of a draw along training, as ``growth`` draws them.

    ``summary`` is that of one problem; its column ``epoch`` goes to the right, on an axis that is
    linear up to 1 and logarithmic from there.

    Raises:
        GradbenchError: as ``growth``; no column ``epoch`` where nothing is trained.
    """
    _only_one(summary, ["problem"], "training")
    return _against(summary, "epoch", title, _epochs)


def losses(summary: pd.DataFrame, title: str = "") -> Figure:
    """The exact expected loss along training, a line for each problem.

    The line is the mean over replicates, with a band from the least to the greatest.

    Raises:
        GradbenchError: no rows, or no column ``epoch``.
    """
    _only_one(summary, [], "losses")
    _has_column(summary, "epoch")
    problems = list(summary["problem"].unique())
    look = {name: LINES[k % len(LINES)] for k, name in enumerate(problems)}
    with rc_context(SETTINGS):
        figure, axes = _grid(1, 1, "row")
        ax = axes[0, 0]
        figure.set_size_inches(5.0, 3.0)
        for name in problems:
            loss_curve(summary[summary["problem"] == name], ax, look[name])
        _epochs(ax, summary["epoch"])
        _finish(figure, title, look if len(problems) > 1 else {})
    return figure


def loss_curve(summary: pd.DataFrame, ax: Axes, look: Style) -> Axes:
    """The exact expected loss of one problem against the epoch, over replicates."""
    ax.set(xlabel="epoch", ylabel="exact expected loss")
    once = summary.drop_duplicates(["replicate", "epoch"]).groupby("epoch")["loss"]
    _curve(ax, look, once.mean().index, once.mean())
    if (once.size() > 1).any():
        _band(ax, look, once.mean().index, once.min(), once.max())
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
    summary = summary[summary["estimator"].map(family) != "exact"]
    if summary.empty:
        raise GradbenchError(
            f"nothing to draw against {by}: no finished cell of an estimator besides exact; "
            "run the suite to its end, or one with more estimators"
        )
    layers = _common_layers(summary, by)
    style = styles(summary["estimator"])
    with rc_context(SETTINGS):
        figure, axes = _grid(2, len(layers), "row")
        for j, layer in enumerate(layers):
            rows = summary[(summary["layer"] == layer) & ~summary["zero_gradient"]]
            bias_growth(rows, by, axes[0, j], style).set_title(layer)
            deviation_growth(rows, by, axes[1, j], style)
        for ax in axes.flat:
            ax.label_outer()
            axis(ax, summary[by])
            _logarithmic(ax, "y")
        limit = Line2D(
            [], [], color="0.4", ls="", marker="v", mfc="none", label="no bias seen (upper limit)"
        )
        _finish(figure, title, style, [limit])
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
    return _growth_lines(frame, by, ax, style)


def deviation_growth(
    summary: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None = None
) -> Axes:
    """Relative standard deviation of one draw of one layer against ``by``, as in ``growth``."""
    frame = summary.assign(square=summary["variance"], se=0.0)  # never a matter of limits
    ax.set(yscale="log", xlabel=by, ylabel="relative std")
    return _growth_lines(frame, by, ax, style)


def _growth_lines(frame: pd.DataFrame, by: str, ax: Axes, style: dict[str, Style] | None) -> Axes:
    """A line per estimator through the root mean of ``square``, and markers for upper limits."""
    for estimator, look in (style or styles(frame["estimator"])).items():
        rows = frame[frame["estimator"] == estimator]
        if len(rows) and (rows["square"].abs() < NOTHING**2).all() and not rows["se"].any():
            _zero_line(ax, look, estimator)
            continue
        points = _over_replicates(rows, by)
        limits = points[~points["seen"]]
        ax.plot(
            limits.index, limits["value"], color=look.color, ls="", marker="v", mfc="none", zorder=3
        )
        if points["seen"].any():
            points = points.where(points["seen"])  # a line and its band have gaps at the limits
            _curve(ax, look, points.index, points["value"])
            _band(ax, look, points.index, points["low"], points["high"])
    return ax


def _over_replicates(frame: pd.DataFrame, by: str) -> pd.DataFrame:
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


def _only_one(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    if frame.empty:
        raise GradbenchError(f"{what}() has nothing to draw: no finished cell; run the suite first")
    for column in columns:
        if (values := frame[column].unique()).size > 1:
            raise GradbenchError(
                f"{what}() draws one {column} at a time and was given {len(values)}; select one, "
                f"frame[frame[{column!r}] == {values[0]!r}]"
            )


def _grid(rows: int, columns: int, share: Literal["row", "all"]) -> tuple[Figure, Any]:
    """A figure of full text width (less for one or two columns) with its axes [rows, columns]."""
    width = FULL_WIDTH if columns > 2 else (3.5, 5.5)[columns - 1]
    height = min(max(0.95 * width / columns, 1.3), 2.0)
    figure = Figure(figsize=(width, rows * height + 0.75), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share)


def _notice_zero_gradient(rows: pd.DataFrame, ax: Axes) -> None:
    if rows["zero_gradient"].any():
        ax.text(0.5, 0.5, "zero gradient", transform=ax.transAxes, ha="center", color="0.4")


def _logarithmic(ax: Axes, which: str) -> None:
    """Ticks of a logarithmic axis: decades, or 1, 2, 5 where these would be too few."""
    axis, (low, high) = (ax.xaxis, ax.get_xlim()) if which == "x" else (ax.yaxis, ax.get_ylim())
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(FuncFormatter(_power))
    axis.set_minor_locator(NullLocator())


def _power(value: float, _: object) -> str:
    if 1e-3 <= value < 1e3:
        return f"{value:g}"
    if 1e3 <= value < 1e6:
        return f"{value / 1e3:g}k"
    exponent = math.floor(math.log10(value) + 1e-9)
    lead = f"{value / 10.0**exponent:.0f}"
    return rf"$10^{{{exponent}}}$" if lead == "1" else rf"${lead}\cdot10^{{{exponent}}}$"


def _finish(
    figure: Figure, title: str, style: dict[str, Style], more: Sequence[Line2D] = ()
) -> None:
    """The title, and one legend for the figure under its panels."""
    if title:
        letters = int(13 * figure.get_figwidth())  # as many as fit at this size
        figure.suptitle(textwrap.fill(title, letters), fontsize=9)
    handles = [
        Line2D([], [], color=look.color, ls=look.line, marker=look.marker, mew=0, label=label(name))
        for name, look in style.items()
    ]
    columns = 4 if figure.get_figwidth() > 6 else 2
    if handles:
        figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=columns)


def save(figure: Figure, path: str | Path) -> list[Path]:
    """Writes ``path`` + .pdf and .png (200 dpi), byte for byte the same for the same figure.

    Raises:
        GradbenchError: the files cannot be written.
    """
    metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
    paths = [Path(f"{path}.{suffix}") for suffix in metadata]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with rc_context(SETTINGS):
            for target, values in zip(paths, metadata.values(), strict=True):
                figure.savefig(target, dpi=200, metadata=values)
    except OSError as error:
        raise GradbenchError(
            f"cannot write the figure {path}: {error.strerror or error}; name another place"
        ) from error
    return paths
