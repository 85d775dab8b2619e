"""RMSE and cosine of the whole network against what draws cost."""

from collections.abc import Iterator

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradbench.metrics import COSTS
from gradbench.plots.curves import change_mark, cosine_curve, end_below_one, rmse_curve
from gradbench.plots.layout import finish, logarithmic, notice_zero_gradient, panels
from gradbench.plots.parts import Part, Suite, checkpoints_of_many, each_replicate, has_costs
from gradbench.plots.registry import figure
from gradbench.plots.rows import no_cost, only_one, rows_of, whole
from gradbench.plots.style import CROWDED, PLAIN


def _with_costs(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each replicate whose costs are known."""
    for part in each_replicate(suite, summary):
        if has_costs(part.rows):
            yield from checkpoints_of_many(part)


# The report draws `rmse` and `cosine` against all costs: it needs no figure of its own for them.
@figure(
    data="curves", parts=_with_costs, suites=["accuracy", "training"], in_report=False, order=30
)
def cost(curves: pd.DataFrame, title: str = "") -> Figure:
    """Draw RMSE and cosine of the whole network against evaluations and measured time.

    A row per checkpoint. More than 12 estimators have a row per group of families, with a legend of
    its own and the other estimators in grey. Cosines are left out where none is known.

    Args:
        curves: the ``curves`` of one problem and replicate; of more than 12 estimators, of one
            checkpoint.
        title: printed above.

    Raises:
        GradbenchError: no rows, several problems, replicates or (of many estimators) checkpoints,
            several layers without "network", or costs that were not stored.
    """
    only_one(curves, ["problem", "replicate"], "cost")
    curves = whole(curves, "cost").dropna(subset=list(COSTS[1:]))
    if curves.empty:
        raise no_cost("cost")
    rows = rows_of(curves, "cost")
    draws = (rmse_curve, cosine_curve) if (curves["groups"] > 0).any() else (rmse_curve,)
    with rc_context(CROWDED if rows[0].legend else PLAIN):
        figure, axes = panels(rows, 2 * len(draws), sharex="col", sharey="none")
        for row, line in zip(rows, axes, strict=True):
            for k, ax in enumerate(line):
                notice_zero_gradient(row.frame, ax)
                shown = row.frame[~row.frame["zero_gradient"]]
                draws[k // 2](shown, ax, row.style, COSTS[1 + k % 2])
                if k % 2:
                    ax.sharey(line[k - 1])
                    ax.set_ylabel("")
                    ax.tick_params(labelleft=False)
                if not row.legend:
                    ax.set_title(row.name)
                if row is not rows[-1]:
                    ax.set_xlabel("")
        for k, ax in enumerate(axes.flat):
            logarithmic(ax, "x", "s" if k % 2 else "")
            if k % axes.shape[1] < 2:
                logarithmic(ax, "y")
            else:
                end_below_one(ax)
        finish(figure, title, {} if rows[0].legend else rows[0].style, [change_mark()])
    return figure
