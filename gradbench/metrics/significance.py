"""Tests over many coordinates or hypotheses at once."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks
from gradbench.metrics.distributions import normal_quantile, t_quantile, t_two_sided
from gradbench.metrics.estimation import ROUNDING
from gradbench.metrics.measurement import Sample

_FEW = 8  # blocks that a variance must come from, for its size to be known


def unbiased_p(sample: Sample) -> float:
    """Return the p-value of the hypothesis E g = G, over all coordinates together.

    It comes from the largest |t| over coordinates, by Sidak. A coordinate whose variance comes from
    a few blocks alone is not tested: rare events dominate it, and its error is not known. A
    coordinate without variance has to be right, unless an unseen event of probability 3/N and of at
    most ten standard deviations of a draw could explain the difference. The noise of a sampled
    reference counts as that of the draws does. NaN where moments and reference are exact, and for
    fewer than two draws.
    """
    known_mean = sample.moments is not None
    if sample.zero or (sample.noise is None if known_mean else sample.draws < 2):
        return math.nan
    samples = [] if known_mean else [sample.blocks]
    samples += [sample.reference] if sample.reference is not None else []
    means, variances, unseen = zip(*map(_spread, samples), strict=True)
    mean = sample.moments[0] if sample.moments is not None else means[0]
    error = np.abs(mean - sample.direction)
    if not np.isfinite(error).all():
        return 0.0
    se = np.sqrt(sum(variances))
    still = se <= ROUNDING * np.linalg.norm(mean)
    if (error[still] > max(1e-9, sum(unseen))).any():
        return 0.0
    rows = sum(len(blocks.counts) for blocks in samples)
    tested = ~still & (_effective(samples) >= min(_FEW, rows / 2))
    if not tested.any():
        return 1.0
    dof = min(blocks.draws for blocks in samples) - 1
    least = t_two_sided(float(np.max(error[tested] / se[tested])), dof)
    return float(-np.expm1(tested.sum() * np.log1p(-least))) if least < 1.0 else 1.0


def _spread(blocks: Blocks) -> tuple[Floats, Floats, float]:
    """Return mean [P], its variance [P], and what a rare event may add."""
    draws = blocks.draws
    _, mean, squares = blocks.pooled
    unseen = 10.0 * math.sqrt(squares.sum() / draws) * 3.0 / draws
    return mean, squares / (draws - 1) / draws, unseen


def _effective(samples: Sequence[Blocks]) -> Floats:
    """Return the effective number of blocks that the variances [P] are made of; 0 for none."""
    total, squares = (sum(parts) for parts in zip(*(x.additions for x in samples), strict=True))
    return np.divide(total**2, squares, out=np.zeros(len(squares)), where=squares > 0)


_POWER = 0.9  # the probability with which a detectable bias is found


class Power(NamedTuple):
    """What tells the bias that a test of a layer finds; it is kept in the place of the draws.

    ``draws`` is their number, ``coordinates`` that of the coordinates with a variance, ``largest``
    the largest variance of a mean over all draws, in units of |G|^2.
    """

    draws: int
    coordinates: int
    largest: float

    @classmethod
    def of(cls, sample: Sample) -> "Power":
        """Return that of the draws of a layer."""
        if sample.draws < 2:
            return cls(sample.draws, 0, math.inf)
        variances = sample.mean_and_variance()[1]
        return cls(sample.draws, int((variances > 0).sum()), float(variances.max()))

    def detectable(self, alpha: float) -> float:
        """Return the relative bias of any coordinate that a test at ``alpha`` finds at 90 %."""
        if self.draws < 2:
            return math.inf
        coordinates = max(self.coordinates, 1)
        limit = -t_quantile(-np.expm1(np.log1p(-alpha) / coordinates) / 2.0, self.draws - 1)
        return (limit + normal_quantile(_POWER)) * math.sqrt(self.largest)


def holm(p: Floats) -> Floats:
    """Return the p-values adjusted by Holm's method (1979); NaN stay, and are not counted."""
    adjusted = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested])]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted
