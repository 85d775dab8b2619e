"""Layers of networks: dense, convolution, and pre-activations composed of any JAX functions.

A layer is any object with the members of ``Layer``. States keep their natural shape, such as
``[height, width, channels]``; the parameters of affine layers are ``{"weight": [outputs, ...],
"bias": [outputs]}``, the first axis of the weight being that of the units or channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.models.flips import _AT_ONCE, one_by_one
from gradbench.models.layer import read


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
    affine = True  # see Layer

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

    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
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
