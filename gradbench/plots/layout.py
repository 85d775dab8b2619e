"""What all figures share: their grid, axes, lines and legends, and how they are written."""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family, label
from gradbench.metrics import NETWORK
from gradbench.plots.save import number_owned, owned
from gradbench.plots.style import GROUPS, Style, families_in, group_of, styles

FULL_WIDTH = 7.0  # inches: the text width of a paper
NOTHING = 1e-6  # relative values below are rounding (of float32): no logarithmic axis shows them
_LEGEND = 0.3  # the share of the width that legends of rows take
_OTHERS = Style("#d9d9d9", "")  # estimators that a row of panels is not of
MANY = 12  # more estimators do not fit in one panel, nor in one legend


def only_one(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse an empty frame, and one with several values in any of ``columns``."""
    if frame.empty:
        raise GradbenchError(f"{what}() has nothing to draw: no finished cell; run the suite first")
    for column in columns:
        if (values := frame[column].unique()).size > 1:
            raise GradbenchError(
                f"{what}() draws one {column} at a time and was given {len(values)}; select one, "
                f"frame[frame[{column!r}] == {values[0]!r}]"
            )


def grid(
    rows: int, columns: int, sharey: Literal["row", "all", "none"], sharex: Any = True
) -> tuple[Figure, Any]:
    """A figure of full text width (less for one or two columns) with its axes [rows, columns]."""
    width = FULL_WIDTH if columns > 2 else (3.5, 5.5)[columns - 1]
    height = min(max(0.95 * width / columns, 1.3), 2.0)
    figure = Figure(figsize=(width, rows * height + 0.75), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)


def place_of(rows: pd.DataFrame) -> str:
    """The checkpoint of some rows, with its loss."""
    if rows.empty:
        return ""
    loss = f", loss {rows['loss'].iloc[0]:.3g}" if "loss" in rows else ""
    return f"{rows['checkpoint'].iloc[0]}{loss}"


def layers_only(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of single layers; those of the network where nothing else was given."""
    alone = frame[frame["layer"] != NETWORK]
    return frame if alone.empty else alone


def whole(frame: pd.DataFrame, what: str) -> pd.DataFrame:
    """The rows of all layers together; of its layer where there is only one.

    Raises:
        GradbenchError: several layers and nothing of all together.
    """
    network = frame[frame["layer"] == NETWORK]
    if network.empty:
        only_one(frame, ["layer"], what)
    return frame if network.empty else network


def no_cost(what: str) -> GradbenchError:
    """Results of an older gradbench."""
    return GradbenchError(
        f"{what}() got results that do not say what a draw costs: they were written by an older "
        "gradbench; run the suite again in another directory"
    )


def groups(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each of ``GROUPS`` that has some, without the exact estimator."""
    frame = frame[frame["estimator"].map(family) != "exact"]
    families = families_in(frame)
    own = frame["estimator"].map(lambda name: group_of(name, families))
    parts = {name: frame[own == name] for name in (*GROUPS, "other")}
    return {name: part for name, part in parts.items() if len(part)}


class Row(NamedTuple):
    """A row of panels: what it is of, the rows of a frame to draw in it, and how.

    ``legend`` is its own, where there are too many estimators for one.
    """

    name: str
    frame: pd.DataFrame
    style: dict[str, Style]
    legend: dict[str, Style]


def rows_of(frame: pd.DataFrame, what: str) -> list[Row]:
    """A row of panels for each checkpoint; of more than 12 estimators one for each group of them.

    The latter shows the other groups in grey.

    Raises:
        GradbenchError: more than 12 estimators at several checkpoints.
    """
    look = styles(frame)
    if len(look) <= MANY:
        parts = frame.groupby("checkpoint", sort=False)
        return [Row(place_of(part), part, look, {}) for _, part in parts]
    only_one(frame, ["checkpoint"], what)
    grey = {name: one if family(name) == "exact" else _OTHERS for name, one in look.items()}
    rows = []
    for name, part in groups(frame).items():
        own = styles(part)
        # In this order, so that grey is below.
        rows.append(Row(name, frame, {k: v for k, v in grey.items() if k not in own} | own, own))
    return rows


def panels(
    rows: Sequence[Row], columns: int, lines: bool = True, **share: Any
) -> tuple[Figure, Any]:
    """A figure with axes [rows, columns], and the legends of the rows that have one.

    ``lines``: whether estimators are drawn as lines; ``share`` is for ``Figure.subplots``.
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


def member(problem: str) -> str:
    """The variant of a problem, or its name."""
    return problem.partition("[")[2].rstrip("]") or problem


def curve(ax: Axes, look: Style, x: Any, y: Any, estimator: str = "") -> None:
    """Draw a line in the look of an estimator."""
    (line,) = ax.plot(x, y, color=look.color, ls=look.line, marker=look.marker, mew=0)
    owned(line, estimator)


def band(ax: Axes, look: Style, x: Any, low: Any, high: Any, estimator: str = "") -> None:
    """Draw the band between two lines in the look of an estimator."""
    if len(x):  # an empty band would give the axis limits that are not of the data
        owned(ax.fill_between(x, low, high, color=look.color, alpha=0.13, lw=0), estimator)


def zero_line(ax: Axes, look: Style, estimator: str, start: float = 0.0) -> None:
    """A line near the bottom edge of a panel, with a note: zero, on a logarithmic axis.

    It begins at the left edge, or at ``start`` on the axis: what the estimator costs. Then call it
    when all else is drawn, since the note is where there is room.
    """
    across = ax.get_xaxis_transform() if start else ax.transAxes
    ends = [start, start * 1e9] if start else [0.02, 1.0]
    line = Line2D(ends, [0.03, 0.03], color=look.color, ls=look.line, transform=across)
    ax.add_artist(owned(line, estimator))
    after = not start or start**2 < math.prod(ax.get_xlim())
    right, up = _beside_notes(ax)
    text = ax.annotate(
        f"{label(estimator)}{_ZERO}",
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
    """Of the figure of a panel."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure.dpi


_ZERO = ": 0"


def _beside_notes(ax: Axes) -> tuple[float, float]:
    """How far right and up, in points, the next note of a zero has room beside the others."""
    right, up = 0.0, 0.0
    for text in ax.texts:
        if text.get_text().endswith(_ZERO):
            right += 72.0 * text.get_window_extent().width / pixels_per_inch(ax) + 5.0
            if right > 55.0:  # of about 90 in the narrowest panels
                right, up = 0.0, up + 7.0
    return right, up


def notice_zero_gradient(rows: pd.DataFrame, ax: Axes) -> None:
    """Write into a panel that the exact gradient is zero, where it is."""
    if rows["zero_gradient"].any():
        ax.text(0.5, 0.5, "zero gradient", transform=ax.transAxes, ha="center", color="0.4")


def limit_mark(color: str, marker: str, text: str) -> Line2D:
    """What the legend says of biases that are not seen."""
    return Line2D([], [], color=color, ls="", marker=marker, mfc="none", label=text)


def logarithmic(ax: Axes, which: str, unit: str = "") -> None:
    """Ticks of a logarithmic axis: decades, or 1, 2, 5 where these would be too few."""
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
    return rf"$10^{{{exponent}}}$" if lead == "1" else rf"${lead}\cdot10^{{{exponent}}}$"


def heading(figure: Figure, title: str) -> None:
    """The title, in as many lines as it needs at this width."""
    if title:
        letters = int(13 * figure.get_figwidth())
        figure.suptitle(textwrap.fill(title, letters), fontsize=9)


def handles_of(
    style: Mapping[str, Style], known: Collection[str] = (), lines: bool = True
) -> list[Line2D]:
    """An entry of a legend for each estimator; what is exact is marked as in tables."""
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
    """The title, and one legend for the figure under its panels; ``known`` are exact curves."""
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
