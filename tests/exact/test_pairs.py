"""Moments over pairs of branches: equal to integrals over the uniforms, and to draws."""

from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import rows_of
from conftest import assert_mean, flat, random_batch, random_params, relative, small

from gradbench.core.branches import antithetic_law
from gradbench.core.errors import GradbenchError
from gradbench.estimators import ar, arm, arms, disarm
from gradbench.exact import expected_loss, moments, moments_work
from gradbench.exact.pairs import compares_branches
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, dense_network

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

ANTITHETIC = partial(disarm, descendants="antithetic")
LIMIT = 1 << 23  # draws of one example, as a suite takes it


def by_pairs(loss, *at):
    assert compares_branches(loss)
    return flat(jax.tree.leaves(moments(loss, *at)))


def by_draws(loss, *at):
    """The same by quadrature over the uniforms of the draws themselves."""
    return flat(jax.tree.leaves(moments(loss, *at, declared=False)))


def first_two(batch):
    return jax.tree.map(lambda leaf: leaf[:2], batch)


@pytest.mark.parametrize(
    ("make", "sizes", "noise", "states", "scale"),
    [
        (arm, (2, 2, 2, 1), ("logistic", "normal"), (-1, 1), 1),
        (arm, (2, 1, 2, 1), ("uniform", "triangular"), (0, 1), 2),  # some units are saturated
        (partial(arm, descendants="independent"), (2, 1, 1, 1), "laplace", (0, 1), 1),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (ANTITHETIC, (2, 2, 1, 1), "triangular", (-1, 1), 1.5),
                (disarm, (1, 1, 2, 1, 1), "laplace", (0, 1), 1),
                (ar, (2, 1, 1, 1, 1), ("normal", "uniform", "logistic"), (-1, 1), 1),
                (partial(arms, descendants="independent"), (2, 1, 1, 1), "uniform", (-1, 1), 1),
                (partial(arms, copula="gaussian"), (2, 2, 1, 1), "normal", (0, 1), 1),
            ]
        ),
    ],
)
@pytest.mark.slow
def test_sums_over_pairs_are_the_integrals_over_the_uniforms(make, sizes, noise, states, scale):
    network, params, batch = small(sizes, noise, scale=scale, states=states)
    loss, at = make(network), (params, first_two(batch))
    np.testing.assert_allclose(by_pairs(loss, *at), by_draws(loss, *at), rtol=1e-9, atol=1e-12)


@dataclass(frozen=True)
class Tied:
    """Units that share their only weight: a parameter has a share in all of them."""

    inputs: int = 2
    outputs: int = 2
    noise: str = "logistic"

    def init(self, key):
        return jnp.ones(())

    def __call__(self, theta, x):
        return theta * x + jnp.array([0.2, -0.5])


@pytest.mark.parametrize(
    "below", [pytest.param((), marks=pytest.mark.slow), (Dense(2, 2, "normal"),)], ids=["", "deep"]
)
@pytest.mark.slow
def test_a_parameter_shared_by_units_counts_their_products(below):
    network = SBN((*below, Tied()), Readout(2, 1))
    dense, readout = random_params((2, 2, 1))
    params = (*(dense for _ in below), np.array(0.8), readout)
    loss, at = arm(network), (params, first_two(random_batch(2)))
    np.testing.assert_allclose(by_pairs(loss, *at), by_draws(loss, *at), rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_states_that_never_happen_do_not_count():
    network = SBN((Dense(2, 2, "uniform"),), lambda theta, x, y: theta / (x[0] + 1) + x[1] * y)
    (dense,) = random_params((2, 2), scale=0.1)
    dense["bias"][:] = [3.0, 0.2]
    found = by_pairs(arm(network), (dense, np.array(0.7)), random_batch(2))
    assert np.all(np.isfinite(found))


# ------------------------------------------------------------------------------------ draws


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(arm, marks=pytest.mark.slow),
        partial(arms, samples=3),
        pytest.param(partial(arms, samples=3, descendants="independent"), marks=pytest.mark.slow),
        pytest.param(partial(arms, samples=4, descendants="antithetic"), marks=pytest.mark.slow),
    ],
    ids=["arm", "arms-3", "arms-3-independent", "arms-4-antithetic"],
)
@pytest.mark.slow
def test_mean_and_variance_are_those_of_draws(make):
    """Two tests of all coordinates, each with a false-alarm rate of 1e-6."""
    network, params, batch = small((3, 3, 2, 1), ("logistic", "triangular"), scale=1.5)
    batch, loss = first_two(batch), make(network)
    draw = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))
    draws = rows_of(draw(params, jax.random.split(jax.random.key(0), 30_000), batch))
    found = moments(loss, params, batch)
    assert_mean(draws, flat(found.mean))
    assert_mean((draws - flat(found.mean)) ** 2, flat(found.variance))


@pytest.mark.slow
@pytest.mark.parametrize("samples", [3, 5])
def test_many_copies_have_the_exact_gradient_as_their_mean(samples):
    network, params, batch = small((2, 3, 2, 1), ("normal", "uniform"), scale=0.8)
    found = moments(arms(network, samples=samples), params, batch)
    truth = jax.grad(partial(expected_loss, network))(params, batch)
    assert relative(found.mean, truth) < 1e-12


# ------------------------------------------------------------------------------ planted bugs


@cache
def judged():
    """An estimator, where it is judged, and its moments by its own draws."""
    network, params, batch = small((2, 1, 2, 1))
    loss, at = arm(network), (params, first_two(batch))
    return loss, at, moments(loss, *at, declared=False)


@pytest.mark.parametrize(
    "bug",
    [
        {"above": None},
        {"law": antithetic_law(lambda site, a, u, x, other: -u)},
    ],
    ids=["shared-taken-as-independent", "u-in-the-place-of-u-minus-a-half"],
)
@pytest.mark.slow
def test_a_wrong_law_of_the_branches_is_seen_in_the_variance(bug):
    loss, at, right = judged()
    found = moments(replace(loss, branches=replace(loss.branches, **bug)), *at)
    assert relative(found.variance[0], right.variance[0]) > 0.05


@pytest.mark.slow
def test_a_wrong_sign_of_the_factor_is_seen_in_the_mean():
    loss, at, right = judged()
    law = antithetic_law(lambda site, a, u, x, other: u - 0.5)
    found = moments(replace(loss, branches=replace(loss.branches, law=law)), *at)
    assert relative(found.mean[0], right.mean[0]) > 1.9


@pytest.mark.slow
def test_another_draw_than_the_declared_one_is_judged_by_itself():
    loss, at, right = judged()
    twice = replace(loss, example_loss=lambda *args: 2 * loss.example_loss(*args))
    assert not compares_branches(twice)
    assert relative(moments(twice, *at).mean, right.mean) > 0.9


# ---------------------------------------------------------------------------------- the size


def psa_network():
    """The network of the PSA paper: three layers of five units on 200 points."""
    sizes = (2, 5, 5, 5, 1)
    at = random_params(sizes), random_batch(2, examples=200)
    return dense_network(sizes, states=(0, 1)), at


def test_the_network_of_the_psa_paper_is_within_the_limit_of_a_suite():
    network, at = psa_network()
    for make in (ar, arm, disarm, arms, partial(arms, samples=5)):
        for descendants in ({}, {"descendants": "independent"}) if make is not ar else ({},):
            assert moments_work(make(network, **descendants), *at) < LIMIT / 8
    assert moments_work(arm(network), *at, declared=False) == np.inf


@pytest.mark.slow
def test_arm_has_exact_moments_on_the_network_of_the_psa_paper():
    network, at = psa_network()
    found = moments(arm(network), *at)
    truth = jax.grad(partial(expected_loss, network))(*at)
    assert relative(found.mean, truth) < 1e-12
    draws = rows_of(
        jax.jit(jax.vmap(jax.grad(arm(network)), (None, 0, None)))(
            at[0], jax.random.split(jax.random.key(1), 10_000), at[1]
        )
    )
    assert_mean((draws - flat(found.mean)) ** 2, flat(found.variance))


def test_tables_that_are_too_large_are_refused_in_one_sentence():
    network, params, batch = small((2, 13, 13, 1))
    with pytest.raises(
        GradbenchError, match=r"the pairs of states of layers of 13-13 units .*needs"
    ):
        moments(arm(network), params, batch)
    assert moments_work(arm(network), params, batch) == np.inf


def test_a_model_that_is_no_chain_is_integrated_as_before():
    def model(params, example, binary):
        return jnp.sum(binary(params * example)) ** 2

    loss, at = arm(model), (np.array([0.3, -0.4]), np.ones((1, 2)))
    assert not compares_branches(loss)
    assert np.all(np.isfinite(flat(jax.tree.leaves(moments(loss, *at)))))
