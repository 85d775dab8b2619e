"""From the description of a network to the network."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.noise import get_noise
from gradbench.estimators import exact
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.compose import Compose
from gradbench.models.conv import AveragePool, Conv
from gradbench.models.dense import Dense, Logits
from gradbench.models.elbo import ELBO
from gradbench.models.layer import Layer, Shape, axes
from gradbench.models.losses import Readout, get_loss
from gradbench.models.network import SBN, RealNetwork
from gradbench.models.toys import Distance, Polynomial, Quadratic
from gradbench.suites.problem import ConvLayer, DenseLayer, LogitsLayer, Network
from gradbench.suites.problem import Distance as DistanceTable
from gradbench.suites.problem import Polynomial as PolynomialTable

AnyNetwork: TypeAlias = SBN | BinaryWeights
Hidden: TypeAlias = int | DenseLayer | ConvLayer | LogitsLayer
ELBO_NAME = "elbo"
QUADRATIC_NAME = "quadratic"
ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "sign": jnp.sign,
    "identity": lambda x: x,
}


def check_network(description: Network) -> None:
    """Refuses names that nobody knows, and combinations that do not exist.

    Raises:
        GradbenchError: names what is wrong and the remedy.
    """
    get_noise(description.noise)
    elbo = description.objective == ELBO_NAME
    logits = any(isinstance(layer, LogitsLayer) for layer in description.hidden)
    convolutional = any(isinstance(layer, ConvLayer) for layer in description.hidden)
    if not elbo and _toy(description) is None:
        get_loss(description.objective)
    if elbo and (convolutional or logits):
        kind = "convolutional layer" if convolutional else "layer of logits"
        raise GradbenchError(f"the objective 'elbo' got a {kind}; give dense layers")
    _refuse_unused(description)
    weights = description.weights
    if weights is None:
        return
    if elbo:
        raise GradbenchError("the objective 'elbo' has no binary weights; take out network.weights")
    if logits or _toy(description) is not None:
        what = "a layer of logits" if logits else "a toy objective"
        raise GradbenchError(f"{what} has no binary weights; take out network.weights")
    get_noise(weights.noise)
    if weights.activation is not None and weights.activation not in ACTIVATIONS:
        remedy = did_you_mean(weights.activation, ACTIVATIONS)
        raise GradbenchError(f"unknown activation {weights.activation!r}; {remedy}")


def _refuse_unused(description: Network) -> None:
    """Refuses keys that say something which the network would not do."""
    elbo = description.objective == ELBO_NAME
    toy = _toy(description) is not None
    real = description.weights is not None and description.weights.activation is not None
    for key, unused, why in (
        ("outputs", elbo, "the objective 'elbo'"),
        ("outputs", toy, "a toy objective"),
        ("states", elbo, "the objective 'elbo'"),
        ("kl", not elbo, "a toy objective" if toy else f"the objective {description.objective!r}"),
        ("states", real, "units with an activation"),
        ("noise", real, "units with an activation"),
    ):
        value = getattr(description, key)
        if unused and value != getattr(Network, key):
            raise GradbenchError(
                f"network.{key} is {value!r}, which {why} has no use for; take it out"
            )


def _toy(description: Network) -> Any:
    """The objective that reads the last states themselves, None where there is a readout."""
    objective = description.objective
    if isinstance(objective, DistanceTable):
        return Distance(objective.distance, objective.power, objective.total)
    if isinstance(objective, PolynomialTable):
        return Polynomial(objective.polynomial, objective.total)
    return Quadratic() if objective == QUADRATIC_NAME else None


def make_network(description: Network, inputs: int) -> AnyNetwork:
    """The network of a description, for examples of so many inputs.

    Raises:
        GradbenchError: see ``check_network``; also layers whose shapes do not chain.
    """
    check_network(description)
    below: Shape = inputs if description.inputs is None else description.inputs
    layers: list[Layer] = []
    decoders: list[Layer] = []
    for hidden in description.hidden:
        layer = _layer(hidden, below, description.noise)
        layers.append(layer)
        if description.objective == ELBO_NAME:
            decoders.append(_decoder(hidden, below))
        below = layer.outputs
    if description.objective == ELBO_NAME:
        return SBN(tuple(layers), ELBO(tuple(decoders), description.kl), description.states)
    if (toy := _toy(description)) is not None:
        return SBN(tuple(layers), toy, description.states)
    assert isinstance(description.objective, str)  # tables are toys
    readout = Readout(_units(below), description.outputs, description.objective)
    weights = description.weights
    if weights is None:
        return SBN(tuple(layers), readout, description.states)
    if weights.activation is not None:
        real = RealNetwork(tuple(layers), readout, ACTIVATIONS[weights.activation])
        return BinaryWeights(real, noise=weights.noise)
    return BinaryWeights(SBN(tuple(layers), readout, description.states), exact, weights.noise)


def _units(shape: Shape) -> int:
    return int(np.prod(axes(shape)))


def _layer(hidden: Hidden, below: Shape, noise: str) -> Layer:
    """The layer of a description, on states of the shape ``below``."""
    if isinstance(hidden, LogitsLayer):
        if _units(below):
            raise GradbenchError(
                f"a layer of logits reads nothing and got {_units(below)} inputs; make it the "
                "first, and take the data 'nothing' or 'quadratic_form'"
            )
        return Logits(hidden.logits, noise, hidden.shared, hidden.value)
    if not _units(below):
        raise GradbenchError("the data have no inputs; make the first layer one of logits")
    if isinstance(hidden, ConvLayer):
        pool = AveragePool(hidden.pool)
        pooled = jax.eval_shape(pool, jax.ShapeDtypeStruct(axes(below), jnp.float32)).shape
        conv = Conv(pooled, hidden.conv, hidden.kernel, hidden.stride, hidden.padding, noise)
        return conv if hidden.pool == 1 else Compose((pool, conv), inputs=below)
    units, through = _dense(hidden)
    return _perceptron((_units(below), *through, units), noise)


def _decoder(hidden: Hidden, below: Shape) -> Layer:
    """The mirror image of a dense layer."""
    units, through = _dense(hidden)
    return _perceptron((units, *reversed(through), _units(below)), "logistic")


def _dense(hidden: Hidden) -> tuple[int, tuple[int, ...]]:
    assert isinstance(hidden, int | DenseLayer)
    return (hidden.dense, hidden.through) if isinstance(hidden, DenseLayer) else (hidden, ())


def _perceptron(sizes: tuple[int, ...], noise: str) -> Layer:
    """A dense layer, or one through deterministic tanh units."""
    parts: list[Any] = []
    for inputs, outputs in pairwise(sizes):
        parts += [Dense(inputs, outputs, noise), jnp.tanh]
    return parts[0] if len(parts) == 2 else Compose(tuple(parts[:-1]))
