"""RMSE and 1 - cosine of the whole network against what draws cost."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradbench.core.specs import family
from gradbench.metrics import COSTS
from gradbench.plots.curves import change_entries, cosine_curve, rmse_curve
from gradbench.plots.layout import exactness_entries, finish, notice_zero_gradient, panels
from gradbench.plots.parts import Part, Suite, checkpoints_of_many, each_replicate, has_costs
from gradbench.plots.registry import figure
from gradbench.plots.rows import no_cost, only_one, rows_of, whole
from gradbench.plots.style import CROWDED
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


def _with_costs(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each replicate whose costs are known."""
    for part in each_replicate(suite, summary):
        if has_costs(part.rows):
            yield from checkpoints_of_many(part)


# The report draws `rmse` and `cosine` against all costs: it needs no figure of its own for them.
@figure(
    data="curves", parts=_with_costs, suites=["accuracy", "training"], in_report=False, order=30
)
def cost(curves: pd.DataFrame, title: str = "", relative: bool = False, *, view: View) -> Figure:
    """Draw RMSE and 1 - cosine of the whole network against evaluations and measured time.

    A row per checkpoint. More than 12 estimators have a row per group of families, with a legend of
    its own and the other estimators in grey. Cosines are left out where none is known.

    Args:
        curves: the ``curves`` of one problem and replicate; of more than 12 estimators, of one
            checkpoint.
        title: printed above.
        view: what to show, and how.
        relative: whether to draw the ratio to the least RMSE at the same cost.

    Raises:
        GradbenchError: no rows, several problems, replicates or (of many estimators) checkpoints,
            several layers without "network", costs that were not stored, or an option that does not
            fit.
    """
    only_one(curves, ["problem", "replicate"], "cost")
    curves = whole(curves, "cost").dropna(subset=list(COSTS[1:]))
    if curves.empty:
        raise no_cost("cost")
    rows = rows_of(curves, "cost", view)
    error: Callable[..., Axes] = partial(rmse_curve, relative=relative)
    draws = [(error, cost) for cost in COSTS[1:]]
    if (curves["groups"] > 0).any():
        draws += [(cosine_curve, cost) for cost in COSTS[1:]]
    many = bool(rows[0].legend)
    with rc_context(view.settings | (CROWDED if many else {})):
        # In a narrow figure the cosines are below the errors.
        lines = len(draws) // 2 if view.narrow and not many else 1
        names = [row._replace(name=row.name if not k else "") for row in rows for k in range(lines)]
        shape = (len(rows), lines, len(draws) // lines)
        figure, axes = panels(view, names, [""] * shape[2], sharex="col", sharey="none")
        axes = axes.reshape(shape[0], -1)
        for row, line in zip(rows, axes, strict=True):
            for k, ((draw, cost), ax) in enumerate(zip(draws, line, strict=True)):
                notice_zero_gradient(row.frame, ax)
                draw(row.frame[~row.frame["zero_gradient"]], ax, row.style, cost)
                if k % 2:
                    ax.sharey(line[k - 1])
                    ax.set_ylabel("")
                    ax.tick_params(labelleft=False)
                if row is not rows[-1] or k < len(draws) - shape[2]:
                    ax.set_xlabel("")
        for line in axes:
            for (_, cost), ax in zip(draws, line, strict=True):
                logarithmic(ax, "x", "s" if cost == "seconds" else "")
                logarithmic(ax, "y")
        legend = {} if many else rows[0].style
        drawn = curves["exact"][curves["estimator"].map(family) != "exact"]
        more = [*exactness_entries(drawn, len(draws) > 2), *change_entries(figure)]
        finish(figure, title, legend, more)
    return figure
