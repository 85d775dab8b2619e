"""Diagnoses of a gradient estimator along the training of a user's model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gradbench.core.errors import GradbenchError
from gradbench.plots.grid import grid
from gradbench.plots.layout import band, curve, finish, limit_entries, limits
from gradbench.plots.style import LINES, Style
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View

if TYPE_CHECKING:
    from gradbench.advise.diagnose import Diagnosis

_PANELS = {
    "bias": "relative |bias|",
    "std": "relative std",
    "cosine": "cosine",
    "descent_probability": "P(descent)",
}


def diagnoses(
    found: Mapping[int, "Diagnosis"], title: str = "", width: str | float | None = None
) -> Figure:
    """Draw bias, standard deviation, cosine and probability of descent against the step.

    All are of one draw. A line per layer, with a band of 95 % confidence. Where no bias is seen, an
    arrow marks its upper limit. Layers whose gradient is not significantly different from
    zero have no point.

    Args:
        found: what ``gradbench.diagnose`` returned, by the number of the step.
        title: printed above.
        width: "single" or "double" for the columns of a paper, or inches.

    Raises:
        GradbenchError: an unknown width; there are none, or no layer has a known gradient.
    """
    if not (isinstance(found, Mapping) and found):  # type: ignore[redundant-expr]
        raise GradbenchError("diagnoses() has nothing to draw; give {step: diagnose(...)}")
    frame = pd.concat([one.frame().assign(step=step) for step, one in sorted(found.items())])
    names = list(dict.fromkeys(frame["layer"]))
    look = {name: _style(k) for k, name in enumerate(names)}
    if frame["std"].isna().all():
        raise GradbenchError(
            "diagnoses() has nothing to draw, as no layer has a gradient significantly different "
            "from zero; raise reference_draws"
        )
    view = View.of(frame, width=width)
    with rc_context(view.settings):
        figure, axes = grid(view, ["", ""], ["", ""], "none")
        for ax, (metric, words) in zip(axes.flat, _PANELS.items(), strict=True):
            ax.set(ylabel=words)
            for name, style in look.items():
                _line(frame[frame["layer"] == name], metric, ax, style)
        for ax in axes[1]:
            ax.set(xlabel="step")
            ax.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))
            if len(found) == 1:
                ax.set_xticks(list(found))
            ax.set_ylim(top=1.0 + 0.04 * (1.0 - ax.get_ylim()[0]))
        for ax in axes[0]:
            ax.set(yscale="log")
            logarithmic(ax, "y")
        marks = limit_entries(figure, "no bias seen (upper limit)")
        finish(figure, title, look, marks)
    return figure


def _line(rows: pd.DataFrame, metric: str, ax: Axes, look: Style) -> None:
    """Draw one metric of one layer."""
    low, high = rows[f"{metric}_low"], rows[f"{metric}_high"]
    unseen = (low <= 0.0) & (high > 0.0) if metric == "bias" else np.zeros(len(rows), bool)
    if np.any(unseen):
        limits(ax, look, rows["step"][unseen], high[unseen])
    seen = rows[metric].where(~unseen)
    curve(ax, look, rows["step"], seen)
    band(ax, look, rows["step"], low.where(~unseen), high.where(~unseen))
    if len(rows) == 1 and not np.any(unseen):  # no band
        ax.vlines(rows["step"], low, high, color=look.color, lw=0.8)


def _style(k: int) -> Style:
    """Return the style of the k-th layer; beyond the styles of ``LINES``, markers change."""
    again, n = divmod(k, len(LINES))
    return LINES[n]._replace(marker=("", "<", ">", "*", "h", "8")[again % 6] or LINES[n].marker)
