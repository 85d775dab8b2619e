"""The structure that a kind of model may have, and what reads it.

A model is any function ``model(params, example, binary) -> f``, see ``gradbench.core.contract``. A
kind of model that knows more of itself says so by further members. Nothing outside of
``gradbench.models`` asks for a class: the kinds of this package and a user's own kind are treated
alike, by the members that they have. All of these are optional:

===================================== ==========================================================
``init(key)``                         gives random parameters
``check(params, batch)``              refuses values that no gradient can be computed from
``exact_route``                       how it is enumerated: a ``gradbench.exact.Route`` or the
                                      name of one; all paths are summed where it is missing
``run_work(params, batch)``           multiply-adds of one run of the batch with given states
``as_single_example(key, batch)``     makes one example of the batch, whose states are shared
``random``                            says that the objective is random even given the states
``flip_objective``, ``flip_pullback`` give PSA and SA all single flips, see ``is_chain``
``with_objective(objective)``         is the same model with another objective of the states
``terms(params, example, binary)``    gives the objective as a sum of terms, see ``Layered``
``units_in_words(params)``            says what is enumerated, as "5-5 hidden units"
===================================== ==========================================================

``Layered``, ``Activated``, ``LatentWeights`` and ``Samples`` are members that belong together. An
estimator that is made for one of these structures asks for it by the function beside it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeGuard

from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Example, Loss, Model, Params
from gradbench.core.noise import Noise
from gradbench.models.layer import Layer


class _Model(Protocol):
    """The model contract."""

    def __call__(self, params: Params, example: Example, binary: Any) -> Float[Array, ""]:
        """Return the objective of one example."""


class Layered(_Model, Protocol):
    """A chain of stochastic layers under an objective, such as an ``SBN``.

    The layer recursion, moment propagation and SA read it. ``term`` is None where the objective is
    a function of the last states.
    """

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The stochastic layers, from the input up."""

    @property
    def objective(self) -> Any:
        """The function ``objective(theta, x, target)`` of the last states."""

    @property
    def term(self) -> Callable[..., Array] | None:
        """The term of a layer, where the objective is a sum of terms."""

    @property
    def terms(self) -> Callable[..., Sequence[Array]] | None:
        """The model with its terms in the place of their sum, one for each layer, in their order.

        No layer above may change the term of a layer: estimators leave the terms below a layer out
        of its return. Any kind of model may have this, with None for an objective without terms.
        """

    @property
    def states(self) -> tuple[float, float]:
        """The values that the next layer reads for the states -1 and +1."""

    def encode(self, x: Array) -> Array:
        """Return the values that the next layer reads for the states x."""


class Activated(Protocol):
    """A chain of layers with real or deterministic units, such as a ``RealNetwork``."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, from the input up."""

    @property
    def objective(self) -> Any:
        """The function ``objective(theta, x, target)`` of the last units."""

    @property
    def activation(self) -> Callable[[Array], Array]:
        """The function of the pre-activations that the next layer reads."""


class LatentWeights(_Model, Protocol):
    """A network whose weights are the states, such as ``BinaryWeights``.

    ``as_single_example`` goes with it: all examples share the weights.
    """

    @property
    def network(self) -> Any:
        """The network that the weights are put into."""

    @property
    def noise(self) -> str | Noise:
        """The noise of the weights."""

    @property
    def inner_model(self) -> Model | None:
        """The model of the activations given the weights; None where these are not random."""

    def with_activations(self, activations: Callable[[Model], Loss]) -> Model:
        """Return the same model with another estimator of the activations."""

    def with_weights(self, f: Callable[[Any], Any], params: Params) -> tuple[Any, ...]:
        """Return the parameters with ``f`` applied to the latent weights."""

    def latent(self, params: Params) -> list[Array]:
        """Return the latent weights among the parameters."""

    def warn_outside(self, params: Params) -> None:
        """Warn of latent weights outside the support of the noise."""


class Samples(_Model, Protocol):
    """Several independent runs of one model, such as a ``MultiSample``.

    The states of the first run come first, then those of the second, equally many of each.
    """

    @property
    def samples(self) -> int:
        """The number of runs."""

    def losses(self, params: Params, example: Example, binary: Any) -> Float[Array, " samples"]:
        """Return the objectives of all runs of one example."""


def is_layered(model: Any) -> TypeGuard[Layered]:
    """Return whether a model is a chain of stochastic layers."""
    return hasattr(model, "layers") and hasattr(model, "encode")


def is_activated(network: Any) -> TypeGuard[Activated]:
    """Return whether a network is a chain of layers with real or deterministic units."""
    return hasattr(network, "layers") and hasattr(network, "activation")


def has_latent_weights(model: Any) -> TypeGuard[LatentWeights]:
    """Return whether the states of a model are weights."""
    return hasattr(model, "latent") and hasattr(model, "with_weights")


def has_samples(model: Any) -> TypeGuard[Samples]:
    """Return whether a model consists of several runs of another one."""
    return hasattr(model, "losses") and hasattr(model, "samples")


def inner_model(model: Any) -> Model | None:
    """Return the model of the activations given latent weights; None where there is none."""
    return model.inner_model if has_latent_weights(model) else None


def run_work(model: Any, params: Params, batch: Batch) -> float | None:
    """Return the multiply-adds of one run of the batch, where the model knows them."""
    return float(model.run_work(params, batch)) if hasattr(model, "run_work") else None
