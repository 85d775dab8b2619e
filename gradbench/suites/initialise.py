"""Initial parameters of networks.

An initialisation is a function ``initialise(network, key, inputs, scale) -> params``: ``inputs``
[n, ...] are those of the data set, ``scale`` is the number that a problem gives.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry
from gradbench.models.binary_weights import map_weights
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.structure import is_layered

Initialise = Callable[[Any, Array, np.ndarray, float], tuple[Params, ...]]
INITIALISATIONS: Registry[Initialise] = Registry("initialisation")


@INITIALISATIONS.register()
def uniform(network: Any, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Draw weights and biases from U(-scale, scale)."""
    return jax.tree.map(lambda leaf: scale * leaf, network.init(key))


@INITIALISATIONS.register()
def normalised(network: Any, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Draw from U(-1, 1), then give every hidden pre-activation mean 0 and deviation ``scale``.

    The moments are analytic, under independence: those of the data go in, and a unit of mean 0 is a
    fair Bernoulli variable to the next layer. The output layer is left as it is. Source: the
    experiment on gradient accuracy of Shekhovtsov, Yanush & Flach 2020.
    """
    params = network.init(key)
    hidden = _normalised(network, params[:-1], inputs, scale)
    return (*hidden, params[-1])


@INITIALISATIONS.register()
def fixed_scale(network: Any, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Draw as ``normalised``, the output layer too: networks of any size can be compared."""
    return _normalised(network, network.init(key), inputs, scale)


@INITIALISATIONS.register()
def fan_in(network: Any, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Draw weights of mean 0 and variance scale^2 / inputs of a unit; biases are 0.

    It is for layers of any kind. Source: LeCun et al. 1998, Efficient backprop.
    """

    def scaled(weight: Array) -> Array:
        return weight * scale * np.sqrt(3 / math.prod(weight.shape[1:]))  # U(-1, 1) has 1/3

    def biasless(theta: Any) -> Any:
        if isinstance(theta, Mapping):
            return {k: jnp.zeros_like(v) if k == "bias" else biasless(v) for k, v in theta.items()}
        return tuple(map(biasless, theta)) if isinstance(theta, tuple) else theta

    return tuple(biasless(map_weights(scaled, theta)) for theta in network.init(key))


def _normalised(
    network: Any, params: tuple[Params, ...], inputs: np.ndarray, scale: float
) -> tuple[Params, ...]:
    parts: tuple[Any, ...] = (network,)
    if is_layered(network):
        parts = (*network.layers, network.objective)[: len(params)]
    wrong = [type(part).__name__ for part in parts if not isinstance(part, Dense | Conv | Readout)]
    if wrong:
        raise GradbenchError(
            f"the initialisation got {wrong[0]}, which has no known moments; take 'fan_in'"
        )
    if not np.ptp(np.asarray(inputs), axis=0).any():
        raise GradbenchError(
            f"the inputs of all {len(inputs)} examples are equal, so that pre-activations have no "
            "scale; give more examples, or take the initialisation 'uniform'"
        )
    mean, variance = jnp.mean(inputs, axis=0), jnp.var(inputs, axis=0)
    low, high = network.states
    done = []
    for part, theta in zip(parts, params, strict=True):
        theta = _normalised_layer(part, theta, mean, variance, scale)
        done.append(theta)
        if isinstance(part, Dense | Conv):
            mean = jnp.full(part.outputs, (low + high) / 2)
            variance = jnp.full(part.outputs, ((high - low) / 2) ** 2)
    return tuple(done)


def _normalised_layer(
    part: Dense | Conv | Readout, theta: Params, mean: Array, variance: Array, scale: float
) -> Params:
    """Give pre-activations mean 0 and this scale, on the average over positions."""
    if isinstance(part, Readout):
        part = Dense(part.inputs, part.outputs)
    weight, no_bias = theta["weight"], jnp.zeros_like(theta["bias"])

    def unit(statistic: Array) -> Array:
        return jnp.mean(jnp.reshape(statistic, (-1, len(no_bias))), axis=0)

    spread = unit(part({"weight": weight**2, "bias": no_bias}, variance))
    weight = weight * (scale / jnp.sqrt(spread)).reshape(-1, *[1] * (weight.ndim - 1))
    return {"weight": weight, "bias": -unit(part({"weight": weight, "bias": no_bias}, mean))}


@INITIALISATIONS.register()
def own(network: Any, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Take what each layer begins with: logits at their value, other weights from U(-1, 1)."""
    return tuple(network.init(key))


def get_initialisation(name: str) -> Initialise:
    """Return the initialisation of a name.

    Raises:
        GradbenchError: the name is unknown.
    """
    return INITIALISATIONS.find(name)
