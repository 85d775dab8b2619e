"""Options are checked whether or not they are used, and keys are asked for in their place."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bad_input import BATCH, FREE, KEY, NETWORK, PARAMS, assert_refused, model

import gradbench
from gradbench import GradbenchError, estimators, exact
from gradbench.core.arguments import limit
from gradbench.testing import check_estimator

loss = estimators.disarm(NETWORK)
NUMBERS = ("x", -1, 0, math.nan, None, True, [1])

OPTIONS = {
    "memory": [
        (partial(entry, NETWORK, PARAMS, BATCH), value)
        for entry in (
            exact.expected_loss,
            exact.check_size,
            exact.is_small,
            gradbench.reference,
            partial(gradbench.reference, method="sampled"),
        )
        for value in NUMBERS
    ],
    "work": [(partial(exact.is_small, NETWORK, PARAMS, BATCH), value) for value in NUMBERS],
    "points": [
        (partial(entry, made(NETWORK), PARAMS, BATCH), value)
        for entry in (exact.moments, exact.moments_work)
        for made in (estimators.psa, estimators.disarm, estimators.concrete)
        for value in ("many", *NUMBERS)
    ],
    **{
        option: [
            (partial(gradbench.reference, NETWORK, PARAMS, BATCH, method=method), value)
            for method in ("auto", "exact", "sampled")
            for value in values
        ]
        for option, values in {
            "rel_se": (*NUMBERS, math.inf),
            "most_draws": (*NUMBERS, 10, 1e12, math.inf),
            "estimators": (5, [], "psaa", ["psa", 5], "psa(", "concrete(temperature=-1)"),
            "key": (5, "x", jax.random.split(KEY), np.ones(2), BATCH),
            "directory": (5, ["x"]),
        }.items()
    },
    "method": [
        (partial(gradbench.reference, NETWORK, PARAMS, BATCH), value) for value in ("exat", 5, None)
    ],
    **{
        option: [(partial(gradbench.diagnose, loss, PARAMS, BATCH, KEY), value) for value in values]
        for option, values in {
            "draws": (*NUMBERS, 15, 16.5),
            "reference_draws": (*NUMBERS, 31),
            "reference": (5, "exact", PARAMS),
            "unbiased": (5, "psaa", "straight_through", ""),
            "by_example": ("no", 1, None),
        }.items()
    },
    "seed": [
        (call, value)
        for call in (
            partial(gradbench.recommend, NETWORK, PARAMS, BATCH),
            partial(check_estimator, "psa"),
        )
        for value in ("x", -1, 1.5, None)
    ],
    "claim": [(partial(check_estimator, "psa"), value) for value in (5, "unbiassed", ["unbiased"])],
    "estimator": [
        *((check_estimator, value) for value in (5, None, "psaa", lambda: 0, lambda model: 5)),
        *(
            (lambda estimator: gradbench.explain(estimator, NETWORK, PARAMS, BATCH), value)
            for value in (5, None, "psaa", ["psa"])
        ),
    ],
    "budget": [
        (partial(gradbench.recommend, NETWORK, PARAMS, BATCH), value)
        for value in (5, "x", "0-draws")
    ],
    "samples": [(partial(gradbench.expectation, jnp.sum), value) for value in NUMBERS],
}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_wrong_option_is_refused_whether_or_not_it_is_used(option):
    for call, value in OPTIONS[option]:
        assert_refused(lambda call=call, value=value: call(**{option: value}))


@pytest.mark.parametrize("value", [-1, 5, "psa", ["psaa"], [5]], ids=str)
def test_recommend_refuses_draws_and_estimators_that_there_are_not(value):
    name = "draws" if value == -1 else "estimators"
    assert_refused(lambda: gradbench.recommend(NETWORK, PARAMS, BATCH, **{name: value}))


@given(st.floats(min_value=1e-300) | st.integers(min_value=1))
def test_every_positive_number_is_a_limit_and_no_other_one(value):
    assert limit("memory", value) == value
    with pytest.raises(GradbenchError, match="memory"):
        limit("memory", -value)


# ---------------------------------------------------------------------------------- the key

SWAPPED = {
    "disarm": estimators.disarm(NETWORK),
    "straight_through": estimators.straight_through(NETWORK),
    "exact": estimators.exact(NETWORK),
    "nvil": estimators.nvil(NETWORK),
}


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["typed", "raw"])
@pytest.mark.parametrize("name", SWAPPED)
def test_a_batch_before_the_key_is_told_that_the_key_comes_first(name, key):
    swapped = SWAPPED[name]
    for call in (swapped, jax.grad(swapped), jax.jit(swapped)):
        assert_refused(lambda call=call: call(PARAMS, BATCH, key), "the key comes before the batch")
    assert_refused(lambda: gradbench.diagnose(swapped, PARAMS, key, BATCH), "exchanged")
    assert_refused(lambda: gradbench.reference(NETWORK, PARAMS, key, key=BATCH), "exchanged")


@pytest.mark.parametrize(
    "key", [None, 5, 0.5, "x", jax.random.split(KEY), np.zeros(2), BATCH], ids=repr
)
def test_what_is_no_key_is_refused(key):
    assert_refused(lambda: loss(PARAMS, key, BATCH), "key")
    assert_refused(lambda: jax.grad(loss)(PARAMS, key, BATCH), "key")
    assert_refused(lambda: gradbench.diagnose(loss, PARAMS, BATCH, key), "key")


WRONG_LOSSES = {
    "nothing": None,
    "a number": 3,
    "a name": "psa",
    "a class": gradbench.SBN,
    "a network": NETWORK,
    "a model": model,
    "an estimator": estimators.psa,
    "too few arguments": lambda params, key: 0.0,
    "a pair": lambda params, key, batch: (0.0, 1.0),
    "text": lambda params, key, batch: "x",
    "nothing returned": lambda params, key, batch: None,
    "a vector": lambda params, key, batch: params["v"],
    "a whole number": lambda params, key, batch: 1,
    "a missing key": lambda params, key, batch: params["x"],
    "another shape": lambda params, key, batch: params["v"] @ batch[0],
}


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_a_wrong_loss_is_refused_by_diagnose(name):
    assert_refused(lambda: gradbench.diagnose(WRONG_LOSSES[name], FREE, BATCH, KEY), "the loss")


# -------------------------------------------------------------------- NaN, infinity, masks

ROUTES = {
    "expected_loss": exact.expected_loss,
    "moments by states": lambda m, p, b: exact.moments(estimators.reinforce(m), p, b),
    "moments by branches": lambda m, p, b: exact.moments(estimators.disarm(m), p, b),
    "reference": gradbench.reference,
}


@settings(max_examples=20)
@given(st.data(), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
@pytest.mark.slow
def test_a_number_that_is_not_finite_is_refused_alike_and_its_place_is_named(data, value, in_batch):
    trees = [PARAMS, BATCH]
    leaves = jax.tree_util.tree_leaves_with_path(trees[in_batch])
    path, chosen = data.draw(st.sampled_from(leaves))
    wrong = np.array(chosen)
    wrong.flat[data.draw(st.integers(0, wrong.size - 1))] = value
    trees[in_batch] = jax.tree_util.tree_map_with_path(
        lambda own, leaf: wrong if own == path else leaf, trees[in_batch]
    )
    what = "data" if in_batch else "parameters"
    for call in ROUTES.values():
        assert_refused(
            lambda call=call: call(NETWORK, *trees), what, str(value), jax.tree_util.keystr(path)
        )


@pytest.mark.slow
def test_an_objective_that_is_not_finite_is_refused_alike():
    def broken(params, example, binary):
        return jnp.where(binary(params)[0] > 0, jnp.nan, 1.0) + 0 * jnp.sum(params)

    given = np.ones(2, np.float32), np.ones((1, 1), np.float32)
    assert_refused(lambda: exact.expected_loss(broken, *given), "the expected loss is not finite")
    assert_refused(lambda: exact.moments(estimators.reinforce(broken), *given), "is not finite")
    assert_refused(lambda: gradbench.reference(broken, *given), "is not finite")


@pytest.mark.slow
def test_values_are_not_looked_at_where_they_are_not_known():
    value = jax.jit(partial(exact.expected_loss, NETWORK))
    nan = jax.tree.map(lambda leaf: leaf * np.nan, PARAMS)
    assert np.isfinite(value(PARAMS, BATCH))
    assert np.isnan(value(nan, BATCH))
    found = jax.eval_shape(partial(exact.moments, estimators.psa(NETWORK)), nan, BATCH)
    assert jax.tree.structure(found.mean) == jax.tree.structure(PARAMS)
    for call in (gradbench.reference, gradbench.recommend):
        inside = jax.jit(lambda p, call=call: call(NETWORK, p, BATCH))
        assert_refused(lambda inside=inside: inside(PARAMS), "outside of jit")
    wrong = jax.jit(jax.grad(loss))
    assert_refused(lambda: wrong(PARAMS[:2], KEY, BATCH), "got 2 parameter entries")


@pytest.mark.slow
def test_a_mean_over_a_mask_is_told_to_be_no_mean_over_examples():
    def masked(params, key, batch):
        x, y, mask = batch
        out = gradbench.binarize(x @ params["w"].T, key=key) @ params["v"]
        return jnp.sum(mask * (out - y) ** 2) / jnp.sum(mask)

    batch = (*BATCH, np.array([1, 0, 1], np.float32))
    words = "single example is nan", "by_example=False"
    assert_refused(lambda: gradbench.diagnose(masked, FREE, batch, KEY), *words)
