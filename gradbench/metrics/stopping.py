"""The rule that ends the measurement of a cell that is precise enough."""

import math
from collections.abc import Iterable

from gradbench.metrics.intervals import quantile
from gradbench.metrics.layers import layers_of
from gradbench.metrics.measurement import Measurement


def relative_error(cell: Measurement, names: Iterable[str], skewed: bool = True) -> float:
    """Return the largest relative standard error of some metrics of one draw, over all layers.

    Where errors are skewed it is the larger one that belongs to the interval.

    It is infinite where a metric is not known yet, or is zero and uncertain. Layers whose gradient
    is zero do not count.

    Args:
        cell: a measurement.
        names: the names of metrics.
        skewed: whether the interval counts as well as the standard error.

    Raises:
        GradbenchError: as ``layers_of``, or there is no such metric.
    """
    errors = [0.0]
    for found in layers_of(cell):
        for name in names if not found.zero_gradient else ():
            value, se, low, high = found.estimate(name)
            if se != 0.0:
                reach = quantile(found.level, len(found.sample.counts) - 1)
                width = (high - low) / 2.0 / reach  # more than the error, where it is skewed
                error = max(width, se) if skewed else se
                relative = error / abs(value) if value else math.inf
                errors.append(math.inf if math.isnan(relative) else relative)
    return max(errors)


def is_check_due(blocks: int) -> bool:
    """Return whether the precision of a cell is checked after this number of blocks.

    From eight blocks on it is checked eight times while their number doubles; a cell ends at the
    first check at which it is precise enough.
    """
    return blocks >= 8 and blocks % (1 << (blocks.bit_length() - 4)) == 0
