"""When a cell is precise enough for a run to stop."""

import math
from collections.abc import Iterable

from gradbench.metrics.layers import layers_of
from gradbench.metrics.measurement import Measurement


def relative_error(cell: Measurement, names: Iterable[str]) -> float:
    """The largest relative standard error of the metrics ``names`` of one draw, over all layers.

    Infinite where one is not known yet, or is zero and uncertain; layers of zero gradient do not
    count.

    Raises:
        GradbenchError: as ``layers_of``, or an unknown metric.
    """
    errors = [0.0]
    for found in layers_of(cell):
        for name in names if not found.zero_gradient else ():
            value, se, *_ = found.estimate(name)
            if se != 0.0:
                relative = se / abs(value) if value else math.inf
                errors.append(math.inf if math.isnan(relative) else relative)
    return max(errors)


def is_check_due(blocks: int) -> bool:
    """Whether the precision of a cell is computed after so many blocks.

    Eight times while they double, from eight on: a cell ends at the first of these looks at which
    it is precise enough.
    """
    return blocks >= 8 and blocks % (1 << (blocks.bit_length() - 4)) == 0
