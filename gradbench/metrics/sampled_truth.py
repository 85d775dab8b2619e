"""A sampled gradient, and what follows from it for all cells that are compared with it."""

import math
from collections.abc import Sequence
from typing import NamedTuple, overload

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks, together
from gradbench.metrics.reference_noise import Noise

ZERO = 1e-60  # a gradient this small is zero: relative squares of squares would overflow
_SIGNIFICANT = 3.0  # standard errors of |G|^2 above which a sampled gradient is not zero


class Known(NamedTuple):
    """What is known of the gradient of some layers.

    Attributes:
        norm: |G|, absolute; 0 if it is not significant.
        blocks: the blocks of its draws, in units of |G|.
        noise: the covariance of their mean, likewise.
    """

    norm: float
    blocks: Blocks
    noise: Noise


class SampledTruth(Sequence[Blocks]):
    """The blocks of a sampled gradient for each layer, a sequence of them.

    What follows from them takes time and memory in wide models, and is computed once.
    """

    def __init__(self, blocks: Sequence[Blocks]) -> None:
        self._blocks = tuple(blocks)
        self._known: dict[tuple[int, ...], Known] = {}

    @classmethod
    def of(cls, blocks: Sequence[Blocks]) -> "SampledTruth":
        """Return blocks as such a sequence; one that is it already is returned as it is."""
        return blocks if isinstance(blocks, SampledTruth) else cls(blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, k: int) -> Blocks: ...
    @overload
    def __getitem__(self, k: slice) -> tuple[Blocks, ...]: ...
    def __getitem__(self, k: int | slice) -> Blocks | tuple[Blocks, ...]:
        return self._blocks[k]

    def known(self, layers: tuple[int, ...], gradient: Floats) -> Known:
        """Return what is known of the gradient of some layers as one vector.

        Args:
            layers: the numbers of the layers.
            gradient: [P] the mean of all draws of these layers.
        """
        if layers not in self._known:
            parts = [self._blocks[k] for k in layers]
            blocks = together(parts) if len(parts) > 1 else parts[0]
            noise = Noise.of(blocks)
            norm = known_norm(gradient, noise)
            factor = 1.0 / unit_of(norm)
            self._known[layers] = Known(norm, blocks.times(factor), noise.times(factor))
        return self._known[layers]


def unit_of(norm: float) -> float:
    """Return the unit in which a gradient of this norm is measured."""
    return norm if norm >= ZERO else 1.0


def known_norm(gradient: Floats, noise: Noise) -> float:
    """Return the norm of a sampled gradient [P] without its noise; 0 if it is not significant.

    The test uses the error of the squared norm, 4 G'CG + 2 tr C^2, and not its error at zero: all
    metrics are relative to the norm, so it has to be known as well. A gradient of zero passes the
    test about once in 1e4 simulations of 16 blocks. G'CG from the spread of so few blocks may be
    far too small; for independent coordinates it is better known.
    """
    square = float(gradient @ gradient) - noise.trace
    along = max(noise.spread(gradient) ** 2, float(gradient**2 @ noise.variances))
    error = math.sqrt(max(4.0 * along - 2.0 * noise.square, 0.0))
    return math.sqrt(square) if square > _SIGNIFICANT * error and square > 0.0 else 0.0


def known_with(gradient: Floats, noise: Noise) -> float:
    """Return how many times the draws of a sampled gradient [P] would let ``known_norm`` know it.

    It is infinite where the estimate of |G|^2 is not positive, so that G may be zero.
    """
    square = float(gradient @ gradient) - noise.trace
    if square <= 0:
        return math.inf
    along = max(noise.spread(gradient) ** 2, float(gradient**2 @ noise.variances))
    along = max(along - noise.square, 0.0)  # without what the noise of the gradient adds
    # square = c sqrt(4 along / k + 2 tr C^2 / k^2), solved for k.
    first, second = 2.0 * _SIGNIFICANT**2 * along, 2.0 * _SIGNIFICANT**2 * noise.square
    return (first + math.sqrt(first**2 + square**2 * second)) / square**2
