"""What runs but is seldom meant is warned of, once, and what is meant is not."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradbench
from gradbench import GradbenchError
from gradbench.core import hints

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    monkeypatch.setattr(hints, "_told", set())


@pytest.mark.parametrize(
    "p", [[0.2, 1.0], [0.0, 0.5], np.linspace(0.1, 0.9, 16)], ids=["with 1", "with 0", "many"]
)
def test_probabilities_are_warned_of_once(p):
    p = jnp.asarray(p)
    with pytest.warns(UserWarning, match=r"jax\.scipy\.special\.logit\(p\)") as caught:
        gradbench.binarize(p, key=KEY)
        gradbench.binarize(p, key=KEY)
    assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize(
    "a",
    [[0.2, 0.5], [0.0, 0.0], [1.0, 1.0], [0.0, 1.5], [-0.1, 1.0], [], np.linspace(0.1, 1.1, 16)],
)
def test_logits_are_not(a):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradbench.binarize(jnp.asarray(a, float), key=KEY)
        jax.jit(lambda a: gradbench.binarize(a, key=KEY))(jnp.array([0.0, 0.5]))  # not known


@pytest.mark.parametrize("spec", ["nvil", "moving_average(decay=0.9)", "relax", "double_cv"])
@pytest.mark.first(2)
def test_learned_parts_that_are_not_learned_are_warned_of_once(spec):
    g = gradbench.expectation(lambda x: jnp.sum(x**2), spec)
    name = spec.partition("(")[0]
    with pytest.warns(UserWarning, match=rf"estimators\.{name}\(model\)\.fit") as caught:
        for _ in range(2):
            jax.eval_shape(g, jnp.zeros(2), KEY)
    assert len(caught) == 1


def test_an_estimator_without_learned_parts_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(gradbench.expectation(jnp.sum, "rloo"), jnp.zeros(2), KEY)


@pytest.mark.parametrize(
    "returned, said",
    [
        ("text", "f returns 'text'"),
        (None, "f returns a NoneType"),
        (jnp.ones(3), r"f returns float32\[3\]"),
        ([1.0], "f returns a list"),
        (object(), "f returns an object of type object"),
    ],
)
@pytest.mark.parametrize("estimator", ["disarm", "exact"])
def test_a_function_that_returns_no_number_says_so(returned, said, estimator):
    g = gradbench.expectation(lambda x: returned, estimator)
    with pytest.raises(GradbenchError, match=f"{said}; return one real number") as caught:
        g(jnp.zeros(2), KEY)
    assert "\n" not in str(caught.value)
