"""The figures: accuracy against draws and cost, bias and variance in every respect.

A function per panel, ``(data, ax) -> ax``, and functions that lay out a whole figure from the
frames of ``gradbench.metrics``. What belongs to an estimator has the id "estimator=NAME" in an SVG.
Matplotlib's objects only: no pyplot, no display, no global state.

``curves`` and ``summary`` are frames of these names, whole or in part; ``title`` is printed above
the figure, ``ax`` is where to draw, ``style`` gives the estimators to draw and their look, all of
them as ``gradbench.style`` has it unless given. A figure of more than ``MANY`` estimators is split
or drawn in grey; M of fewer than ``FEW_GROUPS`` groups have no band.
"""

from gradbench.plots.accuracy import (
    FEW_GROUPS,
    accuracy,
    cosine,
    cosine_curve,
    cost,
    groups_to_draw,
    rmse,
    rmse_curve,
)
from gradbench.plots.coordinates import bias_heat_map, bias_map
from gradbench.plots.diagnoses import diagnoses
from gradbench.plots.growth import (
    bias_and_deviation,
    bias_growth,
    deviation_growth,
    growth,
    loss_curve,
    losses,
    training,
)
from gradbench.plots.labels import Point, direct_labels
from gradbench.plots.layout import MANY
from gradbench.plots.overview import overview
from gradbench.plots.pareto import error_and_cost, pareto, pareto_front
from gradbench.plots.plane import bias_variance_plane, plane
from gradbench.plots.save import save
from gradbench.plots.suite import Drawing, drawings
from gradbench.plots.temperature import temperature

__all__ = [
    "FEW_GROUPS",
    "MANY",
    "Drawing",
    "Point",
    "accuracy",
    "bias_and_deviation",
    "bias_growth",
    "bias_heat_map",
    "bias_map",
    "bias_variance_plane",
    "cosine",
    "cosine_curve",
    "cost",
    "deviation_growth",
    "diagnoses",
    "direct_labels",
    "drawings",
    "error_and_cost",
    "groups_to_draw",
    "growth",
    "loss_curve",
    "losses",
    "overview",
    "pareto",
    "pareto_front",
    "plane",
    "rmse",
    "rmse_curve",
    "save",
    "temperature",
    "training",
]
