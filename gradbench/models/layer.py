"""The protocol of a layer, and how its sizes are read."""

import math
from typing import Protocol, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise

Shape: TypeAlias = int | tuple[int, ...]  # a number of units is a vector of them


class Layer(Protocol):
    """A stochastic layer: pre-activations of all its units from the states below it.

    It may offer ``flip_pullback``, see ``flip_each``, and say ``affine = True``: then it is
    a = W x + b in the entries "weight" and "bias" of its parameters, so that with W squared
    elementwise and b = 0 it carries the variances of independent inputs.
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
