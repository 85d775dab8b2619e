"""RMSE and cosine against the number of draws, for every layer and checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.metrics import COSTS
from gradbench.plots.curves import change_mark, cosine_curve, end_below_one, rmse_curve
from gradbench.plots.layout import finish, grid, logarithmic, notice_zero_gradient
from gradbench.plots.parts import Part, Suite, each_replicate, none
from gradbench.plots.registry import Panel, figure
from gradbench.plots.rows import groups, groups_to_draw, layers_only, only_one, place_of
from gradbench.plots.style import PLAIN, Style, styles


def _each_group(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each replicate or, of many estimators, of each group of families."""
    for part in each_replicate(suite, summary):
        for group in groups_to_draw(part.rows):
            more = {"group": group} if group else {}
            after = f"-{group}" if group else ""
            yield part._replace(arguments=part.arguments | more, after=after)


def _rmse_panel(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style], cost: str) -> None:
    rmse_curve(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")
    logarithmic(ax, "y")


def _cosine_panel(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style], cost: str) -> None:
    cosine_curve(rows, ax, style, cost)
    logarithmic(ax, "x", "s" if cost == "seconds" else "")


@figure(
    data="curves",
    parts=_each_group,
    suites=["accuracy", "training"],
    panel=Panel(
        "Error",
        "RMSE of the mean of M draws, with 95 % intervals. A small circle marks where another "
        "estimator becomes the best.",
        _rmse_panel,
        COSTS,
    ),
    order=10,
)
def rmse(curves: pd.DataFrame, title: str = "", group: str | None = None) -> Figure:
    """Draw relative RMSE against the number of draws, a panel per layer and checkpoint.

    Layers are columns and checkpoints rows, with the loss beside their names. The layer "network"
    is left out unless it is given alone.

    Args:
        curves: the ``curves`` of one problem and replicate.
        title: printed above.
        group: draw only this group of families, see ``gradbench.plots.style.GROUPS``, without the
            exact estimator.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    figure, axes, shown, name, style = _panels(curves, title, group, rmse_curve)
    with rc_context(PLAIN):
        for ax in axes.flat:
            logarithmic(ax, "x")
            logarithmic(ax, "y")
        known = set(shown["estimator"][shown["exact"]])
        finish(figure, name, style, [change_mark()], known)
    return figure


@figure(
    data="curves",
    parts=_each_group,
    suites=["accuracy", "training"],
    panel=Panel(
        "Direction",
        "Mean cosine between the mean of M draws and the exact gradient; the band holds 70 % of "
        "the estimates.",
        _cosine_panel,
        COSTS,
    ),
    order=20,
)
def cosine(curves: pd.DataFrame, title: str = "", group: str | None = None) -> Figure:
    """Draw the mean cosine against the number of draws, laid out as ``rmse`` is.

    Args:
        curves: the ``curves`` of one problem and replicate.
        title: printed above.
        group: as of ``rmse``.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    figure, axes, _, name, style = _panels(curves, title, group, cosine_curve)
    with rc_context(PLAIN):
        for ax in axes.flat:
            logarithmic(ax, "x")
            end_below_one(ax)
        finish(figure, name, style)
    return figure


@figure(data="curves", parts=none, in_report=False, order=1)
def accuracy(curves: pd.DataFrame, title: str = "") -> dict[str, Figure]:
    """Draw RMSE and cosine; a suite of "accuracy" also has costs, biases and their comparison.

    More than 12 estimators have one figure for each group of families.

    Returns:
        The figures by name: "rmse" and "cosine", or "rmse-score" and so on.

    Raises:
        GradbenchError: no rows, or several problems or replicates.
    """
    only_one(curves, ["problem", "replicate"], "accuracy")
    return {
        f"{kind}-{group}" if group else kind: draw(curves, title, group)
        for kind, draw in (("rmse", rmse), ("cosine", cosine))
        for group in groups_to_draw(curves)
    }


def _panels(
    curves: pd.DataFrame, title: str, group: str | None, draw: Callable[..., Axes]
) -> tuple[Figure, Any, pd.DataFrame, str, dict[str, Style]]:
    """Return figure, axes, the rows shown, title and styles."""
    only_one(curves, ["problem", "replicate"], draw.__name__.partition("_")[0])
    curves = layers_only(curves)
    if group:
        curves = groups(curves)[group]
        title = f"{title}: {group}"
    style = styles(curves)
    checkpoints, layers = curves["checkpoint"].unique(), curves["layer"].unique()
    with rc_context(PLAIN):
        share: Literal["row", "all"] = "row" if draw is rmse_curve else "all"
        figure, axes = grid(len(checkpoints), len(layers), share)
        for (i, j), ax in np.ndenumerate(axes):
            rows = curves[(curves["checkpoint"] == checkpoints[i]) & (curves["layer"] == layers[j])]
            ax.set_title(f"{layers[j]}\n{place_of(rows)}")
            notice_zero_gradient(rows, ax)
            draw(rows[~rows["zero_gradient"]], ax, style)
            ax.label_outer()
    return figure, axes, curves, title, style
