"""The component of the mean draw along the exact gradient, and orthogonal to it."""

import math
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.metrics.accuracy import Accuracy
from gradbench.metrics.estimation import deviations_of, squared_distance, with_reference_noise
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
    """Metrics of the mean draw E g beyond its bias, in units of |G|."""

    descent: Estimate  # E g.G / |G|^2
    snr: Estimate  # |E g| / sqrt(V)
    scale_free_bias: Estimate  # min over c of |c E g - G| / |G|


def _is_steady(accuracy: Accuracy) -> bool:
    """Return whether all draws were equal."""
    effect = accuracy.reference_noise
    noise = effect.shared(effect)[1, 1] if effect else 0.0
    return bool(accuracy.covariance[1, 1] - noise == 0.0)


def direction_of(sample: Sample, accuracy: Accuracy, level: float = LEVEL) -> Direction:
    """Return expected descent, signal-to-noise ratio and scale-free bias of one draw."""
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

    signal = squared_distance(counts, means, sample.blocks.m2, origin)
    snr = ratio(
        signal.squared_bias(level),
        signal.variance_of_draw(level),
        correlation(signal.covariance),
    ).root()

    # Blocks do not keep the variance of the part orthogonal to G: it comes from their means.
    rest = means - np.outer(projected, unit)
    part = squared_distance(counts, rest, None, origin)
    shared = np.sqrt(counts) * (projected - mean_along) @ part.influence[:, 0] / (draws * dof)
    shared *= 2.0 * mean_along * part.shrinkage
    mean = counts @ rest / draws
    descent = _descent(sample, mean + mean_along * unit, length * mean_along, length * se, level)
    rows = deviations_of(counts, rest)
    sine = _sine(sample, part, mean, rows, (mean_along, se), shared, level)
    return Direction(descent, snr, sine)


def known_direction(accuracy: Accuracy, level: float = LEVEL) -> Direction:
    """Return the same where a theorem says that E g = G: only V is not known."""
    variance = accuracy.variance_of_draw(level)
    snr = ratio(known(1.0), variance).root() if variance.value else known(math.inf)
    return Direction(known(1.0), snr, known(0.0))


def _unit(sample: Sample) -> tuple[Floats, float]:
    """Return the unit vector [P] along the reference, and its length in units of |G|."""
    length = 1.0 if sample.noise is None else float(np.linalg.norm(sample.direction))
    return sample.direction / length, length


def _descent(sample: Sample, mean: Floats, value: float, se: float, level: float) -> Estimate:
    """Return E g.G / |G|^2; ``se`` is the part of its error that comes from the draws."""
    dof = len(sample.counts) - 1
    if sample.noise is not None:
        se = math.hypot(se, sample.noise.spread(mean - 2.0 * value * sample.direction))
        dof = min(dof or sample.noise.dof, sample.noise.dof)
    return symmetric(value, se, level, dof)


def _sine(
    sample: Sample,
    part: Accuracy,
    mean: Floats,
    rows: Floats,
    along: tuple[float, float],
    shared: float,
    level: float,
) -> Estimate:
    """Return the sine of the angle between the mean draw E g and G.

    Args:
        sample: the draws.
        part: the accuracy of the component of the draws orthogonal to G.
        mean: [P] the mean of this component.
        rows: [n, P] its ``deviations_of``; of no rows where it is known.
        along: the component of the mean draw along G, and its standard error.
        shared: the covariance of the squares of both components.
        level: the level of the interval.
    """
    value, se = along
    dof = max(part.dof, 1)
    if sample.noise is not None:
        # Noise of the reference turns one component into the other.
        unit, length = _unit(sample)
        noise = sample.noise.turned(unit, value / length)
        both = noise.shared(rows)
        part = with_reference_noise(part, mean, noise, both)
        se = math.hypot(se, sample.noise.spread(mean) / length)
        assert part.reference_noise is not None
        influence = part.reference_noise.influence[:, 0]
        shared -= float(influence @ influence)
        dof = part.dof
    across, square = part.squared_bias(level), _square(symmetric(value, se, level, dof))
    together = np.array([[across.se**2, shared], [shared, square.se**2]])
    tangent2 = ratio(across, square, correlation(together))
    sine2 = [1.0 if math.isinf(x) else x / (1.0 + x) for x in (tangent2.low, tangent2.high)]
    value = tangent2.value / (1.0 + tangent2.value)
    se = tangent2.se / (1.0 + tangent2.value) ** 2 if across.value > 0.0 else sine2[1] / 2.0
    return Estimate(value, se, *sine2).root()


def _known_direction(sample: Sample, mean: Floats, scatter: float, level: float) -> Direction:
    """Return the same for draws whose ``mean`` [P] and standard deviation ``scatter`` are known."""
    unit, stretch = _unit(sample)
    along = float(mean @ unit)
    length = float(np.linalg.norm(mean))
    rest = mean - along * unit
    across = float(np.linalg.norm(rest))
    descent, sine = known(along), known(across / length if length > 0.0 else 1.0)
    if sample.noise is not None and length > 0.0:
        descent = _descent(sample, mean, stretch * along, 0.0, level)
        part = Accuracy(across**2, 0.0, np.zeros((2, 2)))
        rows = np.zeros((0, len(rest)))
        sine = _sine(sample, part, rest, rows, (along, 0.0), 0.0, level)
    return Direction(descent, known(length / scatter if scatter > 0.0 else math.inf), sine)


def _square(x: Estimate) -> Estimate:
    """Return the estimate of x^2."""
    limits = sorted([x.low**2, x.high**2])
    low = 0.0 if x.low < 0.0 < x.high else limits[0]
    return Estimate(x.value**2, 2.0 * abs(x.value) * x.se, low, limits[1])
