"""The statistics that flow from measurement to disk: blocks of draws, and how moments merge.

The draws of a cell are numbered 0..N-1 and cut into blocks of consecutive draws; a block keeps, per
layer, sums that are enough for every metric, and no draw. Numpy only.
"""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from gradbench.core.atomic import Counts, Floats

ROUNDING = 1e-12  # a coordinate this small, relative to the largest, has no sign
BINS = 256  # of the histogram of angles, equal on [0, pi]


class LayerBlock(NamedTuple):
    """One block of draws of one layer, its gradient flattened to P coordinates.

    H is the number of `head_sizes` and K that of `averages`, constants of the cell. A group is M
    consecutive draws of the block, for an M in `averages`; its cosine is that between the mean of
    the group and the exact gradient of the layer (0 if one of them is zero), its angle the arccos,
    its agreement the share of coordinates that have the sign of the exact gradient, of those where
    this is not zero. Schema 1 has no signs: NaN.
    """

    # `count` and `index` hide methods of tuple, which nobody needs here.
    count: int  # type: ignore[assignment] # draws n of the block
    mean: Floats  # [P] mean gradient
    m2: Floats  # [P] sum over draws of squared deviations from the mean
    heads: Floats  # [H, P] sums of the first r draws, a row per r in `head_sizes`
    groups: Counts  # [K] complete groups of M draws
    cosine: Floats  # [K] sum over groups of the cosine
    cosine_sq: Floats  # [K] sum over groups of the squared cosine
    histogram: Counts  # [K, BINS] groups by angle
    signs: Floats  # [K] sum over groups of the agreement of signs
    signs_sq: Floats  # [K] sum over groups of its square


class Block(NamedTuple):
    """The block number `index` of a cell, with one entry per layer and one for the whole network.

    That of the network has the groups of all layers together; its moments and heads, which are
    those of the layers in a row, are left empty. Schema 1 has none.
    """

    index: int  # type: ignore[assignment]
    layers: tuple[LayerBlock, ...]
    network: LayerBlock | None = None


def is_finite(block: Block) -> bool:
    """Whether the draws of a block are finite: of others no metric says anything."""
    return all(np.isfinite(layer.mean).all() for layer in block.layers)


class Moments(NamedTuple):
    """Number of draws, their mean `[P]` and sum of squared deviations from it `[P]`."""

    count: int  # type: ignore[assignment]
    mean: Floats
    m2: Floats


def merge(a: Moments | LayerBlock, b: Moments | LayerBlock) -> Moments:
    """The moments of two disjoint sets of draws together; associative to rounding.

    Source: Chan, Golub, LeVeque (1979), Updating formulae and a pairwise algorithm for computing
    sample variances.
    """
    count = a.count + b.count
    share = b.count / count if count else 0.0
    shift = b.mean - a.mean
    return Moments(count, a.mean + share * shift, a.m2 + b.m2 + (a.count * share) * shift**2)


class Blocks(NamedTuple):
    """The moments of n blocks of draws of one layer, or of several in a row, with P coordinates."""

    counts: Floats  # [n] draws
    means: Floats  # [n, P]
    m2: Floats  # [n, P] sums of squared deviations from the means

    @property
    def draws(self) -> int:
        """The number N of draws."""
        return int(self.counts.sum())

    def mean(self) -> Floats:
        """Of all draws [P]."""
        return self.counts @ self.means / self.draws

    def variances(self) -> Floats:
        """Of the coordinates of the mean of all draws [P], from the spread of the draws."""
        between = self.counts @ (self.means - self.mean()) ** 2
        return (self.m2.sum(0) + between) / (self.draws - 1) / self.draws

    def deviations(self) -> Floats:
        """Rows d [n, P] with d'd the covariance of the mean of all draws, from that of the blocks.

        What blocks add at first order to a function of the mean that has the slopes s is d s.
        """
        weights = self.counts / (self.draws * (len(self.counts) - 1))
        return np.sqrt(weights)[:, None] * (self.means - self.mean())

    def times(self, factor: float) -> "Blocks":
        """Of the draws times a positive number."""
        return Blocks(self.counts, self.means * factor, self.m2 * factor * factor)


def together(layers: Sequence[Blocks]) -> Blocks:
    """The same draws of several layers as those of one."""
    _, means, m2 = (np.concatenate(parts, axis=-1) for parts in zip(*layers, strict=True))
    return Blocks(layers[0].counts, means, m2)


def pool(parts: Iterable[Moments | LayerBlock]) -> Moments:
    """The moments of all draws of `parts`, which must not be empty."""
    first, *rest = parts
    return reduce(merge, rest, Moments(first.count, first.mean, first.m2))
