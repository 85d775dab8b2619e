"""Optimisers of binary weights, as optax gradient transformations; ``for_weights`` applies them.

A weight w = sign(eta - z) has P(w = +1) = p = F(eta). All but plain gradient descent read the
gradient in w, dE/dw, which ``straight_through(model, proxy="identity")`` gives: it takes
dE/deta := dE/dw. The factor 2 of dE/dp = 2 dE/dw is absorbed in the rate. For rates that change use
``optax.inject_hyperparams``. Source: Shekhovtsov & Yanush 2021, Reintroducing straight-through
estimators as principled methods for SBNs.
"""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.models.binary_weights import BinaryWeights

__all__ = [
    "bayesian_learning_rule",
    "bop",
    "exponentiated_gradient",
    "for_weights",
    "mirror_descent",
    "proximal_kl",
]


def _stateless(step: Callable[[Array, Array], Array], name: str) -> optax.GradientTransformation:
    """Return a transformation that takes latent weights and dE/dw to new latent weights."""

    def update(gradient: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        if params is None:
            raise GradbenchError(f"{name} needs the latent weights; give update(g, state, params)")
        change = jax.tree.map(lambda g, eta: step(eta, g) - eta, gradient, params)
        return change, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _check(name: str, value: Any, fits: Callable[[float], bool], remedy: str) -> None:
    """Refuse a bad hyper-parameter; traced values, as in ``optax.inject_hyperparams``, pass."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, Real) or not fits(float(value)):
        raise GradbenchError(f"the {name} is {value!r}; {remedy}")


def _check_rate(rate: Any) -> None:
    _check("rate", rate, lambda v: 0 < v < math.inf, "give a positive number")


def is_given(momentum: Any) -> bool:
    """Return whether there is a momentum: an array, which may be traced, is one of any value."""
    return not isinstance(momentum, int | float) or momentum != 0


def _check_momentum(momentum: Any) -> None:
    _check("momentum", momentum, lambda v: 0 <= v < 1, "give at least 0 and less than 1")


def for_weights(
    model: BinaryWeights,
    latent: optax.GradientTransformation,
    real: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Return an optimiser that treats latent weights and real parameters differently.

    The optimisers of this module are for latent weights alone: they would clip or decay biases.

    Args:
        model: the model with binary weights that is trained.
        latent: the optimiser of its latent weights.
        real: the optimiser of its biases and all other parameters.
    """

    def labels(params: Params) -> Params:
        return model.with_weights(lambda _: "latent", jax.tree.map(lambda _: "real", params))

    return optax.partition({"latent": latent, "real": real}, labels)


def mirror_descent(
    rate: float, noise: str | Noise = "logistic", momentum: float = 0.0
) -> optax.GradientTransformation:
    """Return mirror descent on p = F(eta): eta' = eta - rate dE/dw, into the support of the noise.

    The potential Phi of the mirror map has Phi' = F^{-1}. For logistic noise it is the entropy, and
    p' is proportional to p exp(-rate dE/dw). For uniform noise it is the squared distance, and the
    step is projected gradient descent on p; the latent weight clipped to [-1, 1] after every step
    is BinaryConnect (Courbariaux et al. 2015).

    Args:
        rate: the step size, positive.
        noise: the noise of the weights.
        momentum: averages gradients as ``optax.trace`` does; at least 0 and less than 1.

    Raises:
        GradbenchError: a rate that is not positive, a momentum outside [0, 1), an unknown noise.
    """
    _check_rate(rate)
    _check_momentum(momentum)
    bound = get_noise(noise).bound
    step = _stateless(lambda eta, g: jnp.clip(eta - rate * g, -bound, bound), "mirror_descent")
    return optax.chain(optax.trace(momentum), step) if is_given(momentum) else step


def exponentiated_gradient(
    rate: float, noise: str | Noise = "logistic"
) -> optax.GradientTransformation:
    """Return the step p' proportional to p exp(-rate dE/dw), whatever noise gives p = F(eta).

    With logistic noise it is the same as ``mirror_descent``. Source: Kivinen & Warmuth 1997.

    Raises:
        GradbenchError: as ``mirror_descent``.
    """
    _check_rate(rate)
    f = get_noise(noise)
    is_logit = f == get_noise("logistic")  # F^{-1}(p) is the logit of p itself

    def step(eta: Array, g: Array) -> Array:
        logit = f.log_cdf(eta) - f.log_cdf(-eta) - rate * g
        if is_logit:
            return logit
        # The quantile of the smaller side keeps the digits of p near 1; at 0 it may be infinite.
        smaller = jnp.maximum(jax.nn.sigmoid(-jnp.abs(logit)), jnp.finfo(logit.dtype).tiny)
        return jnp.where(g == 0, eta, -jnp.sign(logit) * f.quantile(smaller))

    return _stateless(step, "exponentiated_gradient")


def proximal_kl(rate: float, strength: float) -> optax.GradientTransformation:
    """Return the step eta' = (eta - rate dE/dw) / (1 + rate strength), for logistic noise.

    It is the exact solution of the mirror step with the proximal term strength KL(p || 1/2); weight
    decay on eta is its linearisation. Source: Shekhovtsov & Yanush 2021.

    Raises:
        GradbenchError: a rate that is not positive or a negative strength.
    """
    _check_rate(rate)
    _check("strength", strength, lambda v: 0 <= v < math.inf, "give at least 0")
    return _stateless(lambda eta, g: (eta - rate * g) / (1 + rate * strength), "proximal_kl")


def bayesian_learning_rule(
    rate: float, examples: float, momentum: float = 0.0
) -> optax.GradientTransformation:
    """Return the step of BayesBiNN: lam' = (1 - rate) lam - rate examples g, with lam = eta / 2.

    It is a step of natural gradient on the posterior of weights that are +1 with probability 1/2
    before the data: lam is the natural parameter of w, and g = dE/dw is the gradient in w of the
    mean loss of an example, best that of ``bayesbinn``. So it is for logistic noise. With momentum
    the sum ``examples`` g + lam is averaged with this decay, and divided by the weight of all terms
    so far, as in Adam. Source: Meng, Bachmann & Khan 2020, Training binary neural networks using
    the Bayesian learning rule; the momentum is that of their code.

    Args:
        rate: the learning rate alpha, above 0 and at most 1.
        examples: the number of examples to train with, positive.
        momentum: at least 0 and less than 1.

    Raises:
        GradbenchError: a number outside its range.
    """
    _check("rate", rate, lambda v: 0 < v <= 1, "give a number above 0 and at most 1")
    _check("number of examples", examples, lambda v: 0 < v < math.inf, "give a positive number")
    _check_momentum(momentum)

    def posterior(gradient: Params, params: Params | None) -> Params:
        if params is None:
            raise GradbenchError(
                "bayesian_learning_rule needs the latent weights; give update(g, state, params)"
            )
        return jax.tree.map(lambda g, eta: examples * g + eta / 2, gradient, params)

    average = [optax.ema(momentum, debias=True)] if is_given(momentum) else []
    return optax.chain(optax.stateless(posterior), *average, optax.scale(-2 * rate))


def bop(rate: float = 1e-4, threshold: float = 1e-8) -> optax.GradientTransformation:
    """Return Bop: m' = (1 - rate) m + rate dE/dw, and the weights w with w m' > threshold flip.

    It is an optimiser of states: the sign of a latent weight is the weight w, and a flip turns it
    and leaves its size. So it is meant for weights without noise, of which
    ``deterministic_straight_through(model, proxy="identity")`` gives dE/dw; with noise, the more
    probable state is w. Source: Helwegen et al. 2019, Latent weights do not exist. The defaults are
    those of the paper for CIFAR-10, where the rate falls along the training.

    Args:
        rate: the adaptivity rate gamma, above 0 and at most 1.
        threshold: the size of the average gradient at which a weight flips, at least 0.

    Raises:
        GradbenchError: a rate or threshold outside its range.
    """
    _check("rate", rate, lambda v: 0 < v <= 1, "give a number above 0 and at most 1")
    _check("threshold", threshold, lambda v: 0 <= v < math.inf, "give at least 0")

    def average(m: Array, g: Array) -> Array:
        return (1 - rate) * m + rate * g

    def change(m: Array, eta: Array) -> Array:
        flips = jnp.where(eta > 0, m, -m) > threshold
        return jnp.where(flips, jnp.where(eta == 0, 1, -2 * eta), 0).astype(eta.dtype)

    def update(gradient: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        if params is None:
            raise GradbenchError("bop needs the latent weights; give update(g, state, params)")
        state = jax.tree.map(average, state, gradient)
        return jax.tree.map(change, state, params), state

    return optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)
