"""Layers of networks: dense, convolution, and pre-activations composed of any JAX functions.

A layer is any object with the members of ``Layer``. States keep their natural shape, such as
``[height, width, channels]``; the parameters of affine layers are ``{"weight": [outputs, ...],
"bias": [outputs]}``, the first axis of the weight being that of the units or channels.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
    """A shape as a tuple."""
    return (shape,) if isinstance(shape, int) else tuple(shape)


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


def _check_sizes(what: str, sizes: Any) -> None:
    """Refuses sizes that are not positive whole numbers."""
    if not sizes or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes):
        raise GradbenchError(f"{what} got {sizes}; give whole numbers of at least 1")


@dataclass(frozen=True)
class Dense:
    """a = W x + b, parameters ``{"weight": [outputs, inputs], "bias": [outputs]}``.

    It reads states of any shape with ``inputs`` units.
    """

    inputs: int
    outputs: int
    noise: str | Noise = "logistic"

    def __post_init__(self) -> None:
        """Refuses impossible sizes."""
        _check_sizes("a dense layer", (self.inputs, self.outputs))

    def init(self, key: Array) -> Params:
        """Weights and biases from U(-1, 1)."""
        return uniform_affine(key, (self.outputs, self.inputs))

    def __call__(self, theta: Params, x: Array) -> Float[Array, " outputs"]:
        """Pre-activations of one example."""
        return affine(theta, jnp.ravel(x))

    def flip_pull(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """What ``flip_each`` gives, from sheets of F(a_j + W_ji (flipped_i - x_i))."""
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
class Conv:
    """a = W * x + b, the convolution of neural networks (a correlation) along one or two axes.

    ``inputs`` is ``[length, channels]`` or ``[height, width, channels]``, ``channels`` the number
    of output channels. ``kernel`` and ``stride`` are numbers, or one for each axis; ``padding`` is
    the number of zeros on both sides, "valid" (none) or "same" (outputs = inputs / stride, rounded
    up). Parameters: ``{"weight": [channels, *kernel, channels below], "bias": [channels]}``.

    Raises:
        GradbenchError: a kernel larger than its input, or sizes that are none.
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
            _check_sizes(f"the {name} of a convolution", full)
        _check_sizes("a convolution", (*self.inputs, self.channels))
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
        """Weights and biases from U(-1, 1)."""
        return uniform_affine(key, (self.channels, *self.kernel, self.inputs[-1]))

    def patches(self, x: Float[Array, "*inputs"]) -> Float[Array, "*space taps"]:
        """What each output position reads, in the order of a kernel's entries."""
        padded = jnp.pad(read(x, self.inputs), [*self._pads, (0, 0)])
        space = self.outputs[:-1]

        def shifted(offset: tuple[int, ...]) -> Array:
            ends = (o + (n - 1) * s + 1 for o, n, s in zip(offset, space, self.stride, strict=True))
            return jax.lax.slice(padded, (*offset, 0), (*ends, padded.shape[-1]), (*self.stride, 1))

        return jnp.concatenate([shifted(offset) for offset in np.ndindex(*self.kernel)], axis=-1)

    def __call__(self, theta: Params, x: Array) -> Float[Array, "*space channels"]:
        """Pre-activations of one example."""
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
        """
        cdf = get_noise(self.noise).cdf
        weight, base = self._flat(theta)["weight"], cdf(a)
        change, pull = jax.vjp(self.patches, flipped - x)

        def entry(q: Array) -> Float[Array, "*space"]:
            return jnp.sum(g * (cdf(a + change[..., q, None] * weight[:, q]) - base), axis=-1)

        pulled = one_by_one(entry, weight.shape[1], a.size)
        return pull(jnp.moveaxis(pulled, 0, -1))[0].reshape(x.shape)


@dataclass(frozen=True)
class AveragePool:
    """The mean over windows of ``window`` along all axes but the last; what is left over is cut."""

    window: Any

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*pooled channels"]:
        """The means of one example."""
        w, space = self.window, x.shape[:-1]
        if not isinstance(w, int | np.integer) or w < 1 or any(n < w for n in space):
            raise GradbenchError(
                f"average pooling over {w} got an input of shape {x.shape}; "
                f"give a window from 1 to {min(space, default=0)}"
            )
        x = x[tuple(slice(n // w * w) for n in space)]
        split = x.reshape(*(part for n in space for part in (n // w, w)), -1)
        return jnp.mean(split, axis=tuple(range(1, 2 * len(space), 2)))


# A part of a pre-activation: a layer, of which the parameters and the map are used, or a function
# of its input alone, such as jnp.tanh or AveragePool(2).
Part: TypeAlias = Layer | Callable[[Array], Array]


def _init(part: Part, key: Array) -> Params:
    return part.init(key) if hasattr(part, "init") else ()


def _apply(part: Part, theta: Params, x: Array) -> Array:
    return part(theta, x) if hasattr(part, "init") else part(x)  # type: ignore[call-arg]


class _Composed:
    """What layers made of parts share: ``parts``, ``noise`` and ``inputs`` are their fields."""

    parts: Any
    noise: Any
    inputs: Any

    def __post_init__(self) -> None:
        """Finds noise and input shape where not given, and refuses parts that do not fit."""
        if not isinstance(self.parts, tuple | list) or not self.parts:
            raise GradbenchError(
                f"{type(self).__name__} got the parts {self.parts!r}; give a tuple of layers and "
                "functions"
            )
        object.__setattr__(self, "parts", tuple(self.parts))
        if self.inputs is None:
            known = [part.inputs for part in self._readers() if hasattr(part, "inputs")]
            if not known:
                raise GradbenchError(
                    f"{type(self).__name__} begins with a function, whose input shape is not "
                    "known; give inputs=shape"
                )
            object.__setattr__(self, "inputs", known[0])
        if self.noise is None:
            noises = {get_noise(part.noise) for part in self._units() if hasattr(part, "noise")}
            if len(noises) > 1:
                names = sorted(noise.name for noise in noises)
                raise GradbenchError(
                    f"{type(self).__name__} got parts with the noises {names}; give noise=one"
                )
            object.__setattr__(self, "noise", noises.pop() if noises else "logistic")
        get_noise(self.noise)
        _ = self.outputs

    def _readers(self) -> tuple[Part, ...]:
        """The parts that read the input."""
        return self.parts

    def _units(self) -> tuple[Part, ...]:
        """The parts whose noise is that of the units."""
        return self.parts

    def _pairs(self, theta: Params) -> list[tuple[Part, Params]]:
        """Each part with its parameters."""
        entries = len(theta) if isinstance(theta, tuple | list) else 1
        if entries != len(self.parts):
            raise GradbenchError(
                f"{type(self).__name__} of {len(self.parts)} parts got {entries} parameter "
                "entries; give one for each part, () for functions"
            )
        return list(zip(self.parts, theta, strict=True))

    def init(self, key: Array) -> tuple[Params, ...]:
        """Random parameters: those of each part, ``()`` for functions."""
        keys = jax.random.split(key, len(self.parts))
        return tuple(_init(part, k) for part, k in zip(self.parts, keys, strict=True))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the pre-activations, found by tracing."""
        return _traced_shape(type(self).__name__, self, self.inputs)  # type: ignore[arg-type]


def _traced_shape(name: str, layer: Layer, inputs: Shape) -> tuple[int, ...]:
    """The shape of what a layer returns.

    Raises:
        GradbenchError: the functions in it cannot read their input.
    """
    try:
        theta = jax.eval_shape(layer.init, jax.random.key(0))
        x = jax.ShapeDtypeStruct(axes(inputs), jnp.result_type(float))
        found = jax.eval_shape(layer, theta, x)
        return found.shape
    except GradbenchError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:200]
        raise GradbenchError(
            f"{name} cannot read an input of shape {axes(inputs)} ({reason}); "
            "make the shapes of its parts chain, and return one array"
        ) from error


@dataclass(frozen=True)
class Compose(_Composed):
    """Parts one after the other, deterministic but for the units at the end: a = p_n(...p_1(x)).

    ``Compose((Dense(64, 16), jnp.tanh, Dense(16, 8)))`` is the layer of a non-linear encoder,
    ``Compose((AveragePool(2), Conv((4, 4, 1), 2, 3)), inputs=(8, 8, 1))`` pools its input first.
    Parameters: a tuple with those of each part. The noise is that of the last layer among the parts
    unless given.
    """

    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def _readers(self) -> tuple[Part, ...]:
        return self.parts[:1]

    def _units(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if hasattr(part, "noise"))[-1:]

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""
        x = read(x, self.inputs)
        for part, own in self._pairs(theta):
            x = _apply(part, own, x)
        return x


@dataclass(frozen=True)
class Concatenate(_Composed):
    """Parts side by side, which all read the input; their outputs are joined along the last axis.

    Parameters: a tuple with those of each part. The noise is that of the parts unless given.
    """

    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""
        x = read(x, self.inputs)
        outputs = [_apply(part, own, x) for part, own in self._pairs(theta)]
        return jnp.concatenate(outputs, axis=-1)


@dataclass(frozen=True)
class Add(_Composed):
    """The sum of parts that all read the input and have the same output shape: skip connections.

    ``Add((Conv((4, 4, 1), 1, 3, padding=1), lambda x: x))`` adds its input to a convolution.
    Parameters: a tuple with those of each part. The noise is that of the parts unless given.
    """

    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""
        x = read(x, self.inputs)
        outputs = [_apply(part, own, x) for part, own in self._pairs(theta)]
        shapes = [jnp.shape(out) for out in outputs]
        if len(set(shapes)) > 1:
            raise GradbenchError(f"Add got parts with outputs of shapes {shapes}; make them equal")
        return sum(outputs[1:], outputs[0])


@dataclass(frozen=True)
class Function:
    """Any JAX function ``function(theta, x) -> pre-activations`` as a layer.

    ``initial(key)`` gives random parameters, none unless given.
    """

    function: Callable[[Params, Array], Array]
    inputs: Shape
    initial: Callable[[Array], Params] | None = None
    noise: str | Noise = "logistic"

    def __post_init__(self) -> None:
        """Refuses a function that cannot read its input."""
        _ = self.outputs

    def init(self, key: Array) -> Params:
        """Random parameters."""
        return self.initial(key) if self.initial else ()

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the pre-activations, found by tracing."""
        return _traced_shape("Function", self, self.inputs)

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""
        return self.function(theta, read(x, self.inputs))
