"""Entry points use no key twice: they run where JAX checks it (`jax_debug_key_reuse`)."""

import jax
import jax.numpy as jnp
import pytest
from conftest import small

import gradbench
from gradbench.estimators import make_estimator

PARAMS, BATCH = (jnp.ones(2), jnp.ones(2)), jnp.ones((3, 2))


def loss(params, key, batch):
    x = gradbench.binarize(params[0] * batch, key=key)
    return jnp.mean(jnp.sum(params[1] * x, axis=1) ** 2)


def model(params, example, binary):
    return jnp.sum(params[1] * binary(params[0] * example)) ** 2


def binarize():
    return jax.grad(lambda a: gradbench.binarize(a, key=jax.random.key(1)).sum())(jnp.ones(3))


def expectation():
    f = gradbench.expectation(jnp.sum, "arm")
    return jax.grad(lambda a: f(a, key=jax.random.key(1)))(jnp.ones(3))


def diagnose():
    return gradbench.diagnose(loss, PARAMS, BATCH, jax.random.key(0))


def reference():
    options = {"method": "sampled", "rel_se": 0.3, "estimators": "disarm"}
    return gradbench.reference(model, PARAMS, BATCH, **options)


def draws():
    return gradbench.draws(gradbench.estimators.arm(model), PARAMS, jax.random.key(0), BATCH, 4)


def keys_and_aux():
    """A model that draws from keys among its parameters, and returns aux."""

    def dropped(params, example, binary):
        keep = jax.random.bernoulli(params[2], 0.5, (2,))
        return model(params, example, binary) + jnp.sum(keep), keep

    params = (*PARAMS, jax.random.key(1))
    return gradbench.estimators.arm(dropped)(params, jax.random.key(0), BATCH)


@pytest.mark.parametrize("entry", [binarize, expectation, draws, keys_and_aux, diagnose, reference])
@pytest.mark.slow
def test_an_entry_point_uses_no_key_twice(entry):
    with jax.debug_key_reuse(True):
        entry()


@pytest.mark.parametrize("spec", ["arm", "psa", "relax", "rloo", "st_gumbel_softmax"])
@pytest.mark.slow
def test_an_estimator_uses_no_key_twice(spec):
    network, params, batch = small((2, 2, 1))
    with jax.debug_key_reuse(True):
        jax.grad(make_estimator(spec, network))(params, jax.random.key(3), batch)


def test_a_key_that_is_used_twice_is_seen():
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda key: jax.random.normal(key) + jax.random.normal(key))(jax.random.key(0))
