"""The protocol of a layer, the registry of the layers that TOML can say, and shapes.

A layer registers a *form*, a dataclass that is read from a table of TOML and makes the layer:

    @LAYERS.register("conv")
    @dataclass(frozen=True)
    class ConvForm:
        \"\"\"A convolution: ``{ conv = CHANNELS, kernel = 3 }``.\"\"\"

        conv: Count
        kernel: Count = 3

        def layer(self, below, noise):
            return Conv(below, self.conv, self.kernel, noise=noise)

Its first field has the name of the layer; the kinds of fields are in ``gradbench.core.fields``.
"""

import math
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.origins import modules_of
from gradbench.core.registry import Registry

Shape: TypeAlias = int | tuple[int, ...]  # a number of units stands for a vector of them


class Layer(Protocol):
    """A stochastic layer: pre-activations of all its units from the states below it.

    It may offer ``flip_pullback``, see ``gradbench.models.flips.flip_each``; ``reads(shape)``, see
    ``gradbench.models.reads``, for the layers that it is a part of; and say ``affine = True``: then
    it is a = W x + b in the entries "weight" and "bias" of its parameters, so that with W squared
    elementwise and b = 0 it carries the variances of independent inputs.
    """

    @property
    def noise(self) -> str | Noise:
        """The noise of its units."""

    @property
    def inputs(self) -> Shape:
        """The shape of the states that it reads."""

    @property
    def outputs(self) -> Shape:
        """The shape of its own states."""

    def init(self, key: Array) -> Params:
        """Return random parameters."""

    def __call__(self, theta: Params, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the pre-activations of one example."""


class LayerForm(Protocol):
    """A layer as TOML says it, see the head of this module.

    A form may also have

    - ``decoder(below) -> Layer``: the mirror image of the layer, from its states back to the shape
      ``below``; the objective "elbo" needs one for each layer;
    - ``has_weights = False``: its parameters have no entries called "weight" that could be binary.
    """

    def layer(self, below: Shape, noise: str | Noise) -> Layer:
        """Return the layer, which reads states of the shape ``below``.

        Raises:
            GradbenchError: there is no such layer on this shape.
        """


LAYERS: Registry[type[LayerForm]] = Registry("layer", modules=modules_of("gradbench.models"))


def axes(shape: Shape) -> tuple[int, ...]:
    """Return a shape as a tuple.

    Raises:
        GradbenchError: it is neither a whole number nor a tuple of them.
    """
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(size, int | np.integer) for size in sizes):
        raise GradbenchError(f"{shape!r} is not a shape; give whole numbers, such as (4, 4, 1)")
    return tuple(int(size) for size in sizes)


def units(shape: Shape) -> int:
    """Return the number of units of a shape."""
    return math.prod(axes(shape))


def some_units(below: Shape) -> int:
    """Return the number of units that a layer reads.

    Raises:
        GradbenchError: there are none.
    """
    if not units(below):
        raise GradbenchError("the data have no inputs; make the first layer one of logits")
    return units(below)


def fits(below: Shape, above: Shape) -> bool:
    """Return whether states of the shape ``below`` can be read as ``above``.

    They can where the two are equal, or have as many units and one of them is flat.
    """
    below, above = axes(below), axes(above)
    return below == above or (
        math.prod(below) == math.prod(above) and 1 in (len(below), len(above))
    )


def read(x: Array, shape: Shape) -> Array:
    """Return the states ``x`` in the shape that a layer reads.

    Raises:
        GradbenchError: they do not fit.
    """
    if not fits(jnp.shape(x), shape):
        raise GradbenchError(
            f"a layer that reads {axes(shape)} got an input of shape {jnp.shape(x)}; "
            "make the two equal, or one of them flat"
        )
    return jnp.reshape(x, axes(shape))


def traced_shape(name: str, layer: Layer, inputs: Shape) -> tuple[int, ...]:
    """Return the shape of the pre-activations of a layer.

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
    except Exception as error:  # of any kind: the functions are the user's
        reason = " ".join(str(error).split())[:200]
        raise GradbenchError(
            f"{name} cannot read an input of shape {axes(inputs)} ({reason}); "
            "make its parameters and the shapes of its parts fit, and return one array"
        ) from error
