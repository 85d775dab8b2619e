"""Estimates with their uncertainty, and the intervals that they are given.

Intervals are made so that they cover at their level where plain "estimate +- two errors" does not:
squares near zero, ratios, shares. ``tests/test_coverage.py`` repeats experiments of 20 and 64
blocks and counts: 94 to 96 % of the intervals at 95 % contain the truth, over pools of draws that
are normal, skewed, or of REINFORCE. What remains is 92 to 93 % of those of the variance, and of the
cosine, where draws are very skewed and few; shares near one err to the other side, up to 100 %.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import stats

from gradbench.core.atomic import Floats

LEVEL = 0.95
_SPREAD = 1e-15  # of a mean between bounds: a variance this small is rounding


class Estimate(NamedTuple):
    """A ``value``, its standard error ``se``, an interval ``low`` to ``high``; NaN if unknown."""

    value: float
    se: float
    low: float
    high: float

    def root(self) -> "Estimate":
        """Of the square root of what is not negative; an estimate below zero counts as zero.

        The error is the width of the upper side, sqrt(x + se) - sqrt(x): se / (2 sqrt(x)) where x
        is well above its error, finite elsewhere.
        """
        value = max(self.value, 0.0)
        error = math.sqrt(value + self.se) - math.sqrt(value)
        return Estimate(math.sqrt(value), error, math.sqrt(self.low), math.sqrt(self.high))

    def times(self, factor: float) -> "Estimate":
        """Of a positive multiple, by ``factor``."""
        return Estimate(*(factor * part for part in self))


UNKNOWN = Estimate(*[math.nan] * 4)


def known(value: float) -> Estimate:
    """What has no uncertainty."""
    return Estimate(value, 0.0, value, value)


@cache  # sample complexities ask some hundred times
def quantile(level: float, dof: float) -> float:
    """The half-width of an interval in standard errors that have so many degrees of freedom."""
    return float(stats.t.ppf(0.5 + level / 2.0, max(dof, 1)))


def symmetric(value: float, se: float, level: float, dof: float) -> Estimate:
    """Of a mean, by Student's t."""
    reach = quantile(level, dof) * se
    return Estimate(value, se, value - reach, value + reach)


def logarithmic(value: float, se: float, level: float, dof: float) -> Estimate:
    """Of a positive quantity whose relative error is constant, such as a variance."""
    if not value > 0.0:
        return Estimate(value, se, value, value)
    factor = math.exp(quantile(level, dof) * se / value)
    return Estimate(value, se, value / factor, value * factor)


def score(value: float, at_zero: float, slope: float, reach: float) -> tuple[float, float]:
    """The limits of x, estimated by ``value`` with the variance ``at_zero + slope x`` at x.

    All x with (value - x)^2 <= reach^2 (at_zero + slope x), as Wilson's interval for a share: with
    the variance that x would have and not that of the estimate. Below zero, where x cannot be, it
    is that of zero; an estimate there has the upper limit of zero.
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
    """Of the mean of ``total`` numbers between ``least`` and 1 that have this variance.

    The interval of Agresti and Coull (1998, Approximate is better than "exact" for interval
    estimation of binomial proportions), for as many trials of all or nothing as would tell the mean
    as well. Numbers without spread count as such trials: nothing is known of what is rare. Where
    just a few of them differ from all others, inside the bounds, the interval is too short.
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
    """Of a probability from independent trials."""
    if not total:
        return UNKNOWN
    p = count / total
    return bounded(p, p * (1.0 - p), total, float(stats.norm.ppf(0.5 + level / 2.0)))


def correlation(covariance: Floats) -> float:
    """Of two estimates with this covariance [2, 2]; 0 where one of them has no error."""
    limit = math.sqrt(covariance[0, 0] * covariance[1, 1])
    return float(np.clip(covariance[0, 1] / limit, -1.0, 1.0)) if limit > 0.0 else 0.0


def combined(x: float, y: float, correlation: float) -> float:
    """The error of a sum whose parts have the errors x and y.

    Of distances from an estimate to a limit, this is the method of variance recovery: Zou and
    Donner (2008), Construction of confidence limits about effect measures.
    """
    if math.isinf(x) or math.isinf(y):
        return math.inf
    return math.sqrt(max(x**2 + y**2 + 2.0 * correlation * x * y, 0.0))


def least_difference(a: Estimate, b: Estimate) -> float:
    """How far apart two independent estimates have to be to differ at the level of their intervals.

    By variance recovery: unlike a multiple of standard errors this holds near zero too, for what
    cannot be negative.
    """
    low, high = sorted((a, b))
    return combined(high.value - high.low, low.high - low.value, 0.0)


def ratio(a: Estimate, b: Estimate, correlation: float = 0.0) -> Estimate:
    """Of a / b for two estimates of what is not negative, by variance recovery of logarithms."""
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
    """log(above / below) of what is not negative."""
    return math.log(above / below) if below > 0.0 else math.inf


def fieller(a: float, b: float, covariance: Floats, reach: float) -> tuple[float, float] | None:
    """The limits of -b / a, the positive zero of a + b / x, by Fieller's theorem.

    ``covariance`` [2, 2] is that of the estimates a and b. None where the data allow any ratio, or
    none that is positive; an upper limit may be infinite, a lower one zero.
    """
    # (a + y b)^2 <= reach^2 (Saa + 2 y Sab + y^2 Sbb) for y = 1 / x.
    square = reach**2
    two = b**2 - square * covariance[1, 1]
    one = 2.0 * (a * b - square * covariance[0, 1])
    zero = a**2 - square * covariance[0, 0]
    root = one**2 - 4.0 * two * zero
    if abs(root) < 1e-12 * one**2:  # rounding, where nothing is uncertain
        root = 0.0
    if two <= 0.0 or root < 0.0:
        return None
    ends = ((-one - math.sqrt(root)) / (2.0 * two), (-one + math.sqrt(root)) / (2.0 * two))
    if ends[1] <= 0.0:
        return None
    return 1.0 / ends[1], 1.0 / ends[0] if ends[0] > 0.0 else math.inf


def digits(value: float, se: float) -> str:
    """A value with its standard error in brackets, 0.213(4); an error beginning with 1 has two."""
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
