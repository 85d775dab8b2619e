"""Estimators as points: bias against deviation."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.plots.grid import label_outer
from gradbench.plots.labels import Point, direct_labels
from gradbench.plots.layout import finish, limit_entries, limits, notice_zero_gradient, panels
from gradbench.plots.parts import Part, Suite, checkpoints_of_many, each_problem, has_estimates
from gradbench.plots.registry import Panel, figure
from gradbench.plots.replicates import bias_and_deviation
from gradbench.plots.rows import layers_only, only_one, rows_of
from gradbench.plots.save import lay_out, number_owned, owned
from gradbench.plots.style import Style, styles
from gradbench.plots.ticks import Span, power, ticks_with_zero
from gradbench.plots.view import View

_WIDE = 2  # panels side by side that have room for names


class _Spans(NamedTuple):
    """The limits of a plane, whose left and lower edge stand for zero."""

    x: Span
    y: Span

    @classmethod
    def of(cls, points: pd.DataFrame) -> "_Spans":
        return cls(Span.of(points["std"]), Span.of(points["bias"]))


def bias_variance_plane(
    summary: pd.DataFrame, ax: Axes, style: Mapping[str, Style] | None = None
) -> Axes:
    """Draw relative |bias| against the relative standard deviation of a draw, logarithmically.

    A point per estimator; an arrow is the upper limit of a bias that is not seen. Zeros are in the
    grey edges: those by theorem are hollow, those by enumeration filled. Grey lines have equal RMSE
    of one draw.

    Args:
        summary: the rows of one layer and checkpoint at M = 1.
        ax: where to draw.
        style: the estimators to draw and how; all of them by default, as ``plots.style`` has it.
    """
    points = bias_and_deviation(summary).dropna()
    return _plane(points, ax, style or styles(summary), _Spans.of(points))


def _plane(points: pd.DataFrame, ax: Axes, style: Mapping[str, Style], span: _Spans) -> Axes:
    ax.set(xscale="log", yscale="log", xlabel="relative std", ylabel="relative |bias|")
    ax.set(xlim=(span.x.edge, span.x.high), ylim=(span.y.edge, span.y.high))
    ax.axvspan(span.x.edge, span.x.low, color="0.95", lw=0, zorder=0)
    ax.axhspan(span.y.edge, span.y.low, color="0.95", lw=0, zorder=0)
    ticks_with_zero(ax.xaxis, span.x, apart=0.1)
    ticks_with_zero(ax.yaxis, span.y)
    _equal_rmse(ax, span)
    places = _places(points, span)
    for name in filter(points.index.__contains__, style):
        look = style[name]
        x, y = places.loc[name, ["x", "y"]]
        if look.marker and not points.loc[name, "seen"]:
            limits(ax, look, [x], [y], name)
            continue
        hollow = _HOLLOW if look.marker and points.loc[name, "theorem"] else {"mew": 0}
        (mark,) = ax.plot(x, y, color=look.color, ls="", marker=look.marker or ".", **hollow)
        owned(mark, name).set_zorder(3 if look.marker else 2)
    return ax


_HOLLOW: dict[str, Any] = {"mfc": "white"}


def _places(points: pd.DataFrame, span: _Spans) -> pd.DataFrame:
    """Return where the points are drawn, with zeros in the edges."""
    x, y = (points[name].where(points[name] > 0.0) for name in ("std", "bias"))
    return pd.DataFrame({"x": x.fillna(span.x.zero), "y": y.fillna(span.y.zero)})


def _equal_rmse(ax: Axes, span: _Spans) -> None:
    """Draw quarter circles about the origin, with their radii."""
    limits = np.log10([[span.x.low, span.y.low], [span.x.high, span.y.high]])
    radii = 10.0 ** np.arange(math.floor(limits[0].min()), math.log10(span.x.high + span.y.high))
    near = np.geomspace(1e-9, 0.05, 30)
    angle = np.concatenate([near, np.linspace(0.05, math.pi / 2 - 0.05, 90), math.pi / 2 - near])
    for radius in radii:
        ax.plot(
            *_circle(radius, np.sort(angle)), color="0.75", lw=0.5, scalex=False, scaley=False
        ).pop().set_zorder(1)
        for x, y in _circle(radius, _NUMBERED).T:
            share = (np.log10([x, y]) - limits[0]) / (limits[1] - limits[0])
            if share.min() > 0.05 and share.max() < 0.95:
                ax.text(x, y, power(radius), **_NUMBER).set_in_layout(False)
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
        "For one draw. Grey lines have equal RMSE; zero is in the grey edges, hollow where a "
        "theorem says so; an arrow is an upper limit where no bias was seen.",
        _panel,
    ),
    order=40,
)
def plane(summary: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw bias against deviation of one draw, a panel per layer and a row per checkpoint.

    More than 12 estimators have a row per group of families, with a legend of its own and the other
    estimators in grey. Replicates are taken together, as in ``growth``. The layer "network" is left
    out unless it is given alone. The exact estimator is left out.

    Args:
        summary: the ``summary`` of one problem at M = 1; of more than 12 estimators, of one
            checkpoint.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows besides those of the exact estimator, several problems, or (of many
            estimators) several checkpoints, or an option that does not fit.
    """
    only_one(summary, ["problem"], "plane")
    frame = layers_only(summary[summary["estimator"].map(family) != "exact"])
    if frame.empty:
        raise GradbenchError(
            "plane() has nothing to draw: no finished cell of an estimator besides exact; run the "
            "suite to its end, or one with more estimators"
        )
    layers = list(frame["layer"].unique())
    rows = rows_of(frame, "plane", view)
    points = {
        place: bias_and_deviation(part).dropna()
        for place, part in frame[~frame["zero_gradient"]].groupby(["checkpoint", "layer"])
    }
    nothing = bias_and_deviation(frame.head(0))
    span = _Spans.of(pd.concat([nothing, *points.values()]))
    with rc_context(view.settings):
        figure, axes = panels(view, rows, layers, lines=False, sharex=True, sharey="all")
        named = {}
        for row, line in zip(rows, axes, strict=True):
            for layer, ax in zip(layers, line, strict=True):
                own = row.frame[row.frame["layer"] == layer]
                notice_zero_gradient(own, ax)
                here = points.get((row.frame["checkpoint"].iloc[0], layer), nothing)
                _plane(here, ax, row.style, span)
                named[ax] = here
                label_outer(ax)
        direct = not rows[0].legend and len(layers) <= _WIDE and not view.narrow
        marks = _legend(figure, pd.concat([nothing, *points.values()]))
        legend = {} if direct or rows[0].legend else rows[0].style
        finish(figure, title, legend, marks, lines=False)
        if direct:
            lay_out(figure)
            for ax, here in named.items():
                places = _places(here, span)
                label_all(ax, places, rows[0].style)
        number_owned(figure)
    return figure


def _legend(figure: Figure, points: pd.DataFrame) -> list[Line2D]:
    """Return the legend's entries for the kinds of marks that a figure of these points has."""
    found = [Line2D([], [], color="0.75", lw=0.5, label="equal RMSE of a draw")]
    if points["theorem"].any():
        hollow = Line2D([], [], color="0.3", ls="", marker="o", label="hollow: 0 by theorem")
        hollow.set(**_HOLLOW)
        found.append(hollow)
    if ((points["bias"] == 0.0) & ~points["theorem"]).any():
        filled = Line2D([], [], color="0.3", ls="", marker="o", mew=0)
        filled.set_label("filled at zero: by enumeration")
        found.append(filled)
    return [*found, *limit_entries(figure, "no bias seen (limit)")]


def label_all(
    ax: Axes, points: pd.DataFrame, style: Mapping[str, Style], others: Iterable[Any] = ()
) -> None:
    """Write names beside the points ``x``, ``y``, clear of ``others`` as well."""
    direct_labels(
        ax,
        {
            name: Point(row.x, row.y, style[str(name)].color, style[str(name)].label)
            for name, row in points.iterrows()
        },
        others,
    )
