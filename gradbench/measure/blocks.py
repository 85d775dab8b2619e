"""Blocks of draws: the statistics that measurements are stored as, and how their moments merge.

The draws of a cell are numbered 0..N-1 and cut into blocks of consecutive draws. A block keeps, for
each layer, sums that are enough for every metric, and none of the draws. Needs NumPy only.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cached_property, reduce
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Counts, Floats

ROUNDING = 1e-12  # a coordinate this small, relative to the largest, has no sign
BINS = 256  # of the histogram of angles, equal on [0, pi]


class LayerBlock(NamedTuple):
    """One block of draws of one layer, its gradient flattened to P coordinates.

    The cell has H ``head_sizes`` and K ``averages``, see ``gradbench.measure.draws.Plan``. A group
    consists of M consecutive draws of the block, for an M in ``averages``. Its cosine is taken
    between the mean of the group and the exact gradient of the layer, and is 0 if one of them is
    zero; its angle is the arccos. Its agreement is the share of coordinates that have the sign of
    the exact gradient, among the coordinates where that gradient is not zero. Results of schema 1
    have no signs: these fields are NaN.
    """

    # ``count`` and ``index`` hide methods of tuple, which nobody needs here.
    count: int  # type: ignore[assignment] # number of draws in the block
    mean: Floats  # [P] mean gradient
    m2: Floats  # [P] sum over draws of squared deviations from the mean
    heads: Floats  # [H, P] sums of the first r draws, one row for each r in head_sizes
    groups: Counts  # [K] complete groups of M draws
    cosine: Floats  # [K] sum over groups of the cosine
    cosine_sq: Floats  # [K] sum over groups of the squared cosine
    histogram: Counts  # [K, BINS] groups by angle
    signs: Floats  # [K] sum over groups of the agreement of signs
    signs_sq: Floats  # [K] sum over groups of the squared agreement


class Block(NamedTuple):
    """The block number ``index`` of a cell, with one entry per layer and one for the network.

    The entry of the network has the groups of all layers as one vector. Its moments and heads are
    left empty, because they are those of the layers, concatenated. Results of schema 1 have None.
    """

    index: int  # type: ignore[assignment]
    layers: tuple[LayerBlock, ...]
    network: LayerBlock | None = None


def is_finite(block: Block) -> bool:
    """Return whether all draws of a block are finite; metrics are defined for no others."""
    return all(np.isfinite(layer.mean).all() for layer in block.layers)


class Moments(NamedTuple):
    """The number of draws, their mean [P] and the sum of squared deviations from it [P]."""

    count: int  # type: ignore[assignment]
    mean: Floats
    m2: Floats

    @classmethod
    def of(cls, draws: Floats) -> "Moments":
        """Return the moments of draws [n, P]."""
        mean = draws.mean(0)
        return cls(len(draws), mean, ((draws - mean) ** 2).sum(0))


def merge(a: Moments | LayerBlock, b: Moments | LayerBlock) -> Moments:
    """Return the moments of two disjoint sets of draws together; associative up to rounding.

    Source: Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing
    sample variances.
    """
    count = a.count + b.count
    share = b.count / count if count else 0.0
    shift = b.mean - a.mean
    return Moments(count, a.mean + share * shift, a.m2 + b.m2 + (a.count * share) * shift**2)


class _Fields(NamedTuple):
    counts: Floats  # [n] draws in each block
    means: Floats  # [n, P]
    m2: Floats  # [n, P] sums of squared deviations from the means


class Blocks(_Fields):
    """The moments of n blocks of draws of P coordinates: of one layer, or of several as one.

    What takes time where P is large is computed once.
    """

    @classmethod
    def stack(cls, blocks: Sequence[Moments]) -> "Blocks":
        """Return the moments of several blocks as arrays over the blocks."""
        counts, means, m2 = (np.array(part, np.float64) for part in zip(*blocks, strict=True))
        return cls(counts, means, m2)

    @property
    def draws(self) -> int:
        """The number N of draws."""
        return int(self.counts.sum())

    def mean(self) -> Floats:
        """Return the mean of all draws [P]."""
        return self.counts @ self.means / self.draws

    @cached_property
    def pooled(self) -> Moments:
        """The moments of all draws: those of ``pool``, to the bit, in fewer steps."""
        total = np.cumsum(self.counts)
        if (self.means == self.means[0]).all():  # as those of draws that are all equal
            return Moments(int(total[-1]), self.means[0], np.add.accumulate(self.m2)[-1])
        share = np.divide(self.counts, total, out=np.zeros(len(total)), where=total > 0)
        weights = share[1:] * total[:-1]
        mean, m2 = self.means[0], self.m2[0]
        for k, (part, weight) in enumerate(
            zip(share[1:].tolist(), weights.tolist(), strict=True), 1
        ):
            shift = self.means[k] - mean
            mean = mean + part * shift
            m2 = m2 + self.m2[k] + weight * shift**2
        return Moments(int(total[-1]), mean, m2)

    @cached_property
    def additions(self) -> tuple[Floats, Floats]:
        """What the blocks add to the variance of the mean: the sum [P], and that of squares [P]."""
        parts = self.m2 + self.counts[:, None] * (self.means - self.pooled.mean) ** 2
        parts /= self.draws**2
        return parts.sum(0), (parts**2).sum(0)

    def variances(self) -> Floats:
        """Return the variance of each coordinate of the mean [P], from the spread of the draws."""
        between = self.counts @ (self.means - self.mean()) ** 2
        return (self.m2.sum(0) + between) / (self.draws - 1) / self.draws

    def deviations(self) -> Floats:
        """Return rows d [n, P] such that d'd is the covariance of the mean of all draws.

        It is estimated from the spread of the blocks. A function of the mean with slopes s [P] has
        the first-order contributions d s [n] from the blocks.
        """
        weights = self.counts / (self.draws * (len(self.counts) - 1))
        return np.sqrt(weights)[:, None] * (self.means - self.mean())

    def relative_error(self) -> float:
        """Return sqrt(tr Cov r) / |G| of the mean r of all draws, with |G|^2 = |r|^2 - tr Cov r.

        It is infinite where this estimate of |G|^2 is not positive, so that the gradient G cannot
        be told from zero, and 0 where there is no randomness.
        """
        mean, noise = self.mean(), float(self.variances().sum())
        square = float(mean @ mean)
        if noise <= np.finfo(float).eps ** 2 * square:
            return 0.0
        return math.sqrt(noise / (square - noise)) if square > noise else math.inf

    def times(self, factor: float) -> "Blocks":
        """Return the blocks of the draws times a positive number."""
        return Blocks(self.counts, self.means * factor, self.m2 * factor * factor)


def together(layers: Sequence[Blocks]) -> Blocks:
    """Return the blocks of several layers, which are of the same draws, as those of one layer."""
    _, means, m2 = (np.concatenate(parts, axis=-1) for parts in zip(*layers, strict=True))
    return Blocks(layers[0].counts, means, m2)


def pool(parts: Iterable[Moments | LayerBlock]) -> Moments:
    """Return the moments of all draws of ``parts``, which must not be empty."""
    first, *rest = parts
    return reduce(merge, rest, Moments(first.count, first.mean, first.m2))
