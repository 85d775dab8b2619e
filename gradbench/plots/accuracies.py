"""The accuracy of trained networks on test examples."""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.core.specs import label
from gradbench.metrics.training import final
from gradbench.plots.layout import FULL_WIDTH, finish
from gradbench.plots.parts import Part, Suite, each_problem
from gradbench.plots.registry import figure
from gradbench.plots.rows import only_one
from gradbench.plots.save import owned
from gradbench.plots.style import PLAIN, in_order, styles

# The marks of the three ways to test a network.
_WAYS: dict[str, tuple[Any, Any, str]] = {
    "accuracy": ("o", "full", "one sample"),
    "ensemble_accuracy": ("s", "none", "mean of 10 samples"),
    "mean_field_accuracy": ("|", "full", "mean field"),
}


def _with_classes(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    known = frame["accuracy"].notna().any()
    return list(each_problem(suite, frame)) if known else []


@figure(
    data="learning",
    parts=_with_classes,
    suites=["learning"],
    caption="The share of test examples that are classified rightly at the end, by one sample of "
    "the states, the mean of ten, and the mean field: means over seeds.",
    order=210,
)
def accuracies(learning: pd.DataFrame, title: str = "") -> Figure:
    """Draw the accuracy of each method on test examples at its end, a line of text for each.

    Args:
        learning: a ``gradbench.metrics.learning`` of one problem, of classes.
        title: printed above.

    Raises:
        GradbenchError: no rows, those of several problems, or no finished run.
    """
    only_one(learning, ["problem"], "accuracies")
    last = final(learning)
    names, optimisers, look = in_order(last), list(last["optimiser"].unique()), styles(last)
    with rc_context(PLAIN):
        figure = Figure(figsize=(FULL_WIDTH, 0.14 * len(names) + 1.2), layout="constrained")
        axes = figure.subplots(1, len(optimisers), squeeze=False, sharex=True, sharey=True)[0]
        for ax, optimiser in zip(axes, optimisers, strict=True):
            rows = last[last["optimiser"] == optimiser]
            means = rows.groupby("estimator")[list(_WAYS)].mean()
            for place, name in enumerate(names):
                for way, (marker, fill, _) in _WAYS.items():
                    if name in means.index:
                        (mark,) = ax.plot(
                            [100 * means.loc[name, way]],
                            [place],
                            ls="",
                            marker=marker,
                            fillstyle=fill,
                            color=look[name].color,
                        )
                        owned(mark, name)
            ax.set_title(optimiser)
            ax.set_xlabel("test accuracy, %")
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(names)), [label(name) for name in names], fontsize=6)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, name in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        marks = [
            Line2D([], [], ls="", marker=marker, fillstyle=fill, color="0.3", label=text)
            for marker, fill, text in _WAYS.values()
        ]
        finish(figure, title, {}, marks)
    return figure
