"""The figures of a report: one for each place, layer and cost, to be picked by the reader."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradbench import metrics, plots
from gradbench.plots.layout import clear_notes
from gradbench.plots.parts import chosen
from gradbench.plots.registry import FIGURES, Panel, all_figures
from gradbench.plots.style import PLAIN, Style, styles
from gradbench.report.places import Place
from gradbench.report.svg import embedded

_MOST_WIDE = 6
_PIXELS = 130  # to an inch of these: letters as large as those of captions
_MOST = 160  # figures to pick from: a page of more would be slow to write and heavy to open
_SIZE = (4.6, 3.3)  # inches; on a page some 400 to 560 pixels wide


class Picture(NamedTuple):
    """A figure on the page, shown when its place, its layer and one of its costs are picked.

    Attributes:
        kind: the name of the figure's files.
        place: the number of its place.
        layer: the name of its layer.
        costs: the costs at which it is shown, joined by "|"; empty if it has no such axis.
        title: the title above it.
        where: its place and layer, in words.
        caption: the text below it.
        svg: the figure.
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
    """A figure of the whole suite, ``width`` pixels wide."""

    title: str
    caption: str
    width: int
    svg: Markup


class _Kind(NamedTuple):
    """A figure that is drawn as a panel."""

    name: str
    data: str
    panel: Panel


def panels() -> list[_Kind]:
    """Return the figures that are drawn for one place, layer and cost at a time."""
    return [_Kind(kind.file, kind.data, kind.panel) for kind in all_figures() if kind.panel]


def wide_figures(
    suite: Mapping[str, Any], frames: Mapping[str, pd.DataFrame], numbers: Mapping[str, int]
) -> tuple[list[Wide], str]:
    """Return the figures of the whole suite, and a sentence on those left out, if any.

    Args:
        suite: the suite, as the manifest of its results describes it.
        frames: "summary", "curves" and "coordinates" of the results.
        numbers: the number of each estimator on the page.
    """
    drawings = [
        (FIGURES[drawing.function], drawing)
        for drawing in plots.drawings(suite, frames["summary"])
        if FIGURES[drawing.function].in_report and not FIGURES[drawing.function].panel
    ]
    found = []
    for number, (kind, drawing) in enumerate(drawings[:_MOST_WIDE]):
        frame = frames[drawing.data]
        rows = chosen(frame, drawing.rows)
        figure = kind.draw(rows, **drawing.arguments)
        title = drawing.arguments.get("title", kind.name)
        svg = embedded(figure, f"w{number}", numbers, f"{title}. {kind.caption}")
        found.append(Wide(title, kind.caption, round(_PIXELS * figure.get_figwidth()), svg))
    missing = len(drawings) - len(found)
    return found, f"{missing} more of this kind: gradbench plot." if missing else ""


def pictures(
    frames: Mapping[str, pd.DataFrame],
    places: Sequence[Place],
    numbers: Mapping[str, int],
    costs: Sequence[str],
) -> tuple[list[Picture], str]:
    """Return the figures to pick from, and a sentence on what was left out, if anything.

    Args:
        frames: "summary", "curves" and "coordinates" of the results.
        places: the places.
        numbers: the number of each estimator on the page.
        costs: the costs that are known.
    """
    kinds = panels()
    per_place = sum(len(_drawn_costs(kind.panel, costs)) for kind in kinds)
    layers, note = _layers(places, per_place)
    look = styles(frames["summary"])
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
            for kind in kinds:
                own, panel = rows[kind.data], kind.panel
                if own.empty:  # no coordinates of a whole network
                    continue
                for cost in _drawn_costs(panel, costs):
                    svg = _drawn(panel, own, look, cost, len(found), numbers, where)
                    shown = "|".join(_shown_at(panel, cost, costs))
                    found.append(
                        Picture(
                            kind.name, number, layer, shown, panel.title, where, panel.caption, svg
                        )
                    )
    return found, note


def _layers(places: Sequence[Place], per_place: int) -> tuple[dict[Place, tuple[str, ...]], str]:
    """Return the layers of each place that have figures, and what to say of the others."""
    layers = {place: place.layers for place in places}
    note = ""
    if per_place * sum(map(len, layers.values())) > _MOST:
        layers = {place: (place.whole,) for place in places}
        note = "The figures are of whole networks; gradbench plot draws those of single layers."
    if per_place * len(places) > _MOST:
        kept = list(places)[-max(_MOST // per_place, 1) :]
        layers = {place: (place.whole,) for place in kept}
        note = (
            f"The figures are of the last {len(kept)} of {len(places)} places and of whole "
            "networks; gradbench plot draws the others."
        )
    return layers, note


def _drawn_costs(panel: Panel, costs: Sequence[str]) -> list[str]:
    """Return the known costs that a panel is drawn against; "" if it has no such axis."""
    return [cost for cost in panel.costs if cost in costs] if panel.costs else [""]


def _shown_at(panel: Panel, cost: str, costs: Sequence[str]) -> list[str]:
    """Return the costs at which a figure is shown: its own; the first also at all others."""
    own = _drawn_costs(panel, costs)
    others = [one for one in costs if one not in own] if cost == own[0] else []
    return [*others, cost] if cost else []


def _drawn(
    panel: Panel,
    rows: pd.DataFrame,
    look: Mapping[str, Style],
    cost: str,
    number: int,
    numbers: Mapping[str, int],
    where: str,
) -> Markup:
    with rc_context(
        {
            **PLAIN,
            "font.size": 9,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "lines.markersize": 4.5,
        }
    ):
        figure = Figure(figsize=_SIZE)
        ax = figure.add_axes((0.14, 0.14, 0.84, 0.83))
        shown = set(rows["estimator"].unique())
        panel.draw(rows, ax, {n: s for n, s in look.items() if n in shown}, cost)
        clear_notes(figure)
        what = f"{panel.title}{f' against {cost}' if cost else ''}, {where}. {panel.caption}"
        return embedded(figure, f"f{number}", numbers, what)
