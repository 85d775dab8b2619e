"""The figures: accuracy against draws, bias and variance against size, training and temperature.

A function per panel, ``(data, ax) -> ax``, and functions that lay out a whole figure from the
frames of ``gradbench.metrics``. Matplotlib's objects only: no pyplot, no display, no global state.
"""

from gradbench.plots._accuracy import FEW_GROUPS, MANY, accuracy, cosine_curve, rmse_curve
from gradbench.plots._growth import (
    bias_growth,
    deviation_growth,
    growth,
    loss_curve,
    losses,
    training,
)
from gradbench.plots._layout import save
from gradbench.plots._overview import overview
from gradbench.plots._temperature import temperature

__all__ = [
    "FEW_GROUPS",
    "MANY",
    "accuracy",
    "bias_growth",
    "cosine_curve",
    "deviation_growth",
    "growth",
    "loss_curve",
    "losses",
    "overview",
    "rmse_curve",
    "save",
    "temperature",
    "training",
]
