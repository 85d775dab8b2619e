"""The parts that all figures share: panels, lines, limits and legends."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text
from matplotlib.transforms import Affine2D

from gradbench.core.display import display_name
from gradbench.core.errors import GradbenchError
from gradbench.core.names import visible
from gradbench.plots.grid import grid, write_above
from gradbench.plots.rows import MANY, Row
from gradbench.plots.save import lay_out, number_owned, owned
from gradbench.plots.style import LIMIT, SAMPLED, Style
from gradbench.plots.ticks import thin
from gradbench.plots.view import View

NOTHING = 1e-6  # relative values below are rounding (of float32): no logarithmic axis shows them
_BESIDE = 0.035  # the share of the width between panels and the legends of rows
_LINES = 0.45  # inches of the legend that a figure has room for as it is
_COLUMNS = 5  # of a legend, at most
_MARKERS = 9  # markers on a line
_LIMITS = "_limits"  # the label of upper limits, which no legend shows


def panels(
    view: View, rows: Sequence[Row], columns: Sequence[str], lines: bool = True, **share: Any
) -> tuple[Figure, Any]:
    """Return a figure and its axes [rows, columns], with the legends of rows that have one.

    Args:
        view: the options of the figure.
        rows: the rows of panels.
        columns: the headers of columns.
        lines: whether estimators are drawn as lines.
        share: which axes are shared, as ``Figure.subplots`` takes it.

    Raises:
        GradbenchError: rows have legends, and the figure is too narrow for them.
    """
    if not rows[0].legend:
        return grid(view, [row.name for row in rows], columns, **share)
    if view.narrow:
        raise GradbenchError(
            f"more than {MANY} estimators do not fit in {view.inches():g} inches; choose some with "
            "estimators=[...], or take width='double'"
        )
    heights = [max(1.35, 0.13 * (len(row.legend) + 2)) for row in rows]
    figure = Figure(figsize=(view.inches(), sum(heights) + 0.8))
    axes = figure.subplots(len(rows), len(columns), squeeze=False, height_ratios=heights, **share)
    for ax, text in zip(axes[0], columns, strict=True):
        write_above(ax, text, len(columns))
    widest = 0.0
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
        legend.set_in_layout(False)  # the layout leaves it room
        widest = max(widest, legend.get_window_extent().width / figure.bbox.width)
    room = (0.0, 0.0, 1.0 - widest - _BESIDE, 1.0)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=room))
    return figure, axes


def curve(
    ax: Axes, look: Style, x: Any, y: Any, estimator: str = "", sampled: bool = False
) -> None:
    """Draw a line in the look of an estimator; one that is ``sampled`` is broken.

    Of many points, some have a marker.
    """
    line = SAMPLED if sampled else look.line
    every = max(1, -(-len(x) // _MARKERS))
    look_of = {"color": look.color, "ls": line, "marker": look.marker, "markevery": every}
    owned(ax.plot(x, y, mew=0, **look_of)[0], estimator)


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
        f"{look.label or display_name(estimator)}{_ZERO}{_BY_THEOREM if theorem else ''}",
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


def clear_notes(figure: Figure) -> None:
    """Begin logarithmic axes low enough that nothing drawn touches the notes of zeros.

    Call it when the axes are at their final place. Axes that are shared begin at the same place.
    """
    for ax in figure.axes:
        frame, clear = ax.get_window_extent(), _CLEAR * figure.dpi / 72.0
        tops = [note.get_window_extent().y1 + clear - frame.y0 for note in _notes(ax)]
        shared = ax.get_shared_y_axes().get_siblings(ax)
        least = min(one.dataLim.minposy for one in shared)
        if not tops or ax.get_yscale() != "log" or not math.isfinite(least):
            continue
        share = max(tops) / frame.height
        low, high = map(math.log, ax.get_ylim())
        if share < 0.6 and (math.log(least) - low) / (high - low) < share:
            ax.set_ylim(bottom=math.exp((math.log(least) - share * high) / (1.0 - share)))


def pixels_per_inch(ax: Axes) -> float:
    """Return the resolution of the figure of a panel."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure.dpi


_ZERO, _BY_THEOREM = ": 0", " by theorem"
_CLEAR = 5.0  # points between a note of a zero and the middle of a marker


def _notes(ax: Axes) -> list[Text]:
    """Return the notes of zeros in a panel."""
    return [t for t in ax.texts if t.get_text().removesuffix(_BY_THEOREM).endswith(_ZERO)]


def _beside_notes(ax: Axes) -> tuple[float, float]:
    """Return how far right and up, in points, there is room for the next note of a zero."""
    right, up = 0.0, 0.0
    for text in _notes(ax):
        right += 72.0 * text.get_window_extent().width / pixels_per_inch(ax) + 5.0
        if right > 55.0:  # of about 90 in the narrowest panels
            right, up = 0.0, up + 7.0
    return right, up


def notice_zero_gradient(rows: pd.DataFrame, ax: Axes) -> None:
    """Write into a panel that the exact gradient is zero, if it is."""
    if rows["zero_gradient"].any():
        ax.text(0.5, 0.5, "zero gradient", transform=ax.transAxes, ha="center", color="0.4")


def limits(
    ax: Axes, look: Style, x: Any, y: Any, estimator: str = "", sideways: bool = False
) -> None:
    """Draw upper limits in the colour of an estimator: bars with an arrow to lesser values."""
    if len(x):
        (marks,) = ax.plot(x, y, color=look.color, **_limit(sideways), zorder=3, label=_LIMITS)
        owned(marks, estimator)


def _limit(sideways: bool) -> dict[str, Any]:
    marker = MarkerStyle(LIMIT, transform=Affine2D().rotate_deg(-90 if sideways else 0))
    return {"ls": "", "marker": marker, "mfc": "none", "mew": 0.8, "ms": 9.0}


def limit_entries(figure: Figure, text: str, sideways: bool = False) -> list[Line2D]:
    """Return the legend's entry for upper limits, if a figure has any."""
    entry = Line2D([], [], color="0.3", label=text, **_limit(sideways))
    return [entry] if is_drawn(figure, _LIMITS) else []


def is_drawn(figure: Figure, label: str) -> bool:
    """Return whether a figure has marks that were drawn with this label."""
    lines = (line for ax in figure.axes for line in ax.lines)
    return any(line.get_label() == label and np.size(line.get_xydata()) for line in lines)


def zeros(ax: Axes, look: Style, x: Any, estimator: str) -> None:
    """Draw points that are zero at the bottom edge of a panel whose axis is logarithmic."""
    if len(x):
        place: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False}
        (marks,) = ax.plot(
            x, [0.0] * len(x), color=look.color, ls="", marker=look.marker or ".", mew=0, **place
        )
        owned(marks, estimator)


def heading(figure: Figure, title: str) -> None:
    """Write the title, in as many lines as it needs at this width, before one that is there."""
    whole = ", ".join(filter(None, [title, figure.get_suptitle().replace("\n", ", ")]))
    if whole:
        size = 9.0 if figure.get_figwidth() > 4.5 else 8.0
        letters = int(112.0 / size * figure.get_figwidth())
        lines = textwrap.wrap(whole, letters, break_on_hyphens=False)
        figure.suptitle("\n".join(lines), fontsize=size)
        figure.set_figheight(figure.get_figheight() + 0.16 * (len(lines) - 1))


def handles_of(style: Mapping[str, Style], lines: bool = True) -> list[Line2D]:
    """Return a legend's entry for each estimator, or for what else has these styles."""
    return [
        Line2D(
            [],
            [],
            color=look.color,
            ls=look.line if lines or not look.marker else "",
            marker=look.marker,
            mew=0,
            label=visible(look.label or name),
        )
        for name, look in style.items()
    ]


def exactness_entries(exact: pd.Series, cosines: bool = False) -> list[Line2D]:
    """Return the legend's entries for solid and broken lines, as far as a figure has them.

    Args:
        exact: whether the moments of each of its rows are exact.
        cosines: whether it has cosines, which are always from draws.
    """
    known = exact.astype(bool)
    kinds = [
        (known.any(), "-", "solid: exact moments"),
        (not known.all() or cosines, SAMPLED, "broken: from draws"),
    ]
    return [Line2D([], [], color="0.3", ls=line, label=text) for has, line, text in kinds if has]


def finish(
    figure: Figure,
    title: str,
    style: Mapping[str, Style],
    more: Sequence[Artist] = (),
    lines: bool = True,
    names: bool = False,
) -> None:
    """Write the title and one legend below the panels, and let no labels of ticks overlap.

    Args:
        figure: a figure whose panels are drawn.
        title: printed above.
        style: the estimators of the legend; the exact one has its name in the panels.
        more: further entries of the legend.
        lines: whether estimators are drawn as lines.
        names: whether the ticks of the vertical axes are names, none of which may be left out.
    """
    heading(figure, title)
    shown = {name: look for name, look in style.items() if look.marker or name != "exact"}
    handles = [*handles_of(shown, lines), *more]
    for rows in range(-(-len(handles) // _COLUMNS), len(handles) + 1) if handles else ():
        columns = -(-len(handles) // rows)
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns)
        size = legend.get_window_extent()
        if columns == 1 or size.width <= figure.bbox.width:
            figure.set_figheight(figure.get_figheight() + max(size.height / figure.dpi - _LINES, 0))
            break
        legend.remove()
    lay_out(figure)
    clear_notes(figure)
    thin(figure, "x" if names else "xy")
    number_owned(figure)
