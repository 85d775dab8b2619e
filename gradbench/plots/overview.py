"""All estimators at a glance: their bias and deviation, one line each."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.core.specs import family
from gradbench.metrics.places import member
from gradbench.plots.layout import finish, is_drawn, limit_entries, limits, notice_zero_gradient
from gradbench.plots.parts import Part, Suite, each_variant
from gradbench.plots.registry import FIGURES, figure
from gradbench.plots.replicates import bias_and_deviation
from gradbench.plots.rows import MANY, layers_only, only_one
from gradbench.plots.save import owned
from gradbench.plots.style import Style, families_in, family_of
from gradbench.plots.ticks import Span, ticks_with_zero
from gradbench.plots.view import View

_LABELLED = 4  # panels in a row whose labels do not meet


def _of_many(suite: Suite, summary: pd.DataFrame) -> Iterable[Part]:
    """Return a drawing of each variant: always if asked for, else if there are many estimators."""
    asked = FIGURES.canonical(suite["figure"]) == "overview"
    return each_variant(suite, summary) if asked or summary["estimator"].nunique() > MANY else ()


@figure(
    parts=_of_many,
    suites=["accuracy", "training"],
    caption="Bias (dots) and standard deviation (circles) of a draw of each estimator. Arrows "
    "are upper limits where no bias was seen; diamonds are zero by theorem.",
    order=65,
)
def overview(summary: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw relative |bias| and standard deviation of one draw, one line of text per estimator.

    A panel per problem and layer. Dots are biases, open circles deviations; an arrow is the upper
    limit of a bias that is not seen, as in ``growth``. Zeros are in the grey edge; a diamond there
    is a bias that a theorem says to be zero. The layer "network" is left out unless it is given
    alone.

    Args:
        summary: the ``summary`` of one checkpoint.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, several checkpoints, or an option that does not fit.
    """
    only_one(summary, ["checkpoint"], "overview")
    summary = layers_only(summary)
    look, known = view.styles(summary), families_in(summary)
    names = [name for name in look if family(name) != "exact"]
    panels = list(summary.groupby(["problem", "layer"], sort=False))
    several = summary["problem"].nunique() > 1
    places = {place: bias_and_deviation(rows[~rows["zero_gradient"]]) for place, rows in panels}
    values = pd.concat([points[name] for points in places.values() for name in ("bias", "std")])
    span = Span.of(values)
    with rc_context(view.settings):
        figure = Figure(figsize=(view.inches(), 0.125 * len(names) + 1.3), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
        for ax, ((problem, layer), rows) in zip(axes, panels, strict=True):
            ax.set(xscale="log", xlim=(span.edge, span.high))
            ax.set_title(member(problem) if several else layer)
            ax.axvspan(span.edge, span.low, color="0.95", lw=0, zorder=0)
            notice_zero_gradient(rows, ax)
            _dots(places[problem, layer], ax, names, look, span.zero)
        axes[0].set_yticks(range(len(names)), [look[name].label for name in names], fontsize=6)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, name in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        for ax in axes:
            ticks_with_zero(ax.xaxis, span, apart=0.1)
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
            families = [family_of(name, known) for name in names]
            for k, (above, below) in enumerate(pairwise(families)):
                if above != below:
                    ax.axhline(k + 0.5, color="0.85", lw=0.5, zorder=0)
        marks = [
            Line2D([], [], color="0.3", ls="", marker="o", label="|bias|"),
            Line2D([], [], color="0.3", ls="", marker="o", mfc="none", label="std"),
            *_theorem_entries(figure),
            *limit_entries(figure, "no bias seen (limit)", sideways=True),
        ]
        for ax in axes[len(axes) // 2 :: len(axes)] if len(axes) > _LABELLED else axes:
            ax.set_xlabel("relative to |G|")
        finish(figure, title, {}, marks, names=True)
    return figure


_THEOREM: dict[str, Any] = {"marker": "D", "mfc": "none", "ms": 3.2}
_THEOREMS = "_theorems"  # the label of these marks, which no legend shows


def _theorem_entries(figure: Figure) -> list[Line2D]:
    entry = Line2D([], [], color="0.3", ls="", label="|bias| 0 by theorem", **_THEOREM)
    return [entry] if is_drawn(figure, _THEOREMS) else []


def _dots(
    points: pd.DataFrame, ax: Axes, names: Sequence[str], look: dict[str, Style], zero: float
) -> None:
    """Draw bias and deviation of each estimator, over replicates, joined by a thin line."""
    for place, name in enumerate(names):
        if name not in points.index:
            continue
        color = look[name].color
        bias, seen, std, theorem = points.loc[name]
        x = [value if value > 0.0 else zero for value in (bias, std) if value == value]
        owned(ax.plot(x, [place] * len(x), color=color, lw=0.5, alpha=0.5)[0], name)
        if not seen:
            limits(ax, look[name], [bias], [place], name, sideways=True)
        of_bias = (
            {**_THEOREM, "label": _THEOREMS}
            if bias == 0.0 and theorem
            else {"marker": "o", "mew": 0}
        )
        of_std: dict[str, Any] = {"marker": "o", "mfc": "none"}
        for value, mark in ((bias if seen else math.nan, of_bias), (std, of_std)):
            if not math.isnan(value):
                (dot,) = ax.plot([value or zero], [place], color=color, ls="", **mark)
                owned(dot, name)
