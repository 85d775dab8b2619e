"""RMSE and 1 - cosine against the number of draws, for every layer and checkpoint."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.core.specs import family
from gradbench.metrics import COSTS
from gradbench.plots.curves import change_entries, cosine_curve, rmse_curve
from gradbench.plots.grid import grid, label_outer
from gradbench.plots.layout import exactness_entries, finish, notice_zero_gradient
from gradbench.plots.parts import Part, Suite, each_replicate, none
from gradbench.plots.registry import Panel, figure
from gradbench.plots.rows import groups, groups_to_draw, layers_only, only_one, place_of
from gradbench.plots.style import Style
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


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
    logarithmic(ax, "y")


@figure(
    data="curves",
    parts=_each_group,
    suites=["accuracy", "training"],
    panel=Panel(
        "Error",
        "RMSE of the mean of M draws, with 95 % intervals. A small circle marks where another "
        "estimator becomes the best, by the rule of the box above.",
        _rmse_panel,
        COSTS,
    ),
    order=10,
)
def rmse(
    curves: pd.DataFrame,
    title: str = "",
    group: str | None = None,
    relative: bool = False,
    *,
    view: View,
) -> Figure:
    """Draw relative RMSE against the number of draws, a panel per layer and checkpoint.

    Layers are columns and checkpoints rows, with the loss beside their names. The layer "network"
    is left out unless it is given alone. Lines are solid where moments are exact, else broken.

    Args:
        curves: the ``curves`` of one problem and replicate.
        title: printed above.
        view: what to show, and how.
        group: draw only this group of families, see ``gradbench.plots.style.GROUPS``, without the
            exact estimator.
        relative: whether to draw the ratio to the least RMSE at the same M.

    Raises:
        GradbenchError: no rows, several problems or replicates, or an option that does not fit.
    """
    draw = partial(rmse_curve, relative=relative)
    figure, axes, shown, name, style = _panels(curves, view, title, group, draw, "rmse")
    with rc_context(view.settings):
        for ax in axes.flat:
            logarithmic(ax, "x")
            logarithmic(ax, "y")
        drawn = shown["exact"][shown["estimator"].map(family) != "exact"]
        finish(figure, name, style, [*exactness_entries(drawn), *change_entries(figure)])
    return figure


@figure(
    data="curves",
    parts=_each_group,
    suites=["accuracy", "training"],
    panel=Panel(
        "Direction",
        "1 - cosine between the mean of M draws and the exact gradient, on average; the band holds "
        "70 % of the estimates.",
        _cosine_panel,
        COSTS,
    ),
    order=20,
)
def cosine(
    curves: pd.DataFrame, title: str = "", group: str | None = None, *, view: View
) -> Figure:
    """Draw 1 - cosine against the number of draws, logarithmically, laid out as ``rmse`` is.

    Args:
        curves: the ``curves`` of one problem and replicate.
        title: printed above.
        view: what to show, and how.
        group: as of ``rmse``.

    Raises:
        GradbenchError: no rows, several problems or replicates, or an option that does not fit.
    """
    figure, axes, _, name, style = _panels(curves, view, title, group, cosine_curve, "cosine")
    with rc_context(view.settings):
        for ax in axes.flat:
            logarithmic(ax, "x")
            logarithmic(ax, "y")
        finish(figure, name, style, exactness_entries(pd.Series(dtype=bool), cosines=True))
    return figure


@figure(data="curves", parts=none, in_report=False, order=1)
def accuracy(curves: pd.DataFrame, title: str = "", *, view: View) -> dict[str, Figure]:
    """Draw RMSE and cosine; a suite of "accuracy" also has costs, biases and their comparison.

    More than 12 estimators have one figure for each group of families.

    Args:
        curves: the ``curves`` of one problem and replicate.
        title: printed above.
        view: what to show, and how.

    Returns:
        The figures by name: "rmse" and "cosine", or "rmse-score" and so on.

    Raises:
        GradbenchError: no rows, several problems or replicates, or an option that does not fit.
    """
    only_one(curves, ["problem", "replicate"], "accuracy")
    return {
        f"{kind}-{group}" if group else kind: draw(curves, title, group, view=view)
        for kind, draw in (("rmse", rmse), ("cosine", cosine))
        for group in groups_to_draw(curves)
    }


def _panels(
    curves: pd.DataFrame,
    view: View,
    title: str,
    group: str | None,
    draw: Callable[..., Axes],
    what: str,
) -> tuple[Figure, Any, pd.DataFrame, str, dict[str, Style]]:
    """Return figure, axes, the rows shown, title and styles."""
    only_one(curves, ["problem", "replicate"], what)
    curves = layers_only(curves)
    if group:
        curves = groups(curves)[group]
        title = f"{title}: {group}"
    style = view.styles(curves)
    checkpoints = dict(list(curves.groupby("checkpoint", sort=False)))
    layers = list(curves["layer"].unique())
    with rc_context(view.settings):
        headers = [place_of(rows) for rows in checkpoints.values()]
        figure, axes = grid(view, headers, layers, "row" if what == "rmse" else "all")
        for line, place in zip(axes, checkpoints.values(), strict=True):
            for ax, layer in zip(line, layers, strict=True):
                rows = place[place["layer"] == layer]
                notice_zero_gradient(rows, ax)
                draw(rows[~rows["zero_gradient"]], ax, style)
        for ax in axes.flat:
            label_outer(ax)
    return figure, axes, curves, title, style
