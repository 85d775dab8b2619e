"""The optimisers of latent weights: mirror descent and its identities, and the contract of optax.

What a step does to p = P(w = +1) is computed here in plain numpy, or found by a numerical minimiser
of what the step is defined to minimise.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import NOISES, SCIPY, flat, random_batch
from scipy import integrate, optimize

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.precision import float64, single
from gradbench.estimators import deterministic_straight_through, straight_through
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import RealNetwork
from gradbench.models.optimisers import (
    bayesian_learning_rule,
    bop,
    exponentiated_gradient,
    for_weights,
    mirror_descent,
    proximal_kl,
)

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-10
RATE = 0.3
STEPS, SIZE = 200, 6
KEY = jax.random.key(0)


def random_gradients(seed=0):
    """Gradients in w, `[steps, weights]`, with a drift that takes some weights to their ends."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((STEPS, SIZE)) * 0.4 + np.linspace(-0.1, 0.1, SIZE)


def starts(seed=1):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, SIZE)


@partial(jax.jit, static_argnums=0)
def trajectory(optimiser, eta, gradients):
    """The latent weights after every step."""

    def step(carry, g):
        eta, state = carry
        change, state = optimiser.update(g, state, eta)
        eta = optax.apply_updates(eta, change)
        return (eta, state), eta

    return jax.lax.scan(step, (eta, optimiser.init(eta)), gradients)[1]


def moved(optimiser, params, gradient):
    """The parameters after one step."""
    params, gradient = jax.tree.map(jnp.asarray, (params, gradient))
    change, _ = optimiser.update(gradient, optimiser.init(params), params)
    return optax.apply_updates(params, change)


def follow(step, p, gradients):
    """The same in plain numpy, on probabilities."""
    return np.array([p := step(p, g) for g in gradients])


def exponentiated(p, g):
    up = p * np.exp(-RATE * g)
    return up / (up + 1 - p)


def half_rate_projected(p, g):
    return np.clip(p - RATE / 2 * g, 0, 1)


# ----------------------------------------------------------------------------- trajectories


def test_mirror_descent_with_logistic_noise_is_exponentiated_gradient_on_p():
    eta, gradients = starts(), random_gradients()
    found = trajectory(mirror_descent(RATE), eta, gradients)
    right = follow(exponentiated, SCIPY["logistic"].cdf(eta), gradients)
    np.testing.assert_allclose(SCIPY["logistic"].cdf(found), right, rtol=EXACT)


def test_mirror_descent_with_uniform_noise_is_projected_gradient_on_p_at_half_the_rate():
    eta, gradients = starts(), random_gradients()
    found = trajectory(mirror_descent(RATE, "uniform"), eta, gradients)
    p = follow(half_rate_projected, (eta + 1) / 2, gradients)
    np.testing.assert_allclose((np.asarray(found) + 1) / 2, p, rtol=EXACT, atol=1e-14)
    assert np.any(p == 0)
    assert np.any(p == 1)


@pytest.mark.parametrize("noise", NOISES)
def test_exponentiated_gradient_multiplies_the_odds_whatever_the_noise(noise):
    eta, gradients = starts(), random_gradients()
    found = trajectory(exponentiated_gradient(RATE, noise), eta, gradients)
    right = follow(exponentiated, SCIPY[noise].cdf(eta), gradients)
    np.testing.assert_allclose(SCIPY[noise].cdf(found), right, rtol=EXACT)


def potential(noise, p, q):
    """Phi(p) - Phi(q), Phi' the quantile function of the noise."""
    return integrate.quad(SCIPY[noise].ppf, q, p, epsabs=1e-13, epsrel=1e-13)[0]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_a_mirror_step_minimises_the_linearised_loss_plus_the_divergence_of_its_potential(noise):
    """rate g p' + D(p', p), D the Bregman divergence of Phi; g = dE/dw is half of dE/dp."""
    for eta, g in [(0.3, 0.8), (-0.6, 1.5), (-0.6, -1.0), (0.5, -2.5), (-0.8, 3.0)]:
        p = SCIPY[noise].cdf(eta)
        found = SCIPY[noise].cdf(moved(mirror_descent(RATE, noise), eta, g))

        def slope(q, p=p, g=g):
            return RATE * g + SCIPY[noise].ppf(q) - SCIPY[noise].ppf(p)

        def bregman(q, p=p, g=g):
            return RATE * g * q + potential(noise, q, p) - SCIPY[noise].ppf(p) * (q - p)

        ends = (1e-15, 1 - 1e-15)
        if slope(ends[0]) >= 0:
            right = 0.0
        elif slope(ends[1]) <= 0:
            right = 1.0
        else:
            right = optimize.brentq(slope, *ends, xtol=1e-15)
        np.testing.assert_allclose(found, right, rtol=EXACT, atol=1e-13)
        assert all(bregman(found) <= bregman(q) + 1e-12 for q in np.linspace(0.01, 0.99, 9))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.slow
def test_weights_that_are_driven_to_their_ends_for_long_stay_finite(double):
    """A loss that is linear in w drives them for ever: dE/dw does not vanish as p goes to 1."""
    with float64() if double else single():
        drive = jnp.ones((1000, 2)) * jnp.array([4.0, -4.0])
        for noise in NOISES:
            for make in (exponentiated_gradient, mirror_descent):
                there = trajectory(make(RATE, noise), jnp.zeros(2), drive)
                assert np.all(np.isfinite(there)), (make.__name__, noise)
                assert np.all(there[-1] * np.array([-1, 1]) > 0.99)


def test_bounded_noises_reach_the_end_of_their_support_and_stay_inside():
    for noise in ("uniform", "triangular"):
        found = trajectory(mirror_descent(RATE, noise), starts(), random_gradients())
        assert np.max(np.abs(found)) == 1
    free = trajectory(mirror_descent(RATE), starts(), random_gradients())
    np.testing.assert_allclose(free[-1], starts() - RATE * random_gradients().sum(0), rtol=EXACT)


# ------------------------------------------------------------------------- the proximal step


def divergence(p, q):
    """KL(p || q) of Bernoulli variables."""
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def test_the_proximal_step_minimises_the_linearised_loss_with_both_divergences():
    """rate g p' + KL(p' || p) + rate strength KL(p' || 1/2): by its slope, and by its values."""
    for eta, g, strength in [(0.3, 0.8, 0.5), (-2.0, 1.5, 2.0), (1.0, -3.0, 0.1), (0.5, 0.0, 1.0)]:
        p = SCIPY["logistic"].cdf(eta)
        found = SCIPY["logistic"].cdf(moved(proximal_kl(RATE, strength), eta, g))

        def step(q, p=p, g=g, strength=strength):
            return RATE * g * q + divergence(q, p) + RATE * strength * divergence(q, 0.5)

        def slope(q, p=p, g=g, strength=strength):
            logit, other = np.log(q / (1 - q)), np.log(p / (1 - p))
            return RATE * g + logit - other + RATE * strength * logit

        right = optimize.brentq(slope, 1e-12, 1 - 1e-12, xtol=1e-15)
        np.testing.assert_allclose(found, right, rtol=EXACT)
        by_values = optimize.minimize_scalar(
            step, bounds=(0, 1), method="bounded", options={"xatol": 1e-12}
        )
        np.testing.assert_allclose(found, by_values.x, atol=1e-6)  # a minimum is flat
        assert step(found) <= by_values.fun + 1e-14


def test_weight_decay_is_the_linearisation_of_the_proximal_step_in_its_strength():
    """eta - rate (g + strength eta): the difference falls as strength^2 where the gradient is 0."""
    eta, zero = starts(), np.zeros(SIZE)
    g = random_gradients()[0]

    def decay(strength):
        return optax.chain(optax.add_decayed_weights(strength), optax.sgd(RATE))

    large, small = (
        moved(proximal_kl(RATE, s), eta, zero) - moved(decay(s), eta, zero) for s in (1e-2, 1e-3)
    )
    np.testing.assert_allclose(large / small, 100, rtol=0.01)
    # With a gradient, the slope in strength at 0 is -rate eta' of the moved weight.
    tiny = 1e-7
    with_it, without = (moved(proximal_kl(RATE, s), eta, g) for s in (tiny, 0.0))
    slope = (with_it - without) / tiny
    np.testing.assert_allclose(slope, -RATE * (eta - RATE * g), rtol=1e-6)


def test_the_proximal_step_without_strength_is_mirror_descent():
    one, two = (
        trajectory(optimiser, starts(), random_gradients())
        for optimiser in (proximal_kl(RATE, 0.0), mirror_descent(RATE))
    )
    np.testing.assert_allclose(one, two, rtol=1e-13)


# ------------------------------------------------------------------------------------- Bop


@pytest.mark.parametrize(("rate", "threshold"), [(0.3, 0.05), (0.05, 0.0), (1.0, 0.4)])
def test_bop_flips_states_where_the_average_gradient_exceeds_the_threshold(rate, threshold):
    """In plain numpy, by the two conditions of the paper: |m| above it, and of the sign of w."""
    gradients, w, m, right = random_gradients(), np.sign(starts()), np.zeros(SIZE), []
    for g in gradients:
        m = (1 - rate) * m + rate * g
        w = np.where((np.abs(m) > threshold) & (np.sign(m) == np.sign(w)), -w, w)
        right.append(w)
    for size in (np.ones(SIZE), np.abs(starts())):
        found = trajectory(bop(rate, threshold), size * np.sign(starts()), gradients)
        np.testing.assert_allclose(found, size * np.array(right), rtol=1e-13)
    assert 0 < np.mean(np.diff(right, axis=0) != 0) < 0.9


def test_bop_at_its_defaults_has_those_of_the_paper_and_moves_a_weight_of_0():
    g = np.array([-1.1e-4, -0.9e-4, 1.0, 2.0])
    eta = np.array([-1.0, -1.0, 0.0, 3.0])
    np.testing.assert_array_equal(moved(bop(), eta, g), [1, -1, 0, -3])
    np.testing.assert_array_equal(moved(bop(), np.zeros(2), np.array([-1.0, 1.0])), [1, 0])


def test_bop_lowers_a_loss_of_weights_without_noise():
    """Five weights of which each has a better state, beside biases with their own optimiser."""
    target = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    network = RealNetwork((Dense(5, 1),), lambda theta, a, y: jnp.mean((a - y) ** 2), lambda a: a)
    inputs = np.random.default_rng(0).standard_normal((64, 5))
    batch = (jnp.asarray(inputs), jnp.asarray(inputs @ target))
    model = BinaryWeights(network, entries=(0,))
    loss = deterministic_straight_through(model, proxy="identity")
    optimiser = for_weights(model, bop(0.2, 1e-3), optax.set_to_zero())
    params = ({"weight": -jnp.asarray(target)[None], "bias": jnp.zeros(1)}, ())

    @jax.jit
    def step(params, state):
        g = jax.grad(loss)(params, KEY, batch)
        change, state = optimiser.update(g, state, params)
        return optax.apply_updates(params, change), state

    state = optimiser.init(params)
    for _ in range(60):
        params, state = step(params, state)
    np.testing.assert_array_equal(params[0]["weight"][0], target)
    np.testing.assert_array_equal(params[0]["bias"], 0)


# ------------------------------------------------------------- the Bayesian learning rule


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_the_bayesian_learning_rule_steps_in_the_natural_parameter_as_its_paper_has_it(momentum):
    """lam' = lam - r (N g + lam), in plain numpy; with momentum its average, without its start."""
    gradients, lam, average, right = random_gradients(), starts() / 2, 0, []
    for step, g in enumerate(gradients, start=1):
        average = momentum * average + (1 - momentum) * (50 * g + lam)
        lam = lam - 0.01 * average / (1 - momentum**step)
        right.append(lam)
    for given in (momentum, jnp.asarray(momentum)):
        found = trajectory(bayesian_learning_rule(0.01, 50, given), starts(), gradients)
        np.testing.assert_allclose(np.asarray(found) / 2, right, rtol=EXACT, atol=1e-13)


def test_the_bayesian_learning_rule_ends_in_the_exact_posterior_of_a_linear_loss():
    """Of c.w for each of N examples, P(w | data) is proportional to exp(-N c.w): by enumeration."""
    c, examples = np.array([0.2, -0.05, 0.6]), 4
    states = 2.0 * (np.arange(8)[:, None] >> np.arange(3) & 1) - 1
    weight = np.exp(-examples * states @ c)
    posterior = weight @ (states > 0) / weight.sum()
    steps = np.broadcast_to(c, (400, 3))
    for momentum in (0.0, 0.9):
        rule = bayesian_learning_rule(0.1, examples, momentum)
        found = trajectory(rule, jnp.array([0.3, -2.0, 0.0]), steps)[-1]
        np.testing.assert_allclose(SCIPY["logistic"].cdf(found), posterior, rtol=1e-6)


def test_momentum_may_be_an_array_and_that_of_0_is_none():
    gradients = random_gradients() / 5
    plain = trajectory(mirror_descent(RATE), starts(), gradients)
    zero = trajectory(mirror_descent(RATE, momentum=jnp.zeros(())), starts(), gradients)
    np.testing.assert_allclose(zero, plain, rtol=1e-13)
    one, other = (
        trajectory(mirror_descent(RATE, momentum=m), starts(), gradients)
        for m in (0.9, jnp.asarray(0.9))
    )
    np.testing.assert_allclose(one, other, rtol=1e-13)


# ------------------------------------------------------------- on gradients of binary weights

NETWORK = RealNetwork((Dense(2, 3),), Readout(3, 1))
BATCH = random_batch(2, examples=4)


def with_real_biases(latent):
    """An optimiser of latent weights for the weights, gradient descent for the biases."""
    parts = {"weight": latent, "bias": optax.sgd(0.1)}
    return optax.partition(parts, lambda p: tuple({name: name for name in theta} for theta in p))


def start():
    generator = np.random.default_rng(4)
    return jax.tree.map(lambda leaf: generator.uniform(-0.9, 0.9, leaf.shape), NETWORK.init(KEY))


@pytest.mark.parametrize("noise", ["logistic", "uniform"])
@pytest.mark.slow
def test_training_by_the_identity_rule_is_a_descent_on_p_beside_real_biases(noise):
    """Under jit and scan, in a partition: p follows numpy, fed with the gradients that were met."""
    loss = straight_through(BinaryWeights(NETWORK, noise=noise), proxy="identity")
    optimiser = with_real_biases(mirror_descent(RATE, noise))

    @jax.jit
    def train(params, keys):
        def step(carry, key):
            params, state = carry
            g = jax.grad(loss)(params, key, BATCH)
            change, state = optimiser.update(g, state, params)
            params = optax.apply_updates(params, change)
            return (params, state), (params, g)

        return jax.lax.scan(step, (params, optimiser.init(params)), keys)[1]

    after, g = train(start(), jax.random.split(KEY, STEPS))
    assert jax.tree.structure(after) == jax.tree.structure(start())
    descent = {"logistic": exponentiated, "uniform": half_rate_projected}[noise]
    for theta, gradient, first in zip(after, g, start(), strict=True):
        p = SCIPY[noise].cdf(theta["weight"])
        right = follow(descent, SCIPY[noise].cdf(first["weight"]), np.asarray(gradient["weight"]))
        np.testing.assert_allclose(p, right, rtol=EXACT, atol=1e-13)
        right = first["bias"] - 0.1 * np.cumsum(gradient["bias"], axis=0)
        np.testing.assert_allclose(theta["bias"], right, rtol=EXACT)


@pytest.mark.slow
def test_gradient_descent_on_eta_is_the_identity_rule_with_the_slope_of_the_noise():
    """The chain rule, for every noise: a step of -rate 2F'(eta) dE/dw on the same draw."""
    params = start()

    @jax.jit
    def both(params, key):
        found = {}
        for noise in NOISES:
            model = BinaryWeights(NETWORK, noise=noise)
            g, identity = (
                jax.grad(straight_through(model, proxy=proxy))(params, key, BATCH)
                for proxy in ("density", "identity")
            )
            found[noise] = moved(optax.sgd(RATE), params, g), identity
        return found

    for noise, (after, g) in both(params, KEY).items():
        for theta, one, gradient in zip(params, after, g, strict=True):
            slope = 2 * SCIPY[noise].pdf(theta["weight"])
            right = theta["weight"] - RATE * slope * gradient["weight"]
            np.testing.assert_allclose(one["weight"], right, rtol=EXACT)


# ---------------------------------------------------------------------- the contract of optax


@pytest.mark.parametrize("noise", ["logistic", "triangular"])
def test_momentum_averages_the_gradients_of_all_steps(noise):
    eta, gradients, bound = starts(), random_gradients() / 5, get_noise(noise).bound
    velocity, right = 0, []
    for g in gradients:
        velocity = 0.9 * velocity + g
        eta = np.clip(eta - RATE * velocity, -bound, bound)
        right.append(eta)
    found = trajectory(mirror_descent(RATE, noise, momentum=0.9), starts(), gradients)
    np.testing.assert_allclose(found, right, rtol=EXACT, atol=1e-13)
    none = mirror_descent(RATE, noise, momentum=0.0)
    assert not jax.tree.leaves(none.init(starts()))
    plain = trajectory(none, starts(), gradients)
    np.testing.assert_array_equal(
        plain, trajectory(mirror_descent(RATE, noise), starts(), gradients)
    )


OPTIMISERS = {
    "mirror_descent": mirror_descent(RATE),
    "mirror_descent, bounded": mirror_descent(RATE, "uniform", momentum=0.5),
    "exponentiated_gradient": exponentiated_gradient(RATE, "normal"),
    "proximal_kl": proximal_kl(RATE, 0.1),
    "bop": bop(RATE, 0.01),
    "bayesian_learning_rule": bayesian_learning_rule(RATE, 10, 0.5),
}


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.slow
def test_every_optimiser_is_part_of_a_chain_and_keeps_structure_and_precision(name):
    latent = OPTIMISERS[name]
    chain = optax.chain(optax.clip(0.1), latent)

    @jax.jit
    def step(params, g):
        return moved(chain, params, g), moved(latent, params, jax.tree.map(clipped, g))

    def clipped(g):
        return jnp.clip(g, -0.1, 0.1)

    for double in (False, True):
        with float64() if double else single():
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), start())
            one, two = step(params, jax.tree.map(jnp.ones_like, params))
        assert jax.tree.structure(one) == jax.tree.structure(params)
        np.testing.assert_array_equal(flat(one), flat(two))
        down = flat(one) < flat(params)  # where all gradients are 1
        assert np.all(down | (flat(params) < 0) if name == "bop" else down)
        assert {leaf.dtype.itemsize for leaf in jax.tree.leaves(one)} == {8 if double else 4}
    # Single precision stays so where double is allowed.
    narrow = jax.tree.map(jnp.float32, start())
    after = step(narrow, jax.tree.map(jnp.ones_like, narrow))[0]
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {np.dtype("float32")}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_update_without_the_latent_weights_is_refused(name):
    g = np.ones(3)
    sentence = f"{name.split(',')[0]} needs the latent weights; give update.g, state, params."
    with pytest.raises(GradbenchError, match=sentence):
        OPTIMISERS[name].update(g, OPTIMISERS[name].init(g))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: mirror_descent(0.0), "the rate is 0.0; give a positive number"),
        (lambda: mirror_descent(np.nan), "the rate is nan; give a positive number"),
        (lambda: mirror_descent(np.inf), "the rate is inf; give a positive number"),
        (lambda: mirror_descent("fast"), "the rate is 'fast'; give a positive number"),
        (lambda: exponentiated_gradient(-1), "the rate is -1; give a positive number"),
        (lambda: proximal_kl(0, 1.0), "the rate is 0; give a positive number"),
        (lambda: proximal_kl(0.1, -1.0), "the strength is -1.0; give at least 0"),
        (lambda: bop(0.0), "the rate is 0.0; give a number above 0 and at most 1"),
        (lambda: bop(1.5), "the rate is 1.5; give a number above 0 and at most 1"),
        (lambda: bop(threshold=-1.0), "the threshold is -1.0; give at least 0"),
        (lambda: proximal_kl(0.1, np.nan), "the strength is nan; give at least 0"),
        (lambda: mirror_descent(0.1, "cauchy"), "unknown noise 'cauchy'; choose one of laplace"),
        (lambda: exponentiated_gradient(0.1, "normall"), "unknown noise .*; did you mean 'normal'"),
        (lambda: mirror_descent(0.1, momentum=-0.5), "the momentum is -0.5; give"),
        (lambda: mirror_descent(0.1, momentum=1.0), "the momentum is 1.0; give"),
        (lambda: bayesian_learning_rule(1.5, 10), "the rate is 1.5; give a number above 0 and at"),
        (lambda: bayesian_learning_rule(0.1, 0), "the number of examples is 0; give a positive"),
        (lambda: bayesian_learning_rule(0.1, 10, 1.0), "the momentum is 1.0; give at least 0"),
    ],
)
def test_impossible_hyperparameters_are_refused_in_one_sentence(build, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        build()


def test_biases_have_an_optimiser_of_their_own():
    model = BinaryWeights(RealNetwork((Dense(2, 3),), Readout(3, 1)), noise="uniform")
    params = jax.tree.map(lambda leaf: 0.5 * leaf, model.init(jax.random.key(0)))
    params[0]["bias"] = jnp.array([5.0, -3, 2])
    optimiser = for_weights(model, mirror_descent(1.0, "uniform"), optax.sgd(0.1))
    gradient = jax.tree.map(lambda leaf: 4 * jnp.ones_like(leaf), params)
    change, _ = optimiser.update(gradient, optimiser.init(params), params)
    new = optax.apply_updates(params, change)
    np.testing.assert_allclose(new[0]["bias"], params[0]["bias"] - 0.4)
    for theta in new:
        np.testing.assert_array_equal(theta["weight"], -1)
