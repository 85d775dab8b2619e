"""Convolutional layers, and pooling."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.fields import Count, Natural
from gradbench.core.noise import Noise, get_noise
from gradbench.models.compose import Compose
from gradbench.models.dense import affine, check_sizes, uniform_affine
from gradbench.models.flips import one_by_one
from gradbench.models.layer import LAYERS, Layer, Shape, axes, read, some_units
from gradbench.models.pool import AveragePool
from gradbench.models.ranks import LowRankFlips
from gradbench.models.reads import Reads, Window


@dataclass(frozen=True)
class Conv(LowRankFlips):
    """A convolution a = W * x + b of neural networks (a correlation) along one or two axes.

    ``inputs`` is ``[length, channels]`` or ``[height, width, channels]``, ``channels`` the number
    of output channels. ``kernel`` and ``stride`` are numbers, or one for each axis; ``padding`` is
    the number of zeros on both sides, "valid" (none) or "same" (outputs = inputs / stride, rounded
    up); ``noise`` is the noise of its units. Parameters: ``{"weight": [channels, *kernel, channels
    below], "bias": [channels]}``.

    Raises:
        GradbenchError: a kernel larger than its input, sizes that are not positive whole numbers,
            or an unknown noise.
    """

    inputs: tuple[int, ...]
    channels: int
    kernel: Any
    stride: Any = 1
    padding: int | str = 0
    noise: str | Noise = "logistic"
    affine = True  # see Layer

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        object.__setattr__(self, "inputs", axes(self.inputs))
        if len(self.inputs) not in (2, 3):
            raise GradbenchError(
                f"a convolution got the input shape {self.inputs}; give [length, channels] or "
                "[height, width, channels]"
            )
        for name in ("kernel", "stride"):
            value = getattr(self, name)
            listed = isinstance(value, tuple | list)
            full = tuple(value) if listed else (value,) * len(self._space)
            if len(full) != len(self._space):
                raise GradbenchError(
                    f"a convolution along {len(self._space)} axes got {name} {value}; "
                    "give one number for each axis"
                )
            object.__setattr__(self, name, full)
            check_sizes(f"the {name} of a convolution", full)
        check_sizes("a convolution", (*self.inputs, self.channels))
        get_noise(self.noise)
        padding = self.padding
        if padding not in ("valid", "same") and not (
            isinstance(padding, int | np.integer) and padding >= 0
        ):
            raise GradbenchError(
                f"the padding of a convolution is {padding!r}; "
                'give a number of zeros, "valid" or "same"'
            )
        padded = [n + low + high for n, (low, high) in zip(self._space, self._pads, strict=True)]
        if any(k > n for k, n in zip(self.kernel, padded, strict=True)):
            raise GradbenchError(
                f"the kernel {self.kernel} is larger than its padded input {tuple(padded)}; "
                "make it smaller, or pad the input"
            )

    @property
    def _space(self) -> tuple[int, ...]:
        return self.inputs[:-1]

    @property
    def _pads(self) -> list[tuple[int, int]]:
        """The numbers of zeros before and after each axis."""
        if isinstance(self.padding, str):
            return jax.lax.padtype_to_pads(
                self._space, self.kernel, self.stride, self.padding.upper()
            )
        return [(self.padding, self.padding)] * len(self._space)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of its states, ``[*space, channels]``."""
        sizes = zip(self._space, self._pads, self.kernel, self.stride, strict=True)
        return (*((n + sum(pad) - k) // s + 1 for n, pad, k, s in sizes), self.channels)

    def reads(self, shape: Shape) -> Reads:
        """Return which inputs of a shape each position reads, see ``gradbench.models.reads``."""
        sizes = zip(self.kernel, self.stride, self._pads, self._space, strict=True)
        windows = tuple(Window(k, s, -low, n) for k, s, (low, _), n in sizes)
        return Reads(self.inputs, self.outputs, windows, lambda theta: theta["weight"], self)

    def init(self, key: Array) -> Params:
        """Draw weights [channels, *kernel, channels below] and biases [channels] from U(-1, 1)."""
        return uniform_affine(key, (self.channels, *self.kernel, self.inputs[-1]))

    def patches(self, x: Float[Array, "*inputs"]) -> Float[Array, "*space taps"]:
        """Return what each output position reads, in the order of a kernel's entries.

        Raises:
            GradbenchError: an input of another shape.
        """
        padded = jnp.pad(read(x, self.inputs), [*self._pads, (0, 0)])
        space = self.outputs[:-1]

        def shifted(offset: tuple[int, ...]) -> Array:
            ends = (o + (n - 1) * s + 1 for o, n, s in zip(offset, space, self.stride, strict=True))
            return jax.lax.slice(padded, (*offset, 0), (*ends, padded.shape[-1]), (*self.stride, 1))

        return jnp.concatenate([shifted(offset) for offset in np.ndindex(*self.kernel)], axis=-1)

    def __call__(self, theta: Params, x: Array) -> Float[Array, "*space channels"]:
        """Return the pre-activations of one example.

        Raises:
            GradbenchError: parameters or an input of other shapes.
        """
        return affine(self._flat(theta), self.patches(x))

    def _flat(self, theta: Params) -> Params:
        """Return the parameters of the dense layer that reads patches."""
        shape = (self.channels, *self.kernel, self.inputs[-1])
        has_weight = isinstance(theta, Mapping) and "weight" in theta
        if not has_weight or jnp.shape(theta["weight"]) != shape:
            found = f"a weight of shape {jnp.shape(theta['weight'])}" if has_weight else "no weight"
            raise GradbenchError(f"a convolution got {found}; give a weight of shape {shape}")
        return {**theta, "weight": theta["weight"].reshape(self.channels, -1)}

    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """Return what ``flip_each`` gives, from the flips of each kernel entry at all positions.

        Input i is read once at each position that it touches: sum_j g_j (F(a_j + w (flipped_i -
        x_i)) - F(a_j)) goes entry by entry over patches, and back to the inputs by the transpose.

        Raises:
            GradbenchError: parameters of other shapes.
        """
        cdf = get_noise(self.noise).cdf
        weight, base = self._flat(theta)["weight"], cdf(a)
        change, pull = jax.vjp(self.patches, flipped - x)

        def entry(q: Array) -> Float[Array, "*space"]:
            return jnp.sum(g * (cdf(a + change[..., q, None] * weight[:, q]) - base), axis=-1)

        pulled = one_by_one(entry, weight.shape[1], a.size)
        return pull(jnp.moveaxis(pulled, 0, -1))[0].reshape(x.shape)

    @property
    def pairs(self) -> int:
        """The number of pairs of an input, or a zero of the padding, and a unit that reads it."""
        return math.prod((*self.outputs, *self.kernel, self.inputs[-1]))

    def transposed(
        self, weight: Array, g: Float[Array, "*space channels"]
    ) -> Float[Array, "*inputs"]:
        """Return W^T g, for a weight and g of any number of channels."""
        of_patches = g @ weight.reshape(len(weight), -1)
        x = jax.ShapeDtypeStruct(self.inputs, of_patches.dtype)
        return jax.linear_transpose(self.patches, x)(of_patches)[0]


@LAYERS.register("conv")
@dataclass(frozen=True)
class ConvForm:
    """A convolution: ``{ conv = CHANNELS, kernel = 3, stride = 1, padding = 0 }``.

    ``pool`` is the window of average pooling before it.
    """

    conv: Count
    kernel: Count = 3
    stride: Count = 1
    padding: Natural = 0
    pool: Count = 1

    def layer(self, below: Shape, noise: str | Noise) -> Layer:
        """Return the layer, which reads states of the shape ``below``.

        Raises:
            GradbenchError: a shape without channels, or smaller than the kernel or the window.
        """
        some_units(below)
        pool = AveragePool(self.pool)
        pooled = jax.eval_shape(pool, jax.ShapeDtypeStruct(axes(below), jnp.float32)).shape
        conv = Conv(pooled, self.conv, self.kernel, self.stride, self.padding, noise)
        return conv if self.pool == 1 else Compose((pool, conv), inputs=below)
