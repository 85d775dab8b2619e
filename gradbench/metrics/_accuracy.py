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
from scipy import stats

from gradbench.blocks import Blocks, Floats, Moments, pool
from gradbench.metrics._cells import Sample
from gradbench.metrics._intervals import (
    LEVEL,
    UNKNOWN,
    Estimate,
    combined,
    correlation,
    known,
    logarithmic,
    quantile,
    ratio,
    score,
    symmetric,
)
from gradbench.metrics._noise import Noise, trace_of_square

_ROUNDING = 1e-13  # a standard deviation this small, relative to the mean, is no randomness
_FEW = 8  # blocks that a spread must be made of, for its size to be known
_FOREVER = 2.0**60  # draws
EXACT = 1e-10  # an exact relative bias below this is rounding


class Blur(NamedTuple):
    """What the noise of a reference does to the estimates of |b|^2 and V.

    ``added`` [n, 2] is what each of its blocks adds to the two at first order, which has the
    standard errors ``first`` [2]; ``second`` [2] are those of the second order, one random number
    for both, with signs. ``settled``: how much of the first order of |b|^2 is known to be that of
    a bias, and so depends on that of V; the rest has the direction of the noise by chance.
    ``trace`` is what is expected of the noise in |m - r|^2.
    """

    added: Floats
    first: Floats
    second: Floats
    settled: float
    trace: float

    def shared(self, other: "Blur") -> Floats:
        """The covariance [2, 2] of the estimates with those of another against one reference."""
        limit = np.outer(*(np.sqrt((x.added**2).sum(0)) for x in (self, other)))
        both = self.added.T @ other.added
        alike = np.divide(both, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        known = np.array([[_common(self, other), self.settled], [other.settled, 1.0]])
        first = alike * known * np.outer(self.first, other.first)
        return first + np.outer(self.second, other.second)

    def times(self, factors: Floats | float) -> "Blur":
        """Of both estimates times positive factors [2]."""
        return self._replace(
            added=self.added * factors, first=self.first * factors, second=self.second * factors
        )


class Accuracy(NamedTuple):
    """Relative squared bias and variance of one draw, exact or as estimated from N draws.

    ``covariance`` [2, 2] is that of the two estimates, NaN where a single block cannot tell it.
    ``at_zero`` and ``slope`` give the variance of bias2 as a function of |b|^2. ``added`` [n, 2] is
    what each of n blocks adds to the two estimates at first order, times the root of its ``counts``
    [n]: the dependence of two estimators that share their random numbers follows from them.

    Of a sampled reference, ``blur`` is what its noise does to the two estimates.
    """

    bias2: float
    variance: float
    covariance: Floats
    at_zero: float = 0.0
    slope: float = 0.0
    added: Floats = np.zeros((0, 2))
    counts: Floats = np.zeros(0)
    blur: Blur | None = None

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the standard errors, at least; -1 where there are none."""
        blocks = len(self.counts), len(self.blur.added) if self.blur else 0
        return min((n for n in blocks if n), default=0) - 1

    @property
    def settled(self) -> float:
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
        limits = score(self.bias2, self.at_zero, self.slope, quantile(level, self.freedom))
        return Estimate(self.bias2, se, *(max(limit, 0.0) for limit in limits))

    def variance_of_draw(self, level: float = LEVEL) -> Estimate:
        """Of V."""
        se = math.sqrt(self.covariance[1, 1])
        return logarithmic(self.variance, se, level, self.freedom)

    def mse(self, average: float = 1, level: float = LEVEL) -> Estimate:
        """Of |b|^2 + V/M, for any M; the lower limit is not below that of V/M."""
        value = self.bias2 + self.variance / average
        weights = np.array([1.0, 1.0 / average])
        se = math.sqrt(np.maximum(weights @ self.covariance @ weights, 0.0))
        if not se > 0.0:
            return Estimate(value, se, *[value + se] * 2)
        noise = self.variance_of_draw(level).times(1.0 / average)
        low, high = score(self.bias2, self.at_zero, self.slope, quantile(level, self.freedom))
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
        if len(one.added) == len(two.added):
            covariance -= one.shared(two) + two.shared(one)
    n = min(len(a.counts), len(b.counts))
    if n > 1 and np.array_equal(a.counts[: n - 1], b.counts[: n - 1]):
        # First order tells the correlation; the errors themselves are known better.
        spread = [x.added[:n] * s for x, s in zip((a, b), scale, strict=True)]
        cross = spread[0].T @ spread[1]
        lengths = [np.sqrt((part**2).sum(0)) for part in spread]
        limit = np.outer(*lengths)
        correlation = np.divide(cross, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        correlation *= n / math.sqrt(len(a.counts) * len(b.counts))
        if a.blur and b.blur:  # both miss the reference alike, and must not be surer for it
            correlation[0, 0] *= _common(a, b)
        correlation[0, 1] *= a.settled  # as in their own covariances
        correlation[1, 0] *= b.settled
        errors = [np.sqrt(np.diag(part)) for part in own]
        shared = correlation * np.outer(*errors)
        covariance -= shared + shared.T
    return bias2, variance, covariance


def _common(a: Blur | Accuracy, b: Blur | Accuracy) -> float:
    """How alike two sums of a settled and another part are, whose parts are as alike as can be."""
    one, two = (math.acos(x.settled) for x in (a, b))
    return math.cos(one - two)


class Direction(NamedTuple):
    """What the mean of a draw says beyond bias and variance, in units of |G|."""

    descent: Estimate  # E g.G / |G|^2
    snr: Estimate  # |E g| / sqrt(V)
    scale_free_bias: Estimate  # min over c of |c E g - G| / |G|


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
    added = -2.0 * noise.deviations @ np.stack([error + x * unit, v * unit], axis=1)
    # As the error holds the noise, the spread of what is added counts each second order twice; that
    # of both noises is counted in the spread of the draws too.
    second = math.sqrt(2.0 * noise.square) * np.array([1.0 - x, -v])
    first = (added**2).sum(0) - 2.0 * second**2
    at_zero = found.at_zero + 4.0 * both + 2.0 * noise.square
    square = float(error @ error)
    slope = (first[0] + 3.0 * second[0] ** 2 - 2.0 * noise.square) / square if square else 0.0
    first[0] -= 4.0 * both
    bias = bias2 - math.sqrt(at_zero)
    settled = bias / square if bias > 0.0 else 0.0
    blur = Blur(added, np.sqrt(np.maximum(first, 0.0)), second, settled, noise.trace)
    return found._replace(
        bias2=bias2,
        covariance=found.covariance + blur.shared(blur),
        at_zero=at_zero,
        slope=found.slope + slope,
        blur=blur,
    )


def _is_steady(accuracy: Accuracy) -> bool:
    """Whether all draws were equal."""
    noise = accuracy.blur.shared(accuracy.blur)[1, 1] if accuracy.blur else 0.0
    return bool(accuracy.covariance[1, 1] - noise == 0.0)


def _deviations(counts: Floats, means: Floats) -> Floats:
    """Rows d [n, P] with d'd the covariance of the mean of all draws."""
    return Blocks(counts, means, np.zeros(0)).deviations()


def direction_of(sample: Sample, accuracy: Accuracy, level: float = LEVEL) -> Direction:
    """Expected descent, signal to noise and scale-free bias of one draw."""
    if sample.moments is not None or _is_steady(accuracy):
        mean = sample.moments[0] if sample.moments is not None else sample.means[0]
        return _known_direction(sample, mean, math.sqrt(accuracy.variance), level)
    if math.isnan(accuracy.covariance[0, 0]):
        return Direction(UNKNOWN, UNKNOWN, UNKNOWN)
    counts, means = sample.counts, sample.means
    draws, freedom = counts.sum(), len(counts) - 1
    origin = np.zeros_like(sample.direction)
    unit, length = _unit(sample)
    projected = means @ unit
    mean_along = float(projected @ counts / draws)
    spread = float((projected - mean_along) ** 2 @ counts) / freedom  # variance of g.G / |G|^2
    se = math.sqrt(spread / draws)

    signal = _squared(counts, means, sample.m2, origin)
    snr = ratio(
        signal.squared_bias(level),
        signal.variance_of_draw(level),
        correlation(signal.covariance),
    ).root()

    # Blocks do not keep the variance of the part across G: it is that of their means.
    rest = means - np.outer(projected, unit)
    part = _squared(counts, rest, None, origin)
    shared = np.sqrt(counts) * (projected - mean_along) @ part.added[:, 0] / (draws * freedom)
    shared *= 2.0 * mean_along * part.settled
    mean = counts @ rest / draws
    descent = _descent(sample, mean + mean_along * unit, length * mean_along, length * se, level)
    sine = _sine(sample, part, mean, (mean_along, se), shared, level)
    return Direction(descent, snr, sine)


def _unit(sample: Sample) -> tuple[Floats, float]:
    """The direction of the reference [P], of length 1, and its length in units of |G|."""
    length = 1.0 if sample.noise is None else float(np.linalg.norm(sample.direction))
    return sample.direction / length, length


def _descent(sample: Sample, mean: Floats, value: float, se: float, level: float) -> Estimate:
    """Of E g.G / |G|^2, with the error ``se`` that comes from the draws."""
    freedom = len(sample.counts) - 1
    if sample.noise is not None:
        se = math.hypot(se, sample.noise.spread(mean - 2.0 * value * sample.direction))
        freedom = min(freedom or sample.noise.freedom, sample.noise.freedom)
    return symmetric(value, se, level, freedom)


def _sine(
    sample: Sample,
    part: Accuracy,
    mean: Floats,
    along: tuple[float, float],
    shared: float,
    level: float,
) -> Estimate:
    """Of the sine of the angle between the mean of a draw and G.

    From the part of the mean across G, its accuracy ``part`` and ``mean`` [P], and that along it
    with its error; ``shared`` is the covariance of the squares of both.
    """
    value, se = along
    freedom = max(part.freedom, 1)
    if sample.noise is not None:
        # Noise of the reference turns one into the other.
        unit, length = _unit(sample)
        noise = sample.noise.turned(unit, value / length)
        means = sample.means - np.outer(sample.means @ unit, unit)
        both = noise.shared(_deviations(sample.counts, means)) if len(part.counts) else 0.0
        part = _blurred(part, mean, noise, both)
        se = math.hypot(se, sample.noise.spread(mean) / length)
        assert part.blur is not None
        shared -= float(part.blur.added[:, 0] @ part.blur.added[:, 0])
        freedom = part.freedom
    across, square = part.squared_bias(level), _square(symmetric(value, se, level, freedom))
    together = np.array([[across.se**2, shared], [shared, square.se**2]])
    tangent2 = ratio(across, square, correlation(together))
    sine2 = [1.0 if math.isinf(x) else x / (1.0 + x) for x in (tangent2.low, tangent2.high)]
    value = tangent2.value / (1.0 + tangent2.value)
    se = tangent2.se / (1.0 + tangent2.value) ** 2 if across.value > 0.0 else sine2[1] / 2.0
    return Estimate(value, se, *sine2).root()


def _known_direction(sample: Sample, mean: Floats, scatter: float, level: float) -> Direction:
    """Of a draw of known mean [P] and standard deviation."""
    unit, stretch = _unit(sample)
    along = float(mean @ unit)
    length = float(np.linalg.norm(mean))
    rest = mean - along * unit
    across = float(np.linalg.norm(rest))
    descent, sine = known(along), known(across / length if length > 0.0 else 1.0)
    if sample.noise is not None and length > 0.0:
        descent = _descent(sample, mean, stretch * along, 0.0, level)
        part = Accuracy(across**2, 0.0, np.zeros((2, 2)))
        sine = _sine(sample, part, rest, (along, 0.0), 0.0, level)
    return Direction(descent, known(length / scatter if scatter > 0.0 else math.inf), sine)


def _square(x: Estimate) -> Estimate:
    """Of x^2."""
    limits = sorted([x.low**2, x.high**2])
    low = 0.0 if x.low < 0.0 < x.high else limits[0]
    return Estimate(x.value**2, 2.0 * abs(x.value) * x.se, low, limits[1])


def unbiased_p(sample: Sample) -> float:
    """The p-value of "the mean of a draw is G", over all coordinates together.

    From the largest |t| over coordinates, by Sidak. A coordinate whose spread comes from a few
    blocks alone is not tested: rare events rule it, and its error is not known. One without spread
    has to be right, unless an unseen event of probability 3/N and of at most ten standard
    deviations of a draw may explain it. So is one without spread in a sampled reference, whose
    noise counts as that of the draws does. NaN where moments and reference are exact, and for fewer
    than two draws.
    """
    known_mean = sample.moments is not None
    if sample.zero or (sample.noise is None if known_mean else sample.draws < 2):
        return math.nan
    samples = [] if known_mean else [Blocks(sample.counts, sample.means, sample.m2)]
    samples += [sample.reference] if sample.reference is not None else []
    means, variances, unseen, parts = zip(*map(_spread, samples), strict=True)
    mean = sample.moments[0] if sample.moments is not None else means[0]
    error = np.abs(mean - sample.direction)
    if not np.isfinite(error).all():
        return 0.0
    se = np.sqrt(sum(variances))
    still = se <= _ROUNDING * np.linalg.norm(mean)
    if (error[still] > max(1e-9, sum(unseen))).any():
        return 0.0
    rows = np.concatenate(parts)
    tested = ~still & (_effective(rows) >= min(_FEW, len(rows) / 2))
    if not tested.any():
        return 1.0
    freedom = min(blocks.draws for blocks in samples) - 1
    least = 2.0 * float(stats.t.sf(np.max(error[tested] / se[tested]), freedom))
    return float(-np.expm1(tested.sum() * np.log1p(-least))) if least < 1.0 else 1.0


def _spread(blocks: Blocks) -> tuple[Floats, Floats, float, Floats]:
    """Mean [P], its variance [P], what a rare event may add to it, and the variance by block."""
    draws = blocks.draws
    _, mean, squares = pool(map(Moments, blocks.counts, blocks.means, blocks.m2))
    unseen = 10.0 * math.sqrt(squares.sum() / draws) * 3.0 / draws
    parts = blocks.m2 + blocks.counts[:, None] * (blocks.means - mean) ** 2
    return mean, squares / (draws - 1) / draws, unseen, parts / draws**2


def _effective(parts: Floats) -> Floats:
    """Of how many parts [n, P] each of P sums is made, were they alike; 0 of none."""
    squares = (parts**2).sum(0)
    return np.divide(parts.sum(0) ** 2, squares, out=np.zeros(len(squares)), where=squares > 0)


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
    draws, freedom = counts.sum(), len(counts) - 1
    mean = counts @ means / draws
    centred = means - mean
    between = counts @ centred**2
    # The exactly unbiased bias2 needs this variance, not that over N.
    variances = between / freedom if m2 is None else (m2.sum(0) + between) / (draws - 1)
    error = mean - centre
    variance = float(variances.sum())
    bias2 = float(error @ error - variance / draws)
    if not freedom:
        return Accuracy(bias2, variance, NO_ACCURACY.covariance)

    # What each block adds to the two estimates at first order: their covariance is its spread.
    within = m2.sum(1) / counts if m2 is not None else 0.0
    added = np.stack([2.0 * centred @ error, within + (centred**2).sum(1)])
    added -= (added @ counts / draws)[:, None]
    covariance = (added * counts) @ added.T / (draws * freedom)
    # error = b + noise, so the spread of 2 centred.error is that of b and 4 tr(S^2)/N of the noise:
    # put the exact second-order term in the place of the latter.
    square = trace_of_square(means[counts == counts[0]], counts[0], variances)
    slope = covariance[0, 0] / (error @ error) if error.any() else 0.0
    first_order = max(covariance[0, 0] - 4.0 * square / draws**2, 0.0)
    pieces = draws if m2 is not None else len(counts)  # of which pairs are compared
    at_zero = 2.0 * square / draws**2 * pieces / (pieces - 1)
    together = correlation(covariance)
    covariance[0, 0] = first_order + at_zero
    scaled = np.sqrt(counts)[:, None] * added.T
    found = Accuracy(bias2, variance, covariance, at_zero, float(slope), scaled, counts)
    # They are correlated as far as there is a bias: noise has the direction of the draws by chance.
    together *= found.settled * math.sqrt(covariance[0, 0] * covariance[1, 1])
    covariance[0, 1] = covariance[1, 0] = together
    return found
