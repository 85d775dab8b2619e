"""Blocks of a cell as arrays over the blocks, as results are read; needs NumPy only."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, reduce
from typing import Any, NamedTuple, overload

import numpy as np

from gradbench.core.atomic import Counts, Floats
from gradbench.measure.blocks import BINS, Block, LayerBlock


class Histograms(NamedTuple):
    """The histograms of n blocks, which are large: they are read when they are asked for.

    ``blocks()`` returns them [n, K, BINS], ``total()`` their sum over the blocks [K, BINS].
    """

    blocks: Callable[[], Counts]
    total: Callable[[], Counts]

    @classmethod
    def join(cls, parts: Sequence["Histograms"]) -> "Histograms":
        """Return those of several stacks as one."""
        return cls(
            lambda: np.concatenate([part.blocks() for part in parts]),
            cache(lambda: reduce(np.add, [part.total() for part in parts])),
        )


class LayerStack(NamedTuple):
    """The fields of ``LayerBlock`` of n blocks of one layer, each with a leading axis of n."""

    count: Counts  # type: ignore[assignment] # [n]
    mean: Floats  # [n, P]
    m2: Floats  # [n, P]
    heads: Floats  # [n, H, P]
    groups: Counts  # [n, K]
    cosine: Floats  # [n, K]
    cosine_sq: Floats  # [n, K]
    histogram: Histograms  # [n, K, BINS]
    signs: Floats  # [n, K]
    signs_sq: Floats  # [n, K]

    @classmethod
    def of(cls, blocks: Sequence[LayerBlock]) -> "LayerStack":
        """Return blocks of equal sizes as arrays."""
        fields = zip(LayerBlock._fields, zip(*blocks, strict=True), strict=True)
        arrays = {name: np.stack([np.asarray(part) for part in parts]) for name, parts in fields}
        histogram = arrays.pop("histogram")
        found = Histograms(lambda: histogram, cache(lambda: histogram.sum(0)))
        return cls(histogram=found, **arrays)

    @classmethod
    def join(cls, parts: Sequence["LayerStack"]) -> "LayerStack":
        """Return several stacks as one."""
        fields = dict(zip(cls._fields, zip(*parts, strict=True), strict=True))
        histogram = Histograms.join(fields.pop("histogram"))
        return cls(histogram=histogram, **{name: np.concatenate(x) for name, x in fields.items()})

    def split(self) -> list[LayerBlock]:
        """Return the blocks."""
        fields: list[Any] = [*self]
        fields[0] = self.count.tolist()
        fields[self._fields.index("histogram")] = self.histogram.blocks()
        return [LayerBlock(*row) for row in zip(*fields, strict=True)]


class Stack(Sequence[Block]):
    """Blocks of a cell as arrays over the blocks; as a sequence, it is that of the blocks.

    Attributes:
        numbers: [n] the numbers of the blocks.
        layers: the blocks of each layer.
        network: those of the network, None where no block has kept it.
    """

    def __init__(
        self, numbers: Counts, layers: Sequence[LayerStack], network: LayerStack | None
    ) -> None:
        self.numbers, self.layers, self.network = numbers, tuple(layers), network

    @classmethod
    def of(cls, blocks: Sequence[Block]) -> "Stack":
        """Return blocks of equal sizes as arrays; a network that just some of them have has NaN."""
        if isinstance(blocks, Stack):
            return blocks
        layers = [LayerStack.of(layer) for layer in zip(*(b.layers for b in blocks), strict=True)]
        networks = None
        if any(block.network is not None for block in blocks):
            networks = LayerStack.of(
                [block.network or ungrouped(block.layers[0]) for block in blocks]
            )
        return cls(np.array([block.index for block in blocks]), layers, networks)

    @classmethod
    def join(cls, parts: Sequence["Stack"]) -> "Stack":
        """Return several stacks, of equal sizes and all with a network or none, as one."""
        if len(parts) == 1:
            return parts[0]
        layers = map(LayerStack.join, zip(*(part.layers for part in parts), strict=True))
        networks = [part.network for part in parts if part.network is not None]
        network = LayerStack.join(networks) if networks else None
        return cls(np.concatenate([part.numbers for part in parts]), tuple(layers), network)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[Block]:
        layers = zip(*(layer.split() for layer in self.layers), strict=True)
        networks = [None] * len(self) if self.network is None else self.network.split()
        return map(Block, self.numbers.tolist(), layers, networks)

    @overload
    def __getitem__(self, k: int) -> Block: ...
    @overload
    def __getitem__(self, k: slice) -> list[Block]: ...
    def __getitem__(self, k: int | slice) -> Block | list[Block]:
        return list(self)[k]


def ungrouped(layer: LayerBlock) -> LayerBlock:
    """Return the entry of a network whose groups were not kept, as in blocks of schema 1."""
    groups = np.zeros_like(layer.groups)
    nothing, unknown = np.zeros(0), np.full(len(groups), np.nan)
    histogram = np.zeros((len(groups), BINS), np.int64)
    return LayerBlock(
        layer.count,
        nothing,
        nothing,
        np.zeros((len(layer.heads), 0)),
        groups,
        unknown,
        unknown,
        histogram,
        unknown,
        unknown,
    )
