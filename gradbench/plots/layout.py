"""The parts that all figures share: grid, axes, lines and legends."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from gradbench.core.specs import label
from gradbench.plots.rows import Row
from gradbench.plots.save import number_owned, owned
from gradbench.plots.style import Style

FULL_WIDTH = 7.0  # inches: the text width of a paper
NOTHING = 1e-6  # relative values below are rounding (of float32): no logarithmic axis shows them
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEGEND = 0.3  # the share of the width that the legends of rows take


def grid(
    rows: int, columns: int, sharey: Literal["row", "all", "none"], sharex: Any = True
) -> tuple[Figure, Any]:
    """Return a figure of text width (less for one or two columns) and its axes [rows, columns]."""
    width = FULL_WIDTH if columns > 2 else (3.5, 5.5)[columns - 1]
    height = min(max(0.95 * width / columns, 1.3), 2.0)
    figure = Figure(figsize=(width, rows * height + 0.75), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def panels(
    rows: Sequence[Row], columns: int, lines: bool = True, **share: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes [rows, columns], with the legends of rows that have one.

    Args:
        rows: the rows of panels.
        columns: how many panels each has.
        lines: whether estimators are drawn as lines.
        share: which axes are shared, as ``Figure.subplots`` takes it.
    """
    if not rows[0].legend:
        return grid(len(rows), columns, **share)
    heights = [max(1.35, 0.13 * (len(row.legend) + 2)) for row in rows]
    layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 1.0 - _LEGEND, 1.0))
    figure = Figure(figsize=(FULL_WIDTH, sum(heights) + 0.8), layout=layout)
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights, **share)
    for row, ax in zip(rows, axes[:, -1], strict=True):
        legend = ax.legend(
            handles=handles_of(row.legend, lines=lines),
            title=row.name,
            loc="center left",
            bbox_to_anchor=(1.12, 0.5),
            fontsize=6.5,
            title_fontsize=7.5,
            alignment="left",
            labelspacing=0.3,
            handlelength=2.4 if lines else 1.0,
        )
        legend.set_in_layout(False)  # the layout has left it room
    return figure, axes


def curve(ax: Axes, look: Style, x: Any, y: Any, estimator: str = "") -> None:
    """Draw a line in the look of an estimator."""
    (line,) = ax.plot(x, y, color=look.color, ls=look.line, marker=look.marker, mew=0)
    owned(line, estimator)


def band(ax: Axes, look: Style, x: Any, low: Any, high: Any, estimator: str = "") -> None:
    """Draw the band between two lines in the look of an estimator."""
    if len(x):  # an empty band would give the axis limits that are not of the data
        owned(ax.fill_between(x, low, high, color=look.color, alpha=0.13, lw=0), estimator)


def zero_line(
    ax: Axes, look: Style, estimator: str, start: float = 0.0, theorem: bool = False
) -> None:
    """Draw a line near the bottom edge of a panel with a note: zero, on a logarithmic axis.

    The note says whether the value is zero by ``theorem``.

    It begins at the left edge or at ``start``, the cost of the estimator. In the latter case call
    it when all else is drawn, since the note is put where there is room.
    """
    across = ax.get_xaxis_transform() if start else ax.transAxes
    ends = [start, start * 1e9] if start else [0.02, 1.0]
    line = Line2D(ends, [0.03, 0.03], color=look.color, ls=look.line, transform=across)
    ax.add_artist(owned(line, estimator))
    after = not start or start**2 < math.prod(ax.get_xlim())
    right, up = _beside_notes(ax)
    text = ax.annotate(
        f"{label(estimator)}{_ZERO}{_BY_THEOREM if theorem else ''}",
        (ends[0], 0.03),
        xytext=(1 + right, 2 + up) if after else (-2, -2),
        ha="left" if after else "right",
        xycoords=across,
        textcoords="offset points",
        fontsize=6,
        color=look.color,
        annotation_clip=True,
    )
    owned(text, estimator).set_in_layout(False)


def pixels_per_inch(ax: Axes) -> float:
    """Return the resolution of the figure of a panel."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure.dpi


_ZERO, _BY_THEOREM = ": 0", " by theorem"


def _beside_notes(ax: Axes) -> tuple[float, float]:
    """Return how far right and up, in points, there is room for the next note of a zero."""
    right, up = 0.0, 0.0
    for text in ax.texts:
        if text.get_text().removesuffix(_BY_THEOREM).endswith(_ZERO):
            right += 72.0 * text.get_window_extent().width / pixels_per_inch(ax) + 5.0
            if right > 55.0:  # of about 90 in the narrowest panels
                right, up = 0.0, up + 7.0
    return right, up


def notice_zero_gradient(rows: pd.DataFrame, ax: Axes) -> None:
    """Write into a panel that the exact gradient is zero, if it is."""
    if rows["zero_gradient"].any():
        ax.text(0.5, 0.5, "zero gradient", transform=ax.transAxes, ha="center", color="0.4")


def limit_mark(color: str, marker: str, text: str) -> Line2D:
    """Return the legend's entry for biases that are not seen."""
    return Line2D([], [], color=color, ls="", marker=marker, mfc="none", label=text)


def logarithmic(ax: Axes, which: str, unit: str = "") -> None:
    """Set the ticks of a logarithmic axis: decades, or 1, 2, 5 where these would be too few."""
    axis, (low, high) = (ax.xaxis, ax.get_xlim()) if which == "x" else (ax.yaxis, ax.get_ylim())
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=3 if unit else 6))
    axis.set_major_formatter(EngFormatter(unit) if unit else FuncFormatter(power))
    axis.set_minor_locator(NullLocator())


def power(value: float, _: object) -> str:
    """Format a tick of a logarithmic axis."""
    if 1e-3 <= value < 1e3:
        return f"{value:g}"
    if 1e3 <= value < 1e6:
        return f"{value / 1e3:g}k"
    exponent = math.floor(math.log10(value) + 1e-9)
    lead = f"{value / 10.0**exponent:.0f}"
    decade = f"10{str(exponent).translate(_RAISED)}"
    return decade if lead == "1" else f"{lead}·{decade}"


def heading(figure: Figure, title: str) -> None:
    """Write the title, in as many lines as it needs at this width."""
    if title:
        letters = int(13 * figure.get_figwidth())
        figure.suptitle(textwrap.fill(title, letters), fontsize=9)


def handles_of(
    style: Mapping[str, Style], known: Collection[str] = (), lines: bool = True
) -> list[Line2D]:
    """Return a legend's entry for each estimator; those in ``known`` are marked as exact."""
    return [
        Line2D(
            [],
            [],
            color=look.color,
            ls=look.line if lines or not look.marker else "",
            marker=look.marker,
            mew=0,
            label=f"{label(name)} =" if name in known else label(name),
        )
        for name, look in style.items()
    ]


def finish(
    figure: Figure,
    title: str,
    style: Mapping[str, Style],
    more: Sequence[Artist] = (),
    known: Collection[str] = (),
    lines: bool = True,
) -> None:
    """Write the title, and one legend for the figure below its panels.

    Args:
        figure: a figure whose panels are drawn.
        title: printed above.
        style: the estimators of the legend.
        more: further entries of the legend.
        known: the estimators whose curves are exact.
        lines: whether estimators are drawn as lines.
    """
    heading(figure, title)
    handles = handles_of(style, known, lines)
    if known:
        handles.append(Line2D([], [], ls="", label="=: from exact moments"))
    for columns in range(4, 0, -1) if handles or more else ():
        legend = figure.legend(handles=[*handles, *more], loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    number_owned(figure)
