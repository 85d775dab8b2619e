"""The figures: accuracy against draws and cost, bias and variance in every respect.

There is a function per panel, ``(data, ax) -> ax``, and functions that lay out a whole figure from
the frames of ``gradbench.metrics``. Every part of an estimator has the id "estimator=NAME" in an
SVG. They use matplotlib's objects only: no pyplot, no display, no global state.

Conventions of all functions here:

- ``curves``, ``summary``, ``coordinates``: the frames of these names, whole or in part.
- ``title``: printed above the figure.
- ``ax``: where to draw.
- ``style``: the estimators to draw and their looks, each a ``Style``; by default all of them, as
  ``styles`` has it.

A figure of more than ``MANY`` estimators is split or drawn in grey; M of fewer than ``FEW_GROUPS``
groups have no band. ``FIGURES`` holds every figure that ``gradbench plot`` knows by name, and
``figure`` registers another one, which is then a function of this module too. ``SETTINGS`` are
matplotlib's settings for all of them.
"""

from typing import Any

from gradbench.plots.accuracies import accuracies
from gradbench.plots.accuracy import accuracy, cosine, rmse
from gradbench.plots.coordinates import bias_heat_map, bias_map
from gradbench.plots.correlations import correlations
from gradbench.plots.cost import cost
from gradbench.plots.curves import FEW_GROUPS, cosine_curve, rmse_curve
from gradbench.plots.diagnoses import diagnoses
from gradbench.plots.error_and_result import error_and_result
from gradbench.plots.gradient_errors import error_along
from gradbench.plots.growth import bias_growth, deviation_growth, growth
from gradbench.plots.judged import result_along, result_by_size
from gradbench.plots.labels import Point, direct_labels
from gradbench.plots.learning import learning, learning_time
from gradbench.plots.overview import overview
from gradbench.plots.pareto import error_and_cost, pareto, pareto_front
from gradbench.plots.parts import Part
from gradbench.plots.plane import bias_variance_plane, plane
from gradbench.plots.registry import FIGURES, FigureKind, Panel, figure
from gradbench.plots.replicates import bias_and_deviation
from gradbench.plots.rows import MANY, groups_to_draw
from gradbench.plots.save import save
from gradbench.plots.style import SETTINGS, Style, styles
from gradbench.plots.suite import Drawing, drawings, plot
from gradbench.plots.temperature import temperature
from gradbench.plots.training import loss_curve, losses, training

__all__ = [
    "FEW_GROUPS",
    "FIGURES",
    "MANY",
    "SETTINGS",
    "Drawing",
    "FigureKind",
    "Panel",
    "Part",
    "Point",
    "Style",
    "accuracies",
    "accuracy",
    "bias_and_deviation",
    "bias_growth",
    "bias_heat_map",
    "bias_map",
    "bias_variance_plane",
    "correlations",
    "cosine",
    "cosine_curve",
    "cost",
    "deviation_growth",
    "diagnoses",
    "direct_labels",
    "drawings",
    "error_along",
    "error_and_cost",
    "error_and_result",
    "figure",
    "groups_to_draw",
    "growth",
    "learning",
    "learning_time",
    "loss_curve",
    "losses",
    "overview",
    "pareto",
    "pareto_front",
    "plane",
    "plot",
    "result_along",
    "result_by_size",
    "rmse",
    "rmse_curve",
    "save",
    "styles",
    "temperature",
    "training",
]


def __getattr__(name: str) -> Any:
    """Return a figure by its name, also one of a plugin."""
    if not name.startswith("_") and name in FIGURES.names():
        return FIGURES[name].draw
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
