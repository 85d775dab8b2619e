"""ARM and its kin: unbiased by integrals over the uniforms, the same numbers where they must be."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import (
    EXACT,
    SEEN,
    assert_finite_and_zero_where_saturated,
    assert_unbiased,
    exact_bias,
    example_draws,
    random_uniforms,
    rows_of,
    saturated_draws,
    skipping_problem,
    tiny,
    total_variance,
)
from conftest import NOISES, assert_mean, flat, relative, small
from scipy import integrate, stats

from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.core.run import DESCENDANTS, run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import ar, arm, arms, disarm
from gradbench.estimators.copulas import COPULAS, dirichlet_copies, gaussian_both
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

ONE, TWO = (1, 2, 1), (1, 2, 1, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "sizes", "noise"),
    [
        (ar, (1, 1, 1, 1), ("triangular", "normal")),
        (partial(disarm, descendants="antithetic"), TWO, ("logistic", "triangular")),
        (partial(arms, descendants="independent"), (1, 1, 1, 1), ("uniform", "laplace")),
    ],
)
def test_the_family_is_unbiased_at_every_depth_and_noise(make, sizes, noise):
    network, *at = tiny(sizes, noise)
    assert_unbiased(make(network), *at)


@pytest.mark.slow
def test_arm_with_independent_descendants_is_unbiased_on_a_hand_written_model():
    model, *at = skipping_problem()
    assert_unbiased(arm(model, descendants="independent"), *at)


def one_antithetic_path(model):
    """DisARM whose other branch has other states below too: one antithetic path for all layers."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        other = sampled(model, params, tuple(1 - v for v in u[0]), example)
        loss = run.f
        for site, a, x, y in zip(run.sites, run.a, run.x, other.x, strict=True):
            signal = (run.f - other.f) * (x - y) / 4 * site.noise.cdf(jnp.abs(a))
            loss += gradient_term(signal * site.noise.logit_slope(a), a)
        return loss

    return surrogate_loss(model, example_loss, randomness="uniforms", smoothness="constant")


@pytest.mark.slow
def test_a_branch_that_leaves_the_sampled_states_below_is_seen():
    network, *at = tiny(TWO)
    bias, _ = exact_bias(one_antithetic_path(network), *at)
    assert bias[1] > SEEN
    assert np.all(bias[[0, 2]] < EXACT)  # antithetic descendants, that is right


@pytest.mark.slow
def test_arms_of_two_samples_is_disarm_draw_by_draw_whatever_the_copula():
    network, params, batch = small((2, 3, 2, 1), ("normal", "logistic"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = random_uniforms(50, 2, ((3,), (2,)))
    chosen = (("antithetic", "dirichlet"), ("independent", "gaussian"))
    ones = [disarm(network, descendants=d) for d, _ in chosen]
    twos = [arms(network, copula=c, descendants=d) for d, c in chosen]
    draws = example_draws([*ones, *twos], params, example, u)
    for one, two in zip(draws[:2], draws[2:], strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-13)


def one_layer_problem(bias=(-0.2, 0.4)):
    """Two units, p < 1/2 and p > 1/2, and an objective that is not multilinear."""
    network, params, batch = tiny(ONE)
    first = {"weight": 0 * params[0]["weight"], "bias": jnp.array(bias)}
    return network, (first, params[1]), jax.tree.map(lambda leaf: leaf[0], batch)


@pytest.mark.slow
def test_disarm_is_arm_averaged_over_the_uniforms_that_make_the_same_two_states():
    network, params, example = one_layer_problem()
    p = 1 / (1 + np.exp(-np.asarray(params[0]["bias"])))
    ends = [np.sort([0, q, 1 - q, 1]) for q in p]
    middles = [(e[1:] + e[:-1]) / 2 for e in ends]  # a draw of ARM is linear in between
    u = ((jnp.array(list(itertools.product(*middles))),),)
    one, two = example_draws([arm(network), disarm(network)], params, example, u)
    np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-15)
    # As U2G is written: (f(b) - f(b~)) (b - b~) sigmoid(|a|) / 2, here in the first unit.
    b, other = u[0][0] < p, 1 - u[0][0] < p
    f = jax.vmap(lambda b: network.objective(params[1], 2.0 * b - 1, example[1]))
    signal = np.asarray(f(b) - f(other))[:, None] / 2 * np.maximum(p, 1 - p)
    np.testing.assert_allclose(two[:, :2], signal * (1.0 * b - 1.0 * other), rtol=1e-11, atol=1e-15)


# ---------------------------------------------------------------- three and more copies


def joint_probability(ones, n, q):
    """P(the copies in ``ones`` and no others are below q), by inclusion and exclusion."""
    t = 1 - q ** (1 / (n - 1))
    rest = n - len(ones)
    return sum(
        (-1) ** extra * math.comb(rest, extra) * max(1 - (len(ones) + extra) * t, 0) ** (n - 1)
        for extra in range(rest + 1)
    )


def patterns(n, q, rows=60_000, seed=0):
    """For each set of copies below q: its probability, where it was hit, uniforms that make it."""
    u = np.random.default_rng(seed).uniform(size=(n, rows))
    below = np.stack(jax.jit(dirichlet_copies)(list(u))) < q
    for ones in itertools.product((False, True), repeat=n):
        members = [k for k in range(n) if ones[k]]
        hit = np.all(below == np.array(ones)[:, None], axis=0)
        probability = joint_probability(members, n, q)
        assert hit.any() or probability < 1e-12
        if hit.any():
            yield probability, hit, u[:, np.argmax(hit)]


@pytest.mark.parametrize("n", [3, 4])
def test_the_copies_have_the_joint_law_of_the_dirichlet_copula(n):
    probabilities, hits, _ = zip(*patterns(n, 0.45), strict=True)
    np.testing.assert_allclose(sum(probabilities), 1, rtol=1e-12)
    assert_mean(np.stack(hits, axis=1), np.array(probabilities))


def literal_arms(model, samples, at_p=False):
    """The sheet's formula for one layer; or a planted bug, the correlation of the bits at p."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        (a,) = run.a
        p = jax.nn.sigmoid(a)
        q = jnp.minimum(p, 1 - p)
        uniforms = [jnp.where(p > 0.5, 1 - u[0][0], u[0][0]), *(v for (v,) in u[1:])]
        below = jnp.stack(dirichlet_copies(uniforms)) < q
        b = jnp.where(p > 0.5, ~below, below).astype(a.dtype)
        f = jax.vmap(lambda x: run_at_states(model, params, example, (x,)).f)(2 * b - 1)
        c = p if at_p else q
        both = jnp.maximum(2 * c ** (1 / (samples - 1)) - 1, 0) ** (samples - 1)
        rho = (both - c**2) / (c * (1 - c))
        g = (f - f.mean()) @ (b - p) / ((samples - 1) * (1 - rho))
        return f[0] + gradient_term(g, a)

    return surrogate_loss(
        model, example_loss, samples, randomness="uniforms", smoothness="constant"
    )


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.slow
def test_arms_is_unbiased_over_all_patterns_of_its_copies_and_the_correlation_at_p_is_seen(n):
    network, params, example = one_layer_problem()
    p = jax.nn.sigmoid(params[0]["bias"])
    assert p[0] < 0.5 < p[1]
    units = [list(patterns(n, float(q))) for q in jnp.minimum(p, 1 - p)]
    rows = list(itertools.product(*units))
    weights = np.array([one[0] * two[0] for one, two in rows])
    u = np.array([[one[2], two[2]] for one, two in rows])  # [rows, units, copies] of what is rare
    u[:, 1, 0] = 1 - u[:, 1, 0]
    streams = tuple((jnp.asarray(u[:, :, k]),) for k in range(n))
    losses = [arms(network, samples=n), literal_arms(network, n), literal_arms(network, n, True)]
    right, literal, wrong = example_draws(losses, params, example, streams)
    np.testing.assert_allclose(right, literal, rtol=1e-9, atol=1e-14)

    batch = jax.tree.map(lambda leaf: leaf[None], example)
    truth = flat(jax.jit(jax.grad(partial(brute_force, network)))(params, batch))
    assert relative(weights @ right, truth) < EXACT
    error = weights @ wrong - truth
    assert abs(error[0]) < 1e-12  # p < 1/2, nothing is complemented
    assert abs(error[1]) > SEEN * abs(truth[1])


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.slow
def test_the_gaussian_copula_has_the_bivariate_normal_probability(n):
    q = np.array([1e-12, 1e-3, 0.1, 0.3, 0.5])
    h, r = stats.norm.ppf(q), -1 / (n - 1)
    expected = [
        integrate.quad(
            lambda z, x=x: stats.norm.pdf(z) * stats.norm.cdf((x - r * z) / math.sqrt(1 - r**2)),
            -math.inf,
            x,
            epsabs=1e-14,
        )[0]
        for x in h
    ]
    np.testing.assert_allclose(gaussian_both(jnp.asarray(q), n), expected, atol=1e-12)


@pytest.mark.parametrize("copula", sorted(COPULAS))
@pytest.mark.first(1)
def test_the_correlation_of_two_copies_is_well_defined_where_units_saturate(copula):
    with single():
        q = jnp.array([0, 1e-45, 1e-38, 1e-20, 1e-7, 0.2, 0.5], jnp.float32)
        both = np.asarray(COPULAS[copula][1](q, 3))
    q = np.asarray(q, float)
    assert np.all((both >= 0) & (both <= q**2 + 1e-12))
    assert np.all(q[1:] - both[1:] >= q[1:] / 2)


@pytest.mark.slow
def test_more_copies_are_unbiased_in_deep_networks_with_either_copula():
    network, params, batch = small((2, 2, 2, 1), ("logistic", "normal"), seed=5)
    losses = [
        arms(network, samples=3, copula="gaussian", descendants="antithetic"),
        arms(network, samples=3, descendants="independent"),
    ]

    @jax.jit
    def both(keys):
        truth = jax.grad(partial(brute_force, network))(params, batch)
        draw = [jax.vmap(lambda k, f=f: jax.grad(f)(params, k, batch))(keys) for f in losses]
        return truth, draw

    truth, draws = both(jax.random.split(jax.random.key(1), 8_000))
    for draw in draws:
        assert_mean(rows_of(draw), flat(truth))


# ------------------------------------------------------------------------- descendants


@pytest.mark.slow
def test_the_variance_of_disarm_grows_from_shared_to_independent_to_antithetic_descendants():
    losses = [disarm(tiny((1, 1, 1, 1))[0], descendants=d) for d in DESCENDANTS]
    for seed in (3, 4, 5):
        _, *at = tiny((1, 1, 1, 1), seed=seed)
        shared, independent, antithetic = (total_variance(loss, *at) for loss in losses)
        assert shared < independent < antithetic


@pytest.mark.parametrize(
    ("make", "noises"),
    [
        (disarm, NOISES),
        (partial(arms, samples=3), ("logistic", "uniform")),
        (partial(arms, samples=3, copula="gaussian"), ("normal",)),
    ],
)
@pytest.mark.slow
def test_saturated_units_have_finite_and_vanishing_gradients_in_float32(make, noises):
    assert_finite_and_zero_where_saturated(make, noises)


@pytest.mark.slow
def test_ar_and_arm_are_finite_where_units_saturate_and_do_not_vanish():
    for make in (ar, arm):
        draws = saturated_draws(make, ("logistic", "laplace"))
        assert np.all(np.isfinite(draws))
        assert np.max(np.abs(draws[:, 0, 0])) > SEEN


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(arm, descendants="free"), "descendants is 'free'; choose one of antithetic"),
        (partial(arms, descendants="share"), "descendants is 'share'; did you mean 'shared'?"),
        (partial(arms, samples=1), "samples is 1; give a whole number of at least 2"),
        (partial(arms, copula="normal"), "copula is 'normal'; choose one of dirichlet, gaussian"),
    ],
)
def test_hyperparameters_that_are_none_are_refused(make, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(None)
    assert sentence in str(caught.value)


def test_exact_moments_of_more_than_two_gaussian_copies_are_refused_and_not_wrong():
    network, *at = tiny(ONE)
    with pytest.raises(GradbenchError, match="more than two samples are known for copula='dirich"):
        moments(arms(network, samples=3, copula="gaussian"), *at)
