"""Names beside points, without overlaps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from gradbench.core.display import display_name
from gradbench.plots.layout import pixels_per_inch
from gradbench.plots.save import owned

# Where a name may be, nearest first: distances in points, directions in degrees. The lower left is
# tried first, since worse estimators are at the upper right.
_REACH = (5.0, 9.0, 15.0, 22.0, 30.0, 40.0)
_ANGLES = (225, 180, 270, 0, 315, 135, 90, 45)
_NEAR = 9.0  # a name farther away is joined to its point by a line
_MARKER = 6.0  # points across
_FONT: dict[str, Any] = {"fontsize": 6.5, "ha": "left", "va": "bottom"}


class Point(NamedTuple):
    """A point at ``x``, ``y`` in data coordinates, with the ``color`` of its name and the name.

    Without a ``label`` it is called by the display name of its estimator.
    """

    x: float
    y: float
    color: str
    label: str = ""


def direct_labels(ax: Axes, points: Mapping[str, Point], others: Iterable[Any] = ()) -> None:
    """Write the names of estimators beside their points, each at the first free place near it.

    Names keep clear of one another, of other text, of all points and ``others``, and of the frame.
    Call it after the figure is laid out, when the axes are at their final place. A name for which
    there is no place is left out.

    Args:
        ax: the axes that the points are in.
        points: the points by estimator.
        others: further points (x, y), in data coordinates, that names keep clear of.
    """
    pixels = pixels_per_inch(ax) / 72.0
    places = {name: ax.transData.transform((one.x, one.y)) for name, one in points.items()}
    marks = [*places.values(), *map(ax.transData.transform, others)]
    taken = [Bbox([mark, mark]).padded(0.5 * _MARKER * pixels) for mark in marks]
    taken += [text.get_window_extent() for text in ax.texts]
    for name, one in points.items():
        shown = one.label or display_name(name)
        found = _free(ax, shown, places[name], taken, pixels)
        if found is None:
            continue
        reach, box = found
        taken.append(box)
        line = {"arrowstyle": "-", "lw": 0.4, "color": one.color, "shrinkA": 0.0, "shrinkB": 2.0}
        text = ax.annotate(
            shown,
            (one.x, one.y),
            xytext=tuple((box.min - places[name]) / pixels),
            textcoords="offset points",
            color=one.color,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.2},
            arrowprops=line if reach > _NEAR else None,
            **_FONT,
        )
        text.set_in_layout(False)
        owned(text, name)


def _free(
    ax: Axes, name: str, place: Any, taken: list[Bbox], pixels: float
) -> tuple[float, Bbox] | None:
    """Return how far from its point a name has room, and its box; None if there is no room."""
    probe = ax.text(0.5, 0.5, name, transform=ax.transAxes, **_FONT)
    size = np.array(probe.get_window_extent().size)
    probe.remove()
    frame = ax.get_window_extent().padded(-2.0 * pixels)
    for reach in _REACH:
        for angle in _ANGLES:
            toward = [math.cos(math.radians(angle)), math.sin(math.radians(angle))]
            shift = 0.5 - 0.5 * np.round(toward)  # 0, 1/2 or 1 of its size
            low = place + reach * pixels * np.array(toward) - size * shift
            box = Bbox([low, low + size])
            inside = frame.containsx(box.x0) and frame.containsx(box.x1)
            inside = inside and frame.containsy(box.y0) and frame.containsy(box.y1)
            if inside and not box.count_overlaps(taken):
                return reach, box
    return None
