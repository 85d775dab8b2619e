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

# The marks of the ways to test a network.
_WAYS: dict[str, tuple[Any, Any, str]] = {
    "accuracy": ("o", "full", "one sample"),
    "ensemble_accuracy": ("s", "none", "mean of 10 samples"),
    "mean_field_accuracy": ("|", "full", "mean field"),
    "mode_accuracy": ("D", "none", "mode of weights"),
}
_PANELS = 4  # at most; more optimisers are told in the lines


def _with_classes(suite: Suite, frame: pd.DataFrame) -> list[Part]:
    known = frame["accuracy"].notna().any()
    return list(each_problem(suite, frame[frame["done"]])) if known else []


@figure(
    data="learning",
    parts=_with_classes,
    suites=["learning"],
    caption="The share of test examples that are classified rightly at the end, by one sample of "
    "the states, the mean of ten, and the mean field; of binary weights also by their more "
    "probable states. Means over seeds.",
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
    optimisers = list(last["optimiser"].unique())
    many = len(optimisers) > _PANELS
    ways = {way: looks for way, looks in _WAYS.items() if way in last}
    # The lines of all panels: the name of an estimator, and the optimiser where it is in the line.
    names = [
        (name, one if many else "")
        for name in look
        for one in (optimisers if many else [""])
        if not many or ((last["estimator"] == name) & (last["optimiser"] == one)).any()
    ]
    with rc_context(view.settings):
        columns = [""] if many else optimisers
        figure, panels = grid(view, [""], columns, height=0.14 * len(names) + 0.45)
        if many:
            figure.set_figwidth(view.inches())  # the lines are long
        axes = panels[0]
        for ax, column in zip(axes, columns, strict=True):
            means = last.groupby(["estimator", "optimiser"])[list(ways)].mean()
            for place, (name, optimiser) in enumerate(names):
                method = (name, optimiser or column)
                for way, (marker, fill, _) in ways.items():
                    if method in means.index:
                        (mark,) = ax.plot(
                            [100 * means.loc[method, way]],
                            [place],
                            ls="",
                            marker=marker,
                            fillstyle=fill,
                            color=look[name].color,
                        )
                        owned(mark, name)
            ax.set_xlabel("test accuracy, %")
            ax.grid(visible=False, axis="y")
        labels = [", ".join(filter(None, (look[name].label or name, one))) for name, one in names]
        axes[0].set_yticks(range(len(names)), labels, fontsize=6)
        axes[0].set_ylim(len(names) - 0.4, -0.6)
        for tick, (name, _) in zip(axes[0].get_yticklabels(), names, strict=True):
            tick.set_color(look[name].color)
        marks = [
            Line2D([], [], ls="", marker=marker, fillstyle=fill, color="0.3", label=text)
            for marker, fill, text in ways.values()
        ]
        finish(figure, title, {}, marks, names=True)
    return figure
