"""The model contract: a model is a function ``model(params, example, binary) -> f`` of one example.

It calls ``x = binary(a, noise="logistic")`` once per stochastic layer, in order, and returns the
objective f. ``binary`` takes the pre-activations a, of any shape, and returns states in {-1, +1} of
the same shape. ``params`` is any pytree, in networks of the package a tuple with one entry per
layer and one for the objective; ``example`` is any pytree. An estimator decides what ``binary``
does; the functions here run a model with a chosen ``binary`` and turn the loss of one example into
the loss of a batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from jaxtyping import Array, Float, PyTree

from gradbench.core.noise import Noise
from gradbench.core.uniforms import Uniforms

Params: TypeAlias = PyTree[Any]  # see gradbench.parameters
Example: TypeAlias = PyTree[Array]
Batch: TypeAlias = PyTree[Array]  # examples along the first axis of every leaf
Model: TypeAlias = Callable[[Params, Example, Callable[..., Array]], Array]


@dataclass(frozen=True)
class Site:
    """One stochastic layer of a model: its place in the order of calls, state shape and noise."""

    index: int
    shape: tuple[int, ...]
    noise: Noise

    @property
    def size(self) -> int:
        """Number of units."""
        return math.prod(self.shape)


class Trace(NamedTuple):
    """What a run of a model on one example saw: the objective, states and pre-activations."""

    f: Float[Array, ""]
    x: tuple[Float[Array, "..."], ...]
    a: tuple[Float[Array, "..."], ...]
    sites: tuple[Site, ...]


Unit = Callable[[Site, Array], Array]
Rule = Callable[..., Array]  # of a unit and its own uniforms, one array per stream
Randomness: TypeAlias = Literal["none", "states", "uniforms"]
Smoothness: TypeAlias = Literal["constant", "linear", "smooth"]
ExampleLoss: TypeAlias = Callable[[Params, tuple[Uniforms, ...], Example], Array]
Breakpoints: TypeAlias = Callable[[int, Trace], Sequence[Array]]


class Loss(Protocol):
    """The estimator contract: a scalar whose value estimates J and whose gradient is one draw."""

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The value of the surrogate loss."""


def is_chain(model: Model) -> bool:
    """Whether a model gives what PSA needs from its structure, as an ``SBN`` does."""
    return hasattr(model, "flip_objective") and hasattr(model, "flip_pullback")


def is_deterministic(loss: Loss) -> bool:
    """Whether all draws of an estimator are known to be equal."""
    random_objective = getattr(getattr(loss, "model", None), "random", False)
    return getattr(loss, "randomness", "uniforms") == "none" and not random_objective
