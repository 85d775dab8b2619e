"""The accuracy of trained networks on test examples."""

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.metrics.training import final
from gradbench.plots.grid import grid
from gradbench.plots.layout import finish
from gradbench.plots.parts import Part, Suite, each_problem
from gradbench.plots.registry import figure
from gradbench.plots.rows import only_one
from gradbench.plots.save import owned
from gradbench.plots.view import View

# The marks of the three ways to test a network.
_WAYS: dict[str, tuple[Any, Any, str]] = {
    "accuracy": ("o", "full", "one sample"),
    "ensemble_accuracy": ("s", "none", "mean of 10 samples"),
    "mean_field_accuracy": ("|", "full", "mean field"),
}


def _with_classes(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    known = frame["accuracy"].notna().any()
    return list(each_problem(suite, frame[frame["done"]])) if known else []


@figure(
    data="learning",
    parts=_with_classes,
    suites=["learning"],
    caption="The share of test examples that are classified rightly at the end, by one sample of "
    "the states, the mean of ten, and the mean field: means over seeds.",
    order=210,
)
def accuracies(learning: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw the accuracy of each method on test examples at its end, a line of text for each.

    Args:
        learning: a ``gradbench.metrics.learning`` of one problem, of classes.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, those of several problems, or no finished run.
    """
    only_one(learning, ["problem"], "accuracies")
    last = final(learning)
    look = view.styles(last)
    names, optimisers = list(look), list(last["optimiser"].unique())
    with rc_context(view.settings):
        figure, panels = grid(view, [""], optimisers, height=0.14 * len(names) + 0.45)
        axes = panels[0]
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
            ax.set_xlabel("test accuracy, %")
            ax.grid(visible=False, axis="y")
        axes[0].set_yticks(
            range(len(names)), [one.label or name for name, one in look.items()], fontsize=6
        )
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, name in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        marks = [
            Line2D([], [], ls="", marker=marker, fillstyle=fill, color="0.3", label=text)
            for marker, fill, text in _WAYS.values()
        ]
        finish(figure, title, {}, marks, names=True)
    return figure
