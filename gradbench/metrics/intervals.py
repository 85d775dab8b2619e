"""Estimates with their uncertainty, and how their intervals are computed.

The intervals cover at their level also where "estimate +- two standard errors" does not: squares
near zero, ratios, shares. ``tests/metrics/test_coverage.py`` repeats experiments of 20 and 64
blocks and counts: 94 to 96 % of the intervals at 95 % contain the truth, for draws that are normal,
skewed, or come from REINFORCE. Intervals of shares near one contain it too often, up to 100 %.
Those of a variance are corrected for skewness and contain it in 97 % of these experiments, see
``gradbench.metrics.skewness``.
"""

import math
from functools import cache
from typing import NamedTuple

from gradbench.core.atomic import Floats
from gradbench.metrics.distributions import normal_quantile, t_quantile

LEVEL = 0.95
_SPREAD = 1e-15  # of a mean between bounds: a variance this small is rounding


class Estimate(NamedTuple):
    """A ``value``, its standard error ``se`` and interval ``low`` to ``high``; NaN if unknown."""

    value: float
    se: float
    low: float
    high: float

    def root(self) -> "Estimate":
        """Return the estimate of the square root of a quantity that is not negative.

        A value below zero counts as zero. The error is the width of the upper side,
        sqrt(x + se) - sqrt(x): se / (2 sqrt(x)) where x is well above its error, finite elsewhere.
        """
        value = max(self.value, 0.0)
        error = math.sqrt(value + self.se) - math.sqrt(value)
        return Estimate(math.sqrt(value), error, math.sqrt(self.low), math.sqrt(self.high))

    def times(self, factor: float) -> "Estimate":
        """Return the estimate of the quantity times a positive ``factor``."""
        return Estimate(*(factor * part for part in self))


UNKNOWN = Estimate(*[math.nan] * 4)


def known(value: float) -> Estimate:
    """Return an estimate without uncertainty."""
    return Estimate(value, 0.0, value, value)


@cache  # sample complexities ask some hundred times
def quantile(level: float, dof: float) -> float:
    """Return the half-width of an interval in standard errors with ``dof`` degrees of freedom."""
    return t_quantile(0.5 + level / 2.0, max(dof, 1))


def symmetric(value: float, se: float, level: float, dof: float) -> Estimate:
    """Return an estimate with an interval by Student's t."""
    reach = quantile(level, dof) * se
    return Estimate(value, se, value - reach, value + reach)


def logarithmic(value: float, se: float, level: float, dof: float) -> Estimate:
    """Return the estimate of a positive quantity with a constant relative error, as a variance."""
    if not value > 0.0:
        return Estimate(value, se, value, value)
    factor = math.exp(quantile(level, dof) * se / value)
    return Estimate(value, se, value / factor, value * factor)


def score(value: float, at_zero: float, slope: float, reach: float) -> tuple[float, float]:
    """Return the limits of x, estimated by ``value`` with the variance ``at_zero + slope x``.

    They enclose all x with (value - x)^2 <= reach^2 (at_zero + slope x), as Wilson's interval for a
    share does: the variance is the one that x would have, not that of the estimate. Below zero,
    where x cannot be, the variance is that at zero; an estimate there has the upper limit of zero.
    """
    square = reach**2

    def limit(x: float, side: float) -> float:
        root = square * (slope * x + square * slope**2 / 4.0 + at_zero)
        return x + square * slope / 2.0 + side * math.sqrt(root)

    least = value - reach * math.sqrt(at_zero)
    return limit(value, -1.0) if least > 0.0 else least, limit(max(value, 0.0), 1.0)


def bounded(
    value: float, variance: float, total: float, reach: float, least: float = 0.0
) -> Estimate:
    """Return the mean of ``total`` numbers between ``least`` and 1, with its interval.

    The interval is by Agresti and Coull (1998, Approximate is better than "exact" for interval
    estimation of binomial proportions), for the number of all-or-nothing trials that would tell the
    mean as well. Numbers without spread count as such trials, since rare events may be unseen.
    Where just a few numbers differ from all others, inside the bounds, the interval is too short.

    Args:
        value: the mean.
        variance: the variance of the numbers.
        total: how many there are.
        reach: the half-width of the interval in standard errors.
        least: the lower bound of the numbers.
    """
    se = math.sqrt(variance / total)
    width = 1.0 - least
    share = (value - least) / width
    largest = share * (1.0 - share) * width**2
    if min(variance, largest) > _SPREAD:
        total *= max(largest / variance, 1.0)
    total += reach**2
    centre = share + (0.5 - share) * reach**2 / total
    half = reach * math.sqrt(centre * (1.0 - centre) / total)
    low, high = (least + width * min(max(centre + x, 0.0), 1.0) for x in (-half, half))
    return Estimate(value, se, min(low, value), max(high, value))


def share(count: float, total: float, level: float) -> Estimate:
    """Return the probability of an event that happened in ``count`` of ``total`` trials."""
    if not total:
        return UNKNOWN
    p = count / total
    return bounded(p, p * (1.0 - p), total, _normal(level))


@cache
def _normal(level: float) -> float:
    return normal_quantile(0.5 + level / 2.0)


def correlation(covariance: Floats) -> float:
    """Return the correlation from a covariance [2, 2]; 0 where one of the two has no error."""
    limit = math.sqrt(covariance[0, 0] * covariance[1, 1])
    return min(max(float(covariance[0, 1]) / limit, -1.0), 1.0) if limit > 0.0 else 0.0


def combined(x: float, y: float, correlation: float) -> float:
    """Return the error of a sum whose parts have the errors x and y.

    Applied to distances from an estimate to a limit, this is the method of variance recovery: Zou
    and Donner (2008), Construction of confidence limits about effect measures.
    """
    if math.isinf(x) or math.isinf(y):
        return math.inf
    return math.sqrt(max(x**2 + y**2 + 2.0 * correlation * x * y, 0.0))


def least_difference(a: Estimate, b: Estimate) -> float:
    """Return how far apart two independent estimates must be to differ significantly.

    The level is that of their intervals. By variance recovery: unlike a multiple of standard errors
    this holds near zero too, for quantities that cannot be negative.
    """
    low, high = sorted((a, b))
    return combined(high.value - high.low, low.high - low.value, 0.0)


def ratio(a: Estimate, b: Estimate, correlation: float = 0.0) -> Estimate:
    """Return a / b for two quantities that are not negative, by variance recovery of logarithms."""
    if not b.value > 0.0:
        return UNKNOWN
    value = max(a.value, 0.0) / b.value
    if not a.value > 0.0:
        high = a.high / b.low if b.low > 0.0 else math.inf
        return Estimate(value, math.nan, 0.0, high)
    error = combined(a.se / a.value, b.se / b.value, -correlation)
    below = combined(_log(a.value, a.low), _log(b.high, b.value), -correlation)
    above = combined(_log(a.high, a.value), _log(b.value, b.low), -correlation)
    high = value * math.exp(above) if above < 700.0 else math.inf
    return Estimate(value, value * error, value * math.exp(-below), high)


def _log(above: float, below: float) -> float:
    """Return log(above / below) of numbers that are not negative."""
    return math.log(above / below) if below > 0.0 else math.inf


def digits(value: float, se: float) -> str:
    """Return a value with its standard error in brackets, such as "0.213(4)".

    The error is the uncertainty of the last digit, or of the last two if it begins with 1.
    """
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "inf"
    if abs(value) < 1e-10 and not se > 1e-10:
        return "0"
    if not 0.0 < se < math.inf or se < 1e-6 * abs(value):
        return f"{value:.4g}" if se == 0.0 else f"{value:.3g}"
    power = math.floor(math.log10(se))
    if round(se / 10.0**power, 1) < 2.0:
        power -= 1
    if abs(value) < 1e-4 and se < 1e-4:
        exponent = math.floor(math.log10(max(abs(value), se)))
        return f"{digits(value / 10.0**exponent, se / 10.0**exponent)}e{exponent:+03d}"
    if power >= 0:
        return f"{round(value, -power):.0f}({round(se, -power):.0f})"
    return f"{value:.{-power}f}({round(se / 10.0**power)})"
