"""The bias of each coordinate of the gradient, as a heat map."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import StrMethodFormatter

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.plots.grid import write_beside
from gradbench.plots.layout import finish
from gradbench.plots.parts import Part, Suite, checkpoints_of_many, each_replicate, has_estimates
from gradbench.plots.registry import Panel, figure
from gradbench.plots.rows import only_one
from gradbench.plots.save import owned
from gradbench.plots.style import Style, in_order, styles
from gradbench.plots.view import View

SEEN = 4.0  # standard errors: of some hundred coordinates, hardly any is that far off by chance
_SMALL = 0.1  # the scale is linear up to here
_UNSEEN = "0.88"
_COLORS = colormaps["RdBu_r"].with_extremes(bad=_UNSEEN)
_GRADIENT = "exact gradient"
_THEOREM, _ZERO = "0 by theorem", "0"


def bias_heat_map(
    coordinates: pd.DataFrame,
    ax: Axes,
    estimators: Sequence[str] | None = None,
    reach: float = 1.0,
    style: Mapping[str, Style] | None = None,
    note: str = "0 by theorem",
) -> Axes:
    """Draw the bias of each coordinate, a row per estimator, below the exact gradient.

    Values are relative to |G| / sqrt(P), the root mean square of the P coordinates of the gradient.
    Red is too great, blue too small, grey a bias within four standard errors of zero, or one that
    a theorem says to be zero, with a note.

    Args:
        coordinates: the rows of one layer and checkpoint of ``gradbench.metrics.coordinates``.
        ax: where to draw.
        estimators: the rows from above; all estimators, in legend order, by default.
        reach: the value that has the darkest colour, as have all beyond it.
        style: what estimators are called, and the colours of their names; black by default.
        note: what is written into rows that are zero by theorem.
    """
    names = list(estimators or _drawn(coordinates))
    scale = math.sqrt(coordinates["coordinate"].max() + 1.0)
    norm = _norm(reach)
    rows = {name: coordinates[coordinates["estimator"] == name] for name in names}
    gradient = coordinates.drop_duplicates("coordinate").sort_values("coordinate")["gradient"]
    _row(ax, scale * gradient.to_numpy(), -1.5, norm, "")
    for place, (name, own) in enumerate(rows.items()):
        own = own.sort_values("coordinate")
        unseen = (own["bias_se"] > 0.0) & (own["bias"].abs() <= SEEN * own["bias_se"])
        if len(own) and "bias_source" in own and own["bias_source"].eq("theorem").all():
            unseen[:] = True
            zero = ax.text(
                (len(own) - 1) / 2,
                place,
                note,
                ha="center",
                va="center",
                fontsize=6,
                color="0.4",
            )
            owned(zero, name).set_in_layout(False)
        if len(own):
            _row(ax, np.ma.masked_where(unseen, scale * own["bias"]), place, norm, name)
    ax.set(xlim=(-0.5, len(gradient) - 0.5), ylim=(len(names) - 0.5, -2.0), aspect="auto")
    ax.set(xlabel="coordinate", xticks=[], yticks=[-1.5, *range(len(names))])
    looks = style or styles(coordinates)
    ax.set_yticklabels([_GRADIENT, *(looks[name].label for name in names)])
    for tick, name in zip(ax.get_yticklabels()[1:], names, strict=True):
        tick.set_color(looks[name].color if style else "black")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def _drawn(coordinates: pd.DataFrame) -> list[str]:
    return [name for name in in_order(coordinates) if family(name) != "exact"]


def _norm(reach: float) -> SymLogNorm:
    return SymLogNorm(_SMALL, linscale=0.5, vmin=-reach, vmax=reach)


def _row(ax: Axes, values: Any, place: float, norm: SymLogNorm, estimator: str) -> None:
    image = ax.imshow(
        values[None, :],
        cmap=_COLORS,
        norm=norm,
        extent=(-0.5, len(values) - 0.5, place + 0.47, place - 0.47),
        interpolation="none",
        aspect="auto",
    )
    owned(image, estimator)


def _with_estimates(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each replicate that has a bias to show."""
    for part in each_replicate(suite, summary):
        if has_estimates(part.rows):
            yield from checkpoints_of_many(part)


def _panel(rows: pd.DataFrame, ax: Axes, style: Mapping[str, Style], cost: str) -> None:
    names = [name for name in style if family(name) != "exact"]
    bias_heat_map(rows, ax, names, style=style)
    letters = max(len(tick.get_text()) for tick in ax.get_yticklabels())
    left, lines = min(0.04 + 0.0148 * letters, 0.6), len(ax.get_yticks())
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_figheight(max(figure.get_figheight(), 0.17 * lines + 0.5))
    ax.set_position((left, 0.09, 0.98 - left, 0.89))


@figure(
    data="coordinates",
    parts=_with_estimates,
    suites=["accuracy", "training"],
    panel=Panel(
        "Bias of each coordinate",
        "Relative to the root mean square of the coordinates of G: red is too great, blue too "
        "small; the darkest colour stands for 1 and more. Grey: no bias seen.",
        _panel,
    ),
    order=60,
)
def bias_map(coordinates: pd.DataFrame, title: str = "", *, view: View) -> Figure:
    """Draw heat maps of the bias of each coordinate, a panel per layer and checkpoint.

    The width of a panel is proportional to the root of its number of coordinates. The exact
    gradient is above the estimators; the exact estimator is left out.

    Args:
        coordinates: the ``coordinates`` of one problem and replicate.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows besides those of the exact estimator, several problems or
            replicates, or an option that does not fit.
    """
    only_one(coordinates, ["problem", "replicate"], "bias_map")
    looks = {} if coordinates.empty else view.styles(coordinates)
    names = [name for name in looks if family(name) != "exact"]
    if not names:
        raise GradbenchError(
            "bias_map() has nothing to draw: no finished cell of an estimator besides exact; run "
            "the suite to its end, or one with more estimators"
        )
    checkpoints, layers = (coordinates[name].unique() for name in ("checkpoint", "layer"))
    sizes = coordinates.groupby("layer")["coordinate"].max()[layers] + 1
    reach = _reach(coordinates[coordinates["estimator"].isin(names)])
    height = 0.125 * (len(names) + 2) + 0.25
    with rc_context(view.settings):
        figure = Figure(
            figsize=(view.inches(), height * len(checkpoints) + 1.1), layout="constrained"
        )
        axes = figure.subplots(
            len(checkpoints), len(layers), squeeze=False, width_ratios=np.sqrt(sizes)
        )
        places = coordinates.groupby(["checkpoint", "layer"])
        for (i, j), ax in np.ndenumerate(axes):
            if (checkpoints[i], layers[j]) not in places.groups:
                ax.text(0.5, 0.5, "zero gradient", ha="center", transform=ax.transAxes)
                ax.set_axis_off()
                continue
            here = places.get_group((checkpoints[i], layers[j]))
            bias_heat_map(here, ax, names, reach, looks, _ZERO if view.narrow else _THEOREM)
            ax.set_title("" if i else layers[j])
            size = sizes[layers[j]]
            words = f"P = {size}" if view.narrow else f"{size} coordinates"
            ax.set_xlabel(words if i == len(checkpoints) - 1 else "")
            ax.tick_params(labelsize=6)
            if j:
                ax.set_yticklabels([])
        for line, checkpoint in zip(axes, checkpoints, strict=True):
            if len(checkpoints) > 1:
                write_beside(line[-1], checkpoint)
        bar = figure.colorbar(
            ScalarMappable(_norm(reach), _COLORS),
            ax=axes,
            location="bottom",
            extend="both",
            shrink=0.5,
            aspect=40,
            pad=0.02,
            label="bias of a coordinate, relative to |G| / √P",
        )
        values = sorted({_SMALL, 1.0, reach})
        bar.set_ticks([*(-value for value in values[::-1]), 0.0, *values])
        bar.formatter = StrMethodFormatter("{x:g}")
        bar.minorticks_off()
        words = "no bias seen; 0: by theorem" if view.narrow else "no bias seen"
        grey = [Patch(color=_UNSEEN, label=words)] if _has_unseen(axes, view.narrow) else []
        finish(figure, title, {}, grey, names=True)
    return figure


def _has_unseen(axes: Any, narrow: bool) -> bool:
    """Return whether grey rows need a word: those with a note have one, if it is not short."""
    greys = sum(np.ma.is_masked(image.get_array()) for ax in axes.flat for image in ax.images)
    return greys > (0 if narrow else sum(len(ax.texts) for ax in axes.flat))


def _reach(coordinates: pd.DataFrame) -> float:
    """Return a round number, up to 10, that few coordinates of gradient and biases exceed."""
    sizes = coordinates.groupby(["checkpoint", "layer"])["coordinate"].transform("max") + 1
    seen = coordinates["bias"].abs() > SEEN * coordinates["bias_se"]
    values = pd.concat([coordinates["bias"][seen], coordinates["gradient"]]).abs()
    large = (np.sqrt(pd.concat([sizes[seen], sizes])) * values).quantile(0.98)
    return next((reach for reach in (1.0, 3.0) if large < 1.2 * reach), 10.0)
