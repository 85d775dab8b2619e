"""Hyper-parameters that train or anneal: numbers that JAX traces, in jit, vmap and grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, precision, small
from jax.experimental import checkify

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.estimators import ESTIMATORS
from gradbench.ops.binarize import local_estimators

KEY = jax.random.key(3)
REAL = [
    (name, parameter, default)
    for name, entry in sorted(ESTIMATORS.items())
    for parameter, default in entry.hyperparameters.items()
    if isinstance(default, float) and not entry.needs
]


def ids(case):
    return "-".join(map(str, case[:2]))


def near(default, parameter):
    """Two values of a hyper-parameter inside of its range."""
    return (0.5, 0.8) if parameter in ("rho", "decay", "smoothing") else (default, 1.1 * default)


@pytest.mark.parametrize("case", REAL, ids=ids)
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_traced_hyperparameter_gives_the_draws_of_the_number(case):
    name, parameter, default = case
    with precision(True):
        sizes = (2, 2, 1) if ESTIMATORS[name].layers == "one" else (2, 2, 2, 1)
        model, params, batch = small(sizes, "normal")

        def gradient(value):
            loss = ESTIMATORS[name].make(model, **{parameter: value})
            return jax.grad(loss)(params, KEY, batch)

        values = np.array(near(default, parameter))
        right = [flat(jax.jit(lambda v=float(v): gradient(v))()) for v in values]
        both = jax.jit(jax.vmap(gradient))(values)  # in jit and along a grid at once
        for k, one in enumerate(right):
            found = flat(jax.tree.map(lambda leaf, k=k: leaf[k], both))
            np.testing.assert_allclose(found, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in REAL if c[0] in local_estimators()], ids=ids)
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_traced_hyperparameter_of_binarize_is_that_of_the_number(case):
    name, parameter, default = case
    a, (value, _) = jnp.array([0.4, -0.8, 1.0]), near(default, parameter)

    def loss(a, value):
        make = lambda model: ESTIMATORS[name].make(model, **{parameter: value})  # noqa: E731
        x = gradbench.binarize(a, key=KEY, estimator=make, hard=False)
        return jnp.sum(jnp.arange(3.0) * x)

    right = jax.grad(loss)(a, value)
    for found in (jax.grad(jax.jit(loss))(a, value), jax.jit(jax.grad(loss))(a, value)):
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
    assert np.isfinite(jax.grad(loss, 1)(a, value))


def test_an_annealed_run_is_compiled_once():
    model, params, batch = small((2, 2, 1))
    traces = []

    @jax.jit
    def step(params, temperature, key):
        traces.append(temperature)
        loss = gradbench.estimators.st_gumbel_softmax(model, temperature=temperature)
        g = jax.grad(loss)(params, key, batch)
        return jax.tree.map(lambda p, d: p - 0.1 * d, params, g)

    for k in range(4):
        params = step(params, 1.0 / (k + 1), jax.random.fold_in(KEY, k))
    assert len(traces) == 1 and np.isfinite(flat(params)).all()


@pytest.mark.slow
def test_a_temperature_has_a_gradient_of_its_own():
    model, params, batch = small((2, 2, 1))

    def value(temperature):
        return gradbench.estimators.concrete(model, temperature=temperature)(params, KEY, batch)

    with precision(True):
        h = 1e-5
        difference = (value(0.7 + h) - value(0.7 - h)) / (2 * h)
        assert jax.grad(value)(0.7) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize("value", [np.float32(0.5), jnp.float32(0.5), jnp.array(0.5)])
@pytest.mark.slow
def test_numbers_of_numpy_and_jax_are_numbers(value):
    model, params, batch = small((2, 2, 1))
    found, right = (
        gradbench.estimators.concrete(model, temperature=t)(params, KEY, batch)
        for t in (value, 0.5)
    )
    assert found == right


@pytest.mark.parametrize(
    "value", [jnp.array([0.5, 1.0]), jnp.array(True), jnp.array(-1.0), KEY, np.datetime64("2020")]
)
def test_arrays_that_are_no_such_number_are_refused(value):
    model, _, _ = small((2, 2, 1))
    with pytest.raises(GradbenchError, match=r"temperature is .*; give a positive number"):
        gradbench.estimators.concrete(model, temperature=value)
    if value is KEY or value.dtype == bool or value.ndim:
        with pytest.raises(GradbenchError, match=r"temperature is .*; give a positive number"):
            jax.jit(lambda t: gradbench.estimators.concrete(model, temperature=t) and t)(value)


RANGES = [
    ("concrete", "temperature", -0.5, "temperature is -0.5; give a positive number"),
    ("darn", "phi", jnp.inf, "phi is inf; give a number"),
    ("foust", "rho", 1.5, "rho is 1.5; give a number from 0 to 1"),
    ("sa", "smoothing", -1.0, "smoothing is -1.0; give a number of at least 0"),
]


@pytest.mark.parametrize(("name", "parameter", "wrong", "sentence"), RANGES)
@pytest.mark.slow
def test_a_traced_hyperparameter_outside_its_range_is_an_error_under_checkify(
    name, parameter, wrong, sentence
):
    model, params, batch = small((2, 2, 1))

    def gradient(value):
        loss = ESTIMATORS[name].make(model, **{parameter: value})
        return jax.grad(loss)(params, KEY, batch)

    checked = jax.jit(checkify.checkify(gradient))
    error, _ = checked(jnp.asarray(wrong))
    assert sentence in error.get()
    error, found = checked(jnp.asarray(0.5))
    assert error.get() is None
    np.testing.assert_array_equal(flat(found), flat(jax.jit(gradient)(jnp.asarray(0.5))))
