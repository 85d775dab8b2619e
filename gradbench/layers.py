"""Layers of networks: dense, convolution, and pre-activations composed of any JAX functions.

A layer is any object with the members of ``Layer``. States keep their natural shape, such as
``[height, width, channels]``; the parameters of affine layers are ``{"weight": [outputs, ...],
"bias": [outputs]}``, the first axis of the weight being that of the units or channels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError
from gradbench.model import Params
from gradbench.noise import Noise, get_noise

Shape: TypeAlias = int | tuple[int, ...]  # a number of units is a vector of them


class Layer(Protocol):
    """A stochastic layer: pre-activations of all its units from the states below it.

    It may offer ``flip_pull``, see ``flip_each``.
    """

    @property
    def noise(self) -> str | Noise:
        """The noise of its units."""

    @property
    def inputs(self) -> Shape:
        """Shape of what it reads."""

    @property
    def outputs(self) -> Shape:
        """Shape of its states."""

    def init(self, key: Array) -> Params:
        """Random parameters."""

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""


def axes(shape: Shape) -> tuple[int, ...]:
    """A shape as a tuple.

    Raises:
        GradbenchError: neither a whole number nor several.
    """
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(size, int | np.integer) for size in sizes):
        raise GradbenchError(f"the shape {shape!r} is none; give whole numbers, as (4, 4, 1)")
    return tuple(int(size) for size in sizes)


def fits(below: Shape, above: Shape) -> bool:
    """Whether states of the shape ``below`` can be read as ``above``: equal, or one is flat."""
    below, above = axes(below), axes(above)
    return below == above or (
        math.prod(below) == math.prod(above) and 1 in (len(below), len(above))
    )


def read(x: Array, shape: Shape) -> Array:
    """What a layer that reads ``shape`` gets from the states ``x``.

    Raises:
        GradbenchError: they do not fit.
    """
    if not fits(jnp.shape(x), shape):
        raise GradbenchError(
            f"a layer that reads {axes(shape)} got an input of shape {jnp.shape(x)}; "
            "make the two equal, or one of them flat"
        )
    return jnp.reshape(x, axes(shape))


_AT_ONCE = 1 << 17  # numbers that single flips are worked on at a time, per example


def one_by_one(f: Callable[..., Array], count: int, size: int) -> Array:
    """``f(0), ..., f(count - 1)`` along the first axis; each call works on ``size`` numbers.

    As many calls at a time as keep memory linear in ``size``, all of them where these are few.
    """
    most = max(1, _AT_ONCE // size)
    numbers = jnp.arange(count)
    if count <= most:
        return jax.vmap(f)(numbers)
    return jax.lax.map(jax.checkpoint(f), numbers, batch_size=most)


def flip_each(layer: Layer, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
    """For every input i: sum_j g_j (F(a_j with x_i replaced by flipped_i) - F(a_j)).

    A layer with structure offers the same as its method ``flip_pull(theta, x, flipped, a, g)``.
    """
    cdf = get_noise(layer.noise).cdf
    number = jnp.arange(x.size).reshape(x.shape)
    base = cdf(a)

    def one(i: Array) -> Array:
        return jnp.sum(g * (cdf(layer(theta, jnp.where(number == i, flipped, x))) - base))

    return one_by_one(one, x.size, x.size + a.size).reshape(x.shape)


def affine(theta: Params, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
    """W x + b, as one product: bias and weights then share one pass in the gradient too."""
    if not isinstance(theta, Mapping) or set(theta) != {"weight", "bias"}:
        found = sorted(theta) if isinstance(theta, Mapping) else "that are no dictionary"
        raise GradbenchError(f"an affine layer got parameters {found}; give a weight and a bias")
    weight, bias = theta["weight"], theta["bias"]
    if jnp.shape(x)[-1:] != jnp.shape(weight)[1:] or jnp.shape(bias) != jnp.shape(weight)[:1]:
        raise GradbenchError(
            f"an affine layer with weight {jnp.shape(weight)} and bias {jnp.shape(bias)} got an "
            f"input of shape {jnp.shape(x)}; make them [outputs, inputs], [outputs] and [inputs]"
        )
    one = jnp.ones((*x.shape[:-1], 1), x.dtype)
    product = jnp.concatenate([weight, bias[:, None]], axis=1)
    inputs = jnp.concatenate([x, one], axis=-1)
    return product @ inputs if x.ndim == 1 else inputs @ product.T


def uniform_affine(key: Array, weight: tuple[int, ...]) -> Params:
    """Weights and biases from U(-1, 1), as in the experiments of the PSA paper."""
    for_weight, for_bias = jax.random.split(key)
    return {
        "weight": jax.random.uniform(for_weight, weight, minval=-1),
        "bias": jax.random.uniform(for_bias, weight[:1], minval=-1),
    }


def check_sizes(what: str, sizes: Any) -> None:
    """Refuses sizes that are not positive whole numbers."""
    if not sizes or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes):
        raise GradbenchError(f"{what} got {sizes}; give whole numbers of at least 1")


@dataclass(frozen=True)
class Dense:
    """a = W x + b, parameters ``{"weight": [outputs, inputs], "bias": [outputs]}``.

    It reads states of any shape with ``inputs`` units; ``noise`` is that of its ``outputs`` units.

    Raises:
        GradbenchError: sizes that are no positive whole numbers, or an unknown noise.
    """

    inputs: int
    outputs: int
    noise: str | Noise = "logistic"

    def __post_init__(self) -> None:
        """Refuses impossible sizes."""
        check_sizes("a dense layer", (self.inputs, self.outputs))
        get_noise(self.noise)

    def init(self, key: Array) -> Params:
        """Weights [outputs, inputs] and biases [outputs] from U(-1, 1)."""
        return uniform_affine(key, (self.outputs, self.inputs))

    def __call__(self, theta: Params, x: Array) -> Float[Array, " outputs"]:
        """Pre-activations of one example.

        Raises:
            GradbenchError: parameters or states of other shapes.
        """
        return affine(theta, jnp.ravel(x))

    def flip_pull(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """What ``flip_each`` gives, from sheets of F(a_j + W_ji (flipped_i - x_i)).

        Raises:
            GradbenchError: parameters of other shapes.
        """
        cdf = get_noise(self.noise).cdf
        change, base = jnp.ravel(flipped - x), cdf(a)

        def one(i: Array) -> Array:
            return g @ (cdf(a + theta["weight"][:, i] * change[i]) - base)

        if x.size * a.size <= _AT_ONCE:
            return (g @ (cdf(a[:, None] + theta["weight"] * change) - base[:, None])).reshape(
                x.shape
            )
        return one_by_one(one, x.size, a.size).reshape(x.shape)


@dataclass(frozen=True)
class Logits:
    """a = b, a layer that reads nothing: the pre-activations are its parameters ``{"bias": [n]}``.

    The first layer of toy problems, whose inputs have no numbers. ``shared``: one parameter is the
    pre-activation of all units. Parameters begin at ``value``.
    """

    outputs: int
    noise: str | Noise = "logistic"
    shared: bool = False
    value: float = 0.0

    def __post_init__(self) -> None:
        """Refuses impossible sizes."""
        check_sizes("a layer of logits", (self.outputs,))
        get_noise(self.noise)

    @property
    def inputs(self) -> int:
        """None."""
        return 0

    def init(self, key: Array) -> Params:
        """The same value for all; nothing is random."""
        return {"bias": jnp.full(1 if self.shared else self.outputs, float(self.value))}

    def __call__(self, theta: Params, x: Array) -> Float[Array, " outputs"]:
        """Pre-activations, whatever the example."""
        read(x, self.inputs)
        shape = (1 if self.shared else self.outputs,)
        if jax.tree.map(jnp.shape, theta) != {"bias": shape}:
            raise GradbenchError(
                f"a layer of {self.outputs} logits got parameters of shapes "
                f"{jax.tree.map(jnp.shape, theta)}; give a bias of shape {shape}"
            )
        return jnp.broadcast_to(theta["bias"], (self.outputs,))


@dataclass(frozen=True)
class Conv:
    """a = W * x + b, the convolution of neural networks (a correlation) along one or two axes.

    ``inputs`` is ``[length, channels]`` or ``[height, width, channels]``, ``channels`` the number
    of output channels. ``kernel`` and ``stride`` are numbers, or one for each axis; ``padding`` is
    the number of zeros on both sides, "valid" (none) or "same" (outputs = inputs / stride, rounded
    up); ``noise`` is that of its units. Parameters: ``{"weight": [channels, *kernel, channels
    below], "bias": [channels]}``.

    Raises:
        GradbenchError: a kernel larger than its input, sizes that are none, or an unknown noise.
    """

    inputs: tuple[int, ...]
    channels: int
    kernel: Any
    stride: Any = 1
    padding: int | str = 0
    noise: str | Noise = "logistic"

    def __post_init__(self) -> None:
        """Refuses impossible sizes."""
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
        """Zeros before and after each axis."""
        if isinstance(self.padding, str):
            return jax.lax.padtype_to_pads(
                self._space, self.kernel, self.stride, self.padding.upper()
            )
        return [(self.padding, self.padding)] * len(self._space)

    @property
    def outputs(self) -> tuple[int, ...]:
        """``[*space, channels]``."""
        sizes = zip(self._space, self._pads, self.kernel, self.stride, strict=True)
        return (*((n + sum(pad) - k) // s + 1 for n, pad, k, s in sizes), self.channels)

    def init(self, key: Array) -> Params:
        """Weights [channels, *kernel, channels below] and biases [channels] from U(-1, 1)."""
        return uniform_affine(key, (self.channels, *self.kernel, self.inputs[-1]))

    def patches(self, x: Float[Array, "*inputs"]) -> Float[Array, "*space taps"]:
        """What each output position reads, in the order of a kernel's entries.

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
        """Pre-activations of one example.

        Raises:
            GradbenchError: parameters or an input of other shapes.
        """
        return affine(self._flat(theta), self.patches(x))

    def _flat(self, theta: Params) -> Params:
        """The parameters of the dense layer that reads patches."""
        shape = (self.channels, *self.kernel, self.inputs[-1])
        has_weight = isinstance(theta, Mapping) and "weight" in theta
        if not has_weight or jnp.shape(theta["weight"]) != shape:
            found = f"a weight of shape {jnp.shape(theta['weight'])}" if has_weight else "no weight"
            raise GradbenchError(f"a convolution got {found}; give a weight of shape {shape}")
        return {**theta, "weight": theta["weight"].reshape(self.channels, -1)}

    def flip_pull(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """What ``flip_each`` gives, from the flips of each kernel entry at all positions.

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
