"""The stored measurement of one estimator at one checkpoint, layer by layer and as a whole."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import Block, Blocks
from gradbench.measure.stack import LayerStack, Stack
from gradbench.metrics.reference_noise import Noise
from gradbench.metrics.sampled_truth import ZERO, SampledTruth, unit_of

KEYS = ["problem", "replicate", "checkpoint", "layer", "estimator"]
NETWORK = "network"  # the layer of all layers together
OUTPUT = "output"  # the layer of the objective, the last one of a network
HIDDEN = "hidden layers"  # the layer of all layers together that feed a stochastic unit


class Measurement(NamedTuple):
    """The stored measurement of one estimator at one checkpoint, the input of every function here.

    Attributes:
        problem: the name of the problem.
        replicate: the number of the replicate.
        checkpoint: the checkpoint of its training.
        estimator: the canonical text of the estimator.
        layer_names: the names of the layers.
        blocks: the blocks of the draws.
        gradient: the exact gradient of each layer, flattened to [P].
        averages: the M up to ``block_size`` whose groups the blocks have summed.
        head_sizes: the numbers of draws that the heads of the blocks are sums of.
        block_size: draws per block.
        long_averages: the M above ``block_size`` to report; each is a multiple of it, or leaves a
            remainder in ``head_sizes``.
        info: further columns of the frames, such as loss and width.
        moments: the exact mean and variance [P] of a draw of each layer, if known: bias and
            variance then come from them, without error, and directions from the blocks.
        cost: what a draw costs: "evaluations", and times as ``gradbench.measure.timing.DrawTime``
            has them: "seconds", "spread", "repeats", "latency", "latency_spread".
        reference: if the gradient is itself the mean of draws, their blocks for each layer. Every
            metric is then corrected for their noise, which its interval includes. These draws must
            be independent of those of the estimator.
        claim: what the estimator is certified to be exact for, as "unbiased"; empty if not known.
        readout: the layers whose parameters reach no stochastic unit, so that their gradient is
            exact at given states. All others are hidden layers.
        known: the metrics of its layers and of groups of them, where they were computed before the
            draws were let go, see ``gradbench.metrics.layers.settled``; else None.
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
    cost: Mapping[str, Any] = {}
    reference: Sequence[Blocks] | None = None
    claim: str = ""
    readout: Sequence[str] = (OUTPUT,)
    known: Mapping[str, Any] | None = None

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
        """Return the measurement of a cell on disk.

        Args:
            place: its problem, replicate and checkpoint.
            estimator: the canonical text of its estimator.
            meta: its constants, as ``gradbench.results.shards`` has them.
            blocks: its blocks.
            gradient: the exact gradient of each layer.
            more: the fields that have a default.
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
        """Problem, replicate and checkpoint, where estimators are compared."""
        return self.problem, self.replicate, self.checkpoint

    @property
    def hidden(self) -> tuple[str, ...]:
        """The names of the hidden layers."""
        return tuple(name for name in self.layer_names if name not in self.readout)

    def average_sizes(self) -> list[int]:
        """Return the M at which directions are known."""
        return sorted({*self.averages, *self.long_averages})


class Sample(NamedTuple):
    """The draws of one layer, or of the network, in units of |G|.

    If the gradient is itself sampled, as r, then |G|^2 is the estimate |r|^2 - tr Cov r, or 0 where
    that is not significant; r / |G| is longer than one.

    Attributes:
        name: the name of the layer.
        norm: |G|, absolute.
        direction: [P] G / |G|, or r / |G|; zero where G is.
        blocks: the moments of its n blocks of draws.
        parts: the blocks of this layer as they were stored, in the units of the results, or None.
        moments: the exact mean and variance [P] of a draw, or None.
        reference: the blocks of a sampled gradient, or None.
        noise: the covariance of a sampled gradient, or None.
    """

    name: str
    norm: float
    direction: Floats
    blocks: Blocks
    parts: LayerStack | None
    moments: tuple[Floats, Floats] | None
    reference: Blocks | None = None
    noise: Noise | None = None

    @property
    def draws(self) -> int:
        """The number N of draws."""
        return int(self.counts.sum())

    @property
    def zero(self) -> bool:
        """True if the gradient cannot be told from zero: then no metric is known."""
        return self.norm < ZERO

    @property
    def counts(self) -> Floats:
        """[n] the number of draws of each block."""
        return self.blocks.counts

    @property
    def means(self) -> Floats:
        """[n, P] the means of the blocks."""
        return self.blocks.means

    def without_draws(self) -> "Sample":
        """Return the same without arrays over coordinates."""
        none: dict[str, Any] = dict.fromkeys(("parts", "moments", "reference", "noise"))
        blocks = Blocks(self.counts, *[np.zeros((0, 0))] * 2)
        return self._replace(direction=np.zeros(0), blocks=blocks, **none)

    def mean_and_variance(self) -> tuple[Floats, Floats]:
        """Return the mean of a draw [P], and the variance [P] of its distance from G."""
        if self.moments is not None:
            mean, variances = self.moments[0], np.zeros_like(self.direction)
        else:
            _, mean, squares = self.blocks.pooled
            variances = squares / max(self.draws - 1, 1) / self.draws
        return mean, variances if self.noise is None else variances + self.noise.variances


def samples(cell: Measurement) -> Iterator[Sample]:
    """Yield the draws of each layer of a cell and, if there are several, of the network.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    stack = _in_order(cell)
    for n, name in enumerate(cell.layer_names):
        moments = cell.moments[n] if cell.moments is not None else None
        yield _sample(name, cell, (n,), cell.gradient[n], stack.layers[n], moments)
    if len(cell.layer_names) > 1:
        yield _joint(cell, stack, range(len(cell.layer_names)), NETWORK, stack.network)


def hidden_sample(cell: Measurement) -> Sample | None:
    """Return the draws of all hidden layers as those of one layer, without groups.

    None where there are fewer than two of them, or no others.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    names = list(cell.layer_names)
    hidden = [names.index(name) for name in cell.hidden]
    if len(hidden) in (0, 1, len(names)) or HIDDEN in names:
        return None
    return _joint(cell, _in_order(cell), hidden, HIDDEN, None)


def _joint(
    cell: Measurement, stack: Stack, layers: Sequence[int], name: str, groups: LayerStack | None
) -> Sample:
    """Return the draws of several layers as those of one, with the groups of all together."""
    moments = None
    if cell.moments is not None:
        both = zip(*(cell.moments[k] for k in layers), strict=True)
        mean, variance = (np.concatenate(part) for part in both)
        moments = mean, variance
    gradient = np.concatenate([np.ravel(cell.gradient[k]) for k in layers])
    parts = [stack.layers[k] for k in layers]
    if groups is None:  # blocks of schema 1 did not keep those of the network
        groups = parts[0]._replace(groups=np.zeros_like(parts[0].groups))
    joined = groups._replace(
        mean=np.concatenate([layer.mean for layer in parts], axis=1),
        m2=np.concatenate([layer.m2 for layer in parts], axis=1),
        heads=np.concatenate([layer.heads for layer in parts], axis=2),
    )
    return _sample(name, cell, tuple(layers), gradient, joined, moments)


def _in_order(cell: Measurement) -> Stack:
    """Return the blocks of a cell in their order.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    indices = (
        cell.blocks.numbers if isinstance(cell.blocks, Stack) else [b.index for b in cell.blocks]
    )
    order = np.argsort(indices, kind="stable")
    numbers = [int(indices[k]) for k in order]
    if not numbers or numbers != list(range(len(numbers))):
        raise GradbenchError(
            f"blocks {numbers[:8]} of {cell.problem}/{cell.replicate}/"
            f"{cell.checkpoint}/{cell.estimator} are not numbered 0, 1, 2, ...; run the suite again"
        )
    if isinstance(cell.blocks, Stack) and (order == numbers).all():
        return cell.blocks
    return Stack.of([cell.blocks[k] for k in order])


def _sample(
    name: str,
    cell: Measurement,
    layers: tuple[int, ...],
    gradient: Floats,
    parts: LayerStack,
    moments: tuple[Floats, Floats] | None,
) -> Sample:
    gradient = np.asarray(gradient, np.float64).ravel()
    norm, reference, noise = float(np.linalg.norm(gradient)), None, None
    if cell.reference is not None:
        norm, reference, noise = SampledTruth.of(cell.reference).known(layers, gradient)
    unit = unit_of(norm)
    return Sample(
        name,
        norm,
        gradient / unit,
        Blocks(
            parts.count.astype(np.float64),
            np.asarray(parts.mean, np.float64) / unit,
            np.asarray(parts.m2, np.float64) / unit / unit,
        ),
        parts,
        None if moments is None else (moments[0] / unit, moments[1] / unit / unit),
        reference,
        noise,
    )
