"""Objectives: losses of a network's outputs, the evidence bound of latent variables, toys.

An objective of a network is either a function ``objective(theta, x, target) -> f`` of its last
states, or an object with a method ``term(params, k, noise, below, a, x)``: then f is the sum over
the layers k = 0, 1, ... of terms that see the states x of the layer in {-1, +1}, their
pre-activations a and noise, and the states below, which for k = 0 are the example (input, target).
``params`` are those of the network, of which the last entry, ``theta``, is the objective's own.

A function may know its expectation over independent units: ``expected(theta, p, values, target)``,
where a state is ``values[1]`` with probability p and else ``values[0]``. With one layer of units
this is the exact expected loss, of any number of units.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.layers import Layer, Shape, affine, axes, check_sizes, fits, uniform_affine
from gradbench.model import Params
from gradbench.noise import NOISES, Noise


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
    _same_shape("squared_error", out, target)
    return jnp.sum((out - target) ** 2)


def bernoulli_likelihood(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """-log P(target) of independent bits in {-1, +1} with the logits ``out``."""
    _same_shape("bernoulli_likelihood", out, target)
    return -NOISES["logistic"].log_probability(target.astype(out.dtype), out)


def multinomial_likelihood(out: Float[Array, " n"], target: Float[Array, " n"]) -> Float[Array, ""]:
    """-sum_w target_w log softmax(out)_w, target the counts of words: without their coefficient.

    Source: the stochastic autoencoder of semantic hashing (Salakhutdinov & Hinton 2009; Shen et
    al. 2018, NASH).
    """
    _same_shape("multinomial_likelihood", out, target)
    return -jnp.vdot(target.astype(out.dtype), jax.nn.log_softmax(out))


def _same_shape(loss: str, out: Array, target: Array) -> None:
    if jnp.shape(target) != jnp.shape(out):
        raise GradbenchError(
            f"{loss} got {out.size} outputs and a target of shape {jnp.shape(target)}; "
            "give one number per output"
        )


LossFunction = Callable[[Array, Array], Array]

LOSSES: dict[str, LossFunction] = {
    "logistic_loss": logistic_loss,
    "softmax_cross_entropy": softmax_cross_entropy,
    "squared_error": squared_error,
    "bernoulli_likelihood": bernoulli_likelihood,
    "multinomial_likelihood": multinomial_likelihood,
}


def get_loss(loss: Any) -> LossFunction:
    """The loss of that name; a function is returned as it is."""
    if callable(loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise GradbenchError(f"unknown objective {loss!r}; {did_you_mean(loss, LOSSES)}")
    return LOSSES[loss]


def check_targets(loss: str | LossFunction, targets: np.ndarray, outputs: int) -> None:
    """Refuses targets that a loss is not made for, as far as it is known.

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


@dataclass(frozen=True)
class Readout:
    """The objective loss(W x + b, target): an affine layer on the last states and a loss on it.

    It reads states of any shape with ``inputs`` units; parameters ``{"weight": [outputs, inputs],
    "bias": [outputs]}``. ``loss`` is a name in ``LOSSES`` or any JAX function ``(out [outputs],
    target) -> scalar``.

    Raises:
        GradbenchError: sizes that are no positive whole numbers, an unknown loss, or
            ``logistic_loss`` of several outputs.
    """

    inputs: int
    outputs: int
    loss: str | LossFunction = "logistic_loss"

    def __post_init__(self) -> None:
        """Refuses a loss that is not known or does not fit the number of outputs."""
        check_sizes("a readout", (self.inputs, self.outputs))
        get_loss(self.loss)
        if self.loss == "logistic_loss" and self.outputs != 1:
            raise GradbenchError(
                f"logistic_loss got {self.outputs} outputs; give 1, or take softmax_cross_entropy"
            )

    def init(self, key: Array) -> Params:
        """Weights [outputs, inputs] and biases [outputs] from U(-1, 1)."""
        return uniform_affine(key, (self.outputs, self.inputs))

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The loss of one example, at its last states x.

        ``target`` is as the loss takes it: [], or [outputs].

        Raises:
            GradbenchError: parameters, states or a target of other shapes.
        """
        return get_loss(self.loss)(affine(theta, jnp.ravel(x)), target)

    def flips(
        self, theta: Params, x: Array, flipped: Array, target: Array
    ) -> Float[Array, " inputs"]:
        """The loss with each state x_i replaced by flipped_i in turn, for PSA.

        Raises:
            GradbenchError: parameters of other shapes.
        """
        out = affine(theta, jnp.ravel(x))
        outs = out + theta["weight"].T * jnp.ravel(flipped - x)[:, None]
        return jax.vmap(get_loss(self.loss), (0, None))(outs, target)

    def check_targets(self, targets: np.ndarray) -> None:
        """Refuses ``targets`` [N, ...] that the loss is not made for.

        Raises:
            GradbenchError: a target that is none, named.
        """
        check_targets(self.loss, targets, self.outputs)


@dataclass(frozen=True)
class ELBO:
    """The negative evidence lower bound of a variational autoencoder with Bernoulli latents.

    The network is the encoder q(x_1 | input) ... q(x_L | x_{L-1}); ``decoders[k]`` is a layer that
    reads the states of layer k + 1 and gives the logits of what is below it: of the target for
    k = 0, else of the states of layer k. The prior of the last states has its own logits. So

        f = -log p(target | x_1) + sum_k [log q(x_k | x_{k-1}) - log p(x_k | x_{k+1})],

    ``kl="sampled"``. With ``kl="closed"`` what depends on the last pre-activations alone is summed
    over the states: the entropies of all layers, and the divergence of the last from the prior. The
    expected value is the same. Parameters: ``{"prior": [units], "decoders": one entry for each}``.

    ``likelihood`` is that of the target, "bernoulli_likelihood" (in {-1, +1}) or
    "multinomial_likelihood" (counts). Source: Kingma & Welling 2014; Mnih & Gregor 2014.

    Raises:
        GradbenchError: no decoders, decoders that do not chain, an unknown ``kl`` or likelihood; in
            a network, layers to which they do not belong.
    """

    decoders: tuple[Layer, ...]
    kl: str = "closed"
    likelihood: str | LossFunction = "bernoulli_likelihood"

    def __post_init__(self) -> None:
        """Refuses decoders that do not chain and unknown names."""
        decoders: Any = self.decoders
        if not isinstance(decoders, tuple | list) or not decoders:
            raise GradbenchError(
                f"an ELBO got the decoders {decoders!r}; give a tuple with one for each layer"
            )
        object.__setattr__(self, "decoders", tuple(decoders))
        if self.kl not in ("closed", "sampled"):
            raise GradbenchError(f"kl is {self.kl!r}; {did_you_mean(self.kl, KL)}")
        if self.likelihood not in LIKELIHOODS and not callable(self.likelihood):
            remedy = did_you_mean(self.likelihood, LIKELIHOODS)
            raise GradbenchError(f"the likelihood is {self.likelihood!r}; {remedy}")

    def check_network(self, network: Any) -> None:
        """Refuses a ``network`` whose layers or coding of states the decoders do not fit.

        Raises:
            GradbenchError: a coding of states, or not one decoder of the right shape for each
                layer.
        """
        layers = network.layers
        if getattr(network, "states", None) != (-1.0, 1.0):
            raise GradbenchError(
                f"an ELBO got a network with the states {getattr(network, 'states', 'real')}; its "
                "decoders read -1 and +1, leave the states out"
            )
        if len(layers) != len(self.decoders):
            raise GradbenchError(
                f"an ELBO got {len(layers)} stochastic layers and decoders: {len(self.decoders)}; "
                "give one decoder for each layer"
            )
        for k, (layer, decoder) in enumerate(zip(layers, self.decoders, strict=True)):
            read, written = [axes(layer.outputs)], [axes(decoder.inputs)]
            if k > 0:
                read.append(axes(layers[k - 1].outputs))
                written.append(axes(decoder.outputs))
            if not all(map(fits, read, written)):
                raise GradbenchError(
                    f"decoder {k + 1} reads {decoder.inputs} and gives {decoder.outputs}, but "
                    f"layer {k + 1} reads {layer.inputs} and gives {layer.outputs}; make the "
                    "decoder undo the layer"
                )

    @property
    def inputs(self) -> Shape:
        """Shape of the last states."""
        return self.decoders[-1].inputs

    def init(self, key: Array) -> Params:
        """Random parameters of the decoders, an even prior."""
        keys = jax.random.split(key, len(self.decoders))
        return {
            "prior": jnp.zeros(int(np.prod(self.inputs))),
            "decoders": tuple(d.init(k) for d, k in zip(self.decoders, keys, strict=True)),
        }

    def _check_parameters(self, theta: Params) -> None:
        units, names = int(np.prod(self.inputs)), {"prior", "decoders"}
        fit = (
            isinstance(theta, Mapping)
            and set(theta) == names
            and jnp.shape(theta["prior"]) == (units,)
            and len(theta["decoders"]) == len(self.decoders)
        )
        if not fit:
            found = jax.tree.map(jnp.shape, theta)
            raise GradbenchError(
                f"an ELBO got parameters of shapes {found}; give a prior of {units} logits and "
                f"{len(self.decoders)} entries of decoders"
            )

    def term(self, params: Params, k: int, noise: Noise, below: Any, a: Array, x: Array) -> Array:
        """The part of f that belongs to layer k, see the head of ``gradbench.objectives``.

        ``noise`` is that of the layer, a and x [...] are its pre-activations and states, ``below``
        what it reads.

        Raises:
            GradbenchError: ``params[-1]`` without a prior and decoders of the right shapes.
        """
        theta = params[-1]
        self._check_parameters(theta)
        a, bits = jnp.ravel(a), jnp.ravel(x)
        logits = self.decoders[k](theta["decoders"][k], x)
        if k == 0:
            f = get_loss(self.likelihood)(jnp.ravel(logits), jnp.ravel(below[1]))
        else:
            f = -_PRIOR.log_probability(jnp.ravel(below), jnp.ravel(logits))
        last = k == len(self.decoders) - 1
        if self.kl == "sampled":
            f += noise.log_probability(bits, a)
            return f - _PRIOR.log_probability(bits, theta["prior"]) if last else f
        mean = 2 * noise.cdf(a) - 1
        f += noise.log_probability(mean, a)  # affine in the states: at their mean, its mean
        return f - _PRIOR.log_probability(mean, theta["prior"]) if last else f

    def check_targets(self, targets: np.ndarray) -> None:
        """Refuses ``targets`` [N, ...] that the likelihood is not made for.

        Raises:
            GradbenchError: a target that is none, named.
        """
        check_targets(self.likelihood, targets, 0)


KL = ("closed", "sampled")
LIKELIHOODS = ("bernoulli_likelihood", "multinomial_likelihood")
_PRIOR = NOISES["logistic"]


class _Separable(ABC):
    """A toy: the mean or, with ``total``, the sum over the units of a function ``each`` of one."""

    total: bool

    @abstractmethod
    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """The part of each unit."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The objective of one example; neither parameters nor the target are read."""
        return self._over_units(self.each(jnp.ravel(x)))

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """The expectation over independent units, see the head of ``gradbench.objectives``."""
        low, high = (self.each(jnp.full(p.size, value, p.dtype)) for value in values)
        return self._over_units(low + jnp.ravel(p) * (high - low))

    def _over_units(self, parts: Array) -> Array:
        return jnp.sum(parts) if self.total else jnp.mean(parts)


@dataclass(frozen=True)
class Distance(_Separable):
    """mean_i |b_i - t_i|^power, or with ``total`` the sum, of states coded {0, 1}.

    ``target`` t holds one number for all units, or one for each. Power 2 with t = 0.45, 0.49, 0.499
    is the toy problem of Tucker et al. 2017 (REBAR) and Grathwohl et al. 2018 (RELAX); the sum of
    three bits with one logit and t = 0.6, 0.51, 0.48 that of Liu et al. 2019 and Kool et al. 2020;
    powers 1.5, 2, 3 of 128 bits, t = 0.45, the polynomial programs of Liu et al. 2023 (ReinMax).
    """

    target: tuple[float, ...]
    power: float = 2.0
    total: bool = False

    def __post_init__(self) -> None:
        """Refuses a power without a finite derivative."""
        if not self.power >= 1:
            raise GradbenchError(f"the power of a distance is {self.power!r}; give at least 1")

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """|b_i - t_i|^power."""
        if len(self.target) not in (1, x.size):
            raise GradbenchError(
                f"a distance got {x.size} units and a target of {len(self.target)} numbers; give "
                "one number, or one for each unit"
            )
        return jnp.abs(x - jnp.asarray(self.target, x.dtype)) ** self.power


@dataclass(frozen=True)
class Polynomial(_Separable):
    """mean_i c_1 x_i + c_2 x_i^2 + ..., or the sum, with the ``coefficients`` c_1, c_2, ..."""

    coefficients: tuple[float, ...]
    total: bool = False

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """The polynomial of each unit."""
        value = jnp.zeros_like(x)
        for coefficient in reversed(self.coefficients):
            value = x * (coefficient + value)
        return value


@dataclass(frozen=True)
class Quadratic:
    """x'Qx / 2 + c'x, the target being Q, symmetric, with c as its last column."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The objective of one example."""
        x, (q, c) = jnp.ravel(x), self._split(jnp.size(x), target)
        return x @ q @ x / 2 + c @ x

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """The expectation over independent units, see the head of ``gradbench.objectives``."""
        low, high = values
        p = jnp.ravel(p)
        mean, variance = low + (high - low) * p, (high - low) ** 2 * p * (1 - p)
        q, _ = self._split(p.size, target)
        return self(theta, mean, target) + jnp.diagonal(q) @ variance / 2

    def _split(self, units: int, target: Array) -> tuple[Array, Array]:
        if jnp.shape(target) != (units, units + 1):
            raise GradbenchError(
                f"a quadratic objective got {units} units and a target of shape "
                f"{jnp.shape(target)}; give a matrix with c as its last column, {units} x "
                f"{units + 1}"
            )
        return target[:, :-1], target[:, -1]
