"""Objectives: the registry of those that TOML can say, and losses of a network's outputs.

An objective of a network is either a function ``objective(theta, x, target) -> f`` of its last
states, or an object with a method ``term(params, k, noise, below, a, x)``. In the latter case f is
the sum over the layers k = 0, 1, ... of terms that see the states x of the layer in {-1, +1}, their
pre-activations a and noise, and the states below, which for k = 0 are the example (input, target).
``params`` are the parameters of the network; their last entry, ``theta``, is the objective's own.

A function may know its expectation over independent units: ``expected(theta, p, values, target)``,
where a state is ``values[1]`` with probability p and else ``values[0]``. With one layer of units
this is the exact expected loss, for any number of units.

An objective that knows how many ``classes`` its targets are of, the numbers from 0, is enumerated
once for each class, not for each example.

``OBJECTIVES`` holds two kinds of things. A function ``loss(out, target)`` reads an affine map of
the last states, as a ``Readout`` does, and TOML says its name. Any other objective registers a
*form*, a dataclass that is read from TOML, which says its name alone (``objective = "elbo"``) or a
table whose first key has the name (``objective = { distance = [0.49], power = 2 }``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import NOISES
from gradbench.core.origins import modules_of
from gradbench.core.registry import Registry
from gradbench.models.dense import affine, check_sizes, uniform_affine
from gradbench.models.layer import Layer, LayerForm

LossFunction = Callable[[Array, Array], Array]


class Stack(NamedTuple):
    """The layers below an objective and their forms, and what [network] says of the objective."""

    layers: tuple[Layer, ...]
    forms: tuple[LayerForm, ...]
    outputs: int = 1
    kl: str = "closed"


class ObjectiveForm(Protocol):
    """An objective as TOML says it, see the head of this module.

    ``uses`` are the keys of [network], of "outputs", "states", "kl" and "weights", that the
    objective has a use for; ("states",) unless it is there. Others are refused.
    """

    def objective(self, stack: Stack) -> Any:
        """Return the objective.

        Raises:
            GradbenchError: it does not fit the layers.
        """


OBJECTIVES: Registry[LossFunction | type[ObjectiveForm]] = Registry(
    "objective", modules=modules_of("gradbench.models")
)


@OBJECTIVES.register()
def logistic_loss(out: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
    """Return log(1 + exp(-out target)), target in {-1, +1}."""
    return softplus(-out[0] * target)


@jax.custom_jvp
def softplus(z: Float[Array, ""]) -> Float[Array, ""]:
    """Return log(1 + exp(z)) of a finite z; JAX's, which takes infinities too, is slower."""
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


softplus.defjvp(lambda z, dz: (softplus(*z), jax.nn.sigmoid(*z) * dz[0]))


@OBJECTIVES.register()
def softmax_cross_entropy(out: Float[Array, " classes"], target: Array) -> Float[Array, ""]:
    """Return -log softmax(out)[target], target an integer class."""
    return jax.nn.logsumexp(out) - out[target]


@OBJECTIVES.register()
def squared_error(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Return the sum over the outputs of (out - target)^2."""
    _same_shape("squared_error", out, target)
    return jnp.sum((out - target) ** 2)


@OBJECTIVES.register()
def bernoulli_likelihood(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Return -log P(target) of independent bits in {-1, +1} with the logits ``out``."""
    _same_shape("bernoulli_likelihood", out, target)
    return -NOISES["logistic"].log_probability(target.astype(out.dtype), out)


@OBJECTIVES.register()
def multinomial_likelihood(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Return -sum_w target_w log softmax(out)_w, target the counts of words.

    The multinomial coefficient is left out. Source: the stochastic autoencoder of semantic hashing
    (Salakhutdinov & Hinton 2009; Shen et al. 2018, NASH).
    """
    _same_shape("multinomial_likelihood", out, target)
    return -jnp.vdot(target.astype(out.dtype), jax.nn.log_softmax(out))


def _same_shape(loss: str, out: Array, target: Array) -> None:
    if jnp.shape(target) != jnp.shape(out):
        raise GradbenchError(
            f"{loss} got {out.size} outputs and a target of shape {jnp.shape(target)}; "
            "give one number per output"
        )


def get_loss(loss: str | LossFunction) -> LossFunction:
    """Return the loss of a name; a function is returned as it is.

    Raises:
        GradbenchError: the name is unknown, or the objective of that name is no loss of outputs.
    """
    if callable(loss):
        return loss
    found = OBJECTIVES.find(loss)
    if isinstance(found, type):
        raise GradbenchError(f"the objective {loss!r} is not a loss of outputs; take one that is")
    return found


def check_targets(loss: str | LossFunction, targets: np.ndarray, outputs: int) -> None:
    """Refuse targets that a loss is not made for, as far as it is known.

    Raises:
        GradbenchError: names the loss, the target and the remedy.
    """
    if loss in ("logistic_loss", "bernoulli_likelihood"):
        wrong = targets[~np.isin(targets, (-1, 1))]
        what = "the two classes" if loss == "logistic_loss" else "bits"
        remedy = f"code {what} as -1 and +1"
    elif loss == "softmax_cross_entropy":
        integers = np.issubdtype(targets.dtype, np.integer)
        wrong = targets[~np.isin(targets, np.arange(outputs)) | (not integers)]
        remedy = f"give integer classes from 0 to {outputs - 1}"
    elif loss == "multinomial_likelihood":
        wrong = targets[targets < 0]
        remedy = "give counts, at least 0"
    else:
        return
    if wrong.size:
        raise GradbenchError(f"{loss} got the target {wrong[0]}; {remedy}")


def ensemble(
    loss: str | LossFunction | None, outputs: Float[Array, "samples n outputs"]
) -> Float[Array, "n outputs"]:
    """Return the mean over samples of what outputs mean to a loss, as outputs.

    That is the mean of probabilities where the loss is one of classes, counts or bits, as log
    probabilities or logits, and else the mean of the outputs themselves.
    """
    named = get_loss(loss) if loss is not None else None
    n = math.log(len(outputs))
    if named in (softmax_cross_entropy, multinomial_likelihood):
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs), axis=0) - n
    if named in (logistic_loss, bernoulli_likelihood):
        sides = (jax.nn.logsumexp(jax.nn.log_sigmoid(s * outputs), axis=0) for s in (1, -1))
        return jnp.subtract(*sides)
    return jnp.mean(outputs, axis=0)


@dataclass(frozen=True)
class Readout:
    """The objective loss(W x + b, target): an affine map of the last states, and a loss of it.

    It reads states of any shape with ``inputs`` units; parameters ``{"weight": [outputs, inputs],
    "bias": [outputs]}``. ``loss`` is a name in ``OBJECTIVES`` or any JAX function ``(out
    [outputs], target) -> scalar``.

    Raises:
        GradbenchError: sizes that are not positive whole numbers, an unknown loss, or
            ``logistic_loss`` of several outputs.
    """

    inputs: int
    outputs: int
    loss: str | LossFunction = "logistic_loss"

    def __post_init__(self) -> None:
        """Refuse a loss that is not known or does not fit the number of outputs."""
        check_sizes("a readout", (self.inputs, self.outputs))
        get_loss(self.loss)
        if self.loss == "logistic_loss" and self.outputs != 1:
            raise GradbenchError(
                f"logistic_loss got {self.outputs} outputs; give 1, or take softmax_cross_entropy"
            )

    @property
    def classes(self) -> int | None:
        """The number of classes, where a target is one of 0 to ``classes`` - 1; else None."""
        return self.outputs if get_loss(self.loss) is softmax_cross_entropy else None

    def init(self, key: Array) -> Params:
        """Draw weights [outputs, inputs] and biases [outputs] from U(-1, 1)."""
        return uniform_affine(key, (self.outputs, self.inputs))

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """Return the loss of one example, at its last states x.

        ``target`` has the shape that the loss takes, [] or [outputs].

        Raises:
            GradbenchError: parameters, states or a target of other shapes.
        """
        return get_loss(self.loss)(affine(theta, jnp.ravel(x)), target)

    def read(self, theta: Params, states: tuple[Array, ...]) -> Float[Array, " outputs"]:
        """Return what the loss reads, given the ``states`` of all layers."""
        return affine(theta, jnp.ravel(states[-1]))

    def flips(
        self, theta: Params, x: Array, flipped: Array, target: Array
    ) -> Float[Array, " inputs"]:
        """Return the loss with each state x_i replaced by flipped_i in turn, for PSA.

        Raises:
            GradbenchError: parameters of other shapes.
        """
        out = affine(theta, jnp.ravel(x))
        outs = out + theta["weight"].T * jnp.ravel(flipped - x)[:, None]
        return jax.vmap(get_loss(self.loss), (0, None))(outs, target)

    def check_targets(self, targets: np.ndarray) -> None:
        """Refuse ``targets`` [N, ...] that the loss is not made for.

        Raises:
            GradbenchError: names the first such target.
        """
        check_targets(self.loss, targets, self.outputs)
