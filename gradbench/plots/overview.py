"""All estimators at a glance: their bias and deviation, one line each."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.core.specs import family, label
from gradbench.metrics.places import member
from gradbench.plots.layout import (
    FULL_WIDTH,
    finish,
    limit_mark,
    logarithmic,
    notice_zero_gradient,
)
from gradbench.plots.parts import Part, Suite, each_variant
from gradbench.plots.registry import FIGURES, figure
from gradbench.plots.replicates import bias_and_deviation
from gradbench.plots.rows import MANY, layers_only, only_one
from gradbench.plots.save import owned
from gradbench.plots.style import PLAIN, Style, families_in, family_of, in_order, styles


def _of_many(suite: Suite, summary: pd.DataFrame) -> Iterable[Part]:
    """Return a drawing of each variant: always if asked for, else if there are many estimators."""
    asked = FIGURES.canonical(suite["figure"]) == "overview"
    return each_variant(suite, summary) if asked or summary["estimator"].nunique() > MANY else ()


@figure(
    parts=_of_many,
    suites=["accuracy", "training"],
    caption="Bias (dots) and standard deviation (circles) of a draw of each estimator. Open "
    "triangles are upper limits where no bias was seen; a 0 is a bias that is zero by theorem.",
    order=65,
)
def overview(summary: pd.DataFrame, title: str = "") -> Figure:
    """Draw relative |bias| and standard deviation of one draw, one line of text per estimator.

    A panel per problem and layer. Dots are biases, open circles deviations; an open triangle is the
    upper limit of a bias that is not seen, as in ``growth``. Zeros are not drawn; a "0" means that
    a theorem says that the bias is zero, or that both are zero. The layer "network" is left out
    unless it is given alone.

    Args:
        summary: the ``summary`` of one checkpoint.
        title: printed above.

    Raises:
        GradbenchError: no rows, or several checkpoints.
    """
    only_one(summary, ["checkpoint"], "overview")
    summary = layers_only(summary)
    names = [name for name in in_order(summary) if family(name) != "exact"]
    look, known = styles(summary), families_in(summary)
    panels = list(summary.groupby(["problem", "layer"], sort=False))
    several = summary["problem"].nunique() > 1
    with rc_context(PLAIN):
        figure = Figure(figsize=(FULL_WIDTH, 0.125 * len(names) + 1.3), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True, sharex=True)[0]
        for ax, ((problem, layer), rows) in zip(axes, panels, strict=True):
            ax.set(xscale="log", xlabel="relative to |G|")
            ax.set_title(member(problem) if several else layer)
            notice_zero_gradient(rows, ax)
            _dots(rows[~rows["zero_gradient"]], ax, names, look)
        axes[0].set_yticks(range(len(names)), [label(name) for name in names], fontsize=6)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, name in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        for ax in axes:
            logarithmic(ax, "x")
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
            families = [family_of(name, known) for name in names]
            for k, (above, below) in enumerate(pairwise(families)):
                if above != below:
                    ax.axhline(k + 0.5, color="0.85", lw=0.5, zorder=0)
        marks = [
            Line2D([], [], color="0.3", ls="", marker="o", label="|bias|"),
            Line2D([], [], color="0.3", ls="", marker="o", mfc="none", label="std"),
            limit_mark("0.3", "<", "no bias seen (limit)"),
        ]
        finish(figure, title, {}, marks)
    return figure


def _dots(rows: pd.DataFrame, ax: Axes, names: Sequence[str], look: dict[str, Style]) -> None:
    """Draw bias and deviation of each estimator, over replicates, joined by a thin line."""
    points = bias_and_deviation(rows)
    for place, name in enumerate(names):
        if name not in points.index:
            continue
        color = look[name].color
        bias, seen, std, theorem = points.loc[name]
        if bias == 0.0 and (theorem or std == 0.0):
            edge = ax.get_yaxis_transform()
            zero = ax.text(0.02, place, "0", transform=edge, fontsize=6, color=color, va="center")
            owned(zero, name)
        if bias > 0.0 and std > 0.0:
            owned(ax.plot([bias, std], [place, place], color=color, lw=0.5, alpha=0.5)[0], name)
        marks = ((bias, "o" if seen else "<", color if seen else "none"), (std, "o", "none"))
        for value, marker, fill in marks:
            if value > 0.0:
                (mark,) = ax.plot([value], [place], color=color, ls="", marker=marker, mfc=fill)
                owned(mark, name)
