"""A noise that is not of the package, in every estimator that takes any model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, relative, small
from jax.scipy.special import expit, logit

from gradbench.core.noise import NOISES, make_noise
from gradbench.estimators import ESTIMATORS, ap2, local_reparameterization, sa
from gradbench.estimators.adaptive import Learned
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN
from gradbench.models.optimisers import exponentiated_gradient, mirror_descent

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
UNIT = {"weight": np.array([[0.7]]), "bias": np.array([0.3])}
BATCH = (np.array([[0.4]]), np.array([1.0]))
TAKE_ANY_MODEL = [entry for _, entry in sorted(ESTIMATORS.items()) if not entry.needs]
FIRST = {entry.family: entry for entry in reversed(TAKE_ANY_MODEL)}  # of each family; others slow


@pytest.fixture(scope="module")
def sech():
    """The hyperbolic secant distribution, registered as a plugin would."""
    noise = make_noise(
        "sech",
        cdf=lambda a: 2 / jnp.pi * jnp.arctan(jnp.exp(jnp.pi / 2 * a)),
        pdf=lambda a: 1 / (2 * jnp.cosh(jnp.pi / 2 * a)),
        quantile=lambda u: 2 / jnp.pi * jnp.log(jnp.tan(jnp.pi / 2 * u)),
    )
    NOISES.add("sech", noise, summary="hyperbolic secant")
    yield noise
    del NOISES["sech"]


def unit(params, example, binary):
    """One unit, with noise that is known by name, and an objective that is no polynomial."""
    z, target = example
    (x,) = binary(params["weight"] @ z + params["bias"], noise="sech")
    return jnp.exp(0.5 * x * target) + 0.2 * params["bias"][0] * x


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, marks=[] if entry is FIRST[entry.family] else pytest.mark.slow)
        for entry in TAKE_ANY_MODEL
    ],
    ids=lambda entry: entry.name,
)
@pytest.mark.first(1)
def test_every_estimator_takes_it_and_is_unbiased_where_it_claims_to_be(entry, sech):
    params, batch = jax.tree.map(jnp.asarray, (UNIT, BATCH))
    loss = entry.make(unit)
    if isinstance(loss, Learned):
        loss = loss.frozen(loss.init(params, batch))
    truth = jax.grad(partial(brute_force, unit))(params, batch)
    if entry.claim() in ("exact", "unbiased", "one layer"):
        exact = entry.claim() == "exact"  # such a loss has no draws
        gradient = partial(jax.grad(loss), key=jax.random.key(0))
        found = gradient(params, batch=batch) if exact else moments(loss, params, batch).mean
        assert relative(found, truth) < 1e-7
    else:
        value, gradient = jax.jit(jax.value_and_grad(loss))(params, jax.random.key(0), batch)
        assert np.all(np.isfinite([value, *flat(gradient)]))


@pytest.mark.slow
def test_a_wrong_density_would_be_seen_as_a_bias(sech):
    wrong = make_noise("wrong", sech.cdf, sech.pdf, sech.quantile)
    object.__setattr__(wrong, "hazard", lambda a: 1.01 * sech.hazard(a))

    def other(params, example, binary):
        return unit(params, example, lambda a, noise: binary(a, noise=wrong))

    params, batch = jax.tree.map(jnp.asarray, (UNIT, BATCH))
    truth = jax.grad(partial(brute_force, unit))(params, batch)
    found = moments(ESTIMATORS["reinforce"].make(other), params, batch).mean
    assert relative(found, truth) > 1e-3


@pytest.mark.parametrize(
    "make", [ap2, local_reparameterization, partial(sa, smoothing=1.5)], ids=["ap2", "local", "sa"]
)
@pytest.mark.slow
def test_a_noise_that_is_logistic_by_another_name_gives_the_same_draws(make):
    twin = make_noise("twin", expit, lambda a: expit(a) * expit(-a), logit)
    network, params, batch = small((2, 2, 2, 1))
    same = SBN(tuple(Dense(2, 2, twin) for _ in network.layers), network.objective)
    right, found = (
        jax.jit(jax.value_and_grad(make(model)))(params, jax.random.key(0), batch)
        for model in (network, same)
    )
    np.testing.assert_allclose(flat(found), flat(right), rtol=1e-7)


def test_the_optimisers_of_latent_weights_take_it(sech):
    eta, g = jnp.array([0.5, -1.0]), jnp.array([0.3, -0.2])
    state = mirror_descent(0.1, "sech").init(eta)
    change, _ = mirror_descent(0.1, "sech").update(g, state, eta)
    np.testing.assert_allclose(change, -0.1 * g)
    change, _ = exponentiated_gradient(0.1, "sech").update(g, state, eta)
    moved = logit(sech.cdf(eta + change))
    np.testing.assert_allclose(moved, logit(sech.cdf(eta)) - 0.1 * g, rtol=1e-6)
