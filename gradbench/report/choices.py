"""The best estimators of each place and layer for each range of budgets, as the page shows them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from gradbench.metrics import Verdict
from gradbench.metrics.decisions import Range
from gradbench.metrics.sentences import names
from gradbench.metrics.verdict_text import range_text
from gradbench.report.numbers import marked
from gradbench.report.places import Place


class Shown(NamedTuple):
    """A range of budgets: its text, the best estimators, and what is to be said of them.

    ``only`` is true if nothing else can be afforded.
    """

    text: str
    best: tuple[str, ...]
    note: Markup
    only: bool


class Choice(NamedTuple):
    """The best estimators of a layer at a place by budget, for each cost: none if not known."""

    place: Place
    layer: str
    ranges: dict[str, list[Shown]]


def choices(
    verdicts: Mapping[str, Verdict], places: Sequence[Place], layers: Sequence[str]
) -> list[Choice]:
    """Return the best estimators by budget, place by place.

    Args:
        verdicts: the verdict for each cost.
        places: the places.
        layers: the names of the layers to tell; those that a place has not are left out.
    """
    found = []
    for place in places:
        for layer in layers:
            ranges = {cost: verdict.ranges(layer, place.key) for cost, verdict in verdicts.items()}
            if any(ranges.values()):
                shown = {cost: [_shown(one, cost) for one in own] for cost, own in ranges.items()}
                found.append(Choice(place, layer, shown))
    return found


def _shown(found: Range, cost: str) -> Shown:
    note = Markup("a tie") if len(found.best) > 1 else Markup("")
    if found.tied:
        note = Markup("in part tied with {}").format(marked(names(found.tied, " and ", 2)))
    return Shown(
        range_text(found, cost, unit=False).replace("us", "µs"),
        found.best,
        note,
        not found.is_choice,
    )
