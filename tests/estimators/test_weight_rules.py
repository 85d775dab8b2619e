"""Rules for latent binary weights: BayesBiNN and the magnitude-aware sign of Bi-Real Net."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import NOISES, SCIPY, flat, precision, relative
from scipy import special

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.estimators import (
    ESTIMATORS,
    bayesbinn,
    check_spec,
    concrete,
    exact,
    magnitude_aware,
    make_estimator,
    straight_through,
)
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, RealNetwork
from gradbench.models.optimisers import for_weights

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

KEY = jax.random.key(0)
LATENT = np.array([[0.7, -0.4], [-1.6, 0.05]])
NETWORK = RealNetwork((Dense(2, 2),), Readout(2, 1))
PARAMS = (
    {"weight": LATENT, "bias": np.array([0.3, -0.2])},
    {"weight": np.array([[1.2, -0.8]]), "bias": np.array([0.1])},
)
BATCH = (np.array([[0.4, -1.1], [1.3, 0.6]]), np.array([1.0, -1.0]))
U = (np.array([[0.2, 0.9], [0.6, 0.45]]), np.array([[0.7, 0.35]]))


def draw(loss, params=PARAMS, u=U):
    """Value and gradient at given uniforms."""
    example = loss.model.as_single_example(KEY, BATCH)
    args = (jax.tree.map(jnp.asarray, params), (tuple(map(jnp.asarray, u)),), example)
    return jax.jit(jax.value_and_grad(loss.example_loss))(*args)


def real_network(params):
    """The loss of the network at given weights."""
    return jnp.mean(jax.vmap(lambda example: NETWORK(params, example))(BATCH))


def with_weights(f, *trees):
    """The first tree, with ``f`` of all of them where it has weights."""
    return tuple(
        {"weight": f(*(t["weight"] for t in thetas)), "bias": thetas[0]["bias"]}
        for thetas in zip(*trees, strict=True)
    )


# ------------------------------------------------------------------------- BayesBiNN


def by_hand(noise, temperature, epsilon):
    """Relaxed weights, and the factor of dE/dw, in lam and mu = tanh(lam)."""

    def one(eta, u):
        p = SCIPY[noise].cdf(eta)
        lam = special.logit(p) / 2
        w = np.tanh((lam - special.logit(u) / 2) / temperature)
        mu = np.tanh(lam)
        return w, (1 - w**2 + epsilon) / temperature / (1 - mu**2 + epsilon)

    return one


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_a_draw_of_bayesbinn_is_that_of_its_formulas(noise):
    """The value is that of the relaxed weights; the objective's own parameters are among them."""
    params = with_weights(lambda eta: eta / 2, PARAMS)  # inside the support of every noise
    rule = by_hand(noise, 0.6, 0.01)
    noises = tuple({"weight": u, "bias": 0} for u in U)
    weights = with_weights(lambda eta, u: rule(eta, u)[0], params, noises)
    value, g = jax.jit(jax.value_and_grad(real_network))(weights)
    found = draw(
        bayesbinn(BinaryWeights(NETWORK, noise=noise), temperature=0.6, epsilon=0.01), params
    )
    right = [g[k]["weight"] * rule(params[k]["weight"], U[k])[1] for k in range(2)]
    np.testing.assert_allclose(found[0], value, rtol=1e-13)
    for k in range(2):
        np.testing.assert_allclose(found[1][k]["weight"], right[k], rtol=1e-11, atol=1e-15)
        np.testing.assert_allclose(found[1][k]["bias"], g[k]["bias"], rtol=1e-12)


@pytest.mark.slow
def test_bayesbinn_is_the_natural_gradient_of_concrete():
    """Concrete divided by d mu / d eta = 2F'(eta); a factor 2, of lam for eta, would be seen."""
    model = BinaryWeights(NETWORK)
    value, g = draw(bayesbinn(model, temperature=0.7, epsilon=1e-300))
    same, h = draw(concrete(model, temperature=0.7))
    np.testing.assert_allclose(value, same, rtol=1e-13)
    for k in range(2):
        slope = 2 * SCIPY["logistic"].pdf(PARAMS[k]["weight"])
        np.testing.assert_allclose(g[k]["weight"], h[k]["weight"] / slope, rtol=1e-11)
        np.testing.assert_allclose(g[k]["bias"], h[k]["bias"], rtol=1e-12)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.first(1)
def test_at_the_papers_temperature_the_factor_has_no_variance_and_is_cosh_squared(double):
    """In 1000 draws; the rest of its mean, 1, is in an event of probability 1e-10."""
    with precision(True) if double else single():
        slopes, eta = jnp.array([[0.9], [-1.4]]), jnp.array([[1.1], [-2.3]])
        network = RealNetwork(
            (Dense(1, 2),), lambda theta, x, y: jnp.sum(x * slopes[:, 0]), lambda a: a
        )
        model, batch = BinaryWeights(network), (jnp.ones((1, 1)), jnp.zeros(1))
        params = ({"weight": eta, "bias": jnp.zeros(2)}, ())
        u = jnp.broadcast_to(((jnp.arange(1000) + 0.5) / 1000)[:, None, None], (1000, 2, 1))

        def rows(temperature):
            loss = bayesbinn(model, temperature=temperature)
            g = jax.grad(loss.example_loss)
            example = model.as_single_example(KEY, batch)
            return jax.vmap(lambda v: g(params, ((v,),), example)[0]["weight"])(u)

        cold, warm = jax.jit(lambda: (rows(1e-10), rows(0.5)))()
    right = slopes * np.cosh(eta / 2) ** 2
    np.testing.assert_allclose(cold[0], right, rtol=1e-8 if double else 1e-6)  # epsilon is 1e-10
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[0], cold.shape))
    assert np.all(np.std(warm, axis=0) > 0.1)


def test_at_the_papers_temperature_it_is_the_identity_rule_with_a_step_for_each_weight():
    model = BinaryWeights(NETWORK)
    value, g = draw(bayesbinn(model, temperature=1e-10))
    same, h = draw(straight_through(model, proxy="identity"))
    np.testing.assert_allclose(value, same, rtol=1e-14)
    for k in range(2):
        right = h[k]["weight"] * np.cosh(PARAMS[k]["weight"] / 2) ** 2
        np.testing.assert_allclose(g[k]["weight"], right, rtol=1e-8)
        np.testing.assert_allclose(g[k]["bias"], h[k]["bias"], rtol=1e-13)


def test_the_step_with_decay_of_the_paper_is_sgd_with_decayed_weights():
    """lam' = (1 - r) lam - r N g in lam = eta / 2, biases being none of its business."""
    model, n, rate = BinaryWeights(NETWORK), 50, 0.02
    _, g = draw(bayesbinn(model))
    decay = optax.chain(optax.add_decayed_weights(1 / (2 * n)), optax.sgd(2 * n * rate))
    optimiser = for_weights(model, decay, optax.set_to_zero())
    updates, _ = optimiser.update(g, optimiser.init(PARAMS), PARAMS)
    stepped = optax.apply_updates(jax.tree.map(jnp.asarray, PARAMS), updates)
    for k in range(2):
        lam = PARAMS[k]["weight"] / 2
        right = (1 - rate) * lam - rate * n * g[k]["weight"]
        np.testing.assert_allclose(stepped[k]["weight"] / 2, right, rtol=1e-12)
        np.testing.assert_array_equal(stepped[k]["bias"], PARAMS[k]["bias"])


# ---------------------------------------------------------------- magnitude-aware sign


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.first(1)
def test_the_magnitude_aware_sign_scales_each_channel_and_passes_the_gradient_inside(scaled):
    model = BinaryWeights(NETWORK, entries=(0,))
    latent = LATENT + np.array([[0.3, 0], [0, 0]])  # one of them lies at the end, and moves
    mean = np.abs(latent).mean(1, keepdims=True)
    w = mean * np.sign(latent)
    value, g = jax.jit(jax.value_and_grad(real_network))(({**PARAMS[0], "weight": w}, PARAMS[1]))
    loss = magnitude_aware(model, scaled=scaled)
    params = ({**PARAMS[0], "weight": latent}, PARAMS[1])
    found, h = draw(loss, params)
    inside = np.where(np.abs(latent) <= 1, mean if scaled else 1, 0)
    np.testing.assert_allclose(found, value, rtol=1e-14)
    np.testing.assert_allclose(h[0]["weight"], g[0]["weight"] * inside, rtol=1e-12)
    assert h[0]["weight"][1, 0] == 0 != h[0]["weight"][0, 0]
    assert relative((h[0]["bias"], h[1]), (g[0]["bias"], g[1])) < 1e-13
    np.testing.assert_array_equal(draw(loss, params, tuple(1 - u for u in U))[0], found)


@pytest.mark.slow
def test_the_channels_of_a_convolution_have_a_magnitude_each():
    network = RealNetwork((Conv((3, 1), 2, 2),), lambda theta, x, y: jnp.sum(x * y), lambda a: a)
    eta = np.array([[[0.2], [-0.6]], [[-3.0], [1.0]]])  # channels, kernel, channels below
    params = ({"weight": eta, "bias": np.zeros(2)}, ())
    batch = (np.array([[[1.0], [2.0], [4.0]]]), np.array([[[1.0, 10.0], [0.0, 100.0]]]))
    value = magnitude_aware(BinaryWeights(network))(params, KEY, batch)
    first = 0.4 * (1 - 2)
    second = 10 * 2 * (-1 + 2) + 100 * 2 * (-2 + 4)
    np.testing.assert_allclose(value, first + second, rtol=1e-14)


# ------------------------------------------------------------------------ what surrounds them

RULES = ("bayesbinn", "bayesbinn(temperature=1e-10)", "magnitude_aware")


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_single_precision_and_saturated_weights_leave_draws_finite(noise):
    params = with_weights(lambda eta: 1e2 * np.sign(eta) * (np.abs(eta) > 0.5) + 0.4 * eta, PARAMS)
    with single():
        narrow = jax.tree.map(np.float32, (params, U))
        for spec in RULES:
            value, g = draw(make_estimator(spec, BinaryWeights(NETWORK, noise=noise)), *narrow)
            leaves = jax.tree.leaves((value, g))
            assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}, spec
            assert np.all(np.isfinite(flat(leaves))), spec


@pytest.mark.slow
def test_they_run_over_stochastic_activations_and_as_a_part_of_specs():
    network = SBN((Dense(2, 2, "normal"),), Readout(2, 1))
    model = BinaryWeights(network, exact)
    for spec in RULES:
        check_spec(spec)
        g = jax.jit(jax.grad(make_estimator(spec, model)))(PARAMS, KEY, BATCH)
        assert np.all(np.isfinite(flat(g)))
        assert np.linalg.norm(flat(g)) > 0.01


def test_what_the_registry_says():
    assert ESTIMATORS["bayesbinn"].hyperparameters == {"temperature": 1.0, "epsilon": 1e-10}
    assert ESTIMATORS["bayesbinn"].randomness == "uniforms"
    assert ESTIMATORS["magnitude_aware"].randomness == "none"
    for name in ("bayesbinn", "magnitude_aware"):
        assert ESTIMATORS[name].needs == "binary weights"
        assert ESTIMATORS[name].claim() == "biased"


@pytest.mark.parametrize("make", [bayesbinn, magnitude_aware])
@pytest.mark.parametrize(
    ("model", "kind"),
    [(SBN((Dense(2, 2),), Readout(2, 1)), "SBN"), (lambda p, e, binary: binary(p), "function")],
)
def test_other_models_are_refused(make, model, kind):
    with pytest.raises(GradbenchError) as caught:
        make(model)
    assert str(caught.value) == (
        f"{make.__name__}() is a rule for binary weights and got a model of type {kind}; "
        "put its network into BinaryWeights"
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(bayesbinn, temperature=0), "temperature is 0; give a positive number"),
        (partial(bayesbinn, epsilon=-1), "epsilon is -1; give a positive number"),
        (partial(magnitude_aware, scaled="yes"), "scaled is 'yes'; give True or False"),
    ],
)
def test_impossible_hyperparameters_are_refused(make, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(BinaryWeights(NETWORK))
    assert str(caught.value) == sentence
