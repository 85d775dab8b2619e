"""Bias and variance of an estimator, and the errors that follow from them.

N draws have the mean m and the covariance S. With the bias b and V = tr S (DESIGN section 5), the
mean of M draws has the squared error |b|^2 + V/M. Everything is in units of |G|.

The interval of |b|^2 is a score interval: its variance is a function of the |b|^2 in question. At
zero bias its upper limit errs to the safe side. The interval of V knows the skewness of |g|^2, see
``gradbench.metrics.skewness``. The interval of the squared error follows from those of |b|^2 and V
by variance recovery.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.metrics.intervals import (
    LEVEL,
    UNKNOWN,
    Estimate,
    combined,
    correlation,
    logarithmic,
    quantile,
    score,
)
from gradbench.metrics.reference_noise import ReferenceNoise, alignment
from gradbench.metrics.skewness import Shape, difference_of, shape_of, skewed

_FOREVER = 2.0**60  # draws
EXACT = 1e-10  # an exact relative bias below this is rounding
ROUNDING = 1e-8  # relative to |G|: values of one metric that are closer than this are the same


class _Fields(NamedTuple):
    bias2: float
    variance: float
    covariance: Floats
    at_zero: float = 0.0
    slope: float = 0.0
    influence: Floats = np.zeros((0, 2))
    counts: Floats = np.zeros(0)
    reference_noise: ReferenceNoise | None = None


class Accuracy(_Fields):
    """The relative squared bias and variance of one draw, exact or estimated from N draws.

    Attributes:
        bias2: |b|^2; an estimate may be negative.
        variance: V.
        covariance: [2, 2] the covariance of the two estimates, NaN where a single block cannot tell
            it, zero where both are exact.
        at_zero: the variance of ``bias2`` at |b|^2 = 0.
        slope: how much that variance grows with |b|^2.
        influence: [n, 2] what each of n blocks adds to the two estimates at first order, times the
            root of its count. The dependence of two estimators that share their random numbers
            follows from it.
        counts: [n] the number of draws of each block.
        reference_noise: what the noise of a sampled reference does to the two estimates; None where
            the reference is exact.
    """

    @cached_property
    def shape(self) -> Shape:
        """How the estimate of V is distributed."""
        return shape_of(self.influence[:, 1], self.counts)

    @property
    def exact(self) -> bool:
        """True if both are known without any error."""
        return not (len(self.counts) or self.reference_noise or self.covariance.any())

    @property
    def dof(self) -> int:
        """A lower bound of the degrees of freedom of the standard errors; -1 if there are none."""
        noise = self.reference_noise
        blocks = len(self.counts), len(noise.influence) if noise else 0
        return min((n for n in blocks if n), default=0) - 1

    @property
    def shrinkage(self) -> float:
        """The share of the distance from the mean draw to the reference that is not noise of draws.

        This is the factor of James and Stein; it is 1 where the bias is known.
        """
        noise = self.variance / self.counts.sum() if len(self.counts) else 0.0
        trace = self.reference_noise.trace if self.reference_noise else 0.0
        bias2 = max(self.bias2 + trace, 0.0)
        return bias2 / (bias2 + noise) if bias2 else 0.0

    def unbiased(self) -> "Accuracy":
        """Return the accuracy of an estimator whose bias is known to be zero."""
        if math.isnan(self.variance):
            return self
        only = np.array([0.0, 1.0])
        noise = self.reference_noise
        if noise:
            noise = noise.times(only)._replace(shrinkage=0.0, trace=0.0)
        return self._replace(
            bias2=0.0,
            covariance=np.diag([0.0, self.covariance[1, 1]]),
            at_zero=0.0,
            slope=0.0,
            influence=self.influence * only,
            reference_noise=noise,
        )

    def squared_bias(self, level: float = LEVEL) -> Estimate:
        """Return |b|^2 with its interval; the value may be negative, the limits are not."""
        se = math.sqrt(self.covariance[0, 0])
        if not se > 0.0:
            return Estimate(self.bias2, se, *[self.bias2 + se] * 2)
        limits = score(self.bias2, self.at_zero, self.slope, quantile(level, self.dof))
        return Estimate(self.bias2, se, *(max(limit, 0.0) for limit in limits))

    def variance_of_draw(self, level: float = LEVEL) -> Estimate:
        """Return V with its interval."""
        se = math.sqrt(self.covariance[1, 1])
        if not len(self.counts):  # exact, but for the noise of a reference
            return logarithmic(self.variance, se, level, self.dof)
        shape = self.shape
        return skewed(
            self.variance, se, shape._replace(dof=min(shape.dof, max(self.dof, 1))), level
        )

    def mse(self, average: float = 1, level: float = LEVEL) -> Estimate:
        """Return |b|^2 + V/M, M = ``average``; its lower limit is at least that of V/M."""
        value = self.bias2 + self.variance / average
        weights = np.array([1.0, 1.0 / average])
        se = math.sqrt(np.maximum(weights @ self.covariance @ weights, 0.0))
        if not se > 0.0:
            return Estimate(value, se, *[value + se] * 2)
        noise = self.variance_of_draw(level).times(1.0 / average)
        low, high = score(self.bias2, self.at_zero, self.slope, quantile(level, self.dof))
        # Variance recovery: the distances from estimates to limits are added as errors are.
        together = correlation(self.covariance)
        below = combined(self.bias2 - low, noise.value - noise.low, together)
        above = combined(high - self.bias2, noise.high - noise.value, together)
        least = max(value - below, noise.low)
        return Estimate(value, se, least, max(value + above, least))

    def error(self, average: float) -> float:
        """Return the value of ``rmse`` alone."""
        return math.sqrt(max(self.bias2 + self.variance / average, 0.0))

    def rmse(self, average: float = 1, level: float = LEVEL) -> Estimate:
        """Return the relative RMSE of the mean of M draws; an MSE below zero counts as zero."""
        return self.mse(average, level).root()

    def draws_needed(self, eps: float, level: float = LEVEL) -> Estimate:
        """Return the sample complexity M*(eps) = V / (eps^2 - |b|^2).

        It is the number of draws that a relative RMSE of eps takes: at least one, and infinite
        where the bias alone exceeds eps. Its limits are the M at which the limits of the MSE reach
        eps^2.
        """
        target = eps**2
        if math.isnan(self.variance):
            return UNKNOWN
        excess = target - self.bias2
        value = max(self.variance / excess, 1.0) if excess > 0.0 else math.inf
        if value == math.inf and self.mse(1, level).value <= target:
            value = 1.0  # without bias and variance, eps = 0
        if np.isnan(self.covariance).any():
            return UNKNOWN._replace(value=value)

        def reached(limit: Callable[[Estimate], float]) -> float:
            """Return the least M at which this limit of the MSE is as small as eps^2."""
            if limit(self.mse(1.0, level)) <= target:
                return 1.0
            if limit(self.mse(_FOREVER, level)) > target:
                return math.inf
            low, high = 1.0, _FOREVER
            while high / low > 1.0 + 1e-9:
                middle = math.sqrt(low * high)
                enough = limit(self.mse(middle, level)) <= target
                low, high = (low, middle) if enough else (middle, high)
            return high

        low, high = reached(lambda mse: mse.low), reached(lambda mse: mse.high)
        return Estimate(value, math.nan, min(low, value), max(high, value))


_NO_SHAPE = Shape(0.0, math.inf, 0.0)  # of what is exact
NO_ACCURACY = Accuracy(math.nan, math.nan, np.full((2, 2), math.nan))


def mse_difference(
    a: Accuracy, b: Accuracy, averages: tuple[float, float]
) -> tuple[float, float, Floats]:
    """Return the MSE of a minus the MSE of b, split into |b|^2 and V/M.

    Estimators of one run share their random numbers, so what their blocks add is compared block by
    block, which makes differences sharper. The same holds for the blocks of a sampled reference.

    Args:
        a: one estimator.
        b: the other one.
        averages: the number M of draws that each averages.

    Returns:
        The difference of |b|^2, that of V/M, and the covariance [2, 2] of these two numbers.
    """
    scale = [np.array([1.0, 1.0 / average]) for average in averages]
    bias2 = a.bias2 - b.bias2
    variance = a.variance / averages[0] - b.variance / averages[1]
    own = [x.covariance * (s * s[:, None]) for x, s in zip((a, b), scale, strict=True)]
    covariance = own[0] + own[1]
    noises = a.reference_noise, b.reference_noise
    if noises[0] and noises[1]:
        one, two = noises[0].times(scale[0]), noises[1].times(scale[1])
        own = [part - x.shared(x) for part, x in zip(own, (one, two), strict=True)]
        if len(one.influence) == len(two.influence):
            covariance -= one.shared(two) + two.shared(one)
    if n := _shared_blocks(a, b):
        # First order tells the correlation; the errors themselves are known better.
        spread = [x.influence[:n] * s for x, s in zip((a, b), scale, strict=True)]
        cross = spread[0].T @ spread[1]
        lengths = [np.sqrt((part**2).sum(0)) for part in spread]
        limit = np.outer(*lengths)
        correlation = np.divide(cross, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        correlation *= n / math.sqrt(len(a.counts) * len(b.counts))
        if noises[0] and noises[1]:  # both miss the reference alike, and must not be surer for it
            correlation[0, 0] *= alignment(a, b)
        correlation[0, 1] *= a.shrinkage  # as in their own covariances
        correlation[1, 0] *= b.shrinkage
        errors = [np.sqrt(np.diag(part)) for part in own]
        shared = correlation * np.outer(*errors)
        covariance -= shared + shared.T
    return bias2, variance, covariance


def _shared_blocks(a: Accuracy, b: Accuracy) -> int:
    """Return how many blocks two estimators have of the same random numbers; 0 for just one."""
    n = min(len(a.counts), len(b.counts))
    return n if n > 1 and np.array_equal(a.counts[: n - 1], b.counts[: n - 1]) else 0


class Gap(NamedTuple):
    """The MSE of one estimator minus that of another: the difference ``size`` and its error."""

    size: float
    se: float
    shape: Shape
    least_dof: float  # of blocks alone; infinite where both are exact

    @property
    def t(self) -> float:
        """Student's t of no difference, without skewness; infinite where there is no error."""
        if self.se == 0.0:
            return math.copysign(math.inf, self.size) if self.size else 0.0
        return self.shape.t(self.size, self.se)

    @property
    def dof(self) -> float:
        """The degrees of freedom of ``t``."""
        return min(self.shape.dof, self.least_dof)


def mse_gap(a: Accuracy, b: Accuracy, averages: tuple[float, float]) -> Gap:
    """Return the difference of the MSE of two estimators at two numbers of draws.

    ``a``, ``b`` and ``averages`` are those of ``mse_difference``.
    """
    if a.exact and b.exact:
        size = a.bias2 - b.bias2 + (a.variance / averages[0] - b.variance / averages[1])
        return Gap(size, 0.0, _NO_SHAPE, math.inf)
    bias2, variance, covariance = mse_difference(a, b, averages)
    dof = min((float(x.dof) for x in (a, b) if len(x.counts)), default=math.inf)
    one, two = (
        x.influence @ np.array([1.0, 1.0 / average])
        for x, average in zip((a, b), averages, strict=True)
    )
    n = _shared_blocks(a, b)
    if n == len(a.counts) == len(b.counts) and n:
        shape = shape_of(one - two, a.counts)
    else:
        shape = difference_of(
            *(
                shape_of(part, x.counts) if len(x.counts) else _NO_SHAPE
                for part, x in ((one, a), (two, b))
            )
        )
    return Gap(bias2 + variance, math.sqrt(max(covariance.sum(), 0.0)), shape, dof)
