"""MuProp: unbiased at any depth, with the last factor at the sampled states below."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_batch, random_params, small
from jax.lax import stop_gradient
from test_baselines import assert_unbiased, draws, exact, saturated, two_examples
from test_estimators import BIASED, EXACT, by_hand, by_hand_params

from gradbench.core.autodiff import gradient_term
from gradbench.core.run import run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import muprop, reinforce, simple_muprop
from gradbench.estimators.score import scores
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

CASES = {
    "two layers": lambda: two_examples(*small((2, 3, 2, 1), ("normal", "laplace"))),
    "three layers": lambda: two_examples(
        *small((2, 3, 2, 2, 1), ("uniform", "logistic", "triangular"))
    ),
    "by hand": lambda: (by_hand, by_hand_params(), random_batch(2, examples=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_muprop_and_simple_muprop_are_unbiased_at_every_depth_and_noise(case):
    model, params, batch = CASES[case]()
    losses = {"muprop": muprop(model), "simple": simple_muprop(model)}
    assert_unbiased(losses, model, params, batch)


def literal_muprop(model, last_factor):
    """The rule as it is written, with the gradient at the mean field one layer at a time.

    The last factor F'(a) is at the "sampled" states below, or wrongly at the "mean".
    """

    def example_loss(params, u, example):
        fixed = stop_gradient(params)
        run = sampled(model, params, u[0], example)

        def mean_field(given):
            return run_model(model, fixed, example, lambda s, a: 2 * s.noise.cdf(a) - 1, given)

        mean = mean_field(())
        loss, signals = run.f, []
        for site, x, a, below in zip(run.sites, run.x, run.a, mean.a, strict=True):
            k = site.index
            slope = jax.grad(lambda m, k=k: mean_field((*mean.x[:k], m)).f)(mean.x[k])
            signals.append(run.f - mean.f - jnp.vdot(slope, x - mean.x[k]))
            at = a if last_factor == "sampled" else below
            loss += gradient_term(2 * slope * site.noise.pdf(at), a)
        return loss + scores(run, signals)

    return surrogate_loss(model, example_loss)


@pytest.mark.slow
def test_muprop_is_the_literal_rule_draw_by_draw():
    network, params, batch = small((2, 3, 2, 2, 1), ("laplace", "logistic", "normal"))
    left, right = draws([muprop(network), literal_muprop(network, "sampled")], params, batch)
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_the_last_factor_at_the_mean_field_is_seen_in_the_second_layer():
    model, params, batch = CASES["two layers"]()
    (bias, value, _) = exact({"": literal_muprop(model, "mean")}, model, params, batch)[""]
    assert bias[0] < EXACT  # its inputs are no states
    assert bias[1] > BIASED
    assert bias[2] < EXACT
    assert value < EXACT


@pytest.mark.slow
def test_muprop_has_no_variance_in_one_layer_on_a_linear_objective_where_others_have():
    def objective(theta, x, target):
        return target * jnp.dot(x, np.array([0.3, 0.5, -0.9]))

    network, params = SBN((Dense(2, 3, "normal"),), objective), (*random_params((2, 3)), ())
    losses = {m.__name__: m(network) for m in (muprop, simple_muprop, reinforce)}
    found = exact(losses, network, params, random_batch(2))
    assert found["muprop"][2] < 1e-14
    assert found["simple_muprop"][2] > BIASED
    assert found["reinforce"][2] > BIASED


@pytest.mark.slow
def test_saturated_units_give_finite_draws_in_single_precision():
    network, *given = saturated()
    single = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), given)
    found = draws([muprop(network), simple_muprop(network)], *single)
    for g in found:
        assert g.dtype == np.float32
        assert np.all(np.isfinite(g))
