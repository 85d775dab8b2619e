"""Estimators against enumeration: what is claimed to be unbiased is, and planted bugs are seen.

Everything driven by states has exact moments; ARM is integrated exactly over its uniforms, in which
a draw is piecewise linear. There is no Monte-Carlo error here, and no false alarm.
"""

import inspect
import itertools
from fractions import Fraction
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bugs import wrong_arm, wrong_disarm, wrong_reinforce, wrong_straight_through
from conftest import flat, precision, random_batch, random_params, small
from jax.lax import stop_gradient

from gradbench.core.arguments import positive
from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.precision import single
from gradbench.core.run import flip, run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    ESTIMATORS,
    arm,
    check_spec,
    concrete,
    disarm,
    get_estimator,
    make_estimator,
    psa,
    reinforce,
    straight_through,
)
from gradbench.estimators.exactness import EXACTNESS
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-10  # relative, for what is unbiased
BIASED = 1e-3  # relative, for what must be seen
DEEP = (2, 3, 2, 2, 1)


def linear(out, target):
    return out[0] * target


def by_hand(params, example, binary):
    """Five lines of a user: a skip connection, two noises, an objective that is not multilinear."""
    x = binary(params[0]["weight"] @ example[0] + params[0]["bias"])
    y = binary(params[1]["weight"] @ x + params[1]["bias"], noise="normal")
    z = binary(params[2]["weight"] @ jnp.concatenate([x, y]), noise="laplace")
    return jnp.exp(params[3] @ jnp.concatenate([x, z]) / 4) + example[1] * y[0]


def by_hand_params():
    generator = np.random.default_rng(4)
    first, second = random_params((2, 2, 2), seed=3)
    third = {"weight": generator.uniform(-1, 1, (2, 4))}
    return jax.tree.map(jnp.asarray, (first, second, third, generator.uniform(-1, 1, 4)))


def errors(estimated, gradient):
    """Per layer, the distance to the exact gradient relative to its norm."""
    return np.array(
        [
            np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))
            for a, b in zip(estimated, gradient, strict=True)
            if jax.tree.leaves(b)
        ]
    )


@cache
def exact_moments(make, model):
    """Compiled: the exact value and gradient, and the exact moments of an estimator."""

    @jax.jit
    def both(params, batch):
        truth = jax.value_and_grad(partial(brute_force, model))(params, batch)
        return truth, moments(make(model), params, batch)

    return both


def exact_bias(make, model, params, batch):
    """Exact relative bias per layer, and of the value, by enumeration of all paths."""
    (value, gradient), found = exact_moments(make, model)(params, batch)
    return errors(found.mean, gradient), abs(found.value - value) / abs(value)


def integrated_bias(make, network, params, batch):
    """The same for estimators of the uniforms: an exact integral over u, cell by cell.

    A draw of ARM is a polynomial of degree 1 in each u_j between the values where a state changes,
    u = F(a) and u = 1 - F(a) for the pre-activations a of the layer: midpoints are exact.
    """
    x0, target = batch[0][0], batch[1][0]
    below, axes = x0[None], []
    for layer, theta in zip(network.layers, params, strict=False):
        p = np.asarray(get_noise(layer.noise).cdf(below @ theta["weight"].T + theta["bias"]))
        ends = [np.unique(np.concatenate([[0, 1], q, 1 - q])) for q in p.T]
        axes += [list(zip((e[1:] + e[:-1]) / 2, np.diff(e), strict=True)) for e in ends]
        below = np.array(list(itertools.product((-1.0, 1.0), repeat=layer.outputs)))
    cells = np.array(list(itertools.product(*axes)))
    middles, volumes = cells[..., 0], np.prod(cells[..., 1], axis=1)
    widths = np.cumsum([layer.outputs for layer in network.layers])[:-1]
    u = tuple(np.split(middles, widths, axis=1))
    example = (x0, target)

    @jax.jit
    def both(params):
        truth = jax.value_and_grad(partial(brute_force, network))(
            params, (x0[None], jnp.array([target]))
        )
        draw = jax.vmap(jax.value_and_grad(make(network).example_loss), in_axes=(None, (0,), None))
        values = jax.tree.map(
            lambda leaf: jnp.tensordot(volumes, leaf, 1), draw(params, (u,), example)
        )
        return truth, values

    (value, gradient), (mean_value, mean) = both(jax.tree.map(jnp.asarray, params))
    return errors(mean, gradient), abs(mean_value - value) / abs(value)


# ----------------------------------------------------------------- planted bugs, for contrast


class WrongFlips(SBN):
    """A network whose layers answer flips with the wrong sign."""

    def flip_pullback(self, params, run, k, g):
        return -super().flip_pullback(params, run, k, g)


# ---------------------------------------------------------------------------- REINFORCE


@pytest.mark.parametrize(
    ("sizes", "noise"),
    [
        pytest.param((2, 3, 2, 1), ("normal", "uniform"), marks=pytest.mark.slow),
        (DEEP, ("laplace", "triangular", "logistic")),
    ],
)
@pytest.mark.slow
def test_reinforce_is_unbiased_at_every_depth_and_noise(sizes, noise):
    network, params, batch = small(sizes, noise, seed=7)
    bias, value = exact_bias(reinforce, network, params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT


def test_reinforce_is_unbiased_on_a_hand_written_model():
    bias, value = exact_bias(reinforce, by_hand, by_hand_params(), random_batch(2, examples=2))
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_a_factor_2_in_reinforce_is_seen():
    bias, _ = exact_bias(wrong_reinforce, *small((2, 3, 1), seed=7))
    np.testing.assert_allclose(bias[0], 1, rtol=1e-9)
    assert bias[1] < EXACT


# -------------------------------------------------------------------------------- ARM


@pytest.mark.parametrize("make", [arm, disarm])
@pytest.mark.parametrize(
    ("sizes", "noise"),
    [
        ((2, 3, 1), ("logistic",)),
        ((1, 2, 1, 1), ("normal", "uniform")),
        pytest.param(
            (1, 1, 1, 1, 1), ("laplace", "triangular", "logistic"), marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.first(1)
def test_arm_and_disarm_are_unbiased_at_every_depth_and_noise(sizes, noise, make):
    network, params, batch = small(sizes, noise, seed=3)
    bias, value = integrated_bias(make, network, params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_a_wrong_sign_in_arm_is_seen():
    bias, _ = integrated_bias(wrong_arm, *small((1, 2, 1, 1), seed=3))
    np.testing.assert_allclose(bias[:2], 2, rtol=1e-9)


@pytest.mark.slow
def test_a_lost_sign_in_disarm_is_seen_one_layer_has_mean_zero():
    bias, _ = integrated_bias(wrong_disarm, *small((1, 2, 1), seed=3))
    np.testing.assert_allclose(bias[0], 1, rtol=1e-9)


@pytest.mark.slow
def test_integration_over_the_uniforms_agrees_with_exact_moments():
    network, params, batch = small((1, 2, 2, 1), seed=2)
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    by_paths, _ = exact_bias(straight_through, network, params, one)
    by_cells, _ = integrated_bias(straight_through, network, params, one)
    assert by_paths[0] > BIASED
    np.testing.assert_allclose(by_cells, by_paths, atol=1e-12)


# --------------------------------------------------------------------- straight-through


def product(theta, x, target):
    """Multilinear, not linear."""
    return theta * jnp.prod(x) + target * x[0] * x[1] + x[2]


def multilinear_network(noise):
    return SBN((Dense(2, 3, noise),), product), (*random_params((2, 3)), np.array(0.7))


@pytest.mark.parametrize("noise", ["normal", "uniform", "laplace"])
@pytest.mark.slow
def test_straight_through_is_unbiased_in_one_layer_on_multilinear_objectives(noise):
    bias, value = exact_bias(straight_through, *multilinear_network(noise), random_batch(2))
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_half_the_slope_in_straight_through_is_seen():
    bias, _ = exact_bias(wrong_straight_through, *multilinear_network("normal"), random_batch(2))
    np.testing.assert_allclose(bias[0], 0.5, rtol=1e-9)


@pytest.mark.parametrize("make", [straight_through, psa])
@pytest.mark.slow
def test_uniform_noise_unsaturated_and_a_linear_objective_leave_no_bias_at_any_depth(make):
    network, params, batch = small(DEEP, "uniform", loss=linear, scale=0.15)
    bias, value = exact_bias(make, network, params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT
    for theta in params[:-1]:  # unsaturated whatever the states below
        assert np.max(np.abs(theta["bias"]) + np.abs(theta["weight"]).sum(1) * 2) < 1.6
    saturated, _ = exact_bias(make, *small(DEEP, "uniform", loss=linear, scale=1.0))
    assert saturated[0] > BIASED


@pytest.mark.slow
def test_straight_through_is_biased_on_other_objectives_and_in_deep_networks():
    square = SBN((Dense(2, 3),), lambda theta, x, target: (jnp.sum(x * theta) + target) ** 2)
    params = (*random_params((2, 3)), np.array([0.3, 0.5, -0.9]))
    bias, value = exact_bias(straight_through, square, params, random_batch(2))
    assert bias[0] > BIASED
    assert value < EXACT
    bias, _ = exact_bias(straight_through, *small((2, 3, 2, 1), loss=linear))
    assert bias[0] > BIASED
    assert np.all(bias[1:] < EXACT)


# --------------------------------------------------------------------------------- PSA


def peculiar(theta, x, target):
    """Neither multilinear nor smooth."""
    return jnp.exp(theta * jnp.sum(x)) + jnp.maximum(x[0], target) * jnp.abs(x[1] + x[2] + 0.3)


@pytest.mark.parametrize("noise", ["logistic", "uniform", "triangular"])
@pytest.mark.slow
def test_psa_is_unbiased_in_one_layer_on_any_objective(noise):
    network = SBN((Dense(2, 4, noise),), peculiar)
    params = (*random_params((2, 4)), np.array(0.4))
    bias, value = exact_bias(psa, network, params, random_batch(2))
    assert np.all(bias < EXACT)
    assert value < EXACT


def test_psa_is_exact_in_the_last_layer_the_objective_and_the_value_and_biased_below():
    bias, value = exact_bias(psa, *small(DEEP, seed=2))
    assert np.all(bias[2:] < EXACT)
    assert value < EXACT
    assert np.all(bias[:2] > BIASED)


def test_the_bias_of_psa_falls_with_the_scale_of_the_weights():
    large, small_ = (exact_bias(psa, *small(DEEP, scale=s))[0] for s in (1.0, 0.25))
    assert np.all(small_[:2] < large[:2] / 4)


@pytest.mark.slow
def test_psa_is_unbiased_if_all_layers_above_the_first_have_width_1():
    bias, value = exact_bias(psa, *small((2, 4, 1, 1, 1), "triangular", seed=4))
    assert np.all(bias < EXACT)
    assert value < EXACT


def tree():
    """Each unit feeds at most one unit above: four units, two, one, and two that nobody reads."""
    network, params, batch = small((2, 4, 3, 2, 1), "laplace", seed=6)
    params[1]["weight"] *= np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    params[2]["weight"] *= np.array([[1, 1, 0], [0, 0, 1]])
    return network, params, batch


@pytest.mark.slow
def test_psa_is_unbiased_if_each_unit_feeds_at_most_one_unit_above():
    network, params, batch = tree()
    bias, value = exact_bias(psa, network, params, batch)
    assert np.all(bias[[0, 2, 3]] < EXACT)
    assert value < EXACT
    # Of the weights only those that are there: the zeros are no part of the tree.
    (_, truth), found = exact_moments(psa, network)(params, batch)
    there = params[1]["weight"] != 0
    np.testing.assert_allclose(
        found.mean[1]["weight"][there], truth[1]["weight"][there], rtol=1e-9, atol=1e-13
    )


@pytest.mark.slow
def test_a_wrong_sign_of_the_flips_in_psa_is_seen():
    network, params, batch = small((2, 3, 1, 1))
    wrong = WrongFlips(network.layers, network.objective)
    bias, _ = exact_bias(psa, wrong, params, batch)
    np.testing.assert_allclose(bias[0], 2, rtol=1e-9)
    assert bias[1] < EXACT


def linearised_psa(model):
    """PSA with both differences replaced by derivatives, and without its (1 - P)/n term."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        fixed = stop_gradient(params)
        x, last = stop_gradient(run.x), len(run.x) - 1

        def above(k, x_k):
            other = run_at_states(model, fixed, example, (*x[:k], x_k, *x[k + 1 :]))
            return other.f if k == last else other.a[k + 1]

        loss, signal = run.f, jnp.ones(())
        for k in reversed(range(last + 1)):
            _, pull = jax.vjp(partial(above, k), x[k])
            delta = -2 * x[k] * pull(signal)[0]  # flipping x is a step of -2x
            signal = -x[k] * delta * run.sites[k].noise.pdf(stop_gradient(run.a[k]))
            loss += gradient_term(signal, run.a[k])
        return loss

    return surrogate_loss(model, example_loss)


@pytest.mark.parametrize("noise", [pytest.param("logistic", marks=pytest.mark.slow), "triangular"])
@pytest.mark.slow
def test_linearised_psa_is_straight_through_draw_by_draw(noise):
    network, params, batch = small(DEEP, noise)

    @jax.jit
    def draws(keys):
        makes = (linearised_psa, straight_through, psa)
        return [
            jax.vmap(lambda k, m=m: jax.grad(m(network))(params, k, batch))(keys) for m in makes
        ]

    one, two, full = draws(jax.random.split(jax.random.key(0), 5))
    np.testing.assert_allclose(flat(one), flat(two), rtol=1e-11, atol=1e-14)
    assert np.max(np.abs(flat(full) - flat(two))) > BIASED


@pytest.mark.parametrize("noise", ["normal", pytest.param("uniform", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_the_fast_form_of_psa_is_the_generic_one_draw_by_draw(noise):
    network, params, batch = small(DEEP, noise, states=(0, 1))

    def generic(params, example, binary):
        return network(params, example, binary)

    @jax.jit
    def draws(keys):
        return [
            jax.vmap(lambda k, m=m: jax.value_and_grad(psa(m))(params, k, batch))(keys)
            for m in (network, generic)
        ]

    fast, slow = draws(jax.random.split(jax.random.key(0), 5))
    np.testing.assert_allclose(flat(fast), flat(slow), rtol=1e-11, atol=1e-14)


def literal_psa(model):
    """PSA as its reference sheet writes it: every unit carries a quantity q of value zero."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        x = stop_gradient(run.x)
        last = len(x) - 1
        units = [(k, i) for k, state in enumerate(x) for i in range(state.size)]

        def flipped(params, k, i):
            other = flip(x[k], i)
            return run_at_states(model, params, example, (*x[:k], other, *x[k + 1 :]))

        runs = {unit: flipped(params, *unit) for unit in units}
        q = {}
        for k, j in units:
            cdf = run.sites[k].noise.cdf
            base = -x[k][j] * cdf(run.a[k][j])
            total = base
            for (m, i), value in q.items():
                if m < k:
                    with_flip = -x[k][j] * cdf(runs[m, i].a[k][j])
                    total += stop_gradient(with_flip - base) * value
            q[k, j] = total - stop_gradient(total)
        value = run.f
        for (k, i), carried in q.items():
            p = run.sites[k].noise.probability(x[k][i], stop_gradient(run.a[k][i]))
            weight = (1 - p) / x[last].size if k == last else 0.0
            change = runs[k, i].f - run.f
            value += change * weight + stop_gradient(change) * carried
        return value

    return surrogate_loss(model, example_loss)


@pytest.mark.slow
def test_psa_of_a_model_with_skip_connections_is_the_literal_recursion():
    params, batch = by_hand_params(), random_batch(2)

    @jax.jit
    def draws(keys):
        return [
            jax.vmap(lambda k, m=m: jax.value_and_grad(m(by_hand))(params, k, batch))(keys)
            for m in (psa, literal_psa)
        ]

    one, two = draws(jax.random.split(jax.random.key(3), 4))
    np.testing.assert_allclose(flat(one), flat(two), rtol=1e-11, atol=1e-14)


# ---------------------------------------------------------------------------- all of them

IDENTITY = "straight_through(proxy='identity')"
SPECS = ("exact", "reinforce", "arm", "concrete(temperature=0.5)", "straight_through", IDENTITY)
SPECS += ("mean_field", "psa", "zgr", "darn(phi=0.3)", "reinmax(temperature=2)")
SPECS += ("disarm", "st_gumbel_softmax(temperature=0.5)")

# One of each kind; the certificate of every estimator of the registry is in test_certificate.py.


FEW = ("exact", "reinforce", "arm", "concrete(temperature=0.5)", "straight_through", "psa")


@pytest.mark.parametrize(
    ("specs", "double"),
    [
        (FEW, False),
        pytest.param(SPECS, False, marks=pytest.mark.slow),
        pytest.param(SPECS, True, marks=pytest.mark.slow),
    ],
    ids=["few", "float32", "float64"],
)
@pytest.mark.slow
def test_every_estimator_of_a_model_by_hand_runs_under_jit_vmap_and_grad_and_is_pure(specs, double):
    batch = random_batch(2)
    with single() if not double else precision(True):
        params = jax.tree.map(lambda w: jnp.asarray(np.asarray(w), float), by_hand_params())
        keys = jax.random.split(jax.random.key(0), 3)[jnp.array([0, 1, 0])]

        @jax.jit
        def all_draws(keys):
            losses = {spec: make_estimator(spec, by_hand) for spec in specs}
            return {
                spec: jax.vmap(jax.value_and_grad(loss), (None, 0, None))(params, keys, batch)
                for spec, loss in losses.items()
            }

        draws = all_draws(keys)
    for spec, (value, g) in draws.items():
        assert jax.tree.structure(g) == jax.tree.structure(params)
        assert {w.dtype for w in jax.tree.leaves(g)} == {w.dtype for w in jax.tree.leaves(params)}
        assert {w.dtype.itemsize for w in jax.tree.leaves(g)} == {8 if double else 4}
        rows = np.concatenate(
            [np.reshape(w, (3, -1)) for w in (value, *jax.tree.leaves(g))], axis=1
        )
        assert np.all(np.isfinite(rows)), spec
        np.testing.assert_array_equal(rows[0], rows[2])  # the same key, the same draw
        none = get_estimator(spec)[0].randomness == "none"
        assert np.array_equal(rows[0], rows[1]) == none, spec


@pytest.mark.parametrize(
    "noise",
    [
        ("uniform", "laplace"),
        pytest.param(("logistic", "normal"), marks=pytest.mark.slow),
        pytest.param(("laplace", "triangular"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_saturated_pre_activations_give_every_estimator_the_right_gradient(noise):
    """With every unit at |a| >= 1e4 the network is deterministic: every draw is the gradient.

    Of all but the identity rule, which has the derivative 1 there too.
    """
    specs = [spec for spec in SPECS if spec != IDENTITY]
    network, params, batch = small((2, 3, 2, 1), noise)
    params[0]["bias"][:] = [1e4, -1e4, 2e4]
    params[1]["bias"][:] = [-1e4, 1e4]
    x = jnp.array([-1.0, 1.0])

    @jax.jit
    def all_draws(params):
        objective = jax.vmap(partial(network.objective, params[-1], x))
        right = jax.grad(
            lambda theta: jnp.mean(jax.vmap(partial(network.objective, theta, x))(batch[1]))
        )(params[-1])
        draws = [
            jax.value_and_grad(make_estimator(spec, network))(params, jax.random.key(0), batch)
            for spec in specs
        ]
        return jnp.mean(objective(batch[1])), right, draws

    f, right, draws = all_draws(jax.tree.map(jnp.asarray, params))
    for spec, (value, g) in zip(specs, draws, strict=True):
        np.testing.assert_allclose(value, f, rtol=1e-13, err_msg=spec)
        np.testing.assert_array_equal(flat(g[:-1]), 0, err_msg=spec)
        np.testing.assert_allclose(flat(g[-1]), flat(right), rtol=1e-12, err_msg=spec)


def test_what_a_draw_depends_on_is_what_the_registry_says():
    """Uniforms moved without a change of any state move the draws of some estimators only."""
    network, params, batch = small((2, 3, 2, 1))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = (jnp.array([0.3, 0.6, 0.9]), jnp.array([0.2, 0.7]))

    @jax.jit
    def elsewhere(u):
        states = sampled(network, params, u, example).x
        return tuple(jnp.where(x > 0, v / 2, (1 + v) / 2) for x, v in zip(states, u, strict=True))

    @jax.jit
    def draws(u):
        return {
            spec: jax.grad(make_estimator(spec, network).example_loss)(params, (u,), example)
            for spec in SPECS
            if spec != "exact"
        }

    one, two = draws(u), draws(elsewhere(u))
    for spec in one:
        same = np.array_equal(flat(one[spec]), flat(two[spec]))
        assert same == (get_estimator(spec)[0].randomness != "uniforms"), spec


@pytest.mark.slow
def test_the_value_of_exact_is_the_loss_and_that_of_mean_field_is_not():
    network, params, batch = small((2, 3, 2, 1))
    value, exact, mean_field = jax.jit(
        lambda p: (
            brute_force(network, p, batch),
            *(
                make_estimator(s, network)(p, jax.random.key(0), batch)
                for s in ("exact", "mean_field")
            ),
        )
    )(params)
    np.testing.assert_allclose(exact, value, rtol=1e-13)
    assert abs(mean_field - value) > 1e-6


def test_the_registry_describes_every_estimator():
    for name, entry in ESTIMATORS.items():
        assert entry.name == name == entry.make.__name__
        assert entry.summary.endswith(".")
        assert entry.source
        assert str(entry.price())
        assert entry.claim() in EXACTNESS
        assert entry.randomness in ("none", "states", "uniforms")
    assert ESTIMATORS["st_gumbel_softmax"].hyperparameters["temperature"] == 1.0
    assert ESTIMATORS["zgr"].hyperparameters == {}


def length(make):
    """Lines of a function, its docstring included, and not the facts that it is registered with."""
    lines = inspect.getsource(make).splitlines()
    return len(lines) - next(k for k, line in enumerate(lines) if line.startswith("def "))


def test_every_estimator_reads_like_its_paper_within_60_lines():
    own = [e.make for e in ESTIMATORS.values() if e.make.__module__.startswith("gradbench.")]
    assert not {make.__name__: length(make) for make in own if length(make) > 60}


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), Fraction(1, 2)])
@pytest.mark.first(1)
def test_a_hyperparameter_of_another_type_of_number_is_taken_as_that_of_python(value):
    assert type(positive("temperature", value)) is float
    network = SBN((Dense(2, 1),), lambda theta, x, target: linear(x, target))
    params, batch, key = (*random_params((2, 1)), ()), random_batch(2), jax.random.key(0)
    one, two = (
        jax.jit(jax.grad(concrete(network, temperature=t)))(params, key, batch)
        for t in (value, 0.5)
    )
    np.testing.assert_array_equal(flat(one), flat(two))


@pytest.mark.parametrize("value", [np.float64("nan"), np.int64(0), np.True_, 10**400, 1j, [1.0]])
def test_a_hyperparameter_that_is_no_positive_number_is_refused(value):
    with pytest.raises(GradbenchError) as caught:
        concrete(by_hand, temperature=value)
    told = GradbenchError(f"temperature is {value!r}; give a positive number")  # shortened
    assert str(caught.value) == str(told)


def test_specs_that_can_be_made_are_accepted():
    for spec in SPECS:
        check_spec(spec)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("renforce", "unknown estimator 'renforce'; did you mean 'reinforce'?"),
        ("qwxz", "unknown estimator 'qwxz'; choose one of ap2, ar, arm, arms"),
        ("concrete(tau=1)", "estimator 'concrete' has no hyper-parameter 'tau'"),
        ("concrete(temprature=1)", "did you mean 'temperature'?"),
        ("zgr(temperature=1)", "estimator 'zgr' has no hyper-parameter 'temperature'; it has none"),
        ("concrete(temperature=0)", "temperature is 0; give a positive number"),
        ("concrete(temperature=-0.5)", "temperature is -0.5; give a positive number"),
        ("concrete(temperature='hot')", "temperature is 'hot'; give a positive number"),
        ("concrete(temperature=True)", "temperature is True; give a positive number"),
        ("concrete(temperature=None)", "temperature is None; give a positive number"),
        ("straight_through(proxy='densty')", "proxy is 'densty'; did you mean 'density'?"),
        ("straight_through(proxy='qwxz')", "proxy is 'qwxz'; choose one of approxsign, arctan"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)
    with pytest.raises(GradbenchError) as caught:
        make_estimator(spec, by_hand)
    assert sentence in str(caught.value)
