"""Moment propagation: means in the place of states, alone or with variances."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array

from gradbench.errors import GradbenchError
from gradbench.estimators.registry import Cost, any_model, register
from gradbench.layers import Conv, Dense, Layer, axes
from gradbench.model import Lifted, Loss, Model, Params, Site, lift, local, visit
from gradbench.network import SBN, RealNetwork
from gradbench.noise import Noise, get_noise
from gradbench.weights import BinaryWeights

AFFINE = "an SBN of affine layers, with binary weights or without"


@register(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient="1"),
    differentiable=True,
    value_unbiased=False,
    source="Shekhovtsov et al. 2018 (AP1); the 'tanh' of Shekhovtsov, Yanush & Flach 2020",
)
def mean_field(model: Model) -> Loss:
    """Every state is replaced by its mean 2F(a) - 1, for logistic noise tanh(a/2)."""
    return local(
        model,
        lambda site, a, *u: 2 * site.noise.cdf(a) - 1,
        streams=0,
        soft=True,
        randomness="none",
    )


@register(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient="1", layers="2 * L - 1"),
    differentiable=True,
    value_unbiased=False,
    source="Shekhovtsov, Flach & Busta 2018, Feed-forward uncertainty propagation in belief and "
    "neural networks (AP2, assumed density filtering)",
    needs=AFFINE,
)
def ap2(model: Model) -> Loss:
    """Means and variances passed on: a ~ (W m + b, W^2 v), m' = 2F(E a / sqrt(1 + V a / V_S)) - 1.

    W^2 is elementwise, v = 1 - m^2 for states in {-1, +1}, V_S the variance of the noise z: F with
    the variance of z - a in the place of that of z. Right for normal noise and normal a; the
    units of a layer count as independent, as those of the first are. The objective is taken at the
    mean states, so that in one layer this is ``mean_field``.

    Binary weights are random variables like states: v then has their variances too, and their
    means stand in the objective; the network's estimator of activations is not used.

    Raises:
        GradbenchError: a model that is no SBN, a layer that is not affine in the states below (with
            binary weights neither Dense nor Conv), or noise without a variance.
    """

    def unit(site: Site, mean: Array, variance: Array | None, u: Array) -> Array:
        if variance is not None:
            mean = mean / jnp.sqrt(1 + variance / _noise_variance(site.noise))
        return mean

    return _propagation("ap2", model, unit, (SBN,), streams=0, randomness="none")


@register(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient="1", layers="2 * L - 1"),
    differentiable=True,
    value_unbiased=False,
    source="Shekhovtsov, Yanush & Flach 2020, in their released code; after Shayer et al. 2018 and "
    "Peters & Welling 2018 (PBNet)",
    needs=f"{AFFINE}, or a RealNetwork with binary weights",
)
def local_reparameterization(model: Model) -> Loss:
    """a = W m + b - sqrt(W^2 v) Phi^-1(u), from the mean m = 2F(a) - 1 and v of the layer below.

    The normal limit of a sum of many independent states, differentiated: the moments are those of
    ``ap2``, but the variance is sampled and not passed on. For normal noise and an objective
    linear in the second of two layers, ``ap2`` is its mean. The objective is taken at the last m
    (the released code samples its pre-activations too).

    With binary weights this is the local reparameterization of Shayer et al.: each example draws
    its own a, with the variance of weights and states; in a RealNetwork its activation of a is
    passed on. Weights of the objective count with their means. PBNet, whose units are the sign of
    such an a without noise of their own, is the limit of large weights.

    Raises:
        GradbenchError: a model that is no SBN (with binary weights: no network), or a layer that is
            not affine in the states below (with binary weights neither Dense nor Conv).
    """

    def unit(site: Site, mean: Array, variance: Array | None, u: Array) -> Array:
        if variance is None:
            return mean
        some = variance > 0  # the root has no derivative at 0
        return mean - jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1)) * ndtri(u), 0)

    name, networks = "local_reparameterization", (SBN, RealNetwork)
    return _propagation(name, model, unit, networks, randomness="uniforms", pieces="smooth")


Unit = Callable[[Site, Array, Array | None, Any], Array]


def _propagation(
    name: str, model: Model, unit: Unit, networks: tuple[type, ...], **options: Any
) -> Lifted:
    """A chain whose states are the means 2F(a) - 1 at a = unit(site, E a, V a, u).

    V a is None where it is 0. ``networks`` are those that binary weights may be put into.
    """
    if model is any_model:
        return lift(model, any_model, **options)
    binary = isinstance(model, BinaryWeights)
    network: Any = model.network if isinstance(model, BinaryWeights) else model
    known = isinstance(network, networks if binary else SBN)
    if not known:
        raise GradbenchError(
            f"{name}() got a model of type {type(network).__name__}, through which it knows no "
            "variances; give an SBN, or take mean_field"
        )
    _check_affine(name, network.layers, binary)
    # The run of a chain whose "states" are what its units pass on, real numbers of any kind.
    real = isinstance(network, RealNetwork)
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

        return visit(chain, means, example, pass_on).f

    return lift(chain, example_loss, **options)


def _weight_moments(model: Model, params: Params) -> tuple[Params, Params | None]:
    """Mean and variance of all parameters; None where all of the latter are 0."""
    if not isinstance(model, BinaryWeights):
        return params, None
    cdf = get_noise(model.noise).cdf
    means = model.with_weights(lambda eta: 2 * cdf(eta) - 1, params)
    spread = model.with_weights(lambda eta: 4 * cdf(eta) * cdf(-eta), params)
    real = model.with_weights(jnp.zeros_like, params)
    return means, jax.tree.map(jnp.subtract, spread, real)


def _variance(
    layer: Layer, means: Params, spread: Params | None, x: Array, v: Array | None
) -> Array | None:
    """V a of an affine layer with independent inputs (mean x, variance v) and weights; None is 0.

    Of a product of the two, V wx = (E w)^2 V x + V w E x^2.
    """
    if spread is not None:
        total = layer(_without_bias(spread), x**2 if v is None else x**2 + v)
        if v is not None:
            total += layer(_without_bias(jax.tree.map(jnp.square, means)), v)
        return total
    if v is None:
        return None
    if isinstance(layer, Dense | Conv):
        return layer(_without_bias(jax.tree.map(jnp.square, means)), v)
    slopes = jax.jacobian(partial(layer, means))(x)
    return jnp.sum(slopes**2 * v, axis=tuple(range(slopes.ndim - v.ndim, slopes.ndim)))


def _without_bias(theta: Params) -> Params:
    return {**theta, "bias": jnp.zeros_like(theta["bias"])}


def _check_affine(name: str, layers: tuple[Layer, ...], binary: bool) -> None:
    """Refuses layers through which the variance of states or of binary weights is not known.

    Raises:
        GradbenchError: see above.
    """
    for k, layer in enumerate(layers):
        if isinstance(layer, Dense | Conv):
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


def _is_affine(layer: Layer) -> bool:
    """Whether a layer is affine in its input, tried out at random parameters and inputs."""
    with jax.ensure_compile_time_eval():
        keys = jax.random.split(jax.random.key(0), 3)
        theta, zero = layer.init(keys[0]), jnp.zeros(axes(layer.inputs))
        x, y = (jax.random.normal(key, zero.shape) for key in keys[1:])
        corners = [layer(theta, at) for at in (x + y, zero, x, y)]
        gap = corners[0] + corners[1] - corners[2] - corners[3]
        largest = max(jnp.max(jnp.abs(corner)) for corner in corners)
        return bool(jnp.max(jnp.abs(gap)) <= 1e-4 * largest)


_VARIANCES = {"logistic": math.pi**2 / 3, "normal": 1.0, "uniform": 1 / 3}
_VARIANCES |= {"triangular": 1 / 6, "laplace": 2.0}


def _noise_variance(noise: Noise) -> float:
    if noise.name not in _VARIANCES:
        raise GradbenchError(
            f"ap2() knows no variance of the noise {noise.name!r}; take one of "
            f"{', '.join(_VARIANCES)}"
        )
    return _VARIANCES[noise.name]
