"""Models without inputs: every estimator takes the batch None, as one example of nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradbench
from gradbench.estimators import ESTIMATORS, make_estimator

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEYS = jax.random.split(jax.random.key(0), 20)
LOGITS = jnp.array([0.3, -0.8])
UNREAD = jnp.zeros((1, 1))  # one example, of which nothing is read
ANY_MODEL = sorted(n for n, e in ESTIMATORS.items() if not e.needs and n != "per_layer")


def model(logits, example, binary):
    return jnp.sin(binary(logits) @ jnp.array([1.0, 0.6]))


def assert_equal_draws(loss, params):
    draw = jax.vmap(jax.value_and_grad(loss), (None, 0, None))
    one, other = (jax.tree.leaves(draw(params, KEYS, batch)) for batch in (None, UNREAD))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    assert np.any(one[1] != 0)


@pytest.mark.parametrize("name", ANY_MODEL)
@pytest.mark.first(3)
def test_a_draw_without_inputs_is_that_of_an_example_that_is_not_read(name):
    assert_equal_draws(make_estimator(name, model), LOGITS)


@pytest.mark.parametrize("name", ["mean_field", "deterministic_straight_through"])
def test_so_are_those_that_draw_nothing_alone_and_averaged(name):
    assert_equal_draws(make_estimator(name, model), LOGITS)
    for other in ("rloo", "reinforce_leave_one_out"):  # the latter couples the examples
        spec = f"average(first={name!r}, second={other!r})"
        assert_equal_draws(make_estimator(spec, model), LOGITS)


def test_evaluate_measures_them():
    names = ["mean_field", "straight_through"]
    results = gradbench.evaluate(
        model, LOGITS, None, estimators=names, draws=16, time_limit=None, progress=False
    )
    assert set(results.summary()["estimator"]) == set(names)
