"""Ticks of axes: decades, their texts, and no two labels that run into one another."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    NullLocator,
)
from matplotlib.transforms import Bbox

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_APART = 2.0  # points between two labels of ticks


def logarithmic(ax: Axes, which: str, unit: str = "") -> None:
    """Set the ticks of a logarithmic axis: decades, or 1, 2, 5 where these would be too few."""
    axis, (low, high) = (ax.xaxis, ax.get_xlim()) if which == "x" else (ax.yaxis, ax.get_ylim())
    decades = math.log10(high / low)
    subs = (1.0,) if decades > 1.7 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=6))
    axis.set_major_formatter(EngFormatter(unit) if unit else FuncFormatter(power))
    axis.set_minor_locator(NullLocator())


def power(value: float, _: object = None) -> str:
    """Format a tick of a logarithmic axis."""
    if 1e-3 <= value < 1e3:
        return f"{value:g}"
    if 1e3 <= value < 1e6:
        return f"{value / 1e3:g}k"
    exponent = math.floor(math.log10(value) + 1e-9)
    lead = f"{value / 10.0**exponent:.0f}"
    decade = f"10{str(exponent).translate(_RAISED)}"
    return decade if lead == "1" else f"{lead}·{decade}"


def thin(figure: Figure, which: str = "xy") -> None:
    """Leave out labels of ticks, every second or more, until no two run into one another.

    Call it when the axes are at their final place. Ticks of shared axes are the same in all.

    Args:
        figure: a figure.
        which: which axes: "x", "y" or "xy".
    """
    for ax in figure.axes:
        for axis in (getattr(ax, f"{name}axis") for name in which):
            shown = list(_labels(axis))
            step = 1
            while _collide([box for _, _, box in shown[::step]], figure.dpi):
                step += 1
            if step > 1:
                kept = shown[::step]
                axis.set_major_locator(FixedLocator([place for place, _, _ in kept]))
                axis.set_major_formatter(FixedFormatter([text for _, text, _ in kept]))


def _labels(axis: Axis) -> Iterator[tuple[float, str, Bbox]]:
    """Yield place, text and box of each label of an axis that is in sight."""
    low, high = sorted(axis.get_view_interval())
    axis.get_majorticklabels()  # brings them up to date
    for tick in axis.get_major_ticks():
        place, label = float(tick.get_loc()), tick.label1
        if label.get_visible() and low <= place <= high and label.get_text():
            yield place, label.get_text(), label.get_window_extent()


def _collide(boxes: list[Bbox], dpi: float) -> bool:
    grown = [box.padded(0.5 * _APART * dpi / 72.0) for box in boxes]
    return any(a.overlaps(b) for k, a in enumerate(grown) for b in grown[:k])


class Span(NamedTuple):
    """The limits of a logarithmic axis whose lower edge stands for zero.

    Attributes:
        edge: where the axis begins.
        zero: where zero is.
        low: where the edge ends.
        high: where the axis ends.
    """

    edge: float
    zero: float
    low: float
    high: float

    @classmethod
    def of(cls, values: pd.Series) -> "Span":
        """Return the span of an axis that has these values, some of which may be zero."""
        values = values[values > 0.0]
        low, high = (values.min() / 1.6, values.max() * 1.6) if len(values) else (0.1, 10.0)
        zero = low / (high / low) ** 0.06
        return cls(zero * zero / low, zero, low, high)


def ticks_with_zero(axis: Axis, span: Span, apart: float = 0.0) -> None:
    """Set ticks: at most four decades, or 1, 2, 5 where these would be too few; 0 in the edge.

    The share ``apart`` of the axis beside the edge has no tick.
    """
    _, zero, low, high = span
    decades = math.log10(high / low)
    locator = LogLocator(subs=(1.0,) if decades > 1.7 else (1.0, 2.0, 5.0), numticks=4)
    room = low ** (1.0 - apart) * high**apart
    ticks = [zero, *(tick for tick in locator.tick_values(low, high) if room <= tick <= high)]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if math.isclose(value, zero) else power(value))
    )
