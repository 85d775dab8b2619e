"""Several samples: RLOO and its control variates, and the bounds of several samples with VIMCO."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, random_batch, random_params, small
from test_baselines import assert_unbiased, draws, exact, fitted, two_examples
from test_estimators import BIASED, EXACT, by_hand, by_hand_params

from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    ESTIMATORS,
    check_spec,
    double_cv,
    ovis,
    ovis_mc,
    psa,
    reinforce,
    rloo,
    rodeo,
    straight_through,
    vimco,
)
from gradbench.estimators import (
    leave_one_out as multisample,
)
from gradbench.estimators.score import scores
from gradbench.exact.enumeration import brute_force
from gradbench.models.dense import Dense
from gradbench.models.multisample import MultiSample, bound
from gradbench.models.network import SBN, dense_network

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

# ---------------------------------------------------------------------------- whole paths


def one_example(model, params, batch):
    return model, params, jax.tree.map(lambda leaf: leaf[:1], batch)


def one_hidden(noise="logistic"):
    return one_example(*small((2, 2, 1), noise))


def made_up(model, params, batch, samples=2):
    """RODEO at a state that no training would reach."""
    learned = rodeo(model, samples=samples, hidden=2)
    parts, _ = learned.init(params, batch)
    parts = [{**part, "alpha": jnp.array(0.6), "beta": jnp.array(-0.8)} for part in parts]
    return learned.frozen((parts, None))


CASES = {
    "two layers": lambda: two_examples(*small((2, 2, 1, 1), ("normal", "uniform"))),
    "by hand": lambda: (by_hand, by_hand_params(), random_batch(2, examples=1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_rloo_and_rodeo_are_unbiased_at_every_depth_and_noise(case):
    given = CASES[case]()
    assert_unbiased({"rloo": rloo(given[0]), "rodeo": made_up(*given)}, *given)


@pytest.mark.slow
def test_rloo_rodeo_and_double_cv_are_unbiased_with_three_samples():
    model, *_ = given = one_hidden("triangular")
    losses = {"rloo": rloo(model, samples=3), "rodeo": made_up(*given, samples=3)}
    assert_unbiased(losses | {"cv": double_cv(model, alpha=0.7, samples=3)}, *given)


@pytest.mark.slow
def test_a_sample_in_its_own_baseline_or_surrogate_is_seen_in_all_three(monkeypatch):
    """With the mean over all samples RLOO shrinks by (K - 1)/K."""
    model, *_ = given = one_hidden()
    wrong = {"rloo": rloo(model), "cv": double_cv(model, alpha=0.5), "rodeo": made_up(*given)}
    monkeypatch.setattr(multisample, "_leave_one_out", lambda k, dtype: jnp.full((k, k), 1 / k))
    found = exact(wrong, *given)
    np.testing.assert_allclose(found["rloo"][0][0], 1 / 2, rtol=1e-9)
    for bias, value, _ in found.values():
        assert bias[0] > BIASED
        assert bias[1] < EXACT
        assert value < EXACT


@pytest.mark.slow
def test_a_surrogate_made_of_the_own_sample_is_seen(monkeypatch):
    """The baseline of RLOO is right here, what the Stein operator is applied to is not."""
    right = multisample._surrogates

    def own(net, f, x, g):  # of two samples: each gets its own value and gradient
        return right(net, jnp.flip(f), x, jnp.flip(g, axis=0))

    given = one_hidden()
    monkeypatch.setattr(multisample, "_surrogates", own)
    bias, value, _ = exact({"": made_up(*given)}, *given)[""]
    assert bias[0] > BIASED
    assert value < EXACT


def two_paths(model):
    """RLOO of two samples as it is written: (f - f')(s - s') / 2."""

    def example_loss(params, u, example):
        runs = [sampled(model, params, v, example) for v in u]
        difference = (runs[0].f - runs[1].f) / 2
        loss = (runs[0].f + runs[1].f) / 2
        for run, sign in zip(runs, (1, -1), strict=True):
            loss += scores(run, [sign * difference] * len(run.sites))
        return loss

    return surrogate_loss(model, example_loss, streams=2)


@pytest.mark.slow
def test_two_samples_are_the_literal_rule_and_double_cv_and_rodeo_start_from_it():
    """Draw by draw; the first path is that of all estimators."""
    network, params, batch = small((2, 3, 1), "normal")

    def first(params, u, example):
        return sampled(network, params, u[0], example).f

    losses = [two_paths(network), rloo(network), double_cv(network, alpha=0.0), double_cv(network)]
    losses += [rodeo(network), surrogate_loss(network, first, streams=2), reinforce(network)]
    literal, *same, value, plain = draws(losses, params, batch)
    for found in same:
        np.testing.assert_allclose(found, literal, rtol=1e-11, atol=1e-14)
    np.testing.assert_array_equal(value[:, 0], plain[:, 0])


@pytest.mark.slow
def test_a_linear_objective_leaves_double_cv_no_variance_and_what_is_learned_lowers_it():
    def objective(theta, x, target):
        return target * jnp.dot(x, np.array([0.3, 0.5, -0.9]))

    network, params = SBN((Dense(2, 3, "laplace"),), objective), (*random_params((2, 3)), ())
    batch = random_batch(2)
    losses = {
        "rloo": rloo(network),
        "fixed": double_cv(network, alpha=-1.0),
        "learned": fitted(double_cv(network, rate=0.05), params, batch, 200),
        "rodeo": fitted(rodeo(network, hidden=8, rate=0.01), params, batch, 200),
    }
    found = exact(losses, network, params, batch)
    for name, (bias, value, _) in found.items():
        assert np.all(bias < EXACT), name
        assert value < EXACT, name
    assert found["rloo"][2] > 0.1
    assert found["fixed"][2] < 1e-14
    assert found["learned"][2] < found["rloo"][2] / 100
    assert found["rodeo"][2] < 0.9 * found["rloo"][2]


def literal_stein(params, x, h):
    """(A h)(x) and (A h s)(x), flip by flip: h of the states, s the score in the logits ``params``.

    P(flip i | rest) is the probability of the other state of unit i.
    """
    p = 1 / (1 + np.exp(-params))

    def score(x):
        return (1 + x) / 2 - p

    plain, product = 0.0, np.zeros(len(x))
    for i in range(len(x)):
        other = np.where(np.arange(len(x)) == i, -x, x)
        probability = p[i] if other[i] > 0 else 1 - p[i]
        plain += probability * (h(other) - h(x)) / len(x)
        product += probability * (h(other) * score(other) - h(x) * score(x)) / len(x)
    return plain, product


@pytest.mark.slow
def test_a_draw_of_rodeo_is_the_literal_rule():
    theta, a = np.array([0.4, -0.7, 1.1]), np.array([0.2, -0.5, 0.9])

    def f(x):
        return jnp.sum(x * theta) ** 2 / 3 + jnp.exp(x[0] / 2)

    def model(params, example, binary):
        return f(binary(params[0]))

    learned, samples = rodeo(model, samples=3, hidden=4), 3
    params, batch = (jnp.asarray(a),), jnp.zeros(1)
    (part,), _ = learned.init(params, batch)
    part = {**part, "alpha": jnp.array(0.6), "beta": jnp.array(-0.8)}
    u = np.random.default_rng(0).uniform(size=(samples, 3))
    loss = learned.frozen(([part], None))
    (found,) = jax.jit(jax.grad(loss.example_loss))(params, [(jnp.asarray(v),) for v in u], 0.0)

    x = np.where(u < 1 / (1 + np.exp(-a)), 1.0, -1.0)
    value, slope = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(f)))(x))
    net = jax.tree.map(np.asarray, part["net"])

    def surrogate(k, output):
        def h(y):
            total = 0.0
            for j in set(range(samples)) - {k}:
                z = np.array([slope[j] @ (y - x[j]), value[j]]) @ net["first"] + net["bias"]
                total += (np.where(z > 0, z, 0.3 * z) @ net["second"] + net["output"])[output]
            return total / (samples - 1)

        return h

    shifted = [v + 0.6 * literal_stein(a, x[k], surrogate(k, 0))[0] for k, v in enumerate(value)]
    expected = np.zeros(3)
    for k in range(samples):
        baseline = (sum(shifted) - shifted[k]) / (samples - 1)
        score = (1 + x[k]) / 2 - 1 / (1 + np.exp(-a))
        expected += (value[k] - baseline) * score
        expected += -0.8 * literal_stein(a, x[k], surrogate(k, 1))[1]
    np.testing.assert_allclose(found, expected / samples, rtol=1e-10)


# --------------------------------------------------------------------- bounds of several samples


def autoencoder(params, example, binary):
    """-log p(x, b) + log q(b | x) of inputs x and two latent bits b: -log of a weight p / q."""
    encoder, decoder = params
    a = encoder["weight"] @ example + encoder["bias"]
    b = binary(a)
    out = decoder["weight"] @ b + decoder["bias"]
    return jnp.sum(jnp.logaddexp(0, -example * out)) - jnp.sum(jnp.logaddexp(0, -a * b))


def variational():
    x = np.random.default_rng(0).choice([-1.0, 1.0], (1, 3))
    return autoencoder, random_params((3, 2, 3), scale=1.5, seed=2), x


@pytest.mark.slow
def test_vimco_is_unbiased_and_so_is_ovis_only_with_gamma_0_or_auxiliary_samples():
    network, params, batch = variational()
    model = MultiSample(network, 2)
    losses = {"vimco": vimco(model), "0": ovis(model, gamma=0.0), "runs": ovis_mc(model)}
    found = exact(losses | {"1": ovis(model)}, model, params, batch)
    assert found.pop("1")[0][0] > 0.1
    for name, (bias, value, _) in found.items():
        assert np.all(bias < EXACT), name
        assert value < EXACT, name


@pytest.mark.parametrize(
    ("samples", "sizes", "noise"),
    [
        (3, (2, 2, 1), "uniform"),
        pytest.param(2, (2, 2, 1, 1), ("normal", "laplace"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_vimco_is_unbiased_with_more_samples_and_at_every_depth_and_noise(samples, sizes, noise):
    network, params, batch = one_example(*small(sizes, noise))
    model = MultiSample(network, samples)
    assert_unbiased({"vimco": vimco(model)}, model, params, batch)


def wrong_vimco(model):
    """The planted bug: the weight w_k stays in the geometric mean of its own signal."""

    def example_loss(params, u, example):
        run = sampled(model.losses, params, u[0], example)
        rows = jnp.where(jnp.eye(run.f.size, dtype=bool), jnp.mean(run.f), run.f)
        signal = bound(run.f) - bound(rows)
        return bound(run.f) + scores(run, list(signal))

    return surrogate_loss(model, example_loss)


@pytest.mark.slow
def test_a_weight_in_its_own_signal_of_vimco_is_seen():
    network, params, batch = variational()
    model = MultiSample(network, 2)
    bias, value, _ = exact({"": wrong_vimco(model)}, model, params, batch)[""]
    assert bias[0] > BIASED
    assert value < EXACT


@pytest.mark.slow
def test_other_estimators_run_on_several_samples_with_more_variance_than_vimco():
    network, params, batch = one_hidden()
    model = MultiSample(network, 2)
    losses = {m.__name__: m(model) for m in (reinforce, psa, straight_through, vimco)}
    found = exact(losses, model, params, batch)
    assert found.pop("straight_through")[0][0] > BIASED
    for name, (bias, value, _) in found.items():  # PSA too: no copy feeds another one
        assert np.all(bias < EXACT), name
        assert value < EXACT, name
    assert found["vimco"][2] < found["reinforce"][2] / 2


@pytest.mark.slow
def test_the_bound_of_several_samples_is_that_of_all_combinations_and_tightens():
    network, params, batch = variational()
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=2)))

    def f(b):
        return float(network(params, batch[0], lambda a: jnp.asarray(b)))

    a = params[0]["weight"] @ batch[0] + params[0]["bias"]
    q = np.prod(1 / (1 + np.exp(-states * a)), axis=1)
    w = np.exp([-f(b) for b in states])
    previous = np.inf
    for samples in (1, 2, 3):
        expected = -sum(
            np.prod(q[list(c)]) * np.log(np.mean(w[list(c)]))
            for c in itertools.product(range(4), repeat=samples)
        )
        model = MultiSample(network, samples)
        found = float(jax.jit(lambda p, m=model: brute_force(m, p, batch))(params))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert -np.log(np.sum(q * w)) < found < previous
        previous = found


# --------------------------------------------------------------------------- all of them


@pytest.mark.slow
def test_saturated_units_give_finite_draws_in_single_precision():
    network, params, batch = small((2, 3, 1), "uniform")
    params[0]["bias"][:] = [40, -40, 0.5]
    model = MultiSample(network, 2)
    single = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (params, batch))
    losses = [made_up(network, *single), double_cv(network, alpha=0.5)]
    found = draws([*losses, vimco(model), ovis(model), ovis_mc(model)], *single)
    for g in found:
        assert g.dtype == np.float32
        assert np.all(np.isfinite(g))


def test_the_front_end_makes_the_parameters_of_its_model():
    network = dense_network((2, 3, 1))
    one, two = (m.init(jax.random.key(0)) for m in (network, MultiSample(network, 3)))
    np.testing.assert_array_equal(flat(one), flat(two))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("rloo(samples=1)", "samples is 1; give a whole number of at least 2"),
        ("double_cv(alpha='learned')", "alpha is 'learned'; give a number"),
        ("rodeo(hidden=0)", "hidden is 0; give a whole number of at least 1"),
        ("ovis(gamma='large')", "gamma is 'large'; give a number"),
        ("ovis_mc(runs=0)", "runs is 0; give a whole number of at least 1"),
    ],
)
def test_impossible_hyperparameters_are_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert str(caught.value) == sentence


def test_models_that_an_estimator_is_not_made_for_are_refused_in_one_sentence():
    network, params, batch = small((2, 2, 1, 1))
    for name in ("vimco", "ovis", "ovis_mc"):
        check_spec(name)
        assert ESTIMATORS[name].needs == "a MultiSample model"
        for model, what in ((network, "no MultiSample"), (MultiSample(network, 1), "1 sample")):
            with pytest.raises(GradbenchError) as caught:
                ESTIMATORS[name].make(model)
            assert str(caught.value) == (
                f"{name} got a model that is {what}; give a MultiSample of at least 2 samples"
            )
    with pytest.raises(GradbenchError, match="double_cv is an estimator for one stochastic layer"):
        jax.eval_shape(double_cv(network, alpha=0.0), params, jax.random.key(0), batch)
    assert ESTIMATORS["double_cv"].layers == "one"


def test_a_front_end_that_cannot_be_is_refused_in_one_sentence():
    from gradbench.models.binary_weights import BinaryWeights

    network = dense_network((2, 3, 1))
    for samples in (0, 1.5, True, "2"):
        with pytest.raises(GradbenchError) as caught:
            MultiSample(network, samples)
        assert str(caught.value) == f"samples is {samples!r}; give a whole number of at least 1"
    with pytest.raises(GradbenchError) as caught:
        MultiSample(BinaryWeights(network, activations=psa))
    assert str(caught.value) == (
        "MultiSample got a BinaryWeights, whose examples share their states; "
        "give a model of one example"
    )
