"""Dense layers, and layers of logits.

A layer is any object with the members of ``gradbench.models.layer.Layer``. States keep their
natural shape, such as ``[height, width, channels]``. The parameters of affine layers are
``{"weight": [outputs, ...], "bias": [outputs]}``; the first axis of the weight counts units or
channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.fields import Count, OneOrMore, Real
from gradbench.core.noise import Noise, get_noise
from gradbench.models.flips import _AT_ONCE, one_by_one
from gradbench.models.layer import LAYERS, Layer, Shape, read, some_units, units
from gradbench.models.ranks import LowRankFlips
from gradbench.models.reads import Reads


def affine(theta: Params, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
    """Return W x + b, as one product: bias and weights then share one pass in the gradient too."""
    if not isinstance(theta, Mapping) or set(theta) != {"weight", "bias"}:
        found = sorted(theta) if isinstance(theta, Mapping) else "that are not a dictionary"
        raise GradbenchError(f"an affine layer got parameters {found}; give a weight and a bias")
    weight, bias = theta["weight"], theta["bias"]
    for name, value in theta.items():
        if not hasattr(value, "shape"):
            raise GradbenchError(
                f"an affine layer got a {name} of type {type(value).__name__}; give arrays"
            )
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
    """Draw weights and biases from U(-1, 1), as in the experiments of the PSA paper."""
    for_weight, for_bias = jax.random.split(key)
    return {
        "weight": jax.random.uniform(for_weight, weight, minval=-1),
        "bias": jax.random.uniform(for_bias, weight[:1], minval=-1),
    }


def check_sizes(what: str, sizes: Any) -> None:
    """Refuse sizes that are not positive whole numbers."""
    if not sizes or not all(isinstance(n, int | np.integer) and n >= 1 for n in sizes):
        raise GradbenchError(f"{what} got {sizes}; give whole numbers of at least 1")


@dataclass(frozen=True)
class Dense(LowRankFlips):
    """A dense layer a = W x + b, parameters ``{"weight": [outputs, inputs], "bias": [outputs]}``.

    It reads states of any shape with ``inputs`` units; ``noise`` is the noise of its ``outputs``
    units.

    Raises:
        GradbenchError: sizes that are not positive whole numbers, or an unknown noise.
    """

    inputs: int
    outputs: int
    noise: str | Noise = "logistic"
    affine = True  # see Layer

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        check_sizes("a dense layer", (self.inputs, self.outputs))
        get_noise(self.noise)

    def init(self, key: Array) -> Params:
        """Draw weights [outputs, inputs] and biases [outputs] from U(-1, 1)."""
        return uniform_affine(key, (self.outputs, self.inputs))

    def __call__(self, theta: Params, x: Array) -> Float[Array, " outputs"]:
        """Return the pre-activations of one example.

        Raises:
            GradbenchError: parameters or states of other shapes.
        """
        return affine(theta, jnp.ravel(x))

    def reads(self, shape: tuple[int, ...]) -> Reads:
        """Return that all units read all inputs, whatever the shape; see ``reads``."""
        return Reads((self.inputs,), (self.outputs,), (), lambda theta: theta["weight"], self)

    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """Return what ``flip_each`` gives, from sheets of F(a_j + W_ji (flipped_i - x_i)).

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

    @property
    def pairs(self) -> int:
        """The number of pairs of an input and a unit."""
        return self.inputs * self.outputs

    def transposed(self, weight: Array, g: Array) -> Float[Array, " inputs"]:
        """Return W^T g, for a weight [n, inputs] and g [n] of any number n of units."""
        return g @ weight


@dataclass(frozen=True)
class Logits:
    """A layer that reads nothing: its pre-activations are its parameters ``{"bias": [n]}``.

    It is the first layer of toy problems, whose inputs have no numbers. It has ``outputs`` units n;
    with ``shared`` one parameter is the pre-activation of all. Parameters begin at ``value``.

    Raises:
        GradbenchError: ``outputs`` is not a whole number of at least 1, or the noise is unknown.
    """

    outputs: int
    noise: str | Noise = "logistic"
    shared: bool = False
    value: float = 0.0

    def __post_init__(self) -> None:
        """Refuse impossible sizes."""
        check_sizes("a layer of logits", (self.outputs,))
        get_noise(self.noise)

    @property
    def inputs(self) -> int:
        """Zero: it reads nothing."""
        return 0

    def init(self, key: Array) -> Params:
        """Return the same value for all units; nothing is random."""
        return {"bias": jnp.full(1 if self.shared else self.outputs, float(self.value))}

    def __call__(self, theta: Params, x: Array) -> Float[Array, " outputs"]:
        """Return the pre-activations, whatever the example.

        Raises:
            GradbenchError: parameters of other shapes, or an input that has numbers.
        """
        read(x, self.inputs)
        shape = (1 if self.shared else self.outputs,)
        if jax.tree.map(jnp.shape, theta) != {"bias": shape}:
            raise GradbenchError(
                f"a layer of {self.outputs} logits got parameters of shapes "
                f"{jax.tree.map(jnp.shape, theta)}; give a bias of shape {shape}"
            )
        return jnp.broadcast_to(theta["bias"], (self.outputs,))


@LAYERS.register("dense")
@dataclass(frozen=True)
class DenseForm:
    """Dense units: ``{ dense = UNITS }``, after deterministic tanh units ``through = [8, 8]``."""

    dense: Count
    through: OneOrMore[Count] = ()

    def layer(self, below: Shape, noise: str | Noise) -> Layer:
        """Return the layer, which reads states of the shape ``below``.

        Raises:
            GradbenchError: there are no inputs.
        """
        return _perceptron((some_units(below), *self.through, self.dense), noise)

    def decoder(self, below: Shape) -> Layer:
        """Return the mirror image of the layer, for an ELBO."""
        return _perceptron((self.dense, *reversed(self.through), units(below)), "logistic")


def _perceptron(sizes: tuple[int, ...], noise: str | Noise) -> Layer:
    """Return a dense layer, or one after deterministic tanh units."""
    from gradbench.models.compose import Compose  # which imports this module

    parts: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        parts += [Dense(inputs, outputs, noise), jnp.tanh]
    return parts[0] if len(parts) == 2 else Compose(tuple(parts[:-1]))


@LAYERS.register("logits")
@dataclass(frozen=True)
class LogitsForm:
    """Units that read nothing: ``{ logits = UNITS, shared = true, value = -4 }``."""

    logits: Count
    shared: bool = False
    value: Real = 0.0
    has_weights = False

    def layer(self, below: Shape, noise: str | Noise) -> Logits:
        """Return the layer.

        Raises:
            GradbenchError: there are inputs, which it would not read.
        """
        if inputs := units(below):
            raise GradbenchError(
                f"a layer of logits reads nothing and got {inputs} inputs; make it the first, and "
                "take the data 'nothing' or 'quadratic_form'"
            )
        return Logits(self.logits, noise, self.shared, self.value)
