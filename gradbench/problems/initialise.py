"""Initial parameters of dense networks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Params
from gradbench.network import SBN

Initialise = Callable[[SBN, Array, np.ndarray, float], tuple[Params, ...]]


def uniform(network: SBN, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """Weights and biases from U(-scale, scale)."""
    return jax.tree.map(lambda leaf: scale * leaf, network.init(key))


def normalised(network: SBN, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """U(-1, 1), then every hidden unit's pre-activation to mean 0 and standard deviation ``scale``.

    By analytic moments under independence: those of the data go in; a unit of mean 0 is a fair
    Bernoulli variable to the next layer. The output layer is left. Source: the experiment on
    gradient accuracy of Shekhovtsov, Yanush & Flach 2020.
    """
    params = network.init(key)
    hidden = _normalised(network, params[:-1], inputs, scale)
    return (*hidden, params[-1])


def fixed_scale(network: SBN, key: Array, inputs: np.ndarray, scale: float) -> tuple[Params, ...]:
    """As ``normalised``, with the output layer too: networks of any width and depth compare."""
    return _normalised(network, network.init(key), inputs, scale)


def _normalised(
    network: SBN, params: tuple[Params, ...], inputs: np.ndarray, scale: float
) -> tuple[Params, ...]:
    if not np.ptp(np.asarray(inputs), axis=0).any():
        raise GradbenchError(
            f"the inputs of all {len(inputs)} examples are equal, so that pre-activations have no "
            "scale; give more examples, or take the initialisation 'uniform'"
        )
    mean, variance = jnp.mean(inputs, axis=0), jnp.var(inputs, axis=0)
    low, high = network.states
    done = []
    for theta in params:
        done.append(_normalised_layer(theta, mean, variance, scale))
        units = len(theta["bias"])
        mean = jnp.full(units, (low + high) / 2)
        variance = jnp.full(units, ((high - low) / 2) ** 2)
    return tuple(done)


def _normalised_layer(
    theta: Params, mean: Float[Array, " inputs"], variance: Float[Array, " inputs"], scale: float
) -> Params:
    weight = theta["weight"] * (scale / jnp.sqrt(theta["weight"] ** 2 @ variance))[:, None]
    return {"weight": weight, "bias": -weight @ mean}


INITIALISATIONS: dict[str, Initialise] = {
    "uniform": uniform,
    "normalised": normalised,
    "fixed_scale": fixed_scale,
}


def get_initialisation(name: str) -> Initialise:
    """The initialisation of that name.

    Raises:
        GradbenchError: the name is unknown.
    """
    if name not in INITIALISATIONS:
        remedy = did_you_mean(name, INITIALISATIONS)
        raise GradbenchError(f"unknown initialisation {name!r}; {remedy}")
    return INITIALISATIONS[name]
