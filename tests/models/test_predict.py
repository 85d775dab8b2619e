"""What networks predict, against sums over all their states."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat
from stored import assert_one_sentence

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.models import (
    ELBO,
    SBN,
    BinaryWeights,
    Dense,
    MultiSample,
    Readout,
    RealNetwork,
    dense_network,
)
from gradbench.suites.initialise import INITIALISATIONS

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
KEY = jax.random.key(3)
SAMPLES = 4000
FALSE_ALARM = 5.5  # standard errors, of means of SAMPLES; below 1e-6 for each number


def paths(network, params, x):
    """Yield the probability of each path of the states of one input, and the states."""
    units = [layer.outputs for layer in network.layers]
    for bits in itertools.product((-1.0, 1.0), repeat=sum(units)):
        probability, below, states = 1.0, np.asarray(x), []
        for layer, theta, end in zip(network.layers, params, np.cumsum(units), strict=False):
            a = np.asarray(theta["weight"]) @ below + np.asarray(theta["bias"])
            own = np.array(bits[end - layer.outputs : end])
            probability *= np.prod(1 / (1 + np.exp(-own * a)))
            low, high = network.states
            below = low + (own + 1) / 2 * (high - low)
            states.append(own)
        yield probability, states, below


def softmax(out):
    return np.exp(out - out.max()) / np.exp(out - out.max()).sum()


MEANINGS = {
    ("softmax_cross_entropy", 3): (softmax, softmax),
    ("logistic_loss", 1): (lambda out: 1 / (1 + np.exp(-out)),) * 2,
    ("squared_error", 2): (lambda out: out,) * 2,
}


@pytest.mark.parametrize(("loss", "outputs"), MEANINGS)
@pytest.mark.slow
def test_an_ensemble_averages_what_its_outputs_mean(loss, outputs):
    meaning, _ = MEANINGS[loss, outputs]
    network = dense_network((2, 3, 2, outputs), loss, states=(0, 1))
    params, x = network.init(KEY), jax.random.normal(KEY, (3, 2))
    found = np.array([meaning(out) for out in network.predict(params, x, KEY, SAMPLES)])
    for row, own in zip(found, np.asarray(x), strict=True):
        rows = [
            (p, meaning(params[-1]["weight"] @ below + params[-1]["bias"]))
            for p, _, below in paths(network, params, own)
        ]
        mean = sum(p * out for p, out in rows)
        spread = np.sqrt(sum(p * (out - mean) ** 2 for p, out in rows) / SAMPLES)
        assert (np.abs(row - mean) < FALSE_ALARM * spread + 1e-12).all()
        assert np.abs(row - rows[0][1]).max() > 1e-3  # not one path alone


@pytest.mark.slow
def test_the_mean_field_passes_on_the_means_of_the_states():
    network = dense_network((2, 3, 2, 4), "softmax_cross_entropy", states=(0, 1))
    params, x = network.init(KEY), jax.random.normal(KEY, (300, 2))  # more than one piece
    below = np.asarray(x)
    for theta in params[:-1]:
        below = 1 / (1 + np.exp(-(below @ theta["weight"].T + theta["bias"])))
    out = below @ params[-1]["weight"].T + params[-1]["bias"]
    np.testing.assert_allclose(network.predict(params, x), out, rtol=1e-12)


@pytest.mark.slow
def test_one_sample_is_a_path_and_each_example_has_its_own():
    network = dense_network((2, 3, 4), "squared_error")
    params, x = network.init(KEY), jnp.ones((50, 2))
    out = np.asarray(network.predict(params, x, KEY))
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))
    possible = states @ params[-1]["weight"].T + params[-1]["bias"]
    nearest = np.abs(out[:, None] - possible).max(-1)
    assert nearest.min(1).max() < 1e-12 and len(set(nearest.argmin(1))) > 2
    other = network.predict(params, x, jax.random.key(4))
    assert np.abs(out - other).max() > 0.1


@pytest.mark.slow
def test_binary_weights_are_shared_by_the_examples_of_a_run():
    alone = BinaryWeights(RealNetwork((Dense(2, 2),), Readout(2, 1, "squared_error"), jnp.tanh))
    params, x = alone.init(KEY), jnp.ones((9, 2))
    out = np.asarray(alone.predict(params, x, KEY))
    assert np.ptp(out) == 0
    drawn = {float(alone.predict(params, x[:1], jax.random.key(k))[0, 0]) for k in range(9)}
    assert 1 < len(drawn) <= 2**6
    means = [2 / (1 + np.exp(-theta["weight"])) - 1 for theta in params]
    real = np.tanh(x @ means[0].T + params[0]["bias"]) @ means[1].T + params[1]["bias"]
    np.testing.assert_allclose(alone.predict(params, x), real, rtol=1e-12)
    with pytest.raises(GradbenchError) as caught:
        alone.codes(params, x)
    assert_one_sentence(caught, "no codes", "predict()")


@pytest.mark.slow
def test_codes_are_the_more_probable_states_or_sampled_ones():
    network = dense_network((2, 5, 1), states=(0, 1))
    params, x = network.init(KEY), jax.random.normal(KEY, (2000, 2))
    a = np.asarray(x @ params[0]["weight"].T + params[0]["bias"])
    np.testing.assert_array_equal(network.codes(params, x), np.where(a < 0, -1.0, 1.0))
    found = np.asarray(network.codes(params, x, KEY))
    p = 1 / (1 + np.exp(-a))
    assert set(np.unique(found)) == {-1.0, 1.0}
    z = ((found + 1) / 2 - p).sum(0) / np.sqrt((p * (1 - p)).sum(0))
    assert np.abs(z).max() < FALSE_ALARM


@pytest.mark.slow
@pytest.mark.parametrize("kl", ["closed", "sampled"])
def test_a_bound_of_two_samples_has_the_mean_of_the_model_of_two_samples(kl):
    network = SBN((Dense(3, 2),), ELBO((Dense(2, 3),), kl=kl))
    params = network.init(KEY)
    bits = jnp.array([[1.0, -1.0, 1.0]])
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, SAMPLES, axis=0), (bits, bits))
    found = np.asarray(network.bound(params, many, KEY, 2))
    sampled = network.with_objective(ELBO((Dense(2, 3),), kl="sampled"))
    truth = gradbench.expected_loss(MultiSample(sampled, 2), params, (bits, bits))
    error = abs(found.mean() - truth) / (found.std() / np.sqrt(SAMPLES))
    assert error < FALSE_ALARM
    single = gradbench.expected_loss(network, params, (bits, bits))
    assert single - truth > 10 * found.std() / np.sqrt(SAMPLES)  # two samples are told from one


@pytest.mark.slow
def test_many_samples_reach_the_likelihood():
    network = SBN((Dense(3, 2),), ELBO((Dense(2, 3),)))
    params = network.init(KEY)
    bits = jnp.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
    theta, likelihood = params[-1], 0.0
    for states in itertools.product((-1.0, 1.0), repeat=2):
        prior = np.prod(1 / (1 + np.exp(-np.array(states) * theta["prior"])))
        (decoder,) = theta["decoders"]
        logits = decoder["weight"] @ np.array(states) + decoder["bias"]
        likelihood = likelihood + prior * np.prod(1 / (1 + np.exp(-bits * logits)), axis=1)
    found = network.bound(params, (bits, bits), KEY, 20000)
    np.testing.assert_allclose(found, -np.log(likelihood), atol=0.03)
    logits = network.predict(params, bits)
    assert logits.shape == (2, 3)


def test_what_cannot_be_predicted_is_refused_in_one_sentence():
    network = dense_network((2, 3, 1))
    params, x = network.init(KEY), jnp.ones((2, 2))
    weights = BinaryWeights(network, gradbench.estimators.psa)
    other = network.with_objective(lambda theta, x, target: jnp.sum(x))
    for call, said in (
        (lambda: network.predict(params, x, samples=3), "samples is 3"),
        (lambda: network.predict(params, x, KEY, 0), "samples"),
        (lambda: network.predict(params[:1], x), "parameter entries"),
        (lambda: network.predict(params, jnp.ones((2, 5))), "5"),
        (lambda: other.predict(params, x), "has no outputs"),
        (lambda: weights.bound(params, (x, jnp.ones(2)), KEY), "binary weights"),
        (lambda: network.bound(params, (x, jnp.ones(2)), None), "there is no key"),
    ):
        with pytest.raises(GradbenchError) as caught:
            call()
        assert_one_sentence(caught, said)


# ------------------------------------------------------------------------------- initial parameters


@pytest.mark.parametrize("method", ["data_dependent", "data_dependent_mean"])
@pytest.mark.first(1)
def test_pre_activations_have_the_moments_asked_for_over_the_data(method):
    network = dense_network((3, 4, 5, 2), "squared_error", states=(0, 1))
    x = np.random.default_rng(0).gamma(2.0, 3.0, (900, 3))
    params = gradbench.initialise(network, KEY, x, method, 1.7)
    below = x
    for k, theta in enumerate(params):
        a = below @ theta["weight"].T + theta["bias"]
        # Sampled states are others in the second layer than those that it was scaled with.
        exact = k == 0 or method == "data_dependent_mean"
        np.testing.assert_allclose(a.mean(0), 0, atol=1e-9 if exact else 0.4)
        np.testing.assert_allclose(a.std(0), 1.7, rtol=1e-9 if exact else 0.2)
        p = 1 / (1 + np.exp(-a))
        fair = np.random.default_rng(k).random(p.shape) < p
        below = p if method == "data_dependent_mean" else fair.astype(float)


@pytest.mark.slow
def test_channels_of_a_convolution_and_layers_made_of_parts_are_scaled_too():
    from gradbench.models import AveragePool, Compose, Conv

    pooled = Compose((AveragePool(2), Conv((2, 2, 3), channels=4, kernel=2)), inputs=(4, 4, 3))
    network = SBN((Conv((6, 6, 1), channels=3, kernel=3), pooled), Readout(4, 2, "squared_error"))
    x = np.random.default_rng(0).random((200, 6, 6, 1))
    params = gradbench.initialise(network, KEY, x)
    a = np.asarray(jax.vmap(network.layers[0], (None, 0))(params[0], x))
    np.testing.assert_allclose(a.mean((0, 1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(a.std((0, 1, 2)), 1, rtol=1e-12)
    plain = gradbench.initialise(network, KEY, x, "fan_in")
    assert (flat(params[1]) != flat(plain[1])).any()
    assert jax.tree.structure(params) == jax.tree.structure(plain)


def test_initialisations_that_do_not_fit_are_refused_in_one_sentence():
    network, x = dense_network((2, 3, 1)), np.ones((4, 2))
    weights = BinaryWeights(network, gradbench.estimators.psa)
    for call, said in (
        (lambda: gradbench.initialise(network, KEY, x), "inputs of all 4 examples are equal"),
        (lambda: gradbench.initialise(network, KEY, x, "data_dependant"), "data_dependent"),
        (lambda: gradbench.initialise(network, KEY, x, scale=0.0), "the scale is 0.0"),
        (lambda: gradbench.initialise(network, None, x), "there is no key"),
        (lambda: gradbench.initialise(weights, KEY, x), "take 'fan_in'"),
    ):
        with pytest.raises(GradbenchError) as caught:
            call()
        assert_one_sentence(caught, said)
    assert {"data_dependent", "data_dependent_mean", "fan_in"} <= set(INITIALISATIONS.names())
