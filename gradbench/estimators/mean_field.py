"""Moment propagation: means in the place of states, alone or with variances."""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array

from gradbench.core.contract import Loss, Model, Site
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.surrogate import unitwise
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.moment_propagation import _propagation
from gradbench.estimators.registry import register_backprop

AFFINE = "an SBN of affine layers, with binary weights or without"


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    value_unbiased=False,
    full_name="mean field, or approximation 1",
    display_name="mean field",
    paper="https://arxiv.org/abs/1803.10590",
    source="Shekhovtsov et al. 2018 (AP1); the 'tanh' of Shekhovtsov, Yanush & Flach 2020",
    formula=r"x := 2F(a) - 1",
    aliases=("tanh", "ap1"),
)
def mean_field(model: Model) -> Loss:
    """Replace every state by its mean 2F(a) - 1, which is tanh(a/2) for logistic noise."""
    return unitwise(
        model,
        lambda site, a, *u: 2 * site.noise.cdf(a) - 1,
        streams=0,
        soft=True,
        randomness="none",
        second_order=True,
    )


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient=1, layers=2 * L - 1),
    value_unbiased=False,
    full_name="approximation 2: moment propagation, or assumed density filtering",
    display_name="AP2",
    paper="https://arxiv.org/abs/1803.10590",
    source="Shekhovtsov, Flach & Busta 2018, Feed-forward uncertainty propagation in belief and "
    "neural networks (AP2, assumed density filtering)",
    formula=(
        r"m' = 2F\!\left(\frac{W m + b}{\sqrt{1 + W^2 v / \mathbb{V} z}}\right) - 1, \quad v = 1 - "
        r"m^2"
    ),
    needs=AFFINE,
    aliases=("adf",),
)
def ap2(model: Model) -> Loss:
    """Pass on means and variances: a ~ (W m + b, W^2 v), m' = 2F(E a / sqrt(1 + V a / V_S)) - 1.

    W^2 is elementwise, v = 1 - m^2 for states in {-1, +1}, and V_S is the variance of the noise z:
    this is F rescaled to the variance of z - a. It is right for normal noise and normal a. The
    units of a layer count as independent, which those of the first layer are. The objective is
    taken at the mean states, so that in one layer this is ``mean_field``.

    Binary weights are random variables like states: v then includes their variances, and their
    means stand in the objective. The network's estimator of activations is not used.

    Raises:
        GradbenchError: a model that is no SBN, a layer that is not affine in the states below (with
            binary weights neither Dense nor Conv), or noise without a finite variance.
    """

    def unit(site: Site, mean: Array, variance: Array | None, u: Array) -> Array:
        if variance is not None:
            mean = mean / jnp.sqrt(1 + variance / _variance(site.noise))
        return mean

    return _propagation("ap2", model, unit, False, streams=0, randomness="none", second_order=True)


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient=1, layers=2 * L - 1),
    value_unbiased=False,
    full_name="local reparameterisation",
    display_name="local reparam.",
    paper="https://arxiv.org/abs/2006.03143",
    source="Shekhovtsov, Yanush & Flach 2020, in their released code; after Shayer et al. 2018 and "
    "Peters & Welling 2018 (PBNet)",
    formula=(
        r"a := W m + b - \sqrt{W^2 v}\;\Phi^{-1}(u), \quad m = 2F(a_{\text{below}}) - 1, \quad v = "
        r"1 - m^2"
    ),
    needs=f"{AFFINE}, or a RealNetwork with binary weights",
    aliases=("pbnet",),
)
def local_reparameterization(model: Model) -> Loss:
    """Draw a = W m + b - sqrt(W^2 v) Phi^-1(u), from mean m = 2F(a) - 1 and v of the layer below.

    This is the normal limit of a sum of many independent states, differentiated: the moments are
    those of ``ap2``, but the variance is sampled and not passed on. For normal noise and an
    objective linear in the second of two layers, ``ap2`` is its mean. The objective is taken at the
    last m (the released code samples its pre-activations too).

    With binary weights this is the local reparameterization of Shayer et al.: each example draws
    its own a, with the variance of weights and states; in a RealNetwork the activation of a is
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

    name = "local_reparameterization"
    options: Any = {"randomness": "uniforms", "smoothness": "smooth", "second_order": True}
    return _propagation(name, model, unit, True, **options)


def _variance(noise: Noise) -> float:
    if noise.variance == math.inf:
        raise GradbenchError(
            f"ap2() got the noise {noise.name!r}, whose variance is infinite; take mean_field"
        )
    return noise.variance
