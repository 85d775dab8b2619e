"""What all figures share: their grid, axes, lines and legends, and how they are written."""

import math
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from gradbench.errors import GradbenchError
from gradbench.spec import label
from gradbench.style import SETTINGS, Style

FULL_WIDTH = 7.0  # inches: the text width of a paper
NOTHING = 1e-6  # relative values below are rounding (of float32): no logarithmic axis shows them


def only_one(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    if frame.empty:
        raise GradbenchError(f"{what}() has nothing to draw: no finished cell; run the suite first")
    for column in columns:
        if (values := frame[column].unique()).size > 1:
            raise GradbenchError(
                f"{what}() draws one {column} at a time and was given {len(values)}; select one, "
                f"frame[frame[{column!r}] == {values[0]!r}]"
            )


def grid(rows: int, columns: int, share: Literal["row", "all"]) -> tuple[Figure, Any]:
    """A figure of full text width (less for one or two columns) with its axes [rows, columns]."""
    width = FULL_WIDTH if columns > 2 else (3.5, 5.5)[columns - 1]
    height = min(max(0.95 * width / columns, 1.3), 2.0)
    figure = Figure(figsize=(width, rows * height + 0.75), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share)


def member(problem: str) -> str:
    """The variant of a problem, or its name."""
    return problem.partition("[")[2].rstrip("]") or problem


def curve(ax: Axes, look: Style, x: Any, y: Any) -> None:
    ax.plot(x, y, color=look.color, ls=look.line, marker=look.marker, mew=0)


def band(ax: Axes, look: Style, x: Any, low: Any, high: Any) -> None:
    if len(x):  # an empty band would give the axis limits that are not of the data
        ax.fill_between(x, low, high, color=look.color, alpha=0.13, lw=0)


def zero_line(ax: Axes, look: Style, estimator: str) -> None:
    """A line near the bottom edge of a panel, with a note: zero, on a logarithmic axis."""
    place = ax.transAxes
    edge = Line2D([0.02, 1], [0.03, 0.03], color=look.color, ls=look.line, transform=place)
    ax.add_artist(edge)
    ax.text(0.03, 0.05, f"{label(estimator)}: 0", transform=place, fontsize=6, color=look.color)


def notice_zero_gradient(rows: pd.DataFrame, ax: Axes) -> None:
    if rows["zero_gradient"].any():
        ax.text(0.5, 0.5, "zero gradient", transform=ax.transAxes, ha="center", color="0.4")


def limit_mark(color: str, marker: str, text: str) -> Line2D:
    """What the legend says of biases that are not seen."""
    return Line2D([], [], color=color, ls="", marker=marker, mfc="none", label=text)


def logarithmic(ax: Axes, which: str) -> None:
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


def finish(
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
