"""The figures of a report: one for each place, layer and cost, to be picked by the reader."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradbench import metrics, plots
from gradbench.core.specs import family
from gradbench.plots.layout import logarithmic
from gradbench.plots.style import SETTINGS, Style, styles
from gradbench.report.places import Place
from gradbench.report.svg import embedded

# The figures of a suite that say what those to pick from do not.
_WIDE = {
    "growth": "Bias and standard deviation of a draw against size. Open triangles are upper limits "
    "where no bias was seen.",
    "temperature": "Bias and standard deviation of a draw against the temperature. Open triangles "
    "are upper limits where no bias was seen.",
    "training": "Bias and standard deviation of a draw along training. Open triangles are upper "
    "limits where no bias was seen.",
    "losses": "The exact expected loss along training.",
    "overview": "Bias (dots) and standard deviation (circles) of a draw of each estimator. Open "
    "triangles are upper limits where no bias was seen.",
}
_MOST_WIDE = 6
_PIXELS = 130  # to an inch of these: letters as large as those of captions
_MOST = 160  # figures to pick from: a page of more would be slow to write and heavy to open
_SIZE = (4.6, 3.3)  # inches; on a page some 400 to 560 pixels wide


class Picture(NamedTuple):
    """A figure on the page, shown when its place, its layer and one of ``costs`` are picked.

    Where it has no such axis ``costs`` is empty; else they are joined by "|".
    """

    kind: str
    place: int
    layer: str
    costs: str
    title: str
    where: str
    caption: str
    svg: Markup


class Wide(NamedTuple):
    """A figure of the whole suite."""

    title: str
    caption: str
    width: int  # in pixels
    svg: Markup


class _Panel(NamedTuple):
    """A kind of figure: how it is drawn, from what, and against which costs."""

    kind: str
    title: str
    caption: str
    data: str  # of which frame: "summary", "curves" or "coordinates"
    costs: Sequence[str]
    draw: Callable[..., Any]


def _rmse(rows: pd.DataFrame, ax: Any, style: Mapping[str, Style], cost: str) -> None:
    plots.rmse_curve(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")
    logarithmic(ax, "y")


def _cosine(rows: pd.DataFrame, ax: Any, style: Mapping[str, Style], cost: str) -> None:
    plots.cosine_curve(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")


def _plane(rows: pd.DataFrame, ax: Any, style: Mapping[str, Style], cost: str) -> None:
    plots.bias_variance_plane(rows, ax, style)


def _pareto(rows: pd.DataFrame, ax: Any, style: Mapping[str, Style], cost: str) -> None:
    plots.pareto_front(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")
    logarithmic(ax, "y")


def _bias_map(rows: pd.DataFrame, ax: Any, style: Mapping[str, Style], cost: str) -> None:
    plots.bias_heat_map(rows, ax, [name for name in style if family(name) != "exact"])
    letters = max(len(tick.get_text()) for tick in ax.get_yticklabels())
    left, rows = min(0.04 + 0.0148 * letters, 0.6), len(ax.get_yticks())
    ax.figure.set_figheight(max(_SIZE[1], 0.17 * rows + 0.5))
    ax.set_position((left, 0.09, 0.98 - left, 0.89))


_PANELS = (
    _Panel(
        "rmse",
        "Error",
        "RMSE of the mean of M draws, with 95 % intervals. A small circle marks where another "
        "estimator becomes the best.",
        "curves",
        metrics.COSTS,
        _rmse,
    ),
    _Panel(
        "cosine",
        "Direction",
        "Mean cosine between the mean of M draws and the exact gradient; the band holds 70 % of "
        "the estimates.",
        "curves",
        metrics.COSTS,
        _cosine,
    ),
    _Panel(
        "plane",
        "Bias against deviation",
        "Of one draw. Grey lines are of equal RMSE; what is zero is in the grey edges; an open "
        "triangle is an upper limit where no bias was seen.",
        "summary",
        (),
        _plane,
    ),
    _Panel(
        "pareto",
        "Error against cost of a draw",
        "RMSE of one draw. The line joins those that no other beats in both; dominated estimators "
        "are hollow.",
        "summary",
        metrics.COSTS[1:],
        _pareto,
    ),
    _Panel(
        "bias-map",
        "Bias of each coordinate",
        "Relative to the root mean square of the coordinates of G: red is too great, blue too "
        "small, the darkest colour stands for 1 and more. Grey: no bias seen.",
        "coordinates",
        (),
        _bias_map,
    ),
)


def wide_figures(
    suite: Mapping[str, Any], summary: pd.DataFrame, numbers: Mapping[str, int]
) -> tuple[list[Wide], str]:
    """The figures of a suite of growth, training, ..., and a sentence on those left out, if any."""
    drawings = [one for one in plots.drawings(suite, summary) if one.function in _WIDE]
    found = []
    for number, drawing in enumerate(drawings[:_MOST_WIDE]):
        rows = summary.query(drawing.where) if drawing.where else summary
        figure = getattr(plots, drawing.function)(rows, **drawing.arguments)
        title, caption = drawing.arguments["title"], _WIDE[drawing.function]
        svg = embedded(figure, f"w{number}", numbers, f"{title}. {caption}")
        found.append(Wide(title, caption, round(_PIXELS * figure.get_figwidth()), svg))
    missing = len(drawings) - len(found)
    return found, f"{missing} more of this kind: gradbench plot." if missing else ""


def pictures(
    summary: pd.DataFrame,
    curves: pd.DataFrame,
    coordinates: pd.DataFrame,
    places: Sequence[Place],
    numbers: Mapping[str, int],
    costs: Sequence[str],
) -> tuple[list[Picture], str]:
    """The figures to pick from, and a sentence on what was left out, if anything."""
    per_place = sum(len(_own(panel, costs)) for panel in _PANELS)
    layers = {place: place.layers for place in places}
    note = ""
    if per_place * sum(map(len, layers.values())) > _MOST:
        layers = {place: (place.whole,) for place in places}
        note = "Figures are of whole networks; those of single layers: gradbench plot."
    if per_place * len(places) > _MOST:
        kept = list(places)[-max(_MOST // per_place, 1) :]
        layers = {place: (place.whole,) for place in kept}
        note = (
            f"Figures are of the last {len(kept)} of {len(places)} places and of whole networks; "
            "others: gradbench plot."
        )
    frames = {"summary": summary, "curves": curves, "coordinates": coordinates}
    look = styles(summary)
    found: list[Picture] = []
    for number, place in enumerate(places):
        for layer in layers.get(place, ()):
            rows = {name: place.rows(frame, layer) for name, frame in frames.items()}
            if rows["summary"]["zero_gradient"].all():
                continue
            where = place.name if len(places) > 1 else ""
            if len(place.layers) > 1:
                named = "whole network" if layer == metrics.NETWORK else layer
                where = f"{where}, {named}" if where else named
            for panel in _PANELS:
                if rows[panel.data].empty:  # no coordinates of a whole network
                    continue
                for cost in _own(panel, costs):
                    svg = _drawn(panel, rows[panel.data], look, cost, len(found), numbers, where)
                    found.append(
                        Picture(
                            panel.kind,
                            number,
                            layer,
                            "|".join(_picks(panel, cost, costs)),
                            panel.title,
                            where,
                            panel.caption,
                            svg,
                        )
                    )
    return found, note


def _own(panel: _Panel, costs: Sequence[str]) -> list[str]:
    """The costs it is drawn against, of those that are known; "" where it is against none."""
    return [cost for cost in panel.costs if cost in costs] if panel.costs else [""]


def _picks(panel: _Panel, cost: str, costs: Sequence[str]) -> list[str]:
    """The costs at which a figure is shown: its own, the first one also where there is none."""
    own = _own(panel, costs)
    others = [one for one in costs if one not in own] if cost == own[0] else []
    return [*others, cost] if cost else []


def _drawn(
    panel: _Panel,
    rows: pd.DataFrame,
    look: Mapping[str, Style],
    cost: str,
    number: int,
    numbers: Mapping[str, int],
    where: str,
) -> Markup:
    with rc_context(
        {
            **SETTINGS,
            "font.size": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "lines.markersize": 4.5,
        }
    ):
        figure = Figure(figsize=_SIZE)
        ax = figure.add_axes((0.14, 0.14, 0.84, 0.83))
        panel.draw(rows, ax, {n: s for n, s in look.items() if n in set(rows["estimator"])}, cost)
        what = f"{panel.title}{f' against {cost}' if cost else ''}, {where}. {panel.caption}"
        return embedded(figure, f"f{number}", numbers, what)
