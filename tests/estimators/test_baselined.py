"""A baseline around an estimator: what is known of the two holds draw by draw, or exactly."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, small
from test_baselines import assert_unbiased, deep, draws, exact
from test_estimators import BIASED

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import canonical
from gradbench.estimators import (
    baselined,
    check_spec,
    get_estimator,
    make_estimator,
    moving_average,
    nvil,
    reinforce,
    reinforce_leave_one_out,
)
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.baselined import get_baseline
from gradbench.estimators.baselines import Baseline, constant
from gradbench.estimators.registry import price_of
from gradbench.exact.enumeration import expected_loss
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.elbo import ELBO
from gradbench.models.losses import Readout
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

KEY = jax.random.key(3)
BASELINES = (0.7, "moving_average", "per_unit", "batch", "nvil(hidden=2)")


def around(estimator, baseline, model):
    return baselined(model, estimator=estimator, baseline=baseline)


def bound():
    """Two layers under an evidence bound, whose returns differ by layer."""
    network = SBN((Dense(2, 1), Dense(1, 1)), ELBO((Dense(1, 2), Dense(1, 1)), kl="sampled"))
    x = jnp.array([[1.0, -1.0], [1.0, 1.0]])
    return network, network.init(jax.random.key(0)), (x, x)


def adapted(loss, params, batch, steps=3):
    return loss.fit(params, KEY, batch, steps) if isinstance(loss, Learned) else loss


# --------------------------------------------------------------------- what it is the same as


@pytest.mark.parametrize(
    ("baseline", "same"),
    [
        (0.3, partial(reinforce, baseline=0.3)),
        ("batch", reinforce_leave_one_out),
        ("moving_average(decay=0.9)", partial(moving_average, decay=0.9)),
        ("nvil(hidden=3, rate=0.1)", partial(nvil, hidden=3, rate=0.1)),
    ],
)
@pytest.mark.first(1)
@pytest.mark.slow
def test_around_reinforce_it_is_the_estimator_of_that_name_draw_by_draw(baseline, same):
    model, params, batch = bound()
    both = around("reinforce", baseline, model), same(model)
    left, right = draws([adapted(f, params, batch) for f in both], params, batch, keys=2)
    np.testing.assert_array_equal(left, right)
    if isinstance(both[0], Learned):
        assert not np.allclose(right, draws([reinforce(model)], params, batch, keys=2)[0])


@pytest.mark.parametrize("spec", ["simple_muprop", "rloo(samples=3)", "rebar"])
@pytest.mark.slow
def test_a_constant_is_subtracted_from_what_the_score_is_multiplied_with(spec):
    model, params, batch = small((2, 2, 1))
    c = 1.3
    plain, other = make_estimator(spec, model), around(spec, c, model)

    u = tuple((jax.random.uniform(jax.random.key(s), (2,)),) for s in range(3))
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    arguments = jax.tree.map(jnp.asarray, params), u[: plain.streams], example

    def fixed(params, u, example):
        """The score, with a as the only thing that is differentiated."""
        _, run, signals = plain.scored(params, u, example)
        (site,), (x,), (a,) = run.sites, run.x, run.a
        stopped = jax.lax.stop_gradient(site.noise.score(x, a))
        return c * jnp.sum(stopped * a) / np.size(signals[0])

    value, g = jax.value_and_grad(plain.example_loss)(*arguments)
    shifted, h = jax.value_and_grad(other.example_loss)(*arguments)
    expected = jax.tree.map(jnp.subtract, g, jax.grad(fixed)(*arguments))
    np.testing.assert_allclose(flat(h), flat(expected), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(shifted, value, rtol=1e-14)
    assert np.any(np.abs(flat(h) - flat(g)) > 1e-3)


@pytest.mark.slow
def test_around_rloo_a_constant_and_the_mean_of_past_draws_leave_the_mean_and_add_variance():
    """The other samples are the better baseline: what is left of the signals has the mean 0."""
    model, params, batch = small((2, 2, 1), "normal")
    found = exact({spec: around("rloo", spec, model) for spec in (0.0, 2.0)}, model, params, batch)
    assert found[2.0][2] > 1.1 * found[0.0][2]


# -------------------------------------------------------------------------- it has no bias


@pytest.mark.parametrize(
    ("spec", "baseline"),
    [
        (spec, baseline)
        for spec in ("muprop", "reinforce", "simple_muprop", "rloo", "rodeo(hidden=2)")
        for baseline in BASELINES
    ]
    + [("moving_average", "nvil"), ("nvil(hidden=2)", "per_unit"), ("nvil(hidden=2)", "batch")],
)
@pytest.mark.first(1)
@pytest.mark.slow
def test_the_mean_is_the_gradient_whatever_was_learned(spec, baseline):
    model, params, batch = bound()
    if "rloo" in spec or "rodeo" in spec:  # several paths, and of both examples with "batch"
        model, params, batch = small((1, 1, 1), "laplace")
        batch = jax.tree.map(lambda leaf: leaf[:2], batch)
    loss = adapted(around(spec, baseline, model), params, batch)
    assert_unbiased({spec: loss}, model, params, batch)


@pytest.mark.slow
def test_an_estimator_that_couples_the_examples_takes_a_baseline_of_each_example():
    model, params, batch = deep("normal")
    for baseline in (0.4, "moving_average", "per_unit", "nvil(hidden=2)"):
        loss = adapted(around("reinforce_leave_one_out", baseline, model), params, batch)
        assert_unbiased({baseline: loss}, model, params, batch)


def own_states():
    """The planted bug: a baseline that looks at the states of its own layer."""

    def subtract(state, run, signals, example):
        return [signal - jnp.sum(x) for signal, x in zip(signals, run.x, strict=True)]

    return Baseline(subtract)


def own_example():
    """Another one: the mean over the batch, the own example included."""

    def subtract(state, run, signals, batch):
        return [signal - jnp.mean(signal, axis=0) for signal in signals]

    return Baseline(subtract, couples_batch=True)


@pytest.mark.parametrize("bug", [own_states, own_example])
@pytest.mark.slow
def test_a_baseline_that_contains_its_own_sample_is_seen(bug):
    model, params, batch = small((1, 1, 1), "laplace")
    batch = jax.tree.map(lambda leaf: leaf[:2], batch)
    found = exact({"": around("reinforce", bug(), model)}, model, params, batch)
    bias, value, _ = found[""]
    assert bias[0] > BIASED
    assert value < 1e-10


@pytest.mark.slow
def test_a_draw_from_the_own_examples_of_a_coupled_batch_would_be_biased_and_is_refused():
    model, *_ = small((1, 1, 1))
    with pytest.raises(GradbenchError, match="contains the own sample; give another baseline"):
        around("reinforce_leave_one_out", "batch", model)


# ----------------------------------------------------------------------- what is learned, and why


@pytest.mark.slow
def test_per_unit_is_the_constant_of_least_variance_for_each_unit():
    """By enumeration: E[f s^2] / E[s^2], which nothing else beats in any unit."""
    model, params, batch = SBN((Dense(1, 2),), Readout(2, 1)), *small((1, 2, 1))[1:]
    batch = jax.tree.map(lambda leaf: leaf[:1], batch)
    loss = around("reinforce", "per_unit(decay=0.999)", model)
    state = adapted_state(loss, params, batch, 4000)
    states = [jnp.array(x) for x in ((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))]
    weights, squares, products = [], [], []
    for x in states:
        u = ((1 - x) / 2,)
        _, run, (f,) = make_estimator("reinforce", model).scored(
            params, (u,), jax.tree.map(lambda leaf: leaf[0], batch)
        )
        site, a = run.sites[0], run.a[0]
        weights.append(jnp.prod(site.noise.probability(x, a)))
        squares.append(site.noise.score(x, a) ** 2)
        products.append(f * squares[-1])
    best = np.average(products, axis=0, weights=weights) / np.average(
        squares, axis=0, weights=weights
    )
    (learned,) = (total / weight for total, weight in zip(*state, strict=True))
    np.testing.assert_allclose(learned, best, rtol=0.05)
    layers = [best, best + 0.1, best - 0.1]
    variances = [
        moments(loss.frozen(([c], [jnp.ones(2)])), params, batch).variance[0]["bias"]
        for c in layers
    ]
    assert np.all(variances[0] < variances[1]) and np.all(variances[0] < variances[2])


def adapted_state(loss, params, batch, steps):
    @jax.jit
    def final(params):
        def step(state, key):
            return loss.adapt(state, params, key, batch), None

        return jax.lax.scan(step, loss.init(params, batch), jax.random.split(KEY, steps))[0]

    return final(params)


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["muprop", "simple_muprop"])
def test_a_learned_baseline_lowers_the_variance_of_what_has_a_control_variate(spec):
    """The mean field does not see how much the squares of an example with its target add."""

    def objective(theta, x, target):
        return target * jnp.sum(x) ** 2

    model = SBN((Dense(2, 3),), objective)
    params = (*small((2, 3, 1))[1][:1], ())
    batch = jnp.zeros((4, 2)), jnp.array([1.0, -1.0, 2.0, -2.0])
    losses = {
        "": make_estimator(spec, model),
        "nvil": adapted(around(spec, "nvil(rate=0.05)", model), params, batch, 400),
    }
    plain, learned = (flat(moments(f, params, batch).variance).sum() for f in losses.values())
    assert learned < 0.8 * plain


@pytest.mark.slow
def test_learned_parts_inside_minimise_the_variance_with_the_baseline():
    """At another baseline the step is another one; without the baseline it would be the same."""
    model, params, batch = small((2, 2, 1))
    states = [
        around("dynamic_rebar", c, model).adapt(
            around("dynamic_rebar", c, model).init(params, batch), params, KEY, batch
        )
        for c in (0.0, 0.0, 5.0)
    ]
    moments_ = [flat(state[0][1]) for state in states]
    np.testing.assert_array_equal(moments_[0], moments_[1])
    assert np.max(np.abs(moments_[0] - moments_[2])) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("baseline", BASELINES[1:])
def test_it_is_learned_under_jit_and_its_gradient_is_finite_at_saturation(baseline):
    model, params, batch = small((2, 3, 2, 1), ("triangular", "logistic"))
    params[0]["bias"][:], params[1]["bias"][:] = [40, -40, 0], [-40, 40]
    single = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (params, batch))
    loss = adapted(around("reinforce", baseline, model), *single)
    (found,) = draws([loss], *single)
    assert found.dtype == np.float32 and np.all(np.isfinite(found))


# ------------------------------------------------------------------------- what is said and refused


def test_claim_cost_and_name_follow_from_the_parts():
    spec = "baselined(estimator='zgr', baseline=1)"
    assert get_estimator(spec)[0].claim(**get_estimator(spec)[1]) == "quadratic"
    assert price_of("baselined(estimator='rebar')") == price_of("rebar")
    written = "baselined(baseline='nvil( hidden=10.0 )', estimator='score-function( )')"
    assert canonical(written) == "baselined(baseline='nvil(hidden=10)', estimator='reinforce')"
    check_spec("mean_of(estimator=\"baselined(baseline='batch')\")")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("baselined(estimator='arm')", "multiplies nothing with it; give one such as reinforce"),
        (
            "baselined(baseline=1, estimator='exact')",
            "multiplies nothing with it; give one such as reinforce",
        ),
        ("baselined(estimator='mean_of')", "multiplies nothing with it; give one such as"),
        ("baselined(estimator='psb')", "unknown estimator 'psb'; did you mean 'psa'?"),
        ("baselined(baseline='nvll')", "unknown baseline 'nvll'; did you mean 'nvil'?"),
        ("baselined(baseline='nvil(hiden=2)')", "no hyper-parameter 'hiden'; did you mean"),
        ("baselined(baseline='batch(decay=2)')", "no hyper-parameter 'decay'; it has none"),
        ("baselined(baseline='per_unit(decay=2)')", "decay is 2; give a number from 0 to 1"),
        ("baselined(baseline=None)", "baseline is None; give a number"),
        ("baselined(baseline='0.5')", "the estimator '0.5' is malformed"),
    ],
)
def test_what_is_no_baseline_or_has_no_score_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_baseline_may_be_given_as_an_object_or_a_traced_number():
    own = constant(0.5)
    assert get_baseline(own) is own
    model, params, batch = small((2, 2, 1))

    def total(c):
        g = jax.grad(around("reinforce", c, model))(params, KEY, batch)
        return jnp.sum(g[0]["bias"])

    slope = jax.jit(jax.grad(total))(jnp.array(0.5))
    np.testing.assert_allclose(slope, total(1.0) - total(0.0), rtol=1e-9)


@pytest.mark.slow
def test_a_mean_of_draws_takes_it_inside():
    model, params, batch = small((1, 1, 1), "normal")
    truth = jax.grad(lambda params: expected_loss(model, params, batch))(params)
    loss = make_estimator("mean_of(estimator=\"baselined(estimator='simple_muprop')\")", model)
    found = moments(adapted(loss, params, batch), params, batch)
    np.testing.assert_allclose(flat(found.mean), flat(truth), rtol=1e-9)
