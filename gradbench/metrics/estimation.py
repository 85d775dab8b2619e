"""Bias and variance estimated from the moments of draws.

N draws have the mean m and the covariance S, with the bias b and V = tr S, in units of |G|:

- bias2 = |m - G|^2 - V/N estimates |b|^2 without bias. It is the U-statistic of (g - G).(g' - G)
  over pairs of draws, so its variance for draws of any distribution is
  4 b'Sb/N + 2 tr(S^2)/(N(N-1)). The first term dominates where there is a bias, the second
  elsewhere.
- b'Sb, and the covariance with the variance estimate, come from the spread of the block means.
- tr(S^2) comes from the Gram matrix of the block means, by the unbiased estimator of Himeno and
  Yamada (J. Multivariate Analysis 130, 2014).

Where G is not known but estimated by r, the mean of other draws, of covariance C:

- |m - r|^2 - V/N - tr C estimates |b|^2 without bias, and |r|^2 - tr C estimates |G|^2, the unit.
- With r = G + e, the relative squared bias x changes by -2 e.(b + x G) + (1 - x) |e|^2, and V by
  -2 V e.G - V |e|^2, less their expectations. So the variance of x is
  4 (b + x G)'C(b + x G) + 2 (1 - x)^2 tr(C^2), and 4 tr(S C)/N for the noise of both together.
- The first order comes from the blocks of the reference, one by one: estimators that are compared
  share its noise, as far as it moves both alike.
"""

import math

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks
from gradbench.metrics.accuracy import NO_ACCURACY, Accuracy
from gradbench.metrics.intervals import correlation
from gradbench.metrics.measurement import Sample
from gradbench.metrics.reference_noise import Noise, ReferenceNoise, TurnedNoise, trace_of_square

ROUNDING = 1e-13  # a standard deviation this small, relative to the mean, is no randomness


def accuracy_of(sample: Sample) -> Accuracy:
    """Return bias and variance of one draw; they are exact where moments and reference are."""
    counts, means = sample.counts, sample.means
    if sample.moments is not None:
        mean, variance = sample.moments
        bias = mean - sample.direction
        found = Accuracy(float(bias @ bias), float(variance.sum()), np.zeros((2, 2)))
    else:
        mean = counts @ means / counts.sum()
        found = _drawn_accuracy(sample.blocks, sample.direction)
    if sample.noise is None or math.isnan(found.variance):
        return found
    both = sample.noise.shared(deviations_of(counts, means)) if len(found.counts) else 0.0
    return with_reference_noise(
        found, mean - sample.direction, sample.noise, both, sample.direction
    )


def with_reference_noise(
    found: Accuracy,
    error: Floats,
    noise: Noise | TurnedNoise,
    both: float,
    unit: Floats | None = None,
) -> Accuracy:
    """Return an accuracy corrected for the noise of the reference, which its errors then include.

    Args:
        found: the accuracy as if the reference were exact.
        error: [P] the mean of the draws minus the reference.
        noise: the covariance C of the reference.
        both: tr(C S)/N.
        unit: [P] the estimate of G in units of |G|, if |G| has the same noise; None if the unit is
            known.
    """
    bias2 = found.bias2 - noise.trace
    x, v = (max(bias2, 0.0), found.variance) if unit is not None else (0.0, 0.0)
    unit = np.zeros_like(error) if unit is None else unit
    influence = -2.0 * noise.moved(np.stack([error + x * unit, v * unit], axis=1))
    # The error holds the noise, so the spread of the influence counts each second order twice. The
    # second order of both noises is counted in the spread of the draws too.
    second = math.sqrt(2.0 * noise.square) * np.array([1.0 - x, -v])
    first = (influence**2).sum(0) - 2.0 * second**2
    at_zero = found.at_zero + 4.0 * both + 2.0 * noise.square
    square = float(error @ error)
    slope = (first[0] + 3.0 * second[0] ** 2 - 2.0 * noise.square) / square if square else 0.0
    first[0] -= 4.0 * both
    bias = bias2 - math.sqrt(at_zero)
    shrinkage = bias / square if bias > 0.0 else 0.0
    effect = ReferenceNoise(
        influence, np.sqrt(np.maximum(first, 0.0)), second, shrinkage, noise.trace
    )
    return found._replace(
        bias2=bias2,
        covariance=found.covariance + effect.shared(effect),
        at_zero=at_zero,
        slope=found.slope + slope,
        reference_noise=effect,
    )


def deviations_of(counts: Floats, means: Floats) -> Floats:
    """Return rows d [n, P] such that d'd is the covariance of the mean of all draws."""
    return Blocks(counts, means, np.zeros(0)).deviations()


def _drawn_accuracy(blocks: Blocks, gradient: Floats) -> Accuracy:
    """Return bias and variance from blocks in units of |G|, and the gradient [P]."""
    counts, means, m2 = blocks
    draws = counts.sum()
    if draws < 2:
        return NO_ACCURACY
    mean, least = counts @ means / draws, draws * ROUNDING**2
    # All draws spread at least as far as those within blocks, which mostly says enough.
    if not m2.sum() > 2.0 * least * (mean @ mean):
        _, mean, squares = blocks.pooled
        if squares.sum() <= least * (mean @ mean):
            error = mean - gradient
            return Accuracy(float(error @ error), 0.0, np.zeros((2, 2)))
    return squared_distance(counts, means, m2, gradient)


def squared_distance(counts: Floats, means: Floats, m2: Floats | None, centre: Floats) -> Accuracy:
    """Return the squared distance of E g from ``centre``, and the variance of a draw.

    Args:
        counts: [n] draws of each block.
        means: [n, P] their means.
        m2: [n, P] their sums of squared deviations; if None, the variance comes from the means of
            the blocks alone, of which there must be several.
        centre: [P] the point that the distance is measured from.
    """
    draws, dof = counts.sum(), len(counts) - 1
    mean = counts @ means / draws
    centred = means - mean
    between = counts @ centred**2
    # bias2 is exactly unbiased with this variance, not with the one that divides by N.
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
    # error = b + noise, so the spread of 2 centred.error has a part from b and 4 tr(S^2)/N from the
    # noise, which the exact second-order term replaces.
    square = trace_of_square(means[counts == counts[0]], counts[0], variances)
    slope = covariance[0, 0] / (error @ error) if error.any() else 0.0
    first_order = max(covariance[0, 0] - 4.0 * square / draws**2, 0.0)
    pieces = draws if m2 is not None else len(counts)  # of which pairs are compared
    at_zero = 2.0 * square / draws**2 * pieces / (pieces - 1)
    together = correlation(covariance)
    covariance[0, 0] = first_order + at_zero
    scaled = np.sqrt(counts)[:, None] * influence.T
    found = Accuracy(bias2, variance, covariance, at_zero, float(slope), scaled, counts)
    # The two are correlated only as far as there is a bias: the noise has no direction of its own.
    together *= found.shrinkage * math.sqrt(covariance[0, 0] * covariance[1, 1])
    covariance[0, 1] = covariance[1, 0] = together
    return found
