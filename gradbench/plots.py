"""The figures: RMSE and cosine against the number of draws, bias and variance against size.

A function per panel, ``(data, ax) -> ax``, and functions that lay out a whole figure from the
frames of ``gradbench.metrics``. Matplotlib's objects only: no pyplot, no display, no global state.
"""

import math
import textwrap
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
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
from gradbench.style import (
    GROUPS,
    LINES,
    SETTINGS,
    Style,
    family_of,
    group_of,
    in_order,
    styles,
)
from gradbench.temperature import Unit, with_temperatures

FULL_WIDTH = 7.0  # inches: the text width of a paper
FEW_GROUPS = 20  # fewer groups of M draws carry no band
MANY = 12  # more estimators do not fit in one panel, nor in one legend
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
    checkpoint. Of more than 12 estimators there is a figure for each group of families,
    "rmse-score" and so on, without the exact one.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    _only_one(curves, ["problem", "replicate"], "accuracy")
    groups = {"": curves}
    if curves["estimator"].nunique() > MANY:
        curves = curves[curves["estimator"].map(family) != "exact"]
        own = curves["estimator"].map(group_of)
        groups = {f"-{name}": curves[own == name] for name in (*GROUPS, "other")}
    return {
        f"{kind}{suffix}": _panels(rows, f"{title}{suffix.replace('-', ': ', 1)}", draw, share)
        for kind, draw, share in _KINDS
        for suffix, rows in groups.items()
        if len(rows)
    }


_KINDS: tuple[tuple[str, Callable[..., Axes], Literal["row", "all"]], ...] = (
    ("rmse", rmse_curve, "row"),
    ("cosine", cosine_curve, "all"),
)


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
        exact = curves[curves["exact"]] if draw is rmse_curve else curves[:0]  # not the cosine
        _finish(figure, title, style, known=set(exact["estimator"]))
    return figure


def overview(summary: pd.DataFrame, title: str = "") -> Figure:
    """Relative |bias| and standard deviation of one draw, a line of the figure per estimator.

    A panel per problem and layer. Dots are biases, open circles deviations; an open triangle is the
    upper limit of a bias that is not seen, as in ``growth``. What is zero is not drawn; 0 stands
    for both.

    Raises:
        GradbenchError: no rows, or several checkpoints.
    """
    _only_one(summary, ["checkpoint"], "overview")
    names = [name for name in in_order(summary["estimator"]) if family(name) != "exact"]
    look = styles(summary["estimator"])
    panels = list(summary.groupby(["problem", "layer"], sort=False))
    several = summary["problem"].nunique() > 1
    with rc_context(SETTINGS):
        figure = Figure(figsize=(FULL_WIDTH, 0.125 * len(names) + 1.3), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
        for ax, ((problem, layer), rows) in zip(axes, panels, strict=True):
            ax.set(xscale="log", xlabel="relative to |G|")
            ax.set_title(_member(problem) if several else layer)
            _notice_zero_gradient(rows, ax)
            _dots(rows[~rows["zero_gradient"]], ax, names, look)
        axes[0].set_yticks(range(len(names)), [label(name) for name in names], fontsize=6)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, name in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        for ax in axes:
            _logarithmic(ax, "x")
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
            families = [family_of(name) for name in names]
            for k, (above, below) in enumerate(pairwise(families)):
                if above != below:
                    ax.axhline(k + 0.5, color="0.85", lw=0.5, zorder=0)
        marks = [
            Line2D([], [], color="0.3", ls="", marker="o", label="|bias|"),
            Line2D([], [], color="0.3", ls="", marker="o", mfc="none", label="std"),
            Line2D(
                [], [], color="0.3", ls="", marker="<", mfc="none", label="no bias seen (limit)"
            ),
        ]
        _finish(figure, title, {}, marks)
    return figure


def _member(problem: str) -> str:
    """The variant of a problem, or its name."""
    return problem.partition("[")[2].rstrip("]") or problem


def _dots(rows: pd.DataFrame, ax: Axes, names: Sequence[str], look: dict[str, Style]) -> None:
    """Bias and deviation of each estimator, over replicates, joined by a thin line."""
    for place, name in enumerate(names):
        own = rows[rows["estimator"] == name].assign(one=0)
        color = look[name].color
        bias = _over_replicates(own.assign(square=own["bias2"], se=own["bias2_se"]), "one")
        std = _over_replicates(own.assign(square=own["variance"], se=0.0), "one")
        shown = [float(points["value"].iloc[0]) for points in (bias, std) if len(points)]
        if not shown and len(own):
            edge = ax.get_yaxis_transform()
            ax.text(0.02, place, "0", transform=edge, fontsize=6, color=color, va="center")
        if len(shown) == 2:
            ax.plot(shown, [place, place], color=color, lw=0.5, alpha=0.5)
        for points, open_ in ((bias, False), (std, True)):
            if len(points):
                limit = not open_ and not points["seen"].iloc[0]
                fill = "none" if open_ or limit else color
                marker = "<" if limit else "o"
                ax.plot(points["value"], [place], color=color, ls="", marker=marker, mfc=fill)


def temperature(
    summary: pd.DataFrame, units: dict[str, Unit] | None = None, title: str = ""
) -> Figure:
    """Relative |bias| and standard deviation against the temperature, a column per problem.

    A line per estimator that has a temperature, a horizontal one for each without. Thin grey lines
    are what Concrete tends to as the temperature goes to 0, for the problems of ``units``.

    Raises:
        GradbenchError: no rows, several checkpoints, or no estimator with a temperature.
    """
    _only_one(summary, ["checkpoint"], "temperature")
    frame = with_temperatures(summary[summary["estimator"].map(family) != "exact"])
    if frame["temperature"].isna().all():
        raise GradbenchError(
            "temperature() got no estimator with a temperature; add some, as "
            "'concrete(temperature=0.1)'"
        )
    panels = list(frame.groupby(["problem", "layer"], sort=False))
    several = frame["layer"].nunique() > 1
    look = styles(frame["series"])
    with rc_context(SETTINGS):
        figure, axes = _grid(2, len(panels), "row")
        figure.set_size_inches(FULL_WIDTH, 5.2)
        for column, ((problem, layer), rows) in zip(axes.T, panels, strict=True):
            rows = rows[~rows["zero_gradient"]]
            name = f"{_member(problem)}\n{layer}" if several else _member(problem)
            bias = rows.assign(square=rows["bias2"], se=rows["bias2_se"])
            _temperature_lines(bias, column[0], look).set_title(name)
            _temperature_lines(rows.assign(square=rows["variance"], se=0.0), column[1], look)
            if unit := (units or {}).get(problem):
                _asymptotes(unit, rows["temperature"], column)
        for row, what in zip(axes, ("|bias|", "std"), strict=True):
            for ax in row:
                ax.set(xscale="log", yscale="log", xlabel="temperature", ylabel=f"relative {what}")
                ax.label_outer()
        for ax in axes.flat:
            _logarithmic(ax, "x")
            _logarithmic(ax, "y")
        more = [
            Line2D([], [], color="0.6", lw=0.8, label="Concrete as t goes to 0"),
            Line2D(
                [], [], color="0.4", ls="", marker="v", mfc="none", label="no bias seen (limit)"
            ),
        ]
        _finish(figure, title, look, more if units else more[1:])
    return figure


def _temperature_lines(frame: pd.DataFrame, ax: Axes, look: dict[str, Style]) -> Axes:
    flat = frame["temperature"].isna()
    _growth_lines(frame[~flat].assign(estimator=frame["series"]), "temperature", ax, look)
    for name, rows in frame[flat].assign(one=0).groupby("series"):
        for point in _over_replicates(rows, "one").itertuples():
            if point.seen:
                ax.axhline(point.value, color=look[name].color, ls=look[name].line, lw=0.8)
    return ax


def _asymptotes(unit: Unit, temperatures: pd.Series, column: Any) -> None:
    """The closed forms of small temperatures, within the limits of what was measured."""
    t = np.array([temperatures.min(), min(temperatures.max(), 1.0)])
    forms = (abs(unit.concrete_bias(t)), np.sqrt(unit.concrete_square(t)))
    for ax, values in zip(column, forms, strict=True):
        ax.plot(t, values / abs(unit.gradient), color="0.6", lw=0.8, zorder=1)


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
    figure: Figure,
    title: str,
    style: dict[str, Style],
    more: Sequence[Line2D] = (),
    known: Collection[str] = (),
) -> None:
    """The title, and one legend for the figure under its panels; ``known`` are exact curves."""
    if title:
        letters = int(13 * figure.get_figwidth())  # as many as fit at this size
        figure.suptitle(textwrap.fill(title, letters), fontsize=9)
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            ls=look.line,
            marker=look.marker,
            mew=0,
            label=_named(name, known),
        )
        for name, look in style.items()
    ]
    if known:
        handles.append(Line2D([], [], ls="", label="=: from exact moments"))
    columns = 4 if figure.get_figwidth() > 6 else 2
    if handles or more:
        figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=columns)


def _named(estimator: str, known: Collection[str]) -> str:
    """As in the legend of a table: what is exact is marked."""
    return f"{label(estimator)} =" if estimator in known else label(estimator)


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
