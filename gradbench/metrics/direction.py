"""The component of the mean draw along the exact gradient, and across it."""

import math
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.metrics.accuracy import Accuracy, _blurred, _deviations, _squared
from gradbench.metrics.intervals import (
    LEVEL,
    UNKNOWN,
    Estimate,
    correlation,
    known,
    ratio,
    symmetric,
)
from gradbench.metrics.measurement import Sample


class Direction(NamedTuple):
    """What the mean of a draw says beyond bias and variance, in units of |G|."""

    descent: Estimate  # E g.G / |G|^2
    snr: Estimate  # |E g| / sqrt(V)
    scale_free_bias: Estimate  # min over c of |c E g - G| / |G|


def _is_steady(accuracy: Accuracy) -> bool:
    """Whether all draws were equal."""
    noise = accuracy.blur.shared(accuracy.blur)[1, 1] if accuracy.blur else 0.0
    return bool(accuracy.covariance[1, 1] - noise == 0.0)


def direction_of(sample: Sample, accuracy: Accuracy, level: float = LEVEL) -> Direction:
    """Expected descent, signal to noise and scale-free bias of one draw."""
    if sample.moments is not None or _is_steady(accuracy):
        mean = sample.moments[0] if sample.moments is not None else sample.means[0]
        return _known_direction(sample, mean, math.sqrt(accuracy.variance), level)
    if math.isnan(accuracy.covariance[0, 0]):
        return Direction(UNKNOWN, UNKNOWN, UNKNOWN)
    counts, means = sample.counts, sample.means
    draws, dof = counts.sum(), len(counts) - 1
    origin = np.zeros_like(sample.direction)
    unit, length = _unit(sample)
    projected = means @ unit
    mean_along = float(projected @ counts / draws)
    spread = float((projected - mean_along) ** 2 @ counts) / dof  # variance of g.G / |G|^2
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
    shared = np.sqrt(counts) * (projected - mean_along) @ part.influence[:, 0] / (draws * dof)
    shared *= 2.0 * mean_along * part.shrinkage
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
    dof = len(sample.counts) - 1
    if sample.noise is not None:
        se = math.hypot(se, sample.noise.spread(mean - 2.0 * value * sample.direction))
        dof = min(dof or sample.noise.dof, sample.noise.dof)
    return symmetric(value, se, level, dof)


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
    dof = max(part.dof, 1)
    if sample.noise is not None:
        # Noise of the reference turns one into the other.
        unit, length = _unit(sample)
        noise = sample.noise.turned(unit, value / length)
        means = sample.means - np.outer(sample.means @ unit, unit)
        both = noise.shared(_deviations(sample.counts, means)) if len(part.counts) else 0.0
        part = _blurred(part, mean, noise, both)
        se = math.hypot(se, sample.noise.spread(mean) / length)
        assert part.blur is not None
        shared -= float(part.blur.influence[:, 0] @ part.blur.influence[:, 0])
        dof = part.dof
    across, square = part.squared_bias(level), _square(symmetric(value, se, level, dof))
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
