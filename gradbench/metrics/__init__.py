"""What stored blocks say: bias, variance, RMSE, cosine, ... each with its uncertainty.

Nothing is run again: everything follows from the blocks of a cell (``gradbench.blocks``), its exact
moments where they are known, and the exact gradient G of each layer. Values are relative: in units
of |G|, squares in |G|^2.

``results`` are cells, ``cell`` is one, ``layer`` the name of a layer, or ``NETWORK`` for all of
them together. ``average`` is the M of the M-sample estimate, the mean of M draws; ``level`` that
of intervals, ``LEVEL`` unless given. Frames begin with the columns ``KEYS``. ``METRICS`` has the
``Metric`` of each by name, ``COSTS`` are what a draw may cost: draws (one), evaluations of the
objective per example, seconds. ``BAND`` are the quantiles of the cosine in figures.
"""

from gradbench.metrics.accuracy import Accuracy
from gradbench.metrics.budget import COSTS, Budget, budget, check_cost
from gradbench.metrics.compare import compare
from gradbench.metrics.crossovers import best, crossovers, sample_complexity
from gradbench.metrics.directions import BAND
from gradbench.metrics.frames import coordinates, curves, summary
from gradbench.metrics.intervals import LEVEL, Estimate
from gradbench.metrics.layers import METRICS, LayerMetrics, Metric, check_metrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement
from gradbench.metrics.ranking import difference_p, rank
from gradbench.metrics.replicates import orderings, over_replicates
from gradbench.metrics.stopping import relative_error
from gradbench.metrics.unbiasedness import unbiasedness

__all__ = [
    "BAND",
    "COSTS",
    "KEYS",
    "LEVEL",
    "METRICS",
    "NETWORK",
    "Accuracy",
    "Budget",
    "Estimate",
    "LayerMetrics",
    "Measurement",
    "Metric",
    "best",
    "budget",
    "check_cost",
    "check_metrics",
    "compare",
    "coordinates",
    "crossovers",
    "curves",
    "difference_p",
    "layers_of",
    "orderings",
    "over_replicates",
    "rank",
    "relative_error",
    "sample_complexity",
    "summary",
    "unbiasedness",
]
