"""The two contracts: of a model, and of the loss that an estimator makes of it.

A model is a function ``model(params, example, binary) -> f`` of one example. It calls ``x =
binary(a, noise="logistic")`` once per stochastic layer, in order, and returns the objective f. An
estimator decides what ``binary`` does, and returns a loss whose gradient is one draw.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from jaxtyping import Array, Float, PyTree

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.uniforms import Uniforms

Params: TypeAlias = PyTree[Any]  # see gradbench.core.pytrees
Example: TypeAlias = PyTree[Array]
Batch: TypeAlias = PyTree[Array]  # examples along the first axis of every leaf


class Binary(Protocol):
    """The stochastic units of one layer, as a model calls them."""

    def __call__(
        self, a: Float[Array, "*shape"], /, noise: str | Noise = "logistic"
    ) -> Float[Array, "*shape"]:
        """Return states x = sign(a - z) in {-1, +1}, with z from the noise.

        Args:
            a: the pre-activations of the layer, of any shape.
            noise: the distribution of z, or its name.
        """


class Model(Protocol):
    """The model contract: a function of one example that calls ``binary`` once per layer."""

    def __call__(self, params: Params, example: Example, binary: Binary, /) -> Float[Array, ""]:
        """Return the objective f of one example, or (f, aux) with any pytree of arrays as aux.

        Args:
            params: any pytree; in networks of the package a tuple with one entry per layer and one
                for the objective.
            example: any pytree of arrays.
            binary: makes the states of a layer of its pre-activations.
        """


class Loss(Protocol):
    """The estimator contract: a scalar whose value estimates J and whose gradient is one draw."""

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """Return the value of the surrogate loss.

        It is (value, aux) where the model returns aux, for ``jax.value_and_grad(loss,
        has_aux=True)``: the aux of the sampled path, with the examples along the first axis.

        Args:
            params: the parameters of the model.
            key: the key of ``jax.random`` that decides the draw.
            batch: examples along the first axis of every leaf; the loss is their mean.
        """


@dataclass(frozen=True)
class Site:
    """One stochastic layer of a model: its place in the order of calls, state shape and noise."""

    index: int
    shape: tuple[int, ...]
    noise: Noise

    @property
    def size(self) -> int:
        """The number of units."""
        return math.prod(self.shape)


class Trace(NamedTuple):
    """A run of a model on one example: the objective, states and pre-activations of all sites.

    ``aux`` is empty, or holds what the model returns beside the objective.
    """

    f: Float[Array, ""]
    x: tuple[Float[Array, "..."], ...]
    a: tuple[Float[Array, "..."], ...]
    sites: tuple[Site, ...]
    aux: tuple[Any, ...] = ()


class Scored(NamedTuple):
    """A draw of one example in parts: sum_k ``signals[k]`` d log P(x_k) / da_k beside the ``rest``.

    The rest has the value of the loss. ``run`` is a run of the model, or several, stacked along
    first axes, over which the scores are averaged. A signal has an entry for each run, ``[*runs]``,
    or for each unit too, ``[*runs, *units]``.
    """

    rest: Float[Array, ""]
    run: Trace
    signals: Sequence[Float[Array, "..."]]


Unit: TypeAlias = Callable[[Site, Array], Array]  # the states of a site, from its pre-activations
Rule: TypeAlias = Callable[..., Array]  # a unit that gets its own uniforms too, an array per stream
Randomness: TypeAlias = Literal["none", "states", "uniforms"]
Smoothness: TypeAlias = Literal["constant", "linear", "smooth"]
ExampleLoss: TypeAlias = Callable[[Params, tuple[Uniforms, ...], Example], Array]
Breakpoints: TypeAlias = Callable[[int, Trace], Sequence[Array]]


def apart(found: Any) -> tuple[Array, tuple[Any, ...]]:
    """Return the objective of what a model returns, and a tuple of what goes with it, if any.

    Raises:
        GradbenchError: a tuple of another length than two.
    """
    if not isinstance(found, tuple):
        return found, ()
    if len(found) != 2:
        raise GradbenchError(
            f"the model returns a tuple of {len(found)} things; return one real number per "
            "example, or (objective, aux)"
        )
    return found[0], (found[1],)


def scalar_of(found: Any) -> Float[Array, ""]:
    """Return the value of what a loss returns, without the aux of its model."""
    return found[0] if isinstance(found, tuple) else found


def is_chain(model: Model) -> bool:
    """Return whether a model offers what PSA needs from its structure, as an ``SBN`` does."""
    return hasattr(model, "flip_objective") and hasattr(model, "flip_pullback")


def is_deterministic(loss: Loss) -> bool:
    """Return whether all draws of an estimator are known to be equal."""
    random_objective = getattr(getattr(loss, "model", None), "random", False)
    return getattr(loss, "randomness", "uniforms") == "none" and not random_objective
