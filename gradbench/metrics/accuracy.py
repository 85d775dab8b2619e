"""Bias, variance and what follows from them, from the moments of draws.

N draws of mean m and covariance S, with bias b and V = tr S (DESIGN section 5), in units of |G|:

- bias2 = |m - G|^2 - V/N estimates |b|^2 without bias. It is the U-statistic of (g - G).(g' - G)
  over pairs of draws, so for draws of any distribution its variance is
  4 b'Sb/N + 2 tr(S^2)/(N(N-1)): the first term rules where there is a bias, the second elsewhere.
- b'Sb, and the covariance with the variance estimate, come from the spread of the block means.
- tr(S^2) comes from the Gram matrix of the block means, by the unbiased estimator of Himeno and
  Yamada (J. Multivariate Analysis 130, 2014).

The interval of |b|^2 is a score interval, with the variance above as a function of the |b|^2 in
question; at zero bias its upper limit errs to the safe side. That of the MSE follows from it and
that of V by variance recovery.

Where G is not known but estimated by r, the mean of other draws, of covariance C:

- |m - r|^2 - V/N - tr C estimates |b|^2 without bias, |r|^2 - tr C does so for |G|^2, the unit.
- With r = G + e, the relative squared bias x changes by -2 e.(b + x G) + (1 - x) |e|^2, and V by
  -2 V e.G - V |e|^2, less what is expected of it. That of x has so the variance
  4 (b + x G)'C(b + x G) + 2 (1 - x)^2 tr(C^2), and 4 tr(S C)/N for the noise of both together.
- The first order comes from the blocks of the reference, one by one: estimators that are compared
  share its noise, as far as it moves both alike.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks, Moments, pool
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
from gradbench.metrics.measurement import Sample
from gradbench.metrics.reference_noise import Noise, ReferenceNoise, _common, trace_of_square

_ROUNDING = 1e-13  # a standard deviation this small, relative to the mean, is no randomness
_FOREVER = 2.0**60  # draws
EXACT = 1e-10  # an exact relative bias below this is rounding


class Accuracy(NamedTuple):
    """Relative squared bias and variance of one draw, exact or as estimated from N draws.

    ``covariance`` [2, 2] is that of the two estimates, NaN where a single block cannot tell it.
    ``at_zero`` and ``slope`` give the variance of bias2 as a function of |b|^2. ``influence`` [n,
    2] is what each of n blocks adds to the two estimates at first order, times the root of its
    ``counts`` [n]: the dependence of two estimators that share their random numbers follows from
    them.

    Of a sampled reference, ``blur`` is what its noise does to the two estimates.
    """

    bias2: float
    variance: float
    covariance: Floats
    at_zero: float = 0.0
    slope: float = 0.0
    influence: Floats = np.zeros((0, 2))
    counts: Floats = np.zeros(0)
    blur: ReferenceNoise | None = None

    @property
    def dof(self) -> int:
        """Degrees of freedom of the standard errors, at least; -1 where there are none."""
        blocks = len(self.counts), len(self.blur.influence) if self.blur else 0
        return min((n for n in blocks if n), default=0) - 1

    @property
    def shrinkage(self) -> float:
        """How much of the distance from the mean of the draws to the reference is not their noise.

        The factor of James and Stein; 1 where the bias is known.
        """
        noise = self.variance / self.counts.sum() if len(self.counts) else 0.0
        bias2 = max(self.bias2 + (self.blur.trace if self.blur else 0.0), 0.0)
        return bias2 / (bias2 + noise) if bias2 else 0.0

    def squared_bias(self, level: float = LEVEL) -> Estimate:
        """Of |b|^2; the estimate may be negative, its limits are not."""
        se = math.sqrt(self.covariance[0, 0])
        if not se > 0.0:
            return Estimate(self.bias2, se, *[self.bias2 + se] * 2)
        limits = score(self.bias2, self.at_zero, self.slope, quantile(level, self.dof))
        return Estimate(self.bias2, se, *(max(limit, 0.0) for limit in limits))

    def variance_of_draw(self, level: float = LEVEL) -> Estimate:
        """Of V."""
        se = math.sqrt(self.covariance[1, 1])
        return logarithmic(self.variance, se, level, self.dof)

    def mse(self, average: float = 1, level: float = LEVEL) -> Estimate:
        """Of |b|^2 + V/M, for any M; the lower limit is not below that of V/M."""
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

    def rmse(self, average: float = 1, level: float = LEVEL) -> Estimate:
        """Of the relative RMSE of the M-sample estimate; an MSE below zero counts as zero."""
        return self.mse(average, level).root()

    def draws_needed(self, eps: float, level: float = LEVEL) -> Estimate:
        """The sample complexity M*(eps) = V / (eps^2 - |b|^2): draws for a relative RMSE of eps.

        At least one; infinite where the bias alone exceeds eps. Its limits are the M at which the
        limits of the MSE reach eps^2.
        """
        target = eps**2
        if math.isnan(self.variance):
            return UNKNOWN
        excess = target - self.bias2
        value = max(self.variance / excess, 1.0) if excess > 0.0 else math.inf
        if value == math.inf and self.mse(1, level).value <= target:
            value = 1.0  # without bias and variance, eps = 0
        if math.isnan(self.covariance[0, 0]):
            return UNKNOWN._replace(value=value)

        def reached(limit: Callable[[Estimate], float]) -> float:
            """The least M at which this limit of the MSE is as small as eps^2."""
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


NO_ACCURACY = Accuracy(math.nan, math.nan, np.full((2, 2), math.nan))


def mse_difference(
    a: Accuracy, b: Accuracy, averages: tuple[float, float]
) -> tuple[float, float, Floats]:
    """MSE of a minus that of b, as |b|^2 and V separately, and the covariance [2, 2] of the two.

    ``averages`` are the numbers M of draws of each. Estimators of one run share their random
    numbers: what their blocks add is compared block by block, and that makes differences sharper.
    So is what the blocks of a reference add, which is the same for both.
    """
    scale = [np.array([1.0, 1.0 / average]) for average in averages]
    bias2 = a.bias2 - b.bias2
    variance = a.variance / averages[0] - b.variance / averages[1]
    own = [x.covariance * np.outer(s, s) for x, s in zip((a, b), scale, strict=True)]
    covariance = own[0] + own[1]
    if a.blur and b.blur:
        one, two = (x.times(s) for x, s in zip((a.blur, b.blur), scale, strict=True))
        own = [part - x.shared(x) for part, x in zip(own, (one, two), strict=True)]
        if len(one.influence) == len(two.influence):
            covariance -= one.shared(two) + two.shared(one)
    n = min(len(a.counts), len(b.counts))
    if n > 1 and np.array_equal(a.counts[: n - 1], b.counts[: n - 1]):
        # First order tells the correlation; the errors themselves are known better.
        spread = [x.influence[:n] * s for x, s in zip((a, b), scale, strict=True)]
        cross = spread[0].T @ spread[1]
        lengths = [np.sqrt((part**2).sum(0)) for part in spread]
        limit = np.outer(*lengths)
        correlation = np.divide(cross, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        correlation *= n / math.sqrt(len(a.counts) * len(b.counts))
        if a.blur and b.blur:  # both miss the reference alike, and must not be surer for it
            correlation[0, 0] *= _common(a, b)
        correlation[0, 1] *= a.shrinkage  # as in their own covariances
        correlation[1, 0] *= b.shrinkage
        errors = [np.sqrt(np.diag(part)) for part in own]
        shared = correlation * np.outer(*errors)
        covariance -= shared + shared.T
    return bias2, variance, covariance


def accuracy_of(sample: Sample) -> Accuracy:
    """Exact where moments and reference are."""
    counts, means = sample.counts, sample.means
    if sample.moments is not None:
        mean, variance = sample.moments
        bias = mean - sample.direction
        found = Accuracy(float(bias @ bias), float(variance.sum()), np.zeros((2, 2)))
    else:
        mean = counts @ means / counts.sum()
        found = _accuracy(counts, means, sample.m2, sample.direction)
    if sample.noise is None or math.isnan(found.variance):
        return found
    both = sample.noise.shared(_deviations(counts, means)) if len(found.counts) else 0.0
    return _blurred(found, mean - sample.direction, sample.noise, both, sample.direction)


def _blurred(
    found: Accuracy, error: Floats, noise: Noise, both: float, unit: Floats | None = None
) -> Accuracy:
    """With the noise of what the mean of the draws is ``error`` [P] away from.

    ``both`` is tr(C S)/N. ``unit`` is the estimate of G, in units of |G|, where the same noise is
    in |G|; None where the unit is known.
    """
    bias2 = found.bias2 - noise.trace
    x, v = (max(bias2, 0.0), found.variance) if unit is not None else (0.0, 0.0)
    unit = np.zeros_like(error) if unit is None else unit
    influence = -2.0 * noise.deviations @ np.stack([error + x * unit, v * unit], axis=1)
    # As the error holds the noise, the spread of what is added counts each second order twice; that
    # of both noises is counted in the spread of the draws too.
    second = math.sqrt(2.0 * noise.square) * np.array([1.0 - x, -v])
    first = (influence**2).sum(0) - 2.0 * second**2
    at_zero = found.at_zero + 4.0 * both + 2.0 * noise.square
    square = float(error @ error)
    slope = (first[0] + 3.0 * second[0] ** 2 - 2.0 * noise.square) / square if square else 0.0
    first[0] -= 4.0 * both
    bias = bias2 - math.sqrt(at_zero)
    shrinkage = bias / square if bias > 0.0 else 0.0
    blur = ReferenceNoise(
        influence, np.sqrt(np.maximum(first, 0.0)), second, shrinkage, noise.trace
    )
    return found._replace(
        bias2=bias2,
        covariance=found.covariance + blur.shared(blur),
        at_zero=at_zero,
        slope=found.slope + slope,
        blur=blur,
    )


def _deviations(counts: Floats, means: Floats) -> Floats:
    """Rows d [n, P] with d'd the covariance of the mean of all draws."""
    return Blocks(counts, means, np.zeros(0)).deviations()


def _accuracy(counts: Floats, means: Floats, m2: Floats, gradient: Floats) -> Accuracy:
    """Bias and variance from counts [n], means [n, P] and m2 [n, P] in units of |G|."""
    draws = counts.sum()
    if draws < 2:
        return NO_ACCURACY
    _, mean, squares = pool(map(Moments, counts, means, m2))
    if squares.sum() <= draws * _ROUNDING**2 * (mean @ mean):
        error = mean - gradient
        return Accuracy(float(error @ error), 0.0, np.zeros((2, 2)))
    return _squared(counts, means, m2, gradient)


def _squared(counts: Floats, means: Floats, m2: Floats | None, centre: Floats) -> Accuracy:
    """The squared distance of the mean of a draw from ``centre``, beside its variance.

    Without ``m2`` the variance is taken from the means of several blocks alone.
    """
    draws, dof = counts.sum(), len(counts) - 1
    mean = counts @ means / draws
    centred = means - mean
    between = counts @ centred**2
    # The exactly unbiased bias2 needs this variance, not that over N.
    variances = between / dof if m2 is None else (m2.sum(0) + between) / (draws - 1)
    error = mean - centre
    variance = float(variances.sum())
    bias2 = float(error @ error - variance / draws)
    if not dof:
        return Accuracy(bias2, variance, NO_ACCURACY.covariance)

    # What each block adds to the two estimates at first order: their covariance is its spread.
    within = m2.sum(1) / counts if m2 is not None else 0.0
    influence = np.stack([2.0 * centred @ error, within + (centred**2).sum(1)])
    influence -= (influence @ counts / draws)[:, None]
    covariance = (influence * counts) @ influence.T / (draws * dof)
    # error = b + noise, so the spread of 2 centred.error is that of b and 4 tr(S^2)/N of the noise:
    # put the exact second-order term in the place of the latter.
    square = trace_of_square(means[counts == counts[0]], counts[0], variances)
    slope = covariance[0, 0] / (error @ error) if error.any() else 0.0
    first_order = max(covariance[0, 0] - 4.0 * square / draws**2, 0.0)
    pieces = draws if m2 is not None else len(counts)  # of which pairs are compared
    at_zero = 2.0 * square / draws**2 * pieces / (pieces - 1)
    together = correlation(covariance)
    covariance[0, 0] = first_order + at_zero
    scaled = np.sqrt(counts)[:, None] * influence.T
    found = Accuracy(bias2, variance, covariance, at_zero, float(slope), scaled, counts)
    # They are correlated as far as there is a bias: noise has the direction of the draws by chance.
    together *= found.shrinkage * math.sqrt(covariance[0, 0] * covariance[1, 1])
    covariance[0, 1] = covariance[1, 0] = together
    return found
