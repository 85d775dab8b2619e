"""Which inputs each output of a part of a layer reads, and by which weight where it is affine.

A part may have a method ``reads(shape)``, which returns a ``Reads`` for inputs of that shape. Those
of a chain of parts, of a sum and of parts side by side follow from it, and make their flips fast:
``gradbench.models.composed_flips``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.dependence import entrywise

Sizes: TypeAlias = tuple[int, ...]
Weight: TypeAlias = Callable[[Params], Array]


class Window(NamedTuple):
    """What is read along an axis: by output p, ``size`` inputs from p ``stride`` + ``start`` on.

    Positions other than 0, ..., ``used`` - 1 count as zeros.
    """

    size: int
    stride: int
    start: int
    used: int


@dataclass(frozen=True)
class Reads:
    """Which inputs [*inputs] each output [*outputs] of a part reads, shapes [*space, channels].

    There is one of ``windows`` for each axis of space; all channels are read. Without windows, as
    in a dense layer, all outputs read all inputs.

    An affine part has ``weight(theta)``: the weight ``[channels, *sizes, channels below]`` of the
    convolution that it is, ``[outputs, inputs]`` without windows; and ``layer``, the ``Conv`` or
    the ``Dense`` that gives its flips.
    """

    inputs: Sizes
    outputs: Sizes
    windows: tuple[Window, ...] = ()
    weight: Weight | None = None
    layer: Any = None

    @property
    def is_layer(self) -> bool:
        """Whether it is one convolution or dense layer."""
        return self.weight is not None and self.layer is not None

    @property
    def period(self) -> Sizes:
        """The distance along each axis of inputs that no window has in common."""
        return tuple(min(window.size, window.used) for window in self.windows)

    @property
    def colours(self) -> int:
        """The number of sets of inputs of which no window holds two."""
        return prod(self.period) * self.inputs[-1]

    def padded(self, x: Float[Array, "*space channels"]) -> Float[Array, "*padded channels"]:
        """Return all that windows cover, and nothing else."""
        x = x[tuple(slice(window.used) for window in self.windows)]
        pads = [
            (-w.start, (n - 1) * w.stride + w.start + w.size - w.used, 0)
            for n, w in zip(self.outputs, self.windows, strict=False)
        ]
        return jax.lax.pad(x, jnp.zeros((), x.dtype), [*pads, (0, 0, 0)])

    def convolution(self, weight: Array, x: Float[Array, "*inputs"]) -> Float[Array, "*outputs"]:
        """Return what a convolution of this weight makes of its input, without its bias."""
        axes = "HWDT"[: len(self.windows)]
        forms = (f"N{axes}C", f"O{axes}I", f"N{axes}C")
        strides = [window.stride for window in self.windows]
        padded = self.padded(x)[None]
        return jax.lax.conv_general_dilated(
            padded, weight, strides, "VALID", dimension_numbers=forms
        )[0]

    def rows_times(self, rows: Float[Array, "rows outputs"], weight: Array) -> Array:
        """Return ``rows`` times the matrix of an affine part of this weight, [rows, inputs]."""
        if not self.windows:
            return rows @ weight
        dtype = jnp.result_type(rows, weight)
        x = jax.ShapeDtypeStruct(self.inputs, dtype)
        back = jax.linear_transpose(partial(self.convolution, weight.astype(dtype)), x)
        rows = rows.reshape(len(rows), *self.outputs).astype(dtype)
        return jax.vmap(back)(rows)[0].reshape(len(rows), -1)

    def times_columns(self, weight: Array, columns: Float[Array, "inputs columns"]) -> Array:
        """Return the matrix of an affine part of this weight times ``columns``."""
        if not self.windows:
            return weight @ columns
        dtype = jnp.result_type(columns, weight)
        each = columns.T.reshape(-1, *self.inputs).astype(dtype)
        found = jax.vmap(partial(self.convolution, weight.astype(dtype)))(each)
        return found.reshape(len(each), -1).T

    def matrix(self, weight: Array) -> Float[Array, "outputs inputs"]:
        """Return the matrix of an affine part of this weight."""
        if not self.windows:
            return weight
        outputs, inputs = prod(self.outputs), prod(self.inputs)
        if outputs < inputs:
            return self.rows_times(jnp.eye(outputs), weight)
        return self.times_columns(weight, jnp.eye(inputs))


def reads_of(part: Any, shape: Sizes) -> Reads | None:
    """Return the reads of a part for inputs of this shape; None where they are not known."""
    if hasattr(part, "reads"):
        return part.reads(shape)
    kind = "" if hasattr(part, "init") else entrywise(part, shape)
    zero = jnp.zeros((1,) * len(shape))

    def factor() -> Array:
        return (part(zero + 1) - part(zero)).ravel()[0]

    return channelwise(shape, 1, factor if kind == "affine" else None) if kind else None


def channelwise(shape: Sizes, size: int, factor: Callable[[], float | Array] | None) -> Reads:
    """Return the reads of a map of each channel by itself, in windows of ``size`` side by side.

    ``factor()`` is the factor of all inputs, if it is affine.
    """
    *space, channels = shape

    def weight(theta: Params) -> Array:
        assert factor is not None
        one = jnp.eye(channels).reshape(channels, *(1 for _ in space), channels)
        return factor() * jnp.broadcast_to(one, (channels, *(size for _ in space), channels))

    outputs = (*(n // size for n in space), channels)
    windows = tuple(Window(size, size, 0, n // size * size) for n in space)
    return Reads(shape, outputs, windows, weight if factor else None)


def of_entry(entry: int, reads: Reads) -> Reads:
    """Return the reads of a part whose parameters are this entry of those of the whole."""
    own = reads.weight
    return replace(reads, weight=(lambda theta: own(theta[entry])) if own else None)


def after(below: Reads, above: Reads) -> Reads:
    """Return the reads of one part after another, both with the parameters of the whole."""
    parts = (below, above)
    if not (below.windows and above.windows):

        def matrix(one: Array, two: Array) -> Array:
            if below.windows:
                return below.rows_times(two, one)
            return above.times_columns(two, one)

        weight = _weight(parts, matrix)
        return Reads((prod(below.inputs),), above.outputs, (), weight, _layer(parts))
    pairs = list(zip(below.windows, above.windows, strict=True))
    windows = tuple(
        Window(
            b.size + b.stride * (w.size - 1),
            b.stride * w.stride,
            b.start + b.stride * w.start,
            b.used,
        )
        for b, w in pairs
    )

    def product(one: Array, two: Array) -> Array:
        shape = (len(two), *(window.size for window in windows), one.shape[-1])
        whole = jnp.zeros(shape, jnp.result_type(one, two))
        for offset in np.ndindex(*two.shape[1:-1]):
            starts = [b.stride * n for (b, _), n in zip(pairs, offset, strict=True)]
            at = [slice(n, n + b.size) for (b, _), n in zip(pairs, starts, strict=True)]
            whole = whole.at[:, *at].add(jnp.tensordot(two[:, *offset], one, 1))
        return whole

    known = all(map(_zeros_stay, below.windows, above.windows, above.outputs))
    weight = _weight(parts, product) if known else None
    return Reads(below.inputs, above.outputs, windows, weight, _layer(parts, windows))


def _zeros_stay(below: Window, above: Window, outputs: int) -> bool:
    """Return whether what ``above`` takes as zeros would be zeros of ``below`` too, continued."""
    end = (outputs - 1) * above.stride + above.start + above.size
    before = above.start >= 0 or below.start + below.size <= below.stride
    return before and (end <= above.used or above.used * below.stride + below.start >= below.used)


def together(parts: Sequence[Reads], summed: bool) -> Reads | None:
    """Return the reads of parts of one input, summed or with their channels side by side.

    They know the parameters of the whole. None where their windows move by different steps.
    """
    *space, channels = parts[0].outputs
    if not summed:
        channels = sum(part.outputs[-1] for part in parts)
    outputs = (*space, channels)
    inputs: Sizes = (prod(parts[0].inputs),)
    windows: tuple[Window, ...] = ()
    if all(part.windows and part.inputs == parts[0].inputs for part in parts):
        axes = list(zip(*(part.windows for part in parts), strict=True))
        if any(len({window.stride for window in axis}) > 1 for axis in axes):
            return None
        inputs, windows = parts[0].inputs, tuple(map(_hull, axes))

    def join(*weights: Array) -> Array:
        each = [_within(windows, part, weight) for part, weight in zip(parts, weights, strict=True)]
        axis = 0 if windows else -2
        found = sum(each[1:], each[0]) if summed else jnp.concatenate(each, axis)
        return found if windows else found.reshape(prod(outputs), -1)

    used = {tuple(window.used for window in part.windows) for part in parts}
    weight = _weight(parts, join) if not windows or len(used) == 1 else None
    return Reads(inputs, outputs, windows, weight, _layer(parts, windows))


def _hull(windows: Sequence[Window]) -> Window:
    """Return the least window along an axis that holds all of these, which move by equal steps."""
    start = min(window.start for window in windows)
    end = max(window.start + window.size for window in windows)
    return Window(end - start, windows[0].stride, start, max(window.used for window in windows))


def _within(windows: Sequence[Window], part: Reads, weight: Array) -> Array:
    """Return the weight of an affine part in windows that hold its own; without, its matrix."""
    if not windows:
        return part.matrix(weight).reshape(*part.outputs, -1)
    pads = [
        (own.start - w.start, w.start + w.size - own.start - own.size)
        for w, own in zip(windows, part.windows, strict=True)
    ]
    return jnp.pad(weight, [(0, 0), *pads, (0, 0)])


def _weight(parts: Sequence[Reads], f: Callable[..., Array]) -> Weight | None:
    """Return ``f`` of the weights of all parts, as a function of the parameters."""
    weights = [part.weight for part in parts]
    return None if None in weights else lambda theta: f(*(own(theta) for own in weights))  # type: ignore[misc]


def _layer(parts: Sequence[Reads], windows: Sequence[Window] = ()) -> Any:
    """Return the layer of a part that has windows as the whole has."""
    return next((p.layer for p in parts if p.layer and bool(p.windows) == bool(windows)), None)
