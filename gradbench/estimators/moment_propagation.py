"""Moment propagation: layers pass on means and variances instead of states."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import run_model
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.estimators.registry import any_model
from gradbench.models.layer import Layer, axes
from gradbench.models.network import SBN
from gradbench.models.structure import has_latent_weights, is_activated, is_layered

Unit = Callable[[Site, Array, Array | None, Any], Array]


def _propagation(
    name: str, model: Model, unit: Unit, through_activations: bool, **options: Any
) -> SurrogateLoss:
    """Return a chain whose states are the means 2F(a) - 1 at a = unit(site, E a, V a, u).

    V a is None where it is 0. With ``through_activations``, binary weights may also be put into a
    network of real units.
    """
    if model is any_model:
        return surrogate_loss(model, any_model, **options)
    binary = has_latent_weights(model)
    network: Any = model.network if has_latent_weights(model) else model
    real = binary and through_activations and is_activated(network)
    if not real and not is_layered(network):
        raise GradbenchError(
            f"{name}() got a model of type {type(network).__name__}, through which it knows no "
            "variances; give an SBN, or take mean_field"
        )
    _check_affine(name, network.layers, binary)
    # The run of a chain whose "states" are what its units pass on, real numbers of any kind.
    chain: Any = SBN(network.layers, network.objective) if real else network
    half = (chain.states[1] - chain.states[0]) / 2

    def example_loss(params, u, example):
        means, spread = _weight_moments(model, params)
        below: list[tuple[Array, Array | None]] = [(jnp.asarray(example[0]), None)]

        def pass_on(site, mean):
            k, (x, v) = site.index, below[-1]
            variance = _variance(network.layers[k], means[k], spread and spread[k], x, v)
            a = unit(site, mean, variance, u[0][k] if u else None)
            if real:
                x, v = network.activation(a), None
            else:
                p, q = site.noise.cdf(a), site.noise.cdf(-a)
                x, v = 2 * p - 1, half**2 * 4 * p * q  # 1 - m^2 with its digits near 0
            below.append((chain.encode(x), v))
            return x

        return run_model(chain, means, example, pass_on).f

    return surrogate_loss(chain, example_loss, **options)


def _weight_moments(model: Model, params: Params) -> tuple[Params, Params | None]:
    """Return mean and variance of all parameters; None where all variances are 0."""
    if not has_latent_weights(model):
        return params, None
    cdf = get_noise(model.noise).cdf
    means = model.with_weights(lambda eta: 2 * cdf(eta) - 1, params)
    spread = model.with_weights(lambda eta: 4 * cdf(eta) * cdf(-eta), params)
    real = model.with_weights(jnp.zeros_like, params)
    return means, jax.tree.map(jnp.subtract, spread, real)


def _variance(
    layer: Layer, means: Params, spread: Params | None, x: Array, v: Array | None
) -> Array | None:
    """Return V a of an affine layer with independent inputs and weights; None stands for 0.

    The inputs have the mean x and the variance v. A product has V wx = (E w)^2 V x + V w E x^2.
    """
    if spread is not None:
        total = layer(_without_bias(spread), x**2 if v is None else x**2 + v)
        if v is not None:
            total += layer(_without_bias(jax.tree.map(jnp.square, means)), v)
        return total
    if v is None:
        return None
    if _carries_variances(layer):
        return layer(_without_bias(jax.tree.map(jnp.square, means)), v)
    slopes = jax.jacobian(partial(layer, means))(x)
    return jnp.sum(slopes**2 * v, axis=tuple(range(slopes.ndim - v.ndim, slopes.ndim)))


def _without_bias(theta: Params) -> Params:
    return {**theta, "bias": jnp.zeros_like(theta["bias"])}


def _check_affine(name: str, layers: tuple[Layer, ...], binary: bool) -> None:
    """Refuse layers through which the variance of states or of binary weights is not known.

    Raises:
        GradbenchError: see above.
    """
    for k, layer in enumerate(layers):
        if _carries_variances(layer):
            continue
        if binary:
            raise GradbenchError(
                f"{name}() with binary weights got layer {k + 1}, {layer!r}; give layers that are "
                "Dense or Conv"
            )
        if k > 0 and not _is_affine(layer):
            raise GradbenchError(
                f"{name}() got layer {k + 1}, {layer!r}, which is not affine in the states below; "
                "take mean_field"
            )


def _carries_variances(layer: Layer) -> bool:
    """Return whether a layer says that it is affine, as ``Dense`` and ``Conv`` do."""
    return getattr(layer, "affine", False)


def _is_affine(layer: Layer) -> bool:
    """Return whether a layer is affine in its input, tried at random parameters and inputs."""
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), 3)
        theta, zero = layer.init(keys[0]), jnp.zeros(axes(layer.inputs))
        x, y = (jax.random.normal(key, zero.shape) for key in keys[1:])
        corners = [layer(theta, at) for at in (x + y, zero, x, y)]
        gap = corners[0] + corners[1] - corners[2] - corners[3]
        largest = max(jnp.max(jnp.abs(corner)) for corner in corners)
        return bool(jnp.max(jnp.abs(gap)) <= 1e-4 * largest)
