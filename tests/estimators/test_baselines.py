"""Baselines of REINFORCE: what they subtract leaves the mean as it is, by exact moments."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, flat, random_batch, random_params, small
from test_estimators import BIASED, EXACT, by_hand, by_hand_params, errors

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    check_spec,
    moving_average,
    nvil,
    reinforce,
    reinforce_leave_one_out,
)
from gradbench.estimators.score import scores, stacked
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


def exact(losses, model, params, batch):
    """For each loss the relative bias per layer, that of the value, and the total variance."""

    @jax.jit
    def all_of_them(params, batch):
        truth = jax.value_and_grad(partial(brute_force, model))(params, batch)
        return truth, {name: moments(loss, params, batch) for name, loss in losses.items()}

    (value, gradient), found = all_of_them(*jax.tree.map(jnp.asarray, (params, batch)))
    return {
        name: (
            errors(m.mean, gradient),
            abs(m.value - value) / abs(value),
            np.sum(flat(m.variance)),
        )
        for name, m in found.items()
    }


def assert_unbiased(losses, model, params, batch):
    """To rounding: every layer, and the value."""
    for name, (bias, value, _) in exact(losses, model, params, batch).items():
        assert np.all(bias < EXACT), name
        assert value < EXACT, name


def draws(losses, params, batch, keys=4):
    """Values and gradients of each loss for the same keys, flat: ``[keys, ...]``."""
    keys = jax.random.split(jax.random.key(5), keys)
    found = jax.jit(
        lambda p: [jax.vmap(jax.value_and_grad(f), (None, 0, None))(p, keys, batch) for f in losses]
    )(jax.tree.map(jnp.asarray, params))
    return [
        np.concatenate([np.reshape(w, (len(keys), -1)) for w in jax.tree.leaves(g)], axis=1)
        for g in found
    ]


def two_examples(model, params, batch):
    return model, params, jax.tree.map(lambda leaf: leaf[:2], batch)


def deep(noise, seed=3):
    return two_examples(*small((2, 2, 1, 1), noise, seed=seed))


def fitted(loss, params, batch, steps=20):
    return loss.fit(params, jax.random.key(3), batch, steps)


def made_up_nvil(model, params, batch):
    """NVIL at a state that no training would reach: large baselines, one after the other."""
    learned = nvil(model, hidden=3)
    nets, _ = learned.init(params, batch)["nets"]
    nets = [net | {"second": net["second"] + (-1.5) ** k} for k, net in enumerate(nets, 1)]
    sums = jnp.full(len(nets), 0.4)
    return learned.frozen({"nets": (nets, None), "average": (sums, jnp.array(0.5))})


CASES = {
    "two layers": lambda: deep(("laplace", "normal")),
    "three layers": lambda: two_examples(
        *small((1, 1, 1, 1, 1), ("uniform", "triangular", "logistic"))
    ),
    "by hand": lambda: (by_hand, by_hand_params(), random_batch(2, examples=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_baseline_is_unbiased_at_every_depth_and_noise(case):
    model, params, batch = CASES[case]()
    losses = {
        "constant": reinforce(model, baseline=0.7),
        "leave one out": reinforce_leave_one_out(model),
        "nvil": made_up_nvil(model, params, batch),
    }
    assert_unbiased(losses, model, params, batch)


def batch_mean(model):
    """The planted bug: the own example is in its baseline."""

    def batch_loss(params, u, batch):
        run = stacked(lambda v, example: sampled(model, params, v, example), (-1, 0), u[0], batch)
        signal = (run.f - jnp.mean(run.f)) / run.f.size
        return jnp.mean(run.f) + scores(run, [signal] * len(run.sites))

    return surrogate_loss(model, batch_loss, couples_batch=True)


def own_states(model):
    """Another one: the baseline of a layer looks at its own states."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        return run.f + scores(run, [run.f - jnp.sum(x) for x in run.x])

    return surrogate_loss(model, example_loss)


@pytest.mark.slow
def test_a_baseline_that_contains_its_own_sample_is_seen_it_shrinks_the_gradient():
    model, params, batch = deep("logistic")
    found = exact({"mean": batch_mean(model), "own": own_states(model)}, model, params, batch)
    bias, value, _ = found["mean"]
    np.testing.assert_allclose(bias[:2], 1 / 2, rtol=1e-9)  # the weight of the own sample
    assert bias[2] < EXACT
    assert value < EXACT
    assert np.all(found["own"][0][:2] > BIASED)


@pytest.mark.parametrize("noise", ["logistic", "normal", "uniform"])
@pytest.mark.first(1)
def test_the_variance_under_a_constant_baseline_is_the_closed_form(noise):
    a, c, h = 0.4, 0.6, {1: 1.3, -1: -0.5}
    unit = get_noise(noise)
    p, slope = float(unit.cdf(jnp.array(a))), float(unit.pdf(jnp.array(a)))

    def model(params, example, binary):
        x = binary(params[0][None], noise=noise)[0]
        return h[1] * (1 + x) / 2 + h[-1] * (1 - x) / 2

    found = moments(reinforce(model, baseline=c), (jnp.array(a),), jnp.zeros(1))
    true = slope * (h[1] - h[-1])
    variance = slope**2 * ((h[1] - c) ** 2 / p + (h[-1] - c) ** 2 / (1 - p)) - true**2
    np.testing.assert_allclose(found.mean[0], true, rtol=1e-12)
    np.testing.assert_allclose(found.variance[0], variance, rtol=1e-12)


@pytest.mark.slow
def test_leave_one_out_does_not_see_a_constant_added_to_the_objective_but_reinforce_does():
    network, params, batch = small((2, 2, 1, 1))

    def shifted(params, example, binary):
        return network(params, example, binary) + 10

    one, two, three, four = (
        g[:, 1:]
        for g in draws(
            [make(m) for make in (reinforce_leave_one_out, reinforce) for m in (network, shifted)],
            params,
            batch,
        )
    )
    np.testing.assert_allclose(one, two, atol=1e-13)
    assert np.max(np.abs(three - four)) > 1


@pytest.mark.slow
def test_leave_one_out_of_one_example_is_reinforce_draw_by_draw():
    network, params, batch = small((2, 2, 1, 1))
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    left, right = draws([reinforce_leave_one_out(network), reinforce(network)], params, one)
    np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_the_moving_average_is_that_of_past_draws_and_corrected_for_its_start():
    network, params, batch = small((2, 2, 1))
    loss = moving_average(network, decay=0.9)
    keys = jax.random.split(jax.random.key(0), 4)
    values = [
        float(v) for v in jax.jit(jax.vmap(lambda k: reinforce(network)(params, k, batch)))(keys)
    ]
    adapt, state = jax.jit(loss.adapt), loss.init(params, batch)
    for n, key in enumerate(keys, 1):
        state = adapt(state, params, key, batch)
        weights = 0.9 ** np.arange(n - 1, -1, -1)
        mean = np.sum(weights * values[:n]) / np.sum(weights)
        total, weight = state
        np.testing.assert_allclose(total / weight, mean, rtol=1e-12)
    left, right = draws(
        [loss.frozen(state), reinforce(network, baseline=mean)], params, batch, keys=2
    )
    np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_learned_baselines_start_as_reinforce():
    network, params, batch = small((2, 2, 1, 1))
    makes = (reinforce, moving_average, nvil)
    plain, average, regressed = draws([make(network) for make in makes], params, batch)
    np.testing.assert_array_equal(plain, average)
    np.testing.assert_array_equal(plain, regressed)


@pytest.mark.slow
def test_nvil_learns_what_the_example_and_the_states_below_say_of_the_objective():
    def objective(theta, x, target):
        return 4 * target + jnp.sum(x)

    network = SBN((Dense(2, 1), Dense(1, 1)), objective)
    params = (*random_params((2, 1, 1)), ())
    batch = (np.zeros((4, 2)), np.array([1.0, -1.0, 1.0, -1.0]))
    losses = {
        "average": fitted(moving_average(network), params, batch, 300),
        "nvil": fitted(nvil(network), params, batch, 300),
    }
    found = exact(losses, network, params, batch)
    assert found["nvil"][2] < found["average"][2] / 4


def saturated():
    """All five noises, in each layer units at 40, at -40 and a third one."""
    network, params, batch = small((2, 3, 3, 3, 3, 3, 1), NOISES)
    for theta in params[:-1]:
        theta["bias"][:] = [40, -40, 0.5]
    return network, params, batch


@pytest.mark.slow
def test_saturated_units_give_finite_draws_in_single_precision():
    network, *given = saturated()
    single = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), given)
    losses = [
        reinforce(network, baseline=0.5),
        reinforce_leave_one_out(network),
        made_up_nvil(network, *single),
    ]
    found = draws(losses, *single)
    for g in found:
        assert g.dtype == np.float32
        assert np.all(np.isfinite(g))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("reinforce(baseline='mean')", "baseline is 'mean'; give a number"),
        ("moving_average(decay=1.5)", "decay is 1.5; give a number from 0 to 1"),
        ("nvil(hidden=0)", "hidden is 0; give a whole number of at least 1"),
        ("nvil(rate=0)", "rate is 0; give a positive number"),
    ],
)
def test_impossible_hyperparameters_are_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert str(caught.value) == sentence
