"""Distinct states of one layer: unbiased over all sets, exact where the set is everything."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import (
    SEEN,
    assert_finite_and_zero_where_saturated,
    assert_unbiased,
    exact_bias,
    example_draws,
    random_uniforms,
    tiny,
    total_variance,
)
from conftest import flat, small

from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.run import run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import reinforce, top_c, unordered_set
from gradbench.exact.enumeration import all_states, brute_force

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

ONE = (1, 2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "noise"),
    [
        (partial(unordered_set, baseline=False), "laplace"),
        (partial(unordered_set, samples=3), "normal"),
        (top_c, "triangular"),
        (partial(top_c, states=2), "uniform"),
    ],
)
def test_both_are_unbiased_by_exact_moments(make, noise):
    network, *at = tiny(ONE, noise)
    assert_unbiased(make(network), *at)


def uniforms_of(numbers, p):
    """Uniforms that make ``unordered_set`` draw these states in this order, and how likely it is.

    ``p`` are the probabilities of the 8 states of three units.
    """
    path = (1 - all_states(3, float)[numbers[0]]) / 2  # u = 0 is +1
    left, probability, extra = np.array(p), p[numbers[0]], []
    for before, number in itertools.pairwise(numbers):
        left[before] = 0
        middle = left[:number].sum() + left[number] / 2
        probability *= left[number] / left.sum()
        extra.append([middle / left.sum(), 0.5, 0.5])
    return np.array([path, *extra]), probability


@pytest.mark.slow
def test_the_unordered_set_is_unbiased_over_all_ordered_draws_of_three_of_eight_states():
    network, params, batch = tiny((1, 3, 1), "logistic")
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    a = params[0]["weight"] @ example[0] + params[0]["bias"]
    p = np.asarray(jnp.prod(jax.nn.sigmoid(all_states(3, float) * a), axis=1))
    drawn = [uniforms_of(n, p) for n in itertools.permutations(range(8), 3)]
    u = np.stack([row for row, _ in drawn])
    weights = np.array([weight for _, weight in drawn])
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)

    streams = tuple((jnp.asarray(u[:, k]),) for k in range(3))
    losses = [unordered_set(network, samples=3, baseline=b) for b in (False, True)]
    truth = flat(jax.jit(jax.grad(partial(brute_force, network)))(params, batch))
    orders = [sorted(numbers) for numbers in itertools.permutations(range(8), 3)]
    same = [k for k, numbers in enumerate(orders) if numbers == [1, 4, 6]]
    assert len(same) == 6
    for draws in example_draws(losses, params, example, streams):
        np.testing.assert_allclose(weights @ draws, truth, rtol=1e-10, atol=1e-13)
        # A draw is a function of the set: all orders of one make the same.
        np.testing.assert_allclose(draws[same], draws[same[:1]].repeat(6, 0), rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_one_state_alone_is_reinforce_and_all_states_are_the_gradient_itself():
    network, params, batch = tiny(ONE)
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    losses = [
        reinforce(network),
        unordered_set(network, samples=1, baseline=False),
        unordered_set(network, samples=4, baseline=False),
        unordered_set(network, samples=4),
        top_c(network, states=3),
    ]
    score, one, *every = example_draws(losses, params, example, random_uniforms(20, 4, ((2,),)))
    np.testing.assert_allclose(one, score, rtol=1e-9, atol=1e-14)
    truth = flat(jax.jit(jax.grad(partial(brute_force, network)))(params, batch))
    for draws in every:
        np.testing.assert_allclose(draws, np.tile(truth, (20, 1)), rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_both_have_less_variance_than_reinforce():
    network, *at = tiny(ONE, seed=5)
    one, pair, top = (
        total_variance(make(network), *at) for make in (reinforce, unordered_set, top_c)
    )
    assert max(pair, top) < one


def as_if_replaced(model):
    """The mean of REINFORCE over two states that were drawn without replacement."""
    right = unordered_set(model, baseline=False)

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        (site,), (a,), (x,) = run.sites, run.a, run.x
        states = all_states(site.size, a.dtype)
        p = jnp.prod(site.noise.cdf(states * a), axis=1)
        left = jnp.where(jnp.all(states == x, axis=1), 0, p)
        second = states[jnp.searchsorted(jnp.cumsum(left) / left.sum(), u[1][0][0])]
        f = run_at_states(model, params, example, (second,)).f
        signal = run.f * site.noise.score(x, a) + f * site.noise.score(second, a)
        return (run.f + f) / 2 + gradient_term(signal / 2, a)

    return surrogate_loss(
        model, example_loss, 2, "uniforms", smoothness="constant", breakpoints=right.breakpoints
    )


@pytest.mark.slow
def test_states_without_replacement_weighted_as_if_with_are_seen():
    network, *at = tiny(ONE)
    bias, value = exact_bias(as_if_replaced(network), *at)
    assert np.all(bias > SEEN)
    assert value > SEEN


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(partial(unordered_set, baseline=False), marks=pytest.mark.slow),
        partial(unordered_set, samples=3),
        top_c,
    ],
)
@pytest.mark.slow
def test_saturated_units_have_finite_and_vanishing_gradients_in_float32(make):
    for noise in ("logistic", "triangular"):
        assert_finite_and_zero_where_saturated(make, (noise,))


@pytest.mark.parametrize(
    ("make", "sizes", "sentence"),
    [
        (unordered_set, (1, 1, 1, 1), "unordered_set is an estimator for one stochastic layer"),
        (top_c, (1, 1, 1, 1), "top_c is an estimator for one stochastic layer"),
        (unordered_set, (1, 17, 1), "got a layer of 17 units; take one of at most 16, or disarm"),
        (top_c, (1, 17, 1), "top_c tabulates all states and got a layer of 17 units"),
        (partial(unordered_set, samples=3), (1, 1, 1), "needs 3 distinct states and got a layer"),
        (partial(top_c, states=2), (1, 1, 1), "needs 3 distinct states and got a layer with 2"),
    ],
)
def test_models_that_are_not_for_them_are_refused(make, sizes, sentence):
    network, params, batch = small(sizes)
    with pytest.raises(GradbenchError) as caught:
        jax.eval_shape(make(network), params, jax.random.key(0), batch)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(unordered_set, samples=0), "samples is 0; give a whole number of at least 1"),
        (partial(unordered_set, samples=7), "samples is 7; give at most 6"),
        (partial(unordered_set, samples=1), "give at least 2, not 1, or baseline=False"),
        (partial(unordered_set, baseline=1), "baseline is 1; give True or False"),
        (partial(top_c, states=0), "states is 0; give a whole number of at least 1"),
    ],
)
def test_hyperparameters_that_are_none_are_refused(make, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(None)
    assert sentence in str(caught.value)
