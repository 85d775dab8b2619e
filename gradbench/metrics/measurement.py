"""What was measured of an estimator in one place, layer by layer and as a whole."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import BINS, Block, Blocks, LayerBlock, together
from gradbench.metrics.reference_noise import Noise

KEYS = ["problem", "replicate", "checkpoint", "layer", "estimator"]
NETWORK = "network"  # the layer of all layers together
_ZERO = 1e-60  # a gradient this small is zero: relative squares of squares would overflow
_TOLD = 3.0  # standard errors of |G|^2 above which a sampled gradient is told from zero


class Measurement(NamedTuple):
    """The stored measurement of one estimator at one checkpoint, the input of every function here.

    ``problem``, ``replicate``, ``checkpoint`` and ``estimator`` say of what, ``layer_names`` name
    its layers, ``blocks`` are of its draws.

    ``gradient`` holds the exact gradient of each layer, flattened to [P]. ``averages`` are the M up
    to ``block_size`` that the blocks hold cosine sums for; ``head_sizes`` the rows of their heads.
    ``long_averages`` are the M above ``block_size`` to report; each must be a multiple of it or
    leave a remainder in ``head_sizes``. ``info`` (loss, width, ...) becomes columns of the frames.
    ``moments`` are the exact mean and variance [P] of a draw of each layer, where they are known:
    bias and variance then come from them, without error, and the directions (cosine, signs, share
    of descents) from the blocks. ``cost`` is what a draw costs: "seconds", "evaluations".
    ``reference`` holds, of a gradient that is itself the mean of draws, their blocks for each layer
    (``exact.Reference.blocks``): every metric is then corrected for their noise, and carries it in
    its interval. They must be independent of the draws of the estimator.
    """

    problem: str
    replicate: int
    checkpoint: str | int
    estimator: str
    layer_names: Sequence[str]
    blocks: Sequence[Block]
    gradient: Sequence[Floats]
    averages: Sequence[int]
    head_sizes: Sequence[int]
    block_size: int
    long_averages: Sequence[int] = ()
    info: Mapping[str, object] = {}
    moments: Sequence[tuple[Floats, Floats]] | None = None
    cost: Mapping[str, float] = {}
    reference: Sequence[Blocks] | None = None

    @classmethod
    def stored(
        cls,
        place: tuple[str, int, str],
        estimator: str,
        meta: Mapping[str, Any],
        blocks: Sequence[Block],
        gradient: Sequence[Floats],
        **more: Any,
    ) -> "Measurement":
        """From the blocks of a cell on disk and its constants ``meta``, see ``gradbench.shards``.

        ``place`` is its problem, replicate and checkpoint; ``more`` are the fields with a default.
        """
        return cls(
            *place,
            estimator=estimator,
            layer_names=meta["layer_names"],
            blocks=blocks,
            gradient=gradient,
            averages=meta["averages"],
            head_sizes=meta["head_sizes"],
            block_size=meta["block"],
            long_averages=meta["larger"],
            **more,
        )

    @property
    def place(self) -> tuple[str, int, str | int]:
        """Problem, replicate and checkpoint: what estimators are compared at."""
        return self.problem, self.replicate, self.checkpoint

    def average_sizes(self) -> list[int]:
        """The M at which directions are known."""
        return sorted({*self.averages, *self.long_averages})


class Sample(NamedTuple):
    """The draws of one layer, or of the network, in units of |G| (``norm``, absolute).

    ``counts`` [n], ``means`` [n, P] and ``m2`` [n, P] are those of the blocks; ``direction`` [P] is
    G / |G|, zero where G is; ``moments`` the exact mean and variance [P] of a draw, or None.

    Of a sampled gradient r, ``reference`` are the blocks and ``noise`` the covariance of r. |G|^2
    is then the estimate |r|^2 - tr Cov r, so that the ``direction``, r / |G|, is longer than one;
    0 where it is not told from zero.
    """

    name: str
    norm: float
    direction: Floats
    counts: Floats
    means: Floats
    m2: Floats
    parts: Sequence[LayerBlock]
    moments: tuple[Floats, Floats] | None
    reference: Blocks | None = None
    noise: Noise | None = None

    @property
    def draws(self) -> int:
        """The number N of draws."""
        return int(self.counts.sum())

    @property
    def zero(self) -> bool:
        """Whether the gradient is zero as far as is known: nothing relative to it can be told."""
        return self.norm < _ZERO


def samples(cell: Measurement) -> Iterator[Sample]:
    """The layers of a cell in their order and, if there are several, the network.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    blocks = sorted(cell.blocks, key=lambda block: block.index)
    if not blocks or [block.index for block in blocks] != list(range(len(blocks))):
        raise GradbenchError(
            f"blocks {[block.index for block in blocks][:8]} of {cell.problem}/{cell.replicate}/"
            f"{cell.checkpoint}/{cell.estimator} are not numbered 0, 1, 2, ...; run the suite again"
        )
    for n, name in enumerate(cell.layer_names):
        moments = cell.moments[n] if cell.moments is not None else None
        reference = cell.reference[n] if cell.reference is not None else None
        parts = [block.layers[n] for block in blocks]
        yield _sample(name, cell.gradient[n], parts, moments, reference)
    if len(cell.layer_names) > 1:
        whole = None
        if cell.moments is not None:
            mean, variance = (np.concatenate(parts) for parts in zip(*cell.moments, strict=True))
            whole = mean, variance
        gradient = np.concatenate([np.ravel(layer) for layer in cell.gradient])
        reference = together(cell.reference) if cell.reference is not None else None
        yield _sample(NETWORK, gradient, list(map(_together, blocks)), whole, reference)


def known_norm(gradient: Floats, noise: Noise) -> float:
    """The norm of a sampled gradient [P], its noise taken off; 0 where it is not told from zero.

    By the error of its square, 4 G'CG + 2 tr C^2, and not by that at zero: a norm that is told has
    to be known too, as all is relative to it. So zero is hardly ever told from itself: once in 1e4
    simulations of 16 blocks. G'CG from the spread of so few may be far too small; that of
    independent coordinates is better known.
    """
    square = float(gradient @ gradient) - noise.trace
    along = max(noise.spread(gradient) ** 2, float(gradient**2 @ noise.variances))
    error = math.sqrt(max(4.0 * along - 2.0 * noise.square, 0.0))
    return math.sqrt(square) if square > _TOLD * error and square > 0.0 else 0.0


def _sample(
    name: str,
    gradient: Floats,
    parts: Sequence[LayerBlock],
    moments: tuple[Floats, Floats] | None,
    reference: Blocks | None,
) -> Sample:
    gradient = np.asarray(gradient, np.float64).ravel()
    norm = float(np.linalg.norm(gradient))
    if reference is not None:
        noise = Noise.of(reference)
        norm = known_norm(gradient, noise)
    unit = norm if norm >= _ZERO else 1.0
    reference = reference.times(1.0 / unit) if reference is not None else None
    return Sample(
        name,
        norm,
        gradient / unit,
        np.array([part.count for part in parts], np.float64),
        np.stack([np.asarray(part.mean, np.float64) for part in parts]) / unit,
        np.stack([np.asarray(part.m2, np.float64) for part in parts]) / unit / unit,
        parts,
        None if moments is None else (moments[0] / unit, moments[1] / unit / unit),
        reference,
        None if reference is None else Noise.of(reference),
    )


def _together(block: Block) -> LayerBlock:
    """All layers of a block as one; where the groups of the network were not kept, there are none.

    Only a block of schema 1 has none.
    """
    first = block.layers[0]
    groups = block.network
    if groups is None:
        nothing = np.zeros_like(first.groups)
        unknown = np.full(len(nothing), np.nan)
        groups = first._replace(
            groups=nothing,
            cosine=unknown,
            cosine_sq=unknown,
            histogram=np.zeros((len(nothing), BINS), np.int64),
            signs=unknown,
            signs_sq=unknown,
        )
    return groups._replace(
        mean=np.concatenate([layer.mean for layer in block.layers]),
        m2=np.concatenate([layer.m2 for layer in block.layers]),
        heads=np.concatenate([layer.heads for layer in block.layers], axis=1),
    )
