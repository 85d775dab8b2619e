"""Layer-local signals: terms that a layer cannot change are left out of its return."""

from itertools import accumulate

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, relative, small
from test_baselines import assert_unbiased, draws, exact
from test_estimators import BIASED, EXACT

from gradbench.core.contract import Scored
from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.estimators import check_spec, make_estimator, reinforce
from gradbench.estimators.score import returns, score_loss, with_terms
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.elbo import ELBO
from gradbench.models.network import SBN
from gradbench.testing import check_estimator

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

BY_STATES = ("reinforce", "simple_muprop", "muprop", "leg", "moving_average", "nvil")
SEVERAL_PATHS = ("reinforce_leave_one_out", "rloo", "rodeo")
BY_UNIFORMS = ("ar", "rebar", "dynamic_rebar", "relax")


def autoencoder(inputs, first, second, kl="sampled", examples=1):
    """Two stochastic layers, at their random start."""
    layers, decoders = (Dense(inputs, first), Dense(first, second)), (Dense(first, inputs),)
    network = SBN(layers, ELBO((*decoders, Dense(second, first)), kl=kl))
    x = jnp.sign(jax.random.normal(jax.random.key(1), (examples, inputs)))
    return network, network.init(jax.random.key(0)), (x, x)


def adapted(spec, network, params, batch):
    """The estimator, its learned parts away from their start."""
    loss = make_estimator(spec, network)
    return loss.fit(params, jax.random.key(7), batch, steps=3) if hasattr(loss, "fit") else loss


@pytest.mark.parametrize("kl", ["sampled", pytest.param("closed", marks=pytest.mark.slow)])
def test_the_mean_of_local_signals_is_the_gradient(kl):
    given = autoencoder(2, 2, 1, kl)
    assert_unbiased({"reinforce": make_estimator("reinforce", given[0])}, *given)


@pytest.mark.slow
@pytest.mark.parametrize("spec", BY_STATES + SEVERAL_PATHS)
def test_it_is_for_every_estimator_that_is_driven_by_states(spec):
    given = autoencoder(2, 1, 1, examples=2)
    assert_unbiased({spec: adapted(spec, *given)}, *given)


@pytest.mark.slow
@pytest.mark.parametrize("spec", BY_UNIFORMS)
def test_it_is_for_what_is_driven_by_uniforms(spec):
    found = check_estimator(f"{spec}(signals='local')")
    assert found.passed, str(found)


@pytest.mark.slow
def test_the_return_of_a_layer_has_its_own_term_and_those_above():
    network, params, (x, target) = autoencoder(4, 2, 3)
    u = (jnp.array([0.1, 0.8]), jnp.array([0.3, 0.9, 0.4]))
    run = sampled(with_terms(network, "local"), params, u, (x[0], target[0]))
    whole = sampled(network, params, u, (x[0], target[0]))
    first, second = returns(run)
    np.testing.assert_allclose(first, whole.f, rtol=1e-14)
    np.testing.assert_allclose(second, run.f[1], rtol=0)
    assert abs(first - second) > 1
    assert returns(whole) == [whole.f, whole.f]


def variances(spec, network, params, batch):
    """The total exact variance of each layer, with local signals and with the whole return."""
    both = [make_estimator(spec.format(kind), network) for kind in ("local", "whole")]
    found = jax.jit(lambda params: [moments(loss, params, batch) for loss in both])(params)
    assert relative(found[0].mean, found[1].mean) < 1e-10
    return [[float(np.sum(flat(layer))) for layer in one.variance] for one in found]


@pytest.mark.slow
def test_they_lower_the_variance_of_the_second_layer_and_change_nothing_in_the_first():
    local, whole = variances("reinforce(signals={!r})", *autoencoder(16, 2, 2))
    np.testing.assert_allclose(local[0], whole[0], rtol=1e-9)
    np.testing.assert_allclose(local[2], whole[2], rtol=1e-9)
    assert whole[1] > 4 * local[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "kl", "factor"),
    [
        ((16, 6, 6), "sampled", 7.61),
        ((64, 8, 4), "sampled", 62.3),
        ((64, 8, 4), "closed", 69.2),
    ],
)
def test_the_second_layer_of_autoencoders_has_some_tens_of_times_less_variance(sizes, kl, factor):
    given = autoencoder(*sizes, kl, examples=20)
    local, whole = variances("reinforce(signals={!r})", *given)
    print(f"{sizes} {kl}: {whole[1] / local[1]:.4g} times")
    np.testing.assert_allclose(whole[1] / local[1], factor, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("spec", BY_STATES[1:3])
def test_they_lower_it_for_other_estimators_too(spec):
    local, whole = variances(spec + "(signals={!r})", *autoencoder(8, 3, 2))
    assert whole[1] > 1.2 * local[1]


# ---------------------------------------------------------------------------------- planted bugs


def with_returns(change):
    """REINFORCE with other returns of the terms."""

    def make(model):
        split = with_terms(model, "local")

        def scored(params, u, example):
            run = sampled(split, params, u[0], example)
            terms = run.f if isinstance(run.f, list) else [run.f] * len(run.sites)
            return Scored(returns(run)[0], run, change(terms))

        return score_loss(model, scored)

    return make


def own_term_left_out(terms):
    return [sum(terms[k + 1 :], jnp.zeros(())) for k in range(len(terms))]


def terms_below(terms):
    """The sums run the wrong way round."""
    return list(accumulate(terms))


def own_term_alone(terms):
    return terms


@pytest.mark.parametrize("bug", [own_term_left_out, terms_below, own_term_alone])
@pytest.mark.slow
def test_a_term_that_the_layer_can_change_and_is_left_out_is_a_bias(bug):
    given = autoencoder(2, 2, 1)
    bias, value, _ = exact({"": with_returns(bug)(given[0])}, *given)[""]
    assert max(bias[:2]) > BIASED
    assert value < EXACT


@pytest.mark.parametrize(
    "bug",
    [
        own_term_alone,
        pytest.param(own_term_left_out, marks=pytest.mark.slow),
        pytest.param(terms_below, marks=pytest.mark.slow),
    ],
)
def test_the_certificate_sees_it(bug, only):
    only("four layers")
    certificate = check_estimator(with_returns(bug), "unbiased")
    assert not certificate.passed and certificate.found == "biased"


# ------------------------------------------------------------------- models with terms and without


@pytest.mark.parametrize("spec", ["reinforce", pytest.param("rebar", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_an_objective_without_terms_or_of_one_layer_has_the_same_draws(spec):
    one = SBN((Dense(4, 3),), ELBO((Dense(3, 4),)))
    x = jnp.ones((2, 4))
    cases = [small((2, 2, 1, 1)), (one, one.init(jax.random.key(0)), (x, x))]
    for network, params, batch in cases:
        both = [make_estimator(f"{spec}(signals={kind!r})", network) for kind in ("local", "whole")]
        left, right = draws(both, params, batch, keys=2)
        np.testing.assert_array_equal(left, right)


class ByHand:
    """A user's model of two layers, which says that its objective has terms."""

    def __init__(self, count=2):
        self.count = count

    def terms(self, params, example, binary):
        x = binary(params[0] * example)
        y = binary(params[1] * x, noise="normal")
        return (jnp.sum(jnp.sin(x)) * 5, jnp.exp(jnp.sum(x * y)), jnp.zeros(()))[: self.count]

    def __call__(self, params, example, binary):
        return sum(self.terms(params, example, binary))


@pytest.mark.slow
def test_a_model_of_the_user_offers_its_terms_by_a_method():
    given = ByHand(), (jnp.array([0.3, -0.8]), jnp.array([0.7, 1.2])), jnp.array([[1.0, -0.5]])
    losses = {kind: reinforce(given[0], signals=kind) for kind in ("local", "whole")}
    assert_unbiased(losses, *given)
    local, whole = (flat(moments(loss, *given[1:]).variance[1]).sum() for loss in losses.values())
    assert local < whole


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.slow
def test_terms_that_are_not_one_for_each_layer_are_refused(count):
    params = jnp.ones(2), jnp.ones(2)
    with pytest.raises(GradbenchError, match=f"returns {count} terms for 2 layers; return one for"):
        reinforce(ByHand(count))(params, jax.random.key(0), jnp.ones((1, 2)))


@pytest.mark.parametrize("spec", [*BY_STATES, *SEVERAL_PATHS, *BY_UNIFORMS])
def test_other_signals_are_refused_in_one_sentence(spec):
    with pytest.raises(GradbenchError) as caught:
        check_spec(f"{spec}(signals='locale')")
    assert str(caught.value) == "signals is 'locale'; did you mean 'local'?"
