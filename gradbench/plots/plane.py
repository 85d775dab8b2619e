"""Estimators as points: bias against deviation."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.plots.labels import Point, direct_labels
from gradbench.plots.layout import finish, limit_mark, notice_zero_gradient, panels, power
from gradbench.plots.parts import Part, Suite, checkpoints_of_many, each_problem, has_estimates
from gradbench.plots.registry import Panel, figure
from gradbench.plots.replicates import bias_and_deviation
from gradbench.plots.rows import layers_only, only_one, rows_of
from gradbench.plots.save import lay_out, number_owned, owned
from gradbench.plots.style import PLAIN, Style, styles

_WIDE = 2  # panels side by side that have room for names


class _Span:
    """The limits of a plane, whose left and lower edge stand for zero."""

    def __init__(self, points: pd.DataFrame) -> None:
        self.x, self.y = (self._of(points[name]) for name in ("std", "bias"))

    @staticmethod
    def _of(values: pd.Series) -> tuple[float, float, float]:
        """Return where zero is, where its edge ends, and the upper limit."""
        values = values[values > 0.0]
        low, high = (values.min() / 1.6, values.max() * 1.6) if len(values) else (0.1, 10.0)
        return low / (high / low) ** 0.06, low, high


def bias_variance_plane(
    summary: pd.DataFrame, ax: Axes, style: Mapping[str, Style] | None = None
) -> Axes:
    """Draw relative |bias| against the relative standard deviation of a draw, logarithmically.

    A point per estimator; an open triangle is the upper limit of a bias that is not seen, an open
    diamond a bias that is zero by theorem. Zeros are in the grey edges. Grey lines have equal RMSE
    of one draw.

    Args:
        summary: the rows of one layer and checkpoint at M = 1.
        ax: where to draw.
        style: the estimators to draw and how; all of them by default, as ``plots.style`` has it.
    """
    points = bias_and_deviation(summary).dropna()
    return _plane(points, ax, style or styles(summary), _Span(points))


def _plane(points: pd.DataFrame, ax: Axes, style: Mapping[str, Style], span: _Span) -> Axes:
    ax.set(xscale="log", yscale="log", xlabel="relative std", ylabel="relative |bias|")
    outer = [zero * zero / low for zero, low, _ in (span.x, span.y)]
    ax.set(xlim=(outer[0], span.x[2]), ylim=(outer[1], span.y[2]))
    ax.axvspan(outer[0], span.x[1], color="0.95", lw=0, zorder=0)
    ax.axhspan(outer[1], span.y[1], color="0.95", lw=0, zorder=0)
    _ticks_with_zero(ax.xaxis, *span.x, apart=0.1)
    _ticks_with_zero(ax.yaxis, *span.y)
    _equal_rmse(ax, span)
    places = _places(points, span)
    for name in filter(points.index.__contains__, style):
        look = style[name]
        limit = look.marker and not points.loc[name, "seen"]
        marker: dict[str, Any] = {"marker": look.marker or ".", "mew": 0}
        if points.loc[name, "theorem"]:
            marker = _THEOREM
        place = places.loc[name, ["x", "y"]]
        (mark,) = ax.plot(*place, color=look.color, ls="", **(_LIMIT if limit else marker))
        owned(mark, name).set_zorder(3 if look.marker else 2)
    return ax


_THEOREM: dict[str, Any] = {"marker": "D", "mfc": "none", "ms": 3.5}
_LIMIT: dict[str, Any] = {"marker": "v", "mfc": "none"}


def _places(points: pd.DataFrame, span: _Span) -> pd.DataFrame:
    """Return where the points are drawn, with zeros in the edges."""
    x, y = (points[name].where(points[name] > 0.0) for name in ("std", "bias"))
    return pd.DataFrame({"x": x.fillna(span.x[0]), "y": y.fillna(span.y[0])})


def _ticks_with_zero(axis: Axis, zero: float, low: float, high: float, apart: float = 0.0) -> None:
    """Set ticks: at most four decades, or 1, 2, 5 where these would be too few; 0 in the edge.

    The share ``apart`` of the axis beside the edge has no tick.
    """
    decades = math.log10(high / low)
    locator = LogLocator(subs=(1.0,) if decades > 1.7 else (1.0, 2.0, 5.0), numticks=4)
    room = low ** (1.0 - apart) * high**apart
    ticks = [zero, *(tick for tick in locator.tick_values(low, high) if room <= tick <= high)]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: "0" if math.isclose(value, zero) else power(value, _))
    )


def _equal_rmse(ax: Axes, span: _Span) -> None:
    """Draw quarter circles about the origin, with their radii."""
    limits = np.log10([[span.x[1], span.y[1]], [span.x[2], span.y[2]]])
    radii = 10.0 ** np.arange(math.floor(limits[0].min()), math.log10(span.x[2] + span.y[2]))
    near = np.geomspace(1e-9, 0.05, 30)
    angle = np.concatenate([near, np.linspace(0.05, math.pi / 2 - 0.05, 90), math.pi / 2 - near])
    for radius in radii:
        ax.plot(
            *_circle(radius, np.sort(angle)), color="0.75", lw=0.5, scalex=False, scaley=False
        ).pop().set_zorder(1)
        for x, y in _circle(radius, _NUMBERED).T:
            share = (np.log10([x, y]) - limits[0]) / (limits[1] - limits[0])
            if share.min() > 0.05 and share.max() < 0.95:
                ax.text(x, y, power(radius, None), **_NUMBER).set_in_layout(False)
                break


def _circle(radius: float, angle: Any) -> Any:
    return radius * np.array([np.cos(angle), np.sin(angle)])


# The angles at which a circle may have its number: the first that is well inside the panel.
_NUMBERED = np.array([0.5 * math.pi / 2, 0.3, 0.1, 0.03, math.pi / 2 - 0.3, math.pi / 2 - 0.1])
_NUMBER: dict[str, Any] = {
    "fontsize": 5.5,
    "color": "0.5",
    "ha": "center",
    "va": "center",
    "zorder": 1.5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.4},
}


def _with_estimates(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each problem that has a bias to show."""
    for part in each_problem(suite, summary):
        if has_estimates(part.rows):
            yield from checkpoints_of_many(part)


def _panel(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style], cost: str) -> None:
    bias_variance_plane(rows, ax, style)


@figure(
    parts=_with_estimates,
    suites=["accuracy", "training"],
    panel=Panel(
        "Bias against deviation",
        "For one draw. Grey lines have equal RMSE; zero is in the grey edges; an open triangle is "
        "an upper limit where no bias was seen, an open diamond a bias that is zero by theorem.",
        _panel,
    ),
    order=40,
)
def plane(summary: pd.DataFrame, title: str = "") -> Figure:
    """Draw bias against deviation of one draw, a panel per layer and a row per checkpoint.

    More than 12 estimators have a row per group of families, with a legend of its own and the other
    estimators in grey. Replicates are taken together, as in ``growth``. The layer "network" is left
    out unless it is given alone. The exact estimator is left out.

    Args:
        summary: the ``summary`` of one problem at M = 1; of more than 12 estimators, of one
            checkpoint.
        title: printed above.

    Raises:
        GradbenchError: no rows besides those of the exact estimator, several problems, or (of many
            estimators) several checkpoints.
    """
    only_one(summary, ["problem"], "plane")
    frame = layers_only(summary[summary["estimator"].map(family) != "exact"])
    if frame.empty:
        raise GradbenchError(
            "plane() has nothing to draw: no finished cell of an estimator besides exact; run the "
            "suite to its end, or one with more estimators"
        )
    layers = list(frame["layer"].unique())
    rows = rows_of(frame, "plane")
    points = {
        place: bias_and_deviation(part).dropna()
        for place, part in frame[~frame["zero_gradient"]].groupby(["checkpoint", "layer"])
    }
    nothing = bias_and_deviation(frame.head(0))
    span = _Span(pd.concat([nothing, *points.values()]))
    with rc_context(PLAIN):
        figure, axes = panels(rows, len(layers), lines=False, sharex=True, sharey="all")
        named = {}
        for row, line in zip(rows, axes, strict=True):
            for layer, ax in zip(layers, line, strict=True):
                own = row.frame[row.frame["layer"] == layer]
                notice_zero_gradient(own, ax)
                here = points.get((row.frame["checkpoint"].iloc[0], layer), nothing)
                _plane(here, ax, row.style, span)
                named[ax] = here
                if not row.legend:
                    ax.set_title(f"{layer}\n{row.name}")
                elif row is rows[0]:
                    ax.set_title(layer)
                ax.label_outer()
        direct = not rows[0].legend and len(layers) <= _WIDE
        marks = [
            limit_mark("0.4", "v", "no bias seen (limit)"),
            Line2D([], [], color="0.4", ls="", label="0 by theorem", **_THEOREM),
            Line2D([], [], color="0.75", lw=0.5, label="equal RMSE of a draw"),
        ]
        legend = {} if direct or rows[0].legend else rows[0].style
        finish(figure, title, legend, marks, lines=False)
        if direct:
            lay_out(figure)
            for ax, here in named.items():
                places = _places(here, span)
                label_all(ax, places, rows[0].style)
        number_owned(figure)
    return figure


def label_all(
    ax: Axes, points: pd.DataFrame, style: Mapping[str, Style], others: Iterable[Any] = ()
) -> None:
    """Write names beside the points ``x``, ``y``, clear of ``others`` as well."""
    direct_labels(
        ax,
        {name: Point(row.x, row.y, style[str(name)].color) for name, row in points.iterrows()},
        others,
    )
