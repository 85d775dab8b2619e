"""Panels in rows and columns, whose headers stand once, above and beside them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from gradbench.plots.view import View

Share = Literal["row", "col", "all", "none"] | bool
_FOLDED = 2  # columns of a single row of panels in a column of a paper
_LINE = 4  # those of a wide figure, where there are more than
_MOST = 6
_PANELS = 0.72  # the share of the width that panels have, beside labels and legends
_EM = 0.55  # the width of a letter, of the size of its font
_HEADER: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}


def grid(
    view: View,
    rows: Sequence[str],
    columns: Sequence[str],
    sharey: Share = "row",
    sharex: Share = True,
    height: float | None = None,
) -> tuple[Figure, Any]:
    """Return a figure and its axes [rows, columns], with headers above and at the right.

    In a narrow figure, rows and columns change places if there are more columns, and a single row
    is folded, as one of very many columns is in a wide figure. The array of axes stays the same.

    Args:
        view: the options of the figure.
        rows: the headers of rows; empty ones are not written.
        columns: the headers of columns.
        sharey: which panels share the vertical axis.
        sharex: which panels share the horizontal axis.
        height: inches of a panel; by default, what suits its width.
    """
    turned = is_turned(view, len(rows), len(columns))
    folded = len(rows) == 1 and len(columns) > (_FOLDED if view.narrow else _MOST)
    shape = (len(columns), len(rows)) if turned else (len(rows), len(columns))
    if folded:
        panels = _FOLDED if view.narrow else _LINE  # in a line
        shape = (-(-len(columns) // panels), panels)
    width = view.inches(shape[1])
    least, most = (1.0, 1.2 if shape[0] > 2 else 1.6) if view.narrow else (1.3, 2.0)
    height = height or min(max(0.95 * width / shape[1], least), most)
    figure = Figure(figsize=(width, shape[0] * height + 0.75), layout="constrained")
    if not folded:
        shares = (_turned(sharey), _turned(sharex)) if turned else (sharey, sharex)
        axes = figure.subplots(*shape, squeeze=False, sharex=shares[1], sharey=shares[0])
        axes = axes.T if turned else axes
    else:
        axes = _folded(figure, shape, len(columns), sharey, sharex)
    line = _LINE if folded and not view.narrow else None
    _write_headers(axes, rows, columns, turned, folded, line)
    return figure, axes


def is_turned(view: View, rows: int, columns: int) -> bool:
    """Return whether rows and columns of panels change places."""
    return view.narrow and columns > rows > 1


def _turned(share: Share) -> Share:
    """Return which panels share an axis where rows and columns have changed places."""
    # An axis that rows share has to have its labels in every column then.
    return "all" if share == "row" else share


def _folded(
    figure: Figure, shape: tuple[int, int], count: int, sharey: Share, sharex: Share
) -> Any:
    """Return the axes [1, count] of a row of panels that goes on in the next line."""
    places = GridSpec(*shape, figure=figure)
    found: list[Axes] = []
    for k in range(count):
        first = found[0] if found else None
        shared = {
            "sharex": first if sharex is True or sharex == "all" else None,
            "sharey": first if sharey in (True, "all", "row") else None,
        }
        found.append(figure.add_subplot(places[divmod(k, shape[1])], **shared))
    return np.array(found, dtype=object)[None, :]


def _write_headers(
    axes: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    turned: bool,
    folded: bool,
    line: int | None,
) -> None:
    above, beside = (rows, columns) if turned else (columns, rows)
    placed = axes.T if turned else axes
    for ax, text in zip(placed[0], above, strict=True):
        write_above(ax, text, line or len(above))
    for ax, text in zip(() if folded else placed[:, -1], beside, strict=not folded):
        if text:
            write_beside(ax, text)
    if folded and rows[0]:
        figure = axes[0, 0].get_figure(root=True)
        figure.suptitle(rows[0])


def write_above(ax: Axes, text: str, columns: int) -> None:
    """Write the header of a column above its panel, in two lines where it is wider than that.

    It is broken before its arguments, as those of ``nesterov(momentum=0.9)``.
    """
    title, figure = ax.set_title(text), ax.get_figure(root=True)
    assert figure is not None
    room = _PANELS * 72 * figure.get_figwidth() / columns
    if _EM * float(title.get_fontsize()) * len(text) > room:
        title.set_text(text.replace("(", "\n(", 1))


def write_beside(ax: Axes, text: str) -> None:
    """Write the header of a row at the right of its last panel, from top to bottom."""
    ax.annotate(
        text,
        (1.0, 0.5),
        xytext=(5, 0),
        rotation=270,
        ha="left",
        va="center",
        annotation_clip=False,
        **_HEADER,
    )


def label_outer(ax: Axes, y: bool = True) -> None:
    """Keep the labels of a panel at the left and the lower edge of the figure alone.

    A panel with none below it keeps its own, also where its line is not the last. With ``y`` false,
    all panels keep the labels of their vertical axes.
    """
    figure = ax.get_figure(root=True)
    own = ax.get_subplotspec()
    assert figure is not None and own is not None
    others = [spec for one in figure.axes if (spec := one.get_subplotspec()) is not None]
    if any(o.colspan == own.colspan and o.rowspan.start > own.rowspan.start for o in others):
        ax.set_xlabel("")
        ax.tick_params(labelbottom=False)
    if y and any(o.rowspan == own.rowspan and o.colspan.start < own.colspan.start for o in others):
        ax.set_ylabel("")
        ax.tick_params(labelleft=False)
