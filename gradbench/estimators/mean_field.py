"""Moment propagation: means in the place of states, alone or with variances."""

import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array

from gradbench.core.contract import Loss, Model, Site
from gradbench.core.noise import _noise_variance
from gradbench.core.surrogate import unitwise
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.moment_propagation import _propagation
from gradbench.estimators.registry import register_backprop
from gradbench.models.network import SBN, RealNetwork

AFFINE = "an SBN of affine layers, with binary weights or without"


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    value_unbiased=False,
    source="Shekhovtsov et al. 2018 (AP1); the 'tanh' of Shekhovtsov, Yanush & Flach 2020",
)
def mean_field(model: Model) -> Loss:
    """Every state is replaced by its mean 2F(a) - 1, for logistic noise tanh(a/2)."""
    return unitwise(
        model,
        lambda site, a, *u: 2 * site.noise.cdf(a) - 1,
        streams=0,
        soft=True,
        randomness="none",
    )


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient=1, layers=2 * L - 1),
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


@register_backprop(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient=1, layers=2 * L - 1),
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
    return _propagation(name, model, unit, networks, randomness="uniforms", smoothness="smooth")
