"""The directions of means of M draws: cosine, agreement of signs and share of descents."""

import math
from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradbench.core.atomic import Counts, Floats
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import BINS, ROUNDING
from gradbench.measure.stack import LayerStack
from gradbench.metrics.intervals import (
    LEVEL,
    UNKNOWN,
    Estimate,
    bounded,
    combined,
    known,
    quantile,
    share,
)
from gradbench.metrics.measurement import Measurement, Sample
from gradbench.metrics.reference_noise import Noise

BAND = (0.15, 0.85)  # of the cosine
FEW = 16  # groups, below which their spread is not known: a mean over them has no interval
_SURE = 3.0  # standard errors from zero beyond which a sampled reference tells a sign


class Directions(NamedTuple):
    """The directions of the mean of M draws, over groups of M draws; NaN without a group.

    Below ``FEW`` groups the cosine and the share of signs have no interval: 8 groups of one network
    had a coverage of 60 % in place of 95 %.

    Each group was compared with the reference. If the reference is sampled, cosines are scaled to
    the estimate of |G|, and carry its noise. The intervals of the shares of signs and of descents
    are widened by the coordinates whose sign, and the groups whose descent, it does not tell.

    Attributes:
        groups: how many groups there are.
        cosine: the mean cosine.
        lower: the 15 % quantile of the cosine, and its standard error.
        upper: the 85 % quantile of the cosine, and its standard error.
        signs: the share of coordinates that have the sign of G.
        descent_probability: the share of groups that descend, which have a positive cosine.
    """

    groups: int
    cosine: Estimate
    lower: tuple[float, float]
    upper: tuple[float, float]
    signs: Estimate
    descent_probability: Estimate


NO_DIRECTIONS = Directions(0, UNKNOWN, (math.nan, math.nan), (math.nan, math.nan), UNKNOWN, UNKNOWN)


class _Sums(NamedTuple):
    groups: int
    cosine: float
    cosine_sq: float
    histogram: Counts  # of angles [BINS]
    signs: float
    signs_sq: float


def directions_of(
    cell: Measurement, sample: Sample, average: int, steady: bool, level: float = LEVEL
) -> Directions:
    """Return the directions of the mean of M draws.

    Args:
        cell: a measurement.
        sample: the draws of one of its layers.
        average: M.
        steady: whether all draws are equal.
        level: the level of intervals.

    Raises:
        GradbenchError: the blocks do not keep what this M needs.
    """
    parts = sample.parts
    if parts is not None and average in cell.averages:
        sums = _stored(parts, list(cell.averages).index(average))
    elif parts is not None and average in cell.long_averages:
        sums = _summed(sample, _long_means(cell, sample, parts, average))
    else:
        raise GradbenchError(
            f"the results of {cell.problem!r} do not keep directions at M = {average}; take one of "
            f"{', '.join(map(str, cell.average_sizes()))}, or name it in `averages` before the run"
        )
    found = _directions(sums, steady, level)
    if sample.noise is None:
        return found
    return _with_reference_noise(found, sums, sample, sample.noise, average, level)


def _stored(parts: LayerStack, k: int) -> _Sums:
    """Return the sums at the k-th of the averages, over all blocks."""
    cosine, cosine_sq, signs, signs_sq = (
        _total(one[:, k]) for one in (parts.cosine, parts.cosine_sq, parts.signs, parts.signs_sq)
    )
    histogram = parts.histogram.total()[k]
    return _Sums(int(parts.groups[:, k].sum()), cosine, cosine_sq, histogram, signs, signs_sq)


def _total(numbers: Floats) -> float:
    """Return a sum [n] that is made one by one: the same bits on every machine."""
    return float(np.add.accumulate(numbers)[-1] + 0.0)


def _summed(sample: Sample, means: Floats) -> _Sums:
    """Return the sums over groups with these means [K, P]."""
    lengths = np.linalg.norm(means, axis=1)
    cosines = np.divide(
        means @ sample.direction, lengths, out=np.zeros(len(means)), where=lengths > 0
    ).clip(-1.0, 1.0)
    directed = _directed(sample)
    same = (np.sign(means) == np.sign(sample.direction))[:, directed]
    signs = same.sum(1) / max(directed.sum(), 1)
    histogram = np.histogram(np.arccos(cosines), BINS, (0.0, np.pi))[0]
    return _Sums(
        len(means),
        float(cosines.sum()),
        float(cosines @ cosines),
        histogram,
        float(signs.sum()),
        float(signs @ signs),
    )


def _directed(sample: Sample) -> NDArray[np.bool_]:
    """Return which coordinates [P] of the reference have a sign."""
    size = np.abs(sample.direction)
    return size > ROUNDING * size.max(initial=0.0)


def _long_means(cell: Measurement, sample: Sample, parts: LayerStack, average: int) -> Floats:
    """Return the means [K, P] of groups of M draws, up to a positive factor.

    A group is made of whole blocks and, if M leaves a remainder, of the head of the next block.
    """
    whole, rest = divmod(average, cell.block_size)
    if not whole or (rest and rest not in cell.head_sizes):
        raise GradbenchError(
            f"the blocks of {cell.block_size} draws do not keep what the cosine at M = {average} "
            f"needs; name this M before the run, or take a multiple of {cell.block_size}"
        )
    stride = whole + (rest > 0)
    groups = len(parts.count) // stride
    if groups * stride == len(parts.count) and parts.count[-1] < (rest or cell.block_size):
        groups -= 1  # the last block, the only one that can be short, is too short
    means = sample.means[: groups * stride].reshape(groups, stride, sample.means.shape[1])
    sums = means[:, :whole].sum(1) * cell.block_size
    if rest and groups:
        row = list(cell.head_sizes).index(rest)
        sums += parts.heads[whole::stride, row][:groups] / sample.norm
    return sums


def _directions(sums: _Sums, steady: bool, level: float) -> Directions:
    """Return the statistics over groups; they have no errors where all draws are equal."""
    groups = sums.groups
    if not groups:
        return NO_DIRECTIONS
    cosine, signs = sums.cosine / groups, sums.signs / groups
    descends = sums.histogram[: BINS // 2].sum() / groups
    if steady:
        band = (cosine, 0.0)
        return Directions(groups, known(cosine), band, band, known(signs), known(descends))
    chance = share(float(sums.histogram[: BINS // 2].sum()), groups, level)
    lower, upper = _band(sums.histogram) if groups > 1 else [(cosine, math.nan)] * 2
    if groups < FEW:
        few = UNKNOWN._replace(value=cosine), UNKNOWN._replace(value=signs)
        return Directions(groups, few[0], lower, upper, few[1], chance)
    return Directions(
        groups,
        _mean(cosine, sums.cosine_sq, groups, -1.0, level),
        lower,
        upper,
        _mean(signs, sums.signs_sq, groups, 0.0, level),
        chance,
    )


def _with_reference_noise(
    found: Directions, sums: _Sums, sample: Sample, noise: Noise, average: int, level: float
) -> Directions:
    """Return the directions with the noise of the reference in their errors."""
    if not sums.groups:
        return found
    few = math.isnan(found.cosine.low)
    length = float(np.linalg.norm(sample.direction))
    reach = quantile(level, noise.dof)
    se = _cosine_se(found.cosine.value, sample, noise, average)
    value = found.cosine.value * length
    low, high = (
        value + side * combined(length * abs(limit - found.cosine.value), reach * se, 0.0)
        for side, limit in ((-1.0, found.cosine.low), (1.0, found.cosine.high))
    )
    cosine = Estimate(
        value, math.hypot(length * found.cosine.se, se), max(low, -1.0), min(high, 1.0)
    )
    lower, upper = (
        (length * part, math.hypot(length * error, se))
        for part, error in (found.lower, found.upper)
    )
    unsure = np.abs(sample.direction) < _SURE * np.sqrt(noise.variances)
    unknown = float(unsure[_directed(sample)].mean()) if _directed(sample).any() else 0.0
    signs = found.signs._replace(
        low=max(found.signs.low - unknown, 0.0), high=min(found.signs.high + unknown, 1.0)
    )
    # The noise of the reference turns it by at most so much: the error of a group's angle.
    edge = math.asin(min(reach * math.sqrt(noise.largest) / length, 1.0)) / math.pi
    first, last = math.floor(BINS * (0.5 - edge)), math.ceil(BINS * (0.5 + edge))
    least, most = (float(sums.histogram[:end].sum()) for end in (first, last))
    descends = found.descent_probability
    if descends.se == 0.0 and descends.low == descends.high:
        low, high = least / sums.groups, most / sums.groups
    else:
        low = share(least, sums.groups, level).low
        high = share(most, sums.groups, level).high
    if few:
        cosine, signs = (UNKNOWN._replace(value=x.value) for x in (cosine, signs))
    return Directions(
        sums.groups, cosine, lower, upper, signs, descends._replace(low=low, high=high)
    )


def _cosine_se(cosine: float, sample: Sample, noise: Noise, average: int) -> float:
    """Return the error of the mean cosine, before it is scaled, due to noise of the reference.

    The slope is q = E g/|g|, of which the groups tell only the part along the reference. The ratio
    of the rest to this part is taken to be that of normal draws, whose coordinates shrink to m_k /
    (1 + V_k / E|g|^2); this is close to the truth where M is large. For other draws, such as those
    of few values, a quarter of 1 - |q|^2 is added, in a typical direction of the noise.
    """
    if sample.moments is not None:
        mean, variances = sample.moments
    else:
        _, mean, squares = sample.blocks.pooled
        variances = squares / max(sample.draws - 1, 1)
    variances = variances / average
    size = float(mean @ mean + variances.sum())
    toward = mean / (1.0 + variances / size) if size else mean
    length = float(np.linalg.norm(sample.direction))
    unit = sample.direction / length
    along = float(toward @ unit)
    rest = toward - along * unit
    across = float(np.linalg.norm(rest))
    longest = math.sqrt(max(1.0 - cosine**2, 0.0)) / across if across else 0.0
    factor = min(cosine / along, longest) if along * cosine > 0.0 else longest
    left = max(1.0 - cosine**2 - (factor * across) ** 2, 0.0) / 4.0
    typical = left * math.sqrt(noise.square / noise.trace) if noise.trace else 0.0
    return math.hypot(noise.spread(factor * rest + cosine * (1.0 - length**2) * unit), typical)


def _mean(mean: float, squares: float, groups: int, least: float, level: float) -> Estimate:
    """Return the mean over groups of numbers between ``least`` and 1."""
    variance = max(squares / groups - mean**2, 0.0) * groups / (groups - 1)
    return bounded(mean, variance, groups, quantile(level, groups - 1), least)


def _band(histogram: Counts) -> list[tuple[float, float]]:
    """Return the quantiles of ``BAND`` from the counts of angles [BINS], with standard errors.

    The number of groups below a quantile is binomial: the error is half the distance between the
    quantiles one binomial standard deviation to either side. Within a bin angles are interpolated.
    """
    counts = histogram.tolist()  # for so few numbers lists are faster than arrays
    ends = [0, *accumulate(counts)]
    groups, first = ends[-1], bisect_right(ends, 0) - 1
    angles = []
    for middle in BAND:
        reach = math.sqrt(middle * (1.0 - middle) / groups)
        for part in (middle, middle - reach, middle + reach):
            # The cosine falls as the angle grows: its quantile `part` is that of the angle at
            # 1 - part, in the first bin that ends there or beyond and is not empty.
            at = (1.0 - min(max(part, 0.0), 1.0)) * groups
            k = max(bisect_left(ends, at) - 1, first)
            angles.append((k + (at - ends[k]) / counts[k]) * math.pi / len(counts))
    limits = np.cos(angles).reshape(-1, 3).tolist()
    return [(value, (above - below) / 2.0) for value, below, above in limits]
