"""Optimisers of latent weights, as optax gradient transformations: ``for_weights`` applies them.

A weight w = sign(eta - z) has P(w = +1) = p = F(eta). All but plain gradient descent read the
gradient in w, dE/dw: that of ``straight_through(model, proxy="identity")``, which takes
dE/deta := dE/dw. The factor 2 of dE/dp = 2 dE/dw is absorbed in the rate; rates that change come
from ``optax.inject_hyperparams``. Source: Shekhovtsov & Yanush 2021, Reintroducing straight-through
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
from gradbench.core.noise import NOISES, Noise, get_noise
from gradbench.models.binary_weights import BinaryWeights

__all__ = ["exponentiated_gradient", "for_weights", "mirror_descent", "proximal_kl"]


def _stateless(step: Callable[[Array, Array], Array], name: str) -> optax.GradientTransformation:
    """A transformation that takes latent weights and dE/dw to new latent weights."""

    def update(gradient: Params, state: Any, params: Params | None = None) -> tuple[Params, Any]:
        if params is None:
            raise GradbenchError(f"{name} needs the latent weights; give update(g, state, params)")
        change = jax.tree.map(lambda g, eta: step(eta, g) - eta, gradient, params)
        return change, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _check(name: str, value: Any, fits: Callable[[float], bool], remedy: str) -> None:
    """Refuses a hyper-parameter; what JAX traces, as ``optax.inject_hyperparams`` does, passes."""
    if isinstance(value, jax.Array):
        return
    if not isinstance(value, Real) or not fits(float(value)):
        raise GradbenchError(f"the {name} is {value!r}; {remedy}")


def _check_rate(rate: Any) -> None:
    _check("rate", rate, lambda v: 0 < v < math.inf, "give a positive number")


def for_weights(
    model: BinaryWeights,
    latent: optax.GradientTransformation,
    real: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """``latent`` for the latent weights of a model, ``real`` for biases and all other parameters.

    The optimisers of this module are for latent weights alone: they would clip or decay biases.
    """

    def labels(params: Params) -> Params:
        return model.with_weights(lambda _: "latent", jax.tree.map(lambda _: "real", params))

    return optax.partition({"latent": latent, "real": real}, labels)


def mirror_descent(
    rate: float, noise: str | Noise = "logistic", momentum: float = 0.0
) -> optax.GradientTransformation:
    """eta' = eta - rate dE/dw, into the support of the noise: mirror descent on p = F(eta).

    The potential Phi of the mirror map has Phi' = F^{-1}. Logistic noise: the entropy, p'
    proportional to p exp(-rate dE/dw). Uniform noise: the squared distance, projected gradient
    descent on p; the latent weight clipped to [-1, 1] after every step is BinaryConnect
    (Courbariaux et al. 2015).
    ``momentum`` averages gradients as ``optax.trace`` does.

    Raises:
        GradbenchError: a rate that is not positive, a momentum outside [0, 1), an unknown noise.
    """
    _check_rate(rate)
    _check("momentum", momentum, lambda v: 0 <= v < 1, "give at least 0 and less than 1")
    bound = get_noise(noise).bound
    step = _stateless(lambda eta, g: jnp.clip(eta - rate * g, -bound, bound), "mirror_descent")
    return optax.chain(optax.trace(momentum), step) if momentum else step


def exponentiated_gradient(
    rate: float, noise: str | Noise = "logistic"
) -> optax.GradientTransformation:
    """p' proportional to p exp(-rate dE/dw), whatever noise gives p = F(eta).

    With logistic noise the same as ``mirror_descent``. Source: Kivinen & Warmuth 1997.

    Raises:
        GradbenchError: as ``mirror_descent``.
    """
    _check_rate(rate)
    f = get_noise(noise)

    def step(eta: Array, g: Array) -> Array:
        logit = f.log_cdf(eta) - f.log_cdf(-eta) - rate * g
        if f is NOISES["logistic"]:
            return logit
        # The quantile of the smaller side keeps the digits of p near 1; that of 0 may be infinite.
        smaller = jnp.maximum(jax.nn.sigmoid(-jnp.abs(logit)), jnp.finfo(logit.dtype).tiny)
        return jnp.where(g == 0, eta, -jnp.sign(logit) * f.quantile(smaller))

    return _stateless(step, "exponentiated_gradient")


def proximal_kl(rate: float, strength: float) -> optax.GradientTransformation:
    """eta' = (eta - rate dE/dw) / (1 + rate strength), for logistic noise.

    The mirror step with the proximal term strength KL(p || 1/2): its exact solution, of which
    weight decay on eta is the linearisation. Source: Shekhovtsov & Yanush 2021.

    Raises:
        GradbenchError: a rate that is not positive or a negative strength.
    """
    _check_rate(rate)
    _check("strength", strength, lambda v: 0 <= v < math.inf, "give at least 0")
    return _stateless(lambda eta, g: (eta - rate * g) / (1 + rate * strength), "proximal_kl")
