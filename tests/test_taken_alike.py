"""What every entry point takes: half precision, keys in the batch, no data; and that all check."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_bad_input import BATCH, ENTRIES, FREE, GRADIENTS, KEY, NETWORK, PARAMS, model

import gradbench
from gradbench import GradbenchError, estimators, exact
from gradbench.core import inputs
from gradbench.core.inputs import checked

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("name", ENTRIES | GRADIENTS)
def test_every_entry_point_calls_the_one_check(name, monkeypatch):
    def refuse(*args, **options):
        raise GradbenchError("seen")

    monkeypatch.setattr(inputs, "check_params", refuse)
    with pytest.raises(GradbenchError, match="seen"):
        (ENTRIES | GRADIENTS)[name](NETWORK, PARAMS, BATCH)


def dropped(params, example, binary):
    """A model whose examples have a key each."""
    x, y, key = example
    kept = jax.random.bits(key, (2,), jnp.uint8) < 128  # the same numbers in every precision
    return (params["v"] @ (kept * binary(params["w"] @ x)) - y) ** 2


def alone(params, example, binary):
    """A model that reads no data."""
    return jnp.sum((binary(params) - 0.3) ** 2) + 0 * jnp.sum(params)


HALF = {name: jnp.asarray(leaf[:2], jnp.bfloat16) for name, leaf in FREE.items()}
KEYED = {"w": np.array([[0.3, -0.2], [0.5, 1]], np.float32), "v": np.array([1, -0.5], np.float32)}
TAKEN = {
    "bfloat16": (model, HALF, BATCH),
    "keys": (dropped, KEYED, (*BATCH, jax.random.split(KEY, len(BATCH[0])))),
    "no data": (alone, np.array([0.1, -0.3], np.float32), ()),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.first(1)
def test_all_entry_points_take_alike_what_is_no_plain_array(name):
    """By their shapes alone, and a reference of a batch with keys by its values."""
    problem, params, batch = TAKEN[name]
    for loss in (estimators.disarm(problem), estimators.exact(problem)):
        g = jax.eval_shape(jax.grad(loss), params, KEY, batch)
        assert jax.tree.map(lambda leaf: leaf.dtype, g) == jax.tree.map(lambda x: x.dtype, params)
    reinforce, disarm = (
        jax.jit(partial(exact.moments, make(problem)))
        for make in (estimators.reinforce, estimators.disarm)
    )
    assert jax.eval_shape(reinforce, params, batch).value.shape == ()
    with pytest.raises(GradbenchError, match="outside of jit"):  # its grid needs values
        jax.eval_shape(disarm, params, batch)
    assert "2 units" in gradbench.explain("disarm", problem, params, batch)
    if name == "keys":
        truth = gradbench.reference(problem, params, batch)
        value = exact.expected_loss(problem, params, batch)
        np.testing.assert_allclose(float(value), truth.value, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TAKEN)
def test_what_all_entry_points_take_has_the_same_values_in_all(name):
    problem, params, batch = TAKEN[name]
    loss = estimators.disarm(problem)
    truth = gradbench.reference(problem, params, batch)
    close = {"rtol": 0.03 if name == "bfloat16" else 1e-4}
    np.testing.assert_allclose(exact.expected_loss(problem, params, batch), truth.value, **close)
    for made in (loss, estimators.reinforce(problem)):
        mean = exact.moments(made, params, batch).mean
        close["atol"] = close["rtol"] * np.max(np.abs(flat(truth.gradient)))
        np.testing.assert_allclose(flat(mean).astype(float), flat(truth.gradient), **close)
    assert gradbench.diagnose(loss, params, batch, KEY).truth == "the exact gradient"
    chosen = gradbench.recommend(problem, params, batch, estimators=["disarm", "reinforce"])
    assert chosen.best in ("disarm", "reinforce") and not chosen.unfit
    options = {"method": "sampled", "rel_se": 0.5, "estimators": "disarm"}
    sampled = gradbench.reference(problem, params, batch, **options)
    np.testing.assert_allclose(sampled.value, truth.value, rtol=0.2)


@pytest.mark.parametrize("batch", [None, (), {}, [], np.zeros((1, 0))], ids=repr)
@pytest.mark.slow
def test_a_model_without_data_is_given_nothing_or_an_example_of_no_numbers(batch):
    params = jnp.array([0.1, -0.3])
    g = jax.eval_shape(jax.grad(estimators.disarm(alone)), params, KEY, batch)
    assert g.shape == (2,)
    right = jax.grad(lambda p: jnp.sum(1.09 - 0.6 * jnp.tanh(p / 2)))(params)
    found = jax.grad(lambda p: exact.expected_loss(alone, p, batch))(params)
    np.testing.assert_allclose(found, right, rtol=1e-5)


DTYPES = st.sampled_from([np.float16, np.float32, np.int8, np.uint16, np.bool_, np.complex64])
LEAVES = st.tuples(DTYPES, arrays.array_shapes(max_dims=2, max_side=3), st.booleans())


@settings(max_examples=40)
@given(
    st.integers(1, 3), st.recursive(LEAVES, lambda tree: st.lists(tree, max_size=3), max_leaves=5)
)
@pytest.mark.slow
def test_any_pytree_of_arrays_with_a_common_first_axis_is_a_batch(examples, form):
    """Shapes and types are enough: arrays, their shapes alone, and the same under a trace."""

    def is_leaf(tree):
        return isinstance(tree, tuple)

    def leaf(drawn):
        return np.ones((examples, *drawn[1]), drawn[0])

    def reads_nothing(params, example, binary):
        shapes = [x.shape for x in jax.tree.leaves(example)]
        assert shapes == [drawn[1] for drawn in jax.tree.leaves(form, is_leaf=is_leaf)]
        return jnp.sum(binary(params))

    batch = jax.tree.map(leaf, form, is_leaf=is_leaf)
    params = np.ones(3, np.float32)
    (site,) = checked(reads_nothing, params, batch, KEY, finite=True, differentiated=True).sites
    assert site.shape == (3,)
    alike = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
    assert checked(reads_nothing, params, alike).sites == (site,)
    jax.eval_shape(lambda p, b: checked(reads_nothing, p, b, KEY) and 0, params, batch)
    if leaves := jax.tree.leaves(batch):
        wrong = (batch, leaves[0][:-1], np.zeros((examples + 1, 1)))
        with pytest.raises(GradbenchError, match="the same number of examples"):
            checked(reads_nothing, params, wrong)


@settings(max_examples=12)
@given(st.sampled_from([None, "x", 3, jnp.tanh, True, 2.5, object()]), st.integers(0, 3))
@pytest.mark.slow
def test_parameters_keep_their_leaves_that_are_no_arrays(other, place):
    """Modules have functions, flags and names beside weights; the model sees them as given."""

    def asks(params, example, binary):
        assert params[place] is other
        return jnp.sum(binary(params[4]))

    params = (*[0] * place, other, *[0] * (3 - place), np.ones(2, np.float32))
    assert len(checked(asks, params, np.ones((1, 1))).sites) == 1
    assert np.isfinite(estimators.disarm(asks)(params, KEY, np.ones((1, 1))))
