"""From the description of a network to the network."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.registry import Registry
from gradbench.estimators.exact import exact
from gradbench.estimators.registry import check_spec, make_estimator
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.dense import DenseForm
from gradbench.models.layer import Layer, LayerForm, Shape, units
from gradbench.models.losses import OBJECTIVES, ObjectiveForm, Readout, Stack
from gradbench.models.network import SBN, RealNetwork
from gradbench.suites.problem import Network

AnyNetwork: TypeAlias = SBN | BinaryWeights
ACTIVATIONS: Registry[Callable[[Array], Array]] = Registry("activation")
ACTIVATIONS.add("tanh", jnp.tanh, summary="the hyperbolic tangent")
ACTIVATIONS.add("relu", jax.nn.relu, summary="the positive part")
ACTIVATIONS.add("sign", jnp.sign, summary="the sign, whose derivative is zero")
ACTIVATIONS.add("identity", lambda x: x, summary="the input itself")


def check_network(description: Network) -> None:
    """Refuse names that are not known, and combinations that do not exist.

    Raises:
        GradbenchError: names what is wrong and the remedy.
    """
    get_noise(description.noise)
    objective = _objective(description)
    uses = _LOSS_USES if objective is None else getattr(objective, "uses", ("states",))
    weights = description.weights
    if weights is not None and "weights" not in uses:
        raise GradbenchError(
            f"{_said(description)} has no binary weights; take out network.weights"
        )
    if weights is not None:
        get_noise(weights.noise)
        for form in map(layer_form, description.hidden):
            if not getattr(form, "has_weights", True):
                raise GradbenchError(
                    f"the layer {fields(form)[0].name!r} has no binary weights; "  # type: ignore[arg-type]
                    "take out network.weights"
                )
        if weights.activation is not None:
            ACTIVATIONS.find(weights.activation)
        if weights.activations is not None:
            check_spec(weights.activations)
    _refuse_unused(description, uses)


_LOSS_USES = ("outputs", "states", "weights")


def _said(description: Network) -> str:
    """Return what sentences call the objective."""
    named = description.objective
    name = named if isinstance(named, str) else fields(named)[0].name  # type: ignore[arg-type]
    return f"the objective {name!r}"


def _refuse_unused(description: Network, uses: tuple[str, ...]) -> None:
    """Refuse keys that say something which the network would not do."""
    weights = description.weights
    unused = {key: _said(description) for key in ("outputs", "states", "kl") if key not in uses}
    if weights is not None and weights.activation is not None:
        unused |= {"noise": "a network with an activation"}
        if weights.activations is not None:
            raise GradbenchError(
                f"network.weights.activations is {weights.activations!r}, which a network with an "
                "activation has no use for; take it out"
            )
    for key, why in unused.items():
        value = getattr(description, key)
        if value != getattr(Network, key):
            raise GradbenchError(
                f"network.{key} is {value!r}, which {why} has no use for; take it out"
            )


def _objective(description: Network) -> ObjectiveForm | None:
    """Return the form of the objective, None where it is a loss of outputs."""
    if not isinstance(description.objective, str):
        return description.objective
    found: Any = OBJECTIVES.find(description.objective)
    return found() if isinstance(found, type) else None


def layer_form(hidden: int | LayerForm) -> LayerForm:
    """Return the form of a layer; a number stands for dense units."""
    return DenseForm(hidden) if isinstance(hidden, int) else hidden


def make_network(description: Network, inputs: int) -> AnyNetwork:
    """Return the network of a description, for examples of so many inputs.

    Raises:
        GradbenchError: see ``check_network``; also layers whose shapes do not chain.
    """
    check_network(description)
    below: Shape = inputs if description.inputs is None else description.inputs
    forms = tuple(map(layer_form, description.hidden))
    layers: list[Layer] = []
    for form in forms:
        layers.append(form.layer(below, description.noise))
        below = layers[-1].outputs
    objective = _objective(description)
    if objective is not None:
        stack = Stack(tuple(layers), forms, description.outputs, description.kl)
        return SBN(tuple(layers), objective.objective(stack), description.states)
    assert isinstance(description.objective, str)  # the name of a loss
    readout = Readout(units(below), description.outputs, description.objective)
    weights = description.weights
    if weights is None:
        return SBN(tuple(layers), readout, description.states)
    if weights.activation is not None:
        activation = ACTIVATIONS.find(weights.activation)
        if description.states != Network.states:
            activation = _Coded(activation, description.states)
        real = RealNetwork(tuple(layers), readout, activation)
        return BinaryWeights(real, noise=weights.noise)
    inner: Callable[[Model], Loss] = exact
    if weights.activations is not None:
        inner = _Estimated(weights.activations)
    return BinaryWeights(SBN(tuple(layers), readout, description.states), inner, weights.noise)


@dataclass(frozen=True)
class _Coded:
    """An activation, with what the next layer reads in the place of its values -1 and +1."""

    activation: Callable[[Array], Array]
    states: tuple[float, ...]

    def __call__(self, a: Array) -> Array:
        low, high = self.states
        return (low + high) / 2 + (high - low) / 2 * self.activation(a)


@dataclass(frozen=True)
class _Estimated:
    """Makes the estimator of a spec for any model, the same object for the same spec."""

    spec: str

    def __call__(self, model: Model) -> Loss:
        return make_estimator(self.spec, model)
