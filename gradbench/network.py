"""Stochastic binary networks: layers and an objective, a front end that builds model functions.

An ``SBN`` is a model (``gradbench.model``): states x_k = sign(a_k(x_{k-1}; theta_k) - z_k),
objective f(x_L, target; theta_{L+1}). Its structure, a chain, is what the exact recursion and the
fast form of PSA use. A layer is any object with the members of ``Layer``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Batch, Example, Params, Visit
from gradbench.noise import Noise, get_noise


class Layer(Protocol):
    """A stochastic layer: pre-activations of all its units from the states below it.

    It may offer ``flip_pull``, see ``flip_each``.
    """

    @property
    def noise(self) -> str | Noise:
        """The noise of its units."""

    @property
    def inputs(self) -> int:
        """Number of units below."""

    @property
    def outputs(self) -> int:
        """Number of units."""

    def init(self, key: Array) -> Params:
        """Random parameters."""

    def __call__(self, theta: Params, x: Array) -> Array:
        """Pre-activations of one example."""


def flip_each(layer: Layer, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
    """For every input i: sum_j g_j (F(a_j with x_i replaced by flipped_i) - F(a_j)).

    A layer with structure offers the same as its method ``flip_pull(theta, x, flipped, a, g)``.
    """
    cdf = get_noise(layer.noise).cdf
    one = jnp.eye(x.size, dtype=bool).reshape(x.size, *x.shape)
    change = jax.vmap(lambda x: cdf(layer(theta, x)))(jnp.where(one, flipped, x)) - cdf(a)
    return jnp.sum(g * change, axis=tuple(range(1, change.ndim))).reshape(x.shape)


def affine(theta: Params, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
    """W x + b, as one product: bias and weights then share one pass in the gradient too."""
    if not isinstance(theta, Mapping) or set(theta) != {"weight", "bias"}:
        found = sorted(theta) if isinstance(theta, Mapping) else "that are no dictionary"
        raise GradbenchError(f"an affine layer got parameters {found}; give a weight and a bias")
    weight, bias = theta["weight"], theta["bias"]
    if jnp.shape(x) != jnp.shape(weight)[1:] or jnp.shape(bias) != jnp.shape(weight)[:1]:
        raise GradbenchError(
            f"an affine layer with weight {jnp.shape(weight)} and bias {jnp.shape(bias)} got an "
            f"input of shape {jnp.shape(x)}; make them [outputs, inputs], [outputs] and [inputs]"
        )
    one = jnp.ones(1, x.dtype)
    return jnp.concatenate([weight, bias[:, None]], axis=1) @ jnp.concatenate([x, one])


def uniform_affine(key: Array, inputs: int, outputs: int) -> Params:
    """Weights and biases from U(-1, 1), as in the experiments of the PSA paper."""
    weight, bias = jax.random.split(key)
    return {
        "weight": jax.random.uniform(weight, (outputs, inputs), minval=-1),
        "bias": jax.random.uniform(bias, (outputs,), minval=-1),
    }


@dataclass(frozen=True)
class Dense:
    """a = W x + b, parameters ``{"weight": [outputs, inputs], "bias": [outputs]}``."""

    inputs: int
    outputs: int
    noise: str | Noise = "logistic"

    def init(self, key: Array) -> Params:
        """Weights and biases from U(-1, 1)."""
        return uniform_affine(key, self.inputs, self.outputs)

    def __call__(self, theta: Params, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """Pre-activations of one example."""
        return affine(theta, x)

    def flip_pull(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """What ``flip_each`` gives, from one sheet of F(a_j + W_ji (flipped_i - x_i))."""
        cdf = get_noise(self.noise).cdf
        sheet = cdf(a[:, None] + theta["weight"] * (flipped - x)) - cdf(a)[:, None]
        return g @ sheet


def logistic_loss(out: Float[Array, " 1"], target: Float[Array, ""]) -> Float[Array, ""]:
    """log(1 + exp(-out target)), target in {-1, +1}."""
    return _softplus(-out[0] * target)


@jax.custom_jvp
def _softplus(z: Float[Array, ""]) -> Float[Array, ""]:
    """log(1 + exp(z)) of a finite z; that of JAX, for infinities too, takes longer."""
    return jnp.maximum(z, 0) + jnp.log1p(jnp.exp(-jnp.abs(z)))


_softplus.defjvp(lambda z, dz: (_softplus(*z), jax.nn.sigmoid(*z) * dz[0]))


def softmax_cross_entropy(out: Float[Array, " classes"], target: Array) -> Float[Array, ""]:
    """-log softmax(out)[target], target an integer class."""
    return jax.nn.logsumexp(out) - out[target]


def squared_error(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """Sum over the outputs of (out - target)^2."""
    if jnp.shape(target) != jnp.shape(out):
        raise GradbenchError(
            f"squared_error got {out.size} outputs and a target of shape {jnp.shape(target)}; "
            "give one number per output"
        )
    return jnp.sum((out - target) ** 2)


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "logistic_loss": logistic_loss,
    "softmax_cross_entropy": softmax_cross_entropy,
    "squared_error": squared_error,
}


def get_loss(loss: str | Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The loss of that name; a function is returned as it is."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise GradbenchError(f"unknown objective {loss!r}; {did_you_mean(loss, LOSSES)}")
    return LOSSES[loss]


@dataclass(frozen=True)
class Readout:
    """The objective loss(W x + b, target): an affine layer on the last states and a loss on it.

    ``loss`` is a name in ``LOSSES`` or any JAX function ``(out [outputs], target) -> scalar``.
    """

    inputs: int
    outputs: int
    loss: str | Callable[[Array, Array], Array] = "logistic_loss"

    def __post_init__(self) -> None:
        """Refuses a loss that is not known or does not fit the number of outputs."""
        get_loss(self.loss)
        if self.loss == "logistic_loss" and self.outputs != 1:
            raise GradbenchError(
                f"logistic_loss got {self.outputs} outputs; give 1, or take softmax_cross_entropy"
            )

    def init(self, key: Array) -> Params:
        """Weights and biases from U(-1, 1)."""
        return uniform_affine(key, self.inputs, self.outputs)

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The loss of one example."""
        return get_loss(self.loss)(affine(theta, x), target)

    def check_targets(self, targets: np.ndarray) -> None:
        """Refuses targets that the loss is not made for."""
        if self.loss == "logistic_loss":
            wrong = targets[~np.isin(targets, (-1, 1))]
            remedy = "code the two classes as -1 and +1"
        elif self.loss == "softmax_cross_entropy":
            integers = np.issubdtype(targets.dtype, np.integer)
            wrong = targets[~np.isin(targets, np.arange(self.outputs)) | (not integers)]
            remedy = f"give integer classes from 0 to {self.outputs - 1}"
        else:
            return
        if wrong.size:
            raise GradbenchError(f"{self.loss} got the target {wrong[0]}; {remedy}")


@dataclass(frozen=True)
class SBN:
    """A stochastic binary network: a chain of stochastic layers, an objective on the last states.

    ``objective(theta, x, target)`` is a ``Readout`` or any JAX function. ``states`` are the two
    values that the next layer reads for the states -1 and +1: (0, 1) gives the {0,1} coding.
    Examples are pairs ``(input, target)``; parameters a tuple with one entry per layer and one for
    the objective.

    Raises:
        GradbenchError: layers that do not chain, or a coding with equal values.
    """

    layers: tuple[Layer, ...]
    objective: Callable[[Params, Array, Array], Array]
    states: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        """Checks that the sizes chain."""
        object.__setattr__(self, "layers", tuple(self.layers))  # a list would not be hashable
        object.__setattr__(self, "states", tuple(self.states))
        if not self.layers:
            raise GradbenchError("an SBN needs at least one stochastic layer; give a Dense layer")
        if self.states[0] == self.states[1]:
            raise GradbenchError(f"the states {self.states} are equal; give two values, as (0, 1)")
        sizes = [(layer.inputs, layer.outputs) for layer in self.layers]
        if hasattr(self.objective, "inputs"):
            sizes.append((self.objective.inputs, 1))
        for k, ((_, below), (above, _)) in enumerate(pairwise(sizes)):
            if below != above:
                raise GradbenchError(
                    f"layer {k + 1} has {below} units but the next expects {above}; make them equal"
                )
        for layer in self.layers:
            get_noise(layer.noise)

    def init(self, key: Array) -> tuple[Params, ...]:
        """Random parameters; ``()`` for an objective that has none."""
        parts = (*self.layers, self.objective)
        keys = jax.random.split(key, len(parts))
        return tuple(
            part.init(k) if hasattr(part, "init") else ()
            for part, k in zip(parts, keys, strict=True)
        )

    def encode(self, x: Array) -> Array:
        """The values that the next layer reads for states x in {-1, +1}."""
        low, high = self.states
        return x if (low, high) == (-1, 1) else (low + high) / 2 + x * ((high - low) / 2)

    def __call__(
        self, params: Params, example: Example, binary: Callable[..., Array]
    ) -> Float[Array, ""]:
        """The objective of one example: the model contract."""
        self._check_entries(params)
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise GradbenchError(
                f"a network got examples of type {type(example).__name__} and not pairs; "
                "give (inputs, targets)"
            )
        x, target = example
        for layer, theta in zip(self.layers, params[:-1], strict=True):
            x = self.encode(binary(layer(theta, x), layer.noise))
        return self.objective(params[-1], x, target)

    def flip_pull(self, params: Params, run: Visit, k: int, g: Array) -> Array:
        """The hook of PSA for the units of layer k, which the layer above alone reads.

        A layer gives it as ``flip_pull`` where its structure makes it cheap; else each input is
        flipped in turn.
        """
        layer, x, a = self.layers[k + 1], self.encode(run.x[k]), run.a[k + 1]
        pull = getattr(layer, "flip_pull", None) or partial(flip_each, layer)
        return pull(params[k + 1], x, self.encode(-run.x[k]), a, g)

    def check(self, params: Params, batch: Batch) -> None:
        """Refuses values that no gradient can be computed from. Needs concrete arrays.

        Raises:
            GradbenchError: wrong number of parameter entries, or targets that the objective is not
                made for.
        """
        self._check_entries(params)
        if hasattr(self.objective, "check_targets"):
            self.objective.check_targets(np.asarray(batch[1]))

    def _check_entries(self, params: Params) -> None:
        if len(params) != len(self.layers) + 1:
            raise GradbenchError(
                f"a network of {len(self.layers)} layers got {len(params)} parameter entries; give "
                "one per layer and one for the objective"
            )


def dense_network(
    sizes: tuple[int, ...],
    loss: str | Callable[[Array, Array], Array] = "logistic_loss",
    noise: str | Noise = "logistic",
    states: tuple[float, float] = (-1.0, 1.0),
) -> SBN:
    """A chain of dense layers, e.g. sizes (2, 5, 5, 5, 1): inputs, hidden layers, outputs."""
    if len(sizes) < 3 or any(size < 1 for size in sizes):
        raise GradbenchError(
            f"the sizes {sizes} do not make a network; give inputs, one or more hidden, outputs"
        )
    pairs: list[tuple[Any, Any]] = list(pairwise(sizes))
    layers = tuple(Dense(inputs, outputs, noise) for inputs, outputs in pairs[:-1])
    return SBN(layers, Readout(*pairs[-1], loss), states)
