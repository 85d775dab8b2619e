"""Metrics of stored results: bias, variance, RMSE, cosine, ... each with its uncertainty.

Nothing is run again: everything follows from the stored blocks of a cell
(``gradbench.measure.blocks``), its exact moments if they are known, and the exact gradient G of
each layer. Values are relative: in units of |G|, squares in units of |G|^2.

Conventions of all functions here:

- ``results``: a directory of results (its path, or an open ``Results``), or measurements.
- ``layer``: the name of a layer, or ``NETWORK`` for all layers together.
- ``average``: the number M of draws whose mean is the estimate.
- ``level``: the level of intervals, ``LEVEL`` by default.
- ``cost``: one of ``COSTS``: draws, evaluations of the objective per example, or seconds.

Frames begin with the columns ``KEYS``. ``METRICS`` holds every ``Metric`` by name; ``metric``
registers another one. ``BAND`` are the quantiles of the cosine that figures show.
"""

from gradbench.metrics import definitions as _own  # noqa: F401 registered before any plugin
from gradbench.metrics.accuracy import Accuracy
from gradbench.metrics.budget import COSTS, Budget, budget, check_cost
from gradbench.metrics.compare import compare
from gradbench.metrics.correlation import correlation, error_results
from gradbench.metrics.crossovers import crossovers, sample_complexity
from gradbench.metrics.decision import decide
from gradbench.metrics.directions import BAND
from gradbench.metrics.directory import measurements
from gradbench.metrics.frames import coordinates, curves, names_in, summary
from gradbench.metrics.intervals import LEVEL, Estimate
from gradbench.metrics.layers import LayerMetrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement
from gradbench.metrics.ranking import difference_p, rank
from gradbench.metrics.registry import METRICS, Metric, all_metrics, check_metrics, metric
from gradbench.metrics.replicates import orderings, over_replicates
from gradbench.metrics.stopping import relative_error
from gradbench.metrics.temperature import Unit
from gradbench.metrics.trained import trained
from gradbench.metrics.training import gradient_errors, learning
from gradbench.metrics.unbiasedness import unbiasedness
from gradbench.metrics.verdict import Verdict

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
    "Unit",
    "Verdict",
    "all_metrics",
    "budget",
    "check_cost",
    "check_metrics",
    "compare",
    "coordinates",
    "correlation",
    "crossovers",
    "curves",
    "decide",
    "difference_p",
    "error_results",
    "gradient_errors",
    "layers_of",
    "learning",
    "measurements",
    "metric",
    "names_in",
    "orderings",
    "over_replicates",
    "rank",
    "relative_error",
    "sample_complexity",
    "summary",
    "trained",
    "unbiasedness",
]
