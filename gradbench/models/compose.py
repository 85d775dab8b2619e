"""Layers composed of parts: pooling, deterministic layers, skip connections, any JAX function."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.models.composed_flips import OneLayer, fast_pull, one_layer
from gradbench.models.flips import flip_each
from gradbench.models.layer import Layer, Shape, axes, read, traced_shape
from gradbench.models.reads import Reads, after, of_entry, reads_of, together

# A layer, whose parameters and map are used, or a function of its input, such as AveragePool(2).
Part: TypeAlias = Layer | Callable[[Array], Array]


def _init(part: Part, key: Array) -> Params:
    return part.init(key) if hasattr(part, "init") else ()


def _apply(part: Part, theta: Params, x: Array) -> Array:
    return part(theta, x) if hasattr(part, "init") else part(x)  # type: ignore[call-arg]


class _Composed:
    """A layer made of ``parts``, with the ``noise`` of its units and its ``inputs``, a shape."""

    parts: Any
    noise: Any
    inputs: Any

    def __post_init__(self) -> None:
        """Find noise and input shape where not given, and refuse parts that do not fit."""
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
                    f"{type(self).__name__} got parts with the noises {names}; say which is the "
                    f"noise of its units, as noise={names[0]!r}"
                )
            object.__setattr__(self, "noise", noises.pop() if noises else "logistic")
        get_noise(self.noise)
        _ = self.outputs

    def _readers(self) -> tuple[Part, ...]:
        """Return the parts that read the input."""
        return self.parts

    def _units(self) -> tuple[Part, ...]:
        """Return the parts that have the noise of the units."""
        return self.parts

    def _pairs(self, theta: Params) -> list[tuple[Part, Params]]:
        """Return each part with its parameters."""
        entries = len(theta) if isinstance(theta, tuple | list) else 1
        if entries != len(self.parts):
            raise GradbenchError(
                f"{type(self).__name__} of {len(self.parts)} parts got {entries} parameter "
                "entries; give one for each part, () for functions"
            )
        return list(zip(self.parts, theta, strict=True))

    def init(self, key: Array) -> tuple[Params, ...]:
        """Return random parameters, one entry for each part, ``()`` for functions."""
        keys = jax.random.split(key, len(self.parts))
        return tuple(_init(part, k) for part, k in zip(self.parts, keys, strict=True))

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the pre-activations, found by tracing.

        Raises:
            GradbenchError: the parts cannot read an input of that shape.
        """
        return traced_shape(type(self).__name__, self, self.inputs)  # type: ignore[arg-type]

    @property
    def one_layer(self) -> OneLayer | None:
        """The flips of the one dense layer or convolution that the parts amount to, if they do."""
        return one_layer(self)

    @property
    def fast_flips(self) -> bool:
        """True if single flips need less than a run of the layer for each input."""
        return fast_pull(self) is not None

    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """Return what ``flip_each`` does: x, flipped, result [*inputs], and a, g [*outputs].

        Raises:
            GradbenchError: states that do not fit.
        """
        pull = fast_pull(self) or partial(flip_each, self)  # type: ignore[arg-type]
        states = read(x, self.inputs), read(flipped, self.inputs)
        return pull(theta, *states, a, g).reshape(x.shape)


@dataclass(frozen=True)
class Compose(_Composed):
    """Deterministic parts one after the other, with the stochastic units at the end.

    The pre-activations are a = p_n(... p_1(x)). ``Compose((Dense(64, 16), jnp.tanh, Dense(16,
    8)))`` is a non-linear encoder, and ``Compose((AveragePool(2), Conv((4, 4, 1), 2, 3)),
    inputs=(8, 8, 1))`` pools its input first. The parameters are a tuple with one entry per part.
    ``noise`` is by default that of the last layer among them, ``inputs`` that of the first part.

    Raises:
        GradbenchError: no parts, a first part of unknown input shape where none is given, an
            unknown noise, or parts that do not fit.
    """

    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def _readers(self) -> tuple[Part, ...]:
        return self.parts[:1]

    def _units(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if hasattr(part, "noise"))[-1:]

    def __call__(self, theta: Params, x: Array) -> Array:
        """Return the pre-activations [*outputs] of one example, from states [*inputs] or flat.

        Raises:
            GradbenchError: states that do not fit, or a wrong number of entries in ``theta``.
        """
        return self._run(slice(None), theta, read(x, self.inputs))

    def reads(self, shape: tuple[int, ...]) -> Reads | None:
        """Return which inputs each pre-activation reads; None where that is not known."""
        found = self._chain()
        return found[-1] if len(found) == len(self.parts) else None

    def dense_head(self) -> tuple[Reads, tuple[Callable[..., Array], Callable[..., Array]]] | None:
        """Return the longest beginning that is one dense layer, and ``(first, rest)``, if any.

        ``first(theta, x)`` and ``rest(theta, h)`` run it and the parts above it.
        """
        heads = self._chain()
        n = max((k for k, head in enumerate(heads, 1) if head.is_layer), default=0)
        if not n or heads[n - 1].windows:
            return None
        first, rest = slice(n), slice(n, None)
        return heads[n - 1], (partial(self._run, first), partial(self._run, rest))

    def _run(self, some: slice, theta: Params, x: Array) -> Array:
        """Return the outputs of some of the parts, one after the other."""
        for part, own in self._pairs(theta)[some]:
            x = _apply(part, own, x)
        return x

    def _chain(self) -> list[Reads]:
        """Return the reads of the first part, of the first two, ..., as far as they are known."""
        found: list[Reads] = []
        for k, part in enumerate(self.parts):
            own = reads_of(part, found[-1].outputs if found else axes(self.inputs))
            if own is None:
                break
            own = of_entry(k, own)
            found.append(after(found[-1], own) if found else own)
        return found


class _SideBySide(_Composed):
    """A layer whose parts all read the input; their outputs are ``summed``, or joined."""

    summed = False

    def reads(self, shape: tuple[int, ...]) -> Reads | None:
        """Return which inputs each pre-activation reads; None where that is not known."""
        found = [reads_of(part, axes(self.inputs)) for part in self.parts]
        if None in found:
            return None
        return together([of_entry(k, own) for k, own in enumerate(found) if own], self.summed)


@dataclass(frozen=True)
class Concatenate(_SideBySide):
    """Parts side by side, which all read the input; their outputs are joined along the last axis.

    The parameters are a tuple with one entry per part. ``noise`` and ``inputs``, the shape of the
    input, are taken from the parts unless given.

    Raises:
        GradbenchError: no parts, parts of several noises or of an unknown input shape where none is
            given, or parts that do not fit.
    """

    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def __call__(self, theta: Params, x: Array) -> Array:
        """Return the pre-activations [*outputs] of one example, from states [*inputs] or flat.

        Raises:
            GradbenchError: states that do not fit, or a wrong number of entries in ``theta``.
        """
        x = read(x, self.inputs)
        outputs = [_apply(part, own, x) for part, own in self._pairs(theta)]
        return jnp.concatenate(outputs, axis=-1)


@dataclass(frozen=True)
class Add(_SideBySide):
    """The sum of parts that all read the input and have the same output shape: skip connections.

    ``Add((Conv((4, 4, 1), 1, 3, padding=1), lambda x: x))`` adds its input to a convolution. The
    parameters are a tuple with one entry per part. ``noise`` and ``inputs``, the shape of the
    input, are taken from the parts unless given.

    Raises:
        GradbenchError: no parts, parts of several noises or of an unknown input shape where none is
            given, or parts that do not fit.
    """

    summed = True
    parts: tuple[Part, ...]
    noise: Any = None
    inputs: Any = None

    def __call__(self, theta: Params, x: Array) -> Array:
        """Return the pre-activations [*outputs] of one example, from states [*inputs] or flat.

        Raises:
            GradbenchError: states that do not fit, a wrong number of entries in ``theta``, or
                outputs of different shapes.
        """
        x = read(x, self.inputs)
        outputs = [_apply(part, own, x) for part, own in self._pairs(theta)]
        shapes = [jnp.shape(out) for out in outputs]
        if len(set(shapes)) > 1:
            raise GradbenchError(f"Add got parts with outputs of shapes {shapes}; make them equal")
        return sum(outputs[1:], outputs[0])


@dataclass(frozen=True)
class Function:
    """Any JAX function ``function(theta, x) -> pre-activations`` as a layer.

    ``inputs`` is the shape of the states x that it reads and ``noise`` the noise of its units,
    whose shape [*outputs] is found by tracing. ``initial(key)`` returns random parameters; without
    it the layer has none.

    Raises:
        GradbenchError: an input shape that the function cannot read.
    """

    function: Callable[[Params, Array], Array]
    inputs: Shape
    initial: Callable[[Array], Params] | None = None
    noise: str | Noise = "logistic"

    def __post_init__(self) -> None:
        """Refuse a function that cannot read its input."""
        _ = self.outputs

    def init(self, key: Array) -> Params:
        """Return random parameters."""
        return self.initial(key) if self.initial else ()

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the pre-activations, found by tracing.

        Raises:
            GradbenchError: the function cannot read an input of that shape.
        """
        return traced_shape("Function", self, self.inputs)

    def __call__(self, theta: Params, x: Array) -> Array:
        """Return the pre-activations [*outputs] of one example, from states [*inputs] or flat.

        Raises:
            GradbenchError: states that do not fit.
        """
        return self.function(theta, read(x, self.inputs))
