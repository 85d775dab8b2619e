"""Units masked by infinite logits: no gradient, finite values, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradbench
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.exact.moments import moments
from gradbench.models import SBN, BinaryWeights, Dense, MultiSample, Readout

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEYS = jax.random.split(jax.random.key(0), 20)
LOGITS = jnp.array([0.3, -jnp.inf, jnp.inf, -0.8])
MASKED = np.array([False, True, True, False])
BATCH = (jnp.arange(3.0),)
ANY_MODEL = sorted(n for n, e in ESTIMATORS.items() if not e.needs and n != "per_layer")
NEEDY = sorted(n for n, e in ESTIMATORS.items() if e.needs)


def one_layer(noise):
    def model(logits, example, binary):
        return jnp.sin(binary(logits, noise) @ jnp.arange(1.0, 5) + example[0])

    return model


def two_layers(noise):
    def model(logits, example, binary):
        x = binary(logits, noise)
        y = binary(jnp.stack([x @ jnp.arange(4.0), jnp.inf, -jnp.inf]), noise)
        return jnp.sin(x @ jnp.arange(1.0, 5) + y @ jnp.arange(1.0, 4) + example[0])

    return model


def draws(loss, params, batch):
    return jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0, None)))(params, KEYS, batch)


def finite(tree):
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["top_c", "unordered_set", "arm", *ANY_MODEL])
@pytest.mark.parametrize("noise", ["logistic", "uniform", "normal", "laplace"])
@pytest.mark.slow
def test_masked_units_have_no_gradient_and_the_others_a_finite_one(name, noise):
    kind = one_layer if ESTIMATORS[name].layers == "one" else two_layers
    value, g = draws(make_estimator(name, kind(noise)), LOGITS, BATCH)
    assert finite((value, g))
    assert (g[:, MASKED] == 0).all()
    assert (g[:, ~MASKED] != 0).any()


@pytest.mark.parametrize("name", NEEDY)
@pytest.mark.slow
def test_estimators_that_need_a_model_of_a_kind_take_masked_units_too(name):
    network = SBN((Dense(2, 3),), Readout(3, 1, "logistic_loss"))
    params, batch = network.init(jax.random.key(1)), (jnp.ones((3, 2)), jnp.array([1.0, -1, 1]))
    needs = ESTIMATORS[name].needs
    if "MultiSample" in needs or needs.startswith("an SBN"):
        layer = params[0] | {"bias": jnp.array([0.1, jnp.inf, -jnp.inf])}
        params, model = (layer, *params[1:]), network
        masked = lambda g: g[0]["bias"][:, 1:]  # noqa: E731
        model = MultiSample(network, 3) if "MultiSample" in needs else network
    else:
        model = BinaryWeights(network, activations=gradbench.estimators.zgr)
        params = model.init(jax.random.key(1))
        weight = params[0]["weight"].at[0].set(jnp.array([jnp.inf, -jnp.inf]))
        params = (params[0] | {"weight": weight}, *params[1:])
        masked = lambda g: g[0]["weight"][:, 0]  # noqa: E731
    value, g = draws(make_estimator(name, model), params, batch)
    assert finite((value, g)) and (masked(g) == 0).all()


@pytest.mark.parametrize("spec", ["unordered_set(samples=3)", "top_c(states=3)", "unordered_set"])
@pytest.mark.slow
def test_a_layer_with_fewer_possible_states_than_samples_has_the_right_mean(spec, float64):
    """All units but one are masked: two states are possible, and others have the weight 0."""
    logits = jnp.array([0.4, -1e30, 1e30])  # finite, so that exact moments take them
    model = lambda a, example, binary: jnp.sin(binary(a) @ jnp.arange(1.0, 4) + example[0])  # noqa: E731
    found = moments(make_estimator(spec, model), logits, (jnp.array([0.2]),))
    truth = jax.grad(lambda a: gradbench.expected_loss(model, a, (jnp.array([0.2]),)))(logits)
    np.testing.assert_allclose(found.mean, truth, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_masked_logits_of_an_expectation_and_of_binarize_have_no_gradient():
    g = gradbench.expectation(lambda x: jnp.sin(x @ jnp.arange(1.0, 5)), "arm", samples=4)
    found = jax.grad(g)(LOGITS, jax.random.key(1))
    assert finite(found) and (found[MASKED] == 0).all() and (found[~MASKED] != 0).all()
    spec = "straight_through(proxy='identity')"
    x, pull = jax.vjp(lambda a: gradbench.binarize(a, key=KEYS[0], estimator=spec), LOGITS)
    assert x[1] == -1 and x[2] == 1
    assert finite(pull(jnp.ones(4))) and (pull(jnp.ones(4))[0][MASKED] == 0).all()
