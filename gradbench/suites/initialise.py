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
from gradbench.core.noise import get_noise
from gradbench.core.registry import Registry
from gradbench.core.uniforms import check_key
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
    _refuse_equal(inputs)
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


def _refuse_equal(inputs: np.ndarray) -> None:
    if not np.ptp(np.asarray(inputs), axis=0).any():
        raise GradbenchError(
            f"the inputs of all {len(inputs)} examples are equal, so that pre-activations have no "
            "scale; give more examples, or take the initialisation 'uniform'"
        )


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
def data_dependent(
    network: Any, key: Array, inputs: np.ndarray, scale: float
) -> tuple[Params, ...]:
    """Give pre-activations mean 0 and deviation ``scale`` over the data, with sampled states.

    Weights begin as in ``fan_in``; layer after layer, each unit (each channel of a convolution) is
    scaled and shifted by what it has on at most 1000 examples. So are the outputs of a readout.
    Source: the experiments on training of Shekhovtsov, Yanush & Flach 2020.
    """
    return _data_dependent(network, key, inputs, scale, mean=False)


@INITIALISATIONS.register()
def data_dependent_mean(
    network: Any, key: Array, inputs: np.ndarray, scale: float
) -> tuple[Params, ...]:
    """Initialise as ``data_dependent``, with the means of the states below in their place."""
    return _data_dependent(network, key, inputs, scale, mean=True)


_EXAMPLES = 1000  # which the moments of pre-activations are taken over


def _data_dependent(
    network: Any, key: Array, inputs: np.ndarray, scale: float, mean: bool
) -> tuple[Params, ...]:
    if not is_layered(network):
        raise GradbenchError(
            f"the initialisation got a {type(network).__name__}, which is no chain of stochastic "
            "layers; take 'fan_in'"
        )
    _refuse_equal(inputs)
    params = list(fan_in(network, key, inputs, scale))
    x = jnp.asarray(inputs)[:_EXAMPLES].astype(jax.tree.leaves(params)[0].dtype)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(network.layers))
    for k, (layer, own) in enumerate(zip(network.layers, keys, strict=True)):
        a = jax.vmap(layer, (None, 0))(params[k], x)
        params[k], a = _standardised(params[k], a, scale, f"layer {k + 1}")
        p = get_noise(layer.noise).cdf(a)
        bits = 2 * p - 1 if mean else jnp.where(jax.random.uniform(own, a.shape) < p, 1.0, -1.0)
        x = network.encode(bits.astype(a.dtype))
    if isinstance(network.objective, Readout):
        out = jax.vmap(lambda x: network.objective.read(params[-1], (x,)))(x)
        params[-1], _ = _standardised(params[-1], out, scale, "the readout")
    return tuple(params)


def _standardised(theta: Params, a: Array, scale: float, name: str) -> tuple[Params, Array]:
    """Return the parameters and pre-activations [n, ...] with mean 0 and deviation ``scale``."""
    affine = _last_affine(theta)
    units = 0 if affine is None else len(affine["bias"])
    if affine is None or a.shape[-1] % units:
        raise GradbenchError(
            f"the initialisation got {name} without a weight and a bias of its units; take 'fan_in'"
        )
    flat = a.reshape(-1, units)
    mean, spread = jnp.mean(flat, axis=0), jnp.std(flat, axis=0)
    traced = isinstance(spread, jax.core.Tracer)  # as where shapes alone are asked for
    if not traced and not np.all(np.asarray(spread) > 0):
        raise GradbenchError(
            f"the pre-activations of {name} are the same for all {len(a)} examples, so that they "
            "have no scale; give more examples, or take the initialisation 'uniform'"
        )
    factor = scale / spread
    weight = affine["weight"] * factor.reshape(-1, *[1] * (affine["weight"].ndim - 1))
    new = {"weight": weight, "bias": (affine["bias"] - mean) * factor}
    a = ((flat - mean) * factor).reshape(a.shape)
    return _replaced(theta, affine, new), a


def _last_affine(theta: Params) -> Any:
    """Return the last entry with a weight and a bias in the parameters of a layer, or None."""
    if isinstance(theta, Mapping):
        return theta if {"weight", "bias"} <= set(theta) else _last_affine(tuple(theta.values()))
    if isinstance(theta, tuple | list):
        return next((found for part in theta[::-1] if (found := _last_affine(part))), None)
    return None


def _replaced(theta: Params, old: Any, new: Any) -> Any:
    if theta is old:
        return {**old, **new}
    if isinstance(theta, Mapping):
        return {name: _replaced(part, old, new) for name, part in theta.items()}
    return tuple(_replaced(part, old, new) for part in theta) if isinstance(theta, tuple) else theta


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


def initialise(
    network: Any,
    key: Array,
    inputs: np.ndarray,
    method: str = "data_dependent",
    scale: float = 1.0,
) -> tuple[Params, ...]:
    """Return initial parameters of a network.

    Args:
        network: a network of layers, such as an ``SBN``.
        key: a key.
        inputs: inputs [n, ...] of the data that it will be trained on.
        method: the name of an initialisation, such as "data_dependent", "data_dependent_mean",
            "fan_in", "normalised" or "uniform"; ``gradbench list initialisations`` prints all.
        scale: the deviation that pre-activations get, of "uniform" the limit of all parameters.

    Raises:
        GradbenchError: an unknown method, a scale that is not positive, or a network or inputs that
            the method is not made for.
    """
    make = get_initialisation(method)
    if not 0 < scale < math.inf:
        raise GradbenchError(f"the scale is {scale!r}; give a number above 0")
    check_key(key)
    return make(network, key, np.asarray(inputs), float(scale))
