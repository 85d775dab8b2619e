"""Combinations: what they claim follows exactly from their parts, in exact moments and by draw."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, random_batch, random_params, relative, small

from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.core.specs import canonical
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.estimators import (
    average,
    check_spec,
    get_estimator,
    make_estimator,
    mean_of,
    per_layer,
    psa,
    straight_through,
)
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.registry import price_of
from gradbench.exact.enumeration import expected_loss
from gradbench.exact.moments import moments
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, RealNetwork

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

KEY = jax.random.key(0)


def chain(noise=("normal", "uniform"), **options):
    """Three units in two layers."""
    network, params, batch = small((2, 2, 1, 1), noise, seed=5, **options)
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    return network, params, jax.tree.map(lambda leaf: leaf[:2], batch)


def one_unit():
    """A unit and an example: what is driven by uniforms is integrated over few of them."""
    network, params, batch = small((1, 1, 1), "laplace", seed=5)
    return network, *jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda x: x[:1], batch)))


def two_examples():
    """A unit again: for what couples the examples."""
    network, params, batch = small((1, 1, 1), "normal", seed=6)
    return network, *jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda x: x[:2], batch)))


@cache
def exactly(case, spec):
    """Exact moments of a spec: of states under jit, which the integral over uniforms is not."""
    network, params, batch = case()
    return exact_moments(make_estimator(spec, network), params, batch)


def exact_moments(loss, params, batch):
    if loss.randomness == "uniforms":
        return moments(loss, params, batch)
    return jax.jit(lambda params: moments(loss, params, batch))(params)


@cache
def truth(case):
    network, params, batch = case()
    return jax.jit(jax.grad(lambda params: expected_loss(network, params, batch)))(params)


def draws(losses, params, batch, count=3):
    """Values and gradients of some losses with the same keys."""

    @jax.jit
    def of(key):
        return [jax.value_and_grad(loss)(params, key, batch) for loss in losses]

    keys = jax.random.split(KEY, count)
    return jax.tree.map(lambda *x: np.stack(x), *map(of, keys))


def same(a, b, tolerance=1e-12):
    np.testing.assert_allclose(flat(a), flat(b), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------------------- mean_of


@pytest.mark.parametrize(
    ("case", "spec", "count", "tolerance"),
    [
        (chain, "reinforce", 2, 1e-12),
        pytest.param(one_unit, "reinforce", 3, 1e-12, marks=pytest.mark.slow),
        (one_unit, "rloo(samples=2)", 2, 1e-12),  # two streams of its own
        (two_examples, "reinforce_leave_one_out", 2, 1e-12),  # couples the examples
        pytest.param(one_unit, "disarm", 2, 1e-12, marks=pytest.mark.slow),  # linear in uniforms
        (one_unit, "st_gumbel_softmax(temperature=0.5)", 2, 1e-9),  # smooth in them
    ],
)
@pytest.mark.slow
def test_the_mean_of_k_draws_has_the_same_mean_and_a_kth_of_the_variance(
    case, spec, count, tolerance
):
    one = exactly(case, spec)
    mean = exactly(case, f"mean_of(estimator={spec!r}, draws={count})")
    assert relative(mean.mean, one.mean) < tolerance
    assert relative(mean.variance, jax.tree.map(lambda v: v / count, one.variance)) < tolerance
    np.testing.assert_allclose(mean.value, one.value, rtol=tolerance)


@pytest.mark.slow
def test_draws_that_share_their_noise_or_are_not_averaged_are_seen():
    network, params, batch = one_unit()
    part, one = make_estimator("reinforce", network), exactly(one_unit, "reinforce")

    def of(params, u, example):
        return part.example_loss(params, u, example)

    def shared(params, u, example):
        return (of(params, u[:1], example) + of(params, u[:1], example)) / 2

    def total(params, u, example):
        return of(params, u[:1], example) + of(params, u[1:], example)

    wrong, sum_ = (
        exact_moments(surrogate_loss(network, loss, streams=2), params, batch)
        for loss in (shared, total)
    )
    same(wrong.variance, one.variance)
    same(sum_.mean, jax.tree.map(lambda m: 2 * m, one.mean))


def test_a_draw_is_the_mean_of_those_on_its_streams_the_first_on_that_of_the_path():
    network, params, batch = one_unit()
    part, both = make_estimator("concrete", network), mean_of(network, estimator="concrete")
    assert both.streams == 2 and mean_of(network, estimator="concrete", draws=1).streams == 1
    u = tuple((jnp.full(1, v),) for v in (0.3, 0.8))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    parts = [jax.jit(part.example_loss)(params, (v,), example) for v in u]
    assert parts[0] != parts[1]
    mean = jax.jit(both.example_loss)(params, u, example)
    np.testing.assert_allclose(mean, np.mean(parts), rtol=1e-14)


def test_an_estimator_without_randomness_is_drawn_once():
    loss = mean_of(chain()[0], estimator="mean_field", draws=5)
    assert (loss.randomness, loss.streams) == ("none", 0)
    assert price_of("mean_of(estimator='mean_field')") == price_of("mean_field")


@pytest.mark.slow
def test_draws_of_binary_weights_have_activations_of_their_own():
    """With weights that are certain all randomness is that of the activations."""
    layers = (Dense(1, 3),)
    model = BinaryWeights(
        SBN(layers, Readout(3, 1)), lambda network: make_estimator("reinforce", network)
    )
    params = jax.tree.map(lambda leaf: 40 * jnp.ones(leaf.shape), model.init(KEY))
    params = tuple(theta | {"bias": 0 * theta["bias"]} for theta in params)
    batch = (jnp.zeros((2, 1)), jnp.ones(2))
    (one, _), (mean, _) = draws(
        [make_estimator("reinforce", model), mean_of(model)], params, batch, count=8
    )
    assert np.any(one != mean)
    assert not np.array_equal(one, np.full(8, one[0]))


# ---------------------------------------------------------------------------------- average


@pytest.mark.slow
def test_in_one_layer_the_average_of_straight_through_and_zgr_is_st_zgr_draw_by_draw():
    network, params, batch = small((2, 3, 1), "laplace", seed=5)
    (_, one), (_, other) = draws(
        [average(network, weight=0.3), make_estimator("st_zgr(alpha=0.3)", network)], params, batch
    )
    same(one, other)


@pytest.mark.parametrize(
    ("case", "first", "second", "tolerance"),
    [
        pytest.param(one_unit, "reinforce", "mean_field", 1e-12, marks=pytest.mark.slow),
        (two_examples, "reinforce_leave_one_out", "zgr", 1e-12),
        (one_unit, "reinforce", "disarm", 1e-12),
        pytest.param(
            one_unit,
            "disarm",
            "st_gumbel_softmax(temperature=0.5)",
            1e-9,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_the_mean_of_an_average_is_that_of_the_exact_means(case, first, second, tolerance):
    one, other = exactly(case, first), exactly(case, second)
    both = exactly(case, f"average(first={first!r}, second={second!r}, weight=0.25)")
    mixed = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, one, other)
    assert relative(both.mean, mixed.mean) < tolerance
    np.testing.assert_allclose(both.value, mixed.value, rtol=tolerance)


@pytest.mark.slow
def test_an_average_is_one_of_the_same_noise():
    """Var (g + g) / 2 = Var g on the same noise; of independent draws it would be half."""
    both = exactly(one_unit, "average(first='reinforce', second='reinforce')")
    assert relative(both.variance, exactly(one_unit, "reinforce").variance) < 1e-12


@pytest.mark.slow
def test_an_average_with_the_exact_gradient_halves_the_deviation_of_every_draw():
    network, params, batch = chain()
    loss = average(network, first="exact", second="straight_through")
    (_, one), (_, both) = draws([straight_through(network), loss], params, batch)
    same(both, jax.tree.map(lambda g, t: (g + t) / 2, one, truth(chain)))
    assert loss.randomness == "uniforms" and not isinstance(loss, SurrogateLoss)
    with pytest.raises(
        GradbenchError, match="exact moments need an estimator made by surrogate_loss"
    ):
        moments(loss, params, batch)


# -------------------------------------------------------------------------------- per_layer


def by_hand(params, example, binary):
    """A skip connection: each layer reads all below."""
    x = binary(params[0]["weight"] @ example[0] + params[0]["bias"])
    y = binary(params[1]["weight"] @ x + params[1]["bias"], noise="normal")
    return jnp.exp(params[2] @ jnp.concatenate([x, y]) / 4) + example[1] * x[0]


def by_hand_case():
    params = (*random_params((2, 2, 1), seed=3), np.array([0.4, -0.7, 0.9]))
    return by_hand, jax.tree.map(jnp.asarray, params), random_batch(2, examples=2)


@pytest.mark.parametrize("case", [chain, by_hand_case], ids=["chain", "by hand"])
@pytest.mark.slow
def test_every_layer_has_the_gradient_of_its_own_estimator_draw_by_draw(case):
    model, params, batch = case()
    specs = ("reinforce", "zgr", "psa")
    parts = [make_estimator(spec, model) for spec in specs]
    three = per_layer(model, layers="reinforce, zgr, psa")
    two = per_layer(model, layers="reinforce,zgr")
    *singles, (value, g), (_, h) = draws([*parts, three, two], params, batch)
    for k, (_, own) in enumerate(singles):
        same(g[k], own[k])
    np.testing.assert_allclose(value, np.mean([v for v, _ in singles], axis=0), rtol=1e-14)
    same(h, (singles[0][1][0], singles[1][1][1], singles[1][1][2]))


def multilinear():
    return chain(loss=lambda out, target: out[0] * target)


@pytest.mark.slow
def test_layers_with_estimators_that_are_unbiased_there_have_no_bias():
    """Straight-through is exact in the last layer on a multilinear objective, biased below."""
    right = truth(multilinear)
    good, bad = (
        exactly(multilinear, f"per_layer(layers={layers!r})").mean
        for layers in ("reinforce, straight_through", "straight_through, reinforce")
    )
    assert relative(good, right) < 1e-10
    assert relative(bad[0], right[0]) > 1e-3
    assert relative(bad[1:], right[1:]) < 1e-10


@pytest.mark.slow
def test_a_gradient_of_the_objective_that_is_counted_for_every_estimator_is_seen():
    network, params, batch = one_unit()
    parts = [make_estimator(spec, network) for spec in ("reinforce", "zgr")]

    def unmasked(params, u, example):
        return sum(part.example_loss(params, u, example) for part in parts)

    right = truth(one_unit)[1]
    wrong = exact_moments(surrogate_loss(network, unmasked), params, batch).mean[1]
    assert relative(wrong, jax.tree.map(lambda g: 2 * g, right)) < 1e-10
    found = exactly(one_unit, "per_layer(layers='reinforce, zgr')").mean[1]
    assert relative(found, right) < 1e-10


@pytest.mark.slow
def test_an_estimator_driven_by_uniforms_makes_a_mixture_of_that_kind():
    loss = make_estimator("per_layer(layers='reinforce, arm')", one_unit()[0])
    assert (loss.randomness, loss.smoothness) == ("uniforms", "linear")
    found = exactly(one_unit, "per_layer(layers='arm, reinforce')")
    assert relative(found.mean, truth(one_unit)) < 1e-10


# --------------------------------------------------------------------------- learned parts


@pytest.mark.slow
def test_a_combination_has_the_learned_parts_of_its_parts():
    network, params, batch = one_unit()
    part = make_estimator("moving_average", network)
    loss = average(network, first="moving_average", second="zgr")
    assert isinstance(loss, Learned) and loss.randomness == "states"
    begun = loss.init(params, batch)
    assert begun == (part.init(params, batch), ())
    own, state = jax.jit(
        lambda: (
            part.adapt(part.init(params, batch), params, KEY, batch),
            loss.adapt(begun, params, KEY, batch),
        )
    )()
    same(state[0], own)
    one, both = (exact_moments(f, params, batch) for f in (part.frozen(own), loss.frozen(state)))
    zgr = exactly(one_unit, "zgr")
    assert relative(both.mean, jax.tree.map(lambda a, b: (a + b) / 2, one.mean, zgr.mean)) < 1e-12
    fitted = mean_of(network, estimator="moving_average").fit(params, KEY, batch, steps=3)
    assert isinstance(fitted, SurrogateLoss) and fitted.streams == 2


# ------------------------------------------------------------------- what is said and refused


@pytest.mark.parametrize(
    ("spec", "claim", "formulas", "numbers"),
    [
        ("mean_of", "unbiased", ("draws", "0", "draws * L"), (2, 0, 6)),
        (
            "mean_of(estimator='zgr', draws=3)",
            "quadratic",
            ("draws", "draws", "draws * L"),
            (3, 3, 9),
        ),
        (
            "mean_of(estimator='rloo(samples=4)')",
            "unbiased",
            ("draws * 4", "0", "draws * (4 * L)"),
            (8, 0, 24),
        ),
        ("average", "multilinear", ("2", "2", "L + L"), (2, 2, 6)),
        (
            "average(first='psa', second='zgr')",
            "quadratic",
            ("n + 1 + 1", "1", "2 * L - 1 + L"),
            (4, 1, 8),
        ),
        ("per_layer(layers='zgr, reinforce, zgr')", "quadratic", ("2", "1", "L + L"), (2, 1, 6)),
        (
            "per_layer(layers='mean_of(draws=3), zgr')",
            "quadratic",
            ("4", "1", "3 * L + L"),
            (4, 1, 12),
        ),
    ],
)
def test_claim_and_cost_follow_from_the_parts(spec, claim, formulas, numbers):
    entry, arguments = get_estimator(spec)
    assert entry.claim(**arguments) == claim
    price = entry.price(**arguments)
    assert tuple(map(str, (price.objective, price.gradient, price.layers))) == formulas
    sizes = {"L": 3, "D": 7, "n": 2, **entry.hyperparameters, **arguments}
    assert price.evaluate(**sizes) == numbers
    assert price_of(spec).evaluate(L=3, D=7, n=2) == numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mean_of( draws=2.0 )", "mean_of(draws=2)"),
        (
            "mean_of(estimator='concrete( temperature=1.0)')",
            "mean_of(estimator='concrete(temperature=1)')",
        ),
        ("average(second='psa()')", "average(second='psa')"),
        ("per_layer(layers='psa ,zgr()')", "per_layer(layers='psa, zgr')"),
        (
            "per_layer(layers=\"reinmax(temperature=2.0), average(first='psa()', weight=1.0)\")",
            "per_layer(layers=\"reinmax(temperature=2), average(first='psa', weight=1)\")",
        ),
    ],
)
def test_the_specs_inside_a_spec_are_canonical_too(text, expected):
    assert canonical(text) == expected == canonical(expected)
    check_spec(expected)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mean_of(draws=0)", "draws is 0; give a whole number of at least 1"),
        ("mean_of(estimator='psb')", "unknown estimator 'psb'; did you mean 'psa'?"),
        ("mean_of(estimator='psa, zgr')", "the estimator 'psa, zgr' is malformed"),
        ("mean_of(estimator=2)", "the estimator 2 is malformed"),
        ("average(weight=1.5)", "weight is 1.5; give a number from 0 to 1"),
        ("average(first='concrete(temperature=0)')", "temperature is 0; give a positive number"),
        ("per_layer(layers='')", "the estimators '' are malformed; write several with commas"),
        ("per_layer(layers='psa; zgr')", "the estimators 'psa; zgr' are malformed"),
        ("per_layer(layers='psa], [zgr')", "the estimators 'psa], [zgr' are malformed"),
        ("per_layer(layers='psa, psb')", "unknown estimator 'psb'; did you mean 'psa'?"),
        ("per_layer(layers='psa, 2')", "the estimator '2' is malformed"),
    ],
)
def test_a_wrong_combination_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)


def test_more_estimators_than_entries_of_parameters_are_refused():
    network, params, batch = chain()
    with pytest.raises(GradbenchError, match="layers has 4 estimators for 3 entries of parameters"):
        jax.eval_shape(per_layer(network, layers="psa, psa, psa, zgr"), params, KEY, batch)


def test_an_estimator_for_one_layer_is_refused_for_several_inside_a_combination_too():
    network, params, batch = chain()
    with pytest.raises(GradbenchError, match="top_c is an estimator for one stochastic layer"):
        jax.eval_shape(mean_of(network, estimator="top_c"), params, KEY, batch)


@pytest.mark.slow
def test_combinations_work_for_binary_weights_with_and_without_activations():
    layers, batch = (Dense(2, 2),), (jnp.ones((3, 2)), jnp.ones(3))
    alone = BinaryWeights(RealNetwork(layers, Readout(2, 1)))
    nested = "nested(weights='per_layer', activations='average')"
    stochastic = BinaryWeights(SBN(layers, Readout(2, 1)), psa)
    params = alone.init(KEY)
    losses = [
        average(alone),
        make_estimator(nested, stochastic),
        mean_of(stochastic, estimator="nested(weights='reinforce')"),
    ]
    for value, g in draws(losses, params, batch):
        assert np.all(np.isfinite(value)) and np.all(np.isfinite(flat(g)))
        assert np.any(flat(g) != 0)


@pytest.mark.slow
def test_combinations_are_finite_at_saturation_in_float32():
    with single():
        network, params, batch = small((2, 3, 2, 1), ("triangular", "logistic"))
        params[0]["bias"][:], params[1]["bias"][:] = [40, -40, 0], [-40, 40]
        params, batch = jax.tree.map(lambda w: jnp.asarray(np.float32(w)), (params, batch))
        losses = [mean_of(network), average(network), per_layer(network)]
        found = draws(losses, params, batch)
    for value, g in found:
        assert value.dtype == np.float32 and {w.dtype for w in jax.tree.leaves(g)} == {value.dtype}
        assert np.all(np.isfinite(value)) and np.all(np.isfinite(flat(g)))
