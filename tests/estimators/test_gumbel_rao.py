"""Gumbel-Rao and ReinMax-Rao: means and variances by integrals over their noise, and limits.

One unit has exact moments; of two, all paths are weighted and the noise given them is integrated by
the double exponential rule.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY
from scipy import integrate, special, stats

from gradbench.core.autodiff import surrogate_gradient
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.precision import single
from gradbench.core.run import draw_state, run_model
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    check_spec,
    get_estimator,
    gumbel_rao,
    reinmax,
    reinmax_rao,
    st_gumbel_softmax,
    straight_through,
    zgr,
)
from gradbench.estimators.gumbel_rao import mean_slope
from gradbench.exact import quadrature as _quadrature
from gradbench.exact.moments import moments

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

BATCH = np.zeros((1, 1))
A = 0.6


def derivative(x):
    """Of h = 0.7 x - 0.4 x^2 + 0.9 x^3."""
    return 0.7 - 0.8 * x + 2.7 * x**2


def unit(params, example, binary, noise="logistic"):
    x = binary(params[0], noise=noise)
    return jnp.sum(0.7 * x - 0.4 * x**2 + 0.9 * x**3)


def found(make, noise="logistic", a=A):
    """Exact mean and variance of the gradient of one unit."""
    at = moments(make(partial(unit, noise=noise)), (jnp.asarray(a),), BATCH)
    return float(at.mean[0]), float(at.variance[0])


def slopes(make, noise, a, state, v):
    """dx/da of one unit in a given state, at the uniforms ``v`` of its further streams [n, K]."""
    loss = make(lambda p, e, b: jnp.sum(b(p[0], noise=noise)))
    u = jnp.full(len(v), 1.0 - state)
    a = jnp.full(len(v), a)
    draw = jax.jit(jax.grad(loss.example_loss))
    return draw((a,), ((u,), *((w,) for w in v.T)), BATCH[0])[0]


def given_state(g, noise, a, state):
    """The mean of g(z) over noise with sign(a - z) of that state, by SciPy."""
    law, bound = SCIPY[noise], min(SCIPY[noise].support()[1], 38)
    ends = (-bound, a) if state else (a, bound)
    inner = [0.0] if ends[0] < 0 < ends[1] else None
    total = integrate.quad(lambda z: g(z) * law.pdf(z), *ends, points=inner, epsabs=1e-13)[0]
    return total / (law.cdf(a) if state else law.sf(a))


def soft(z, a=A, t=1.0):
    """dx/da of the relaxed unit."""
    y = special.expit((a - z) / t)
    return 2 * y * (1 - y) / t


def wrong_tail(model, *, temperature=1.0, samples=1):
    """z given the state from the tail of the other state."""

    def example_loss(params, u, example):
        def one(site, a):
            def slope(x, a, v):
                z = site.noise.quantile(v * site.noise.cdf(-x * a))
                y = jax.nn.sigmoid((x * a - z) / temperature)
                return 2 * y * (1 - y) / temperature

            x = draw_state(site, a, u[0][site.index])
            return surrogate_gradient(slope, x, a, u[1][site.index])

        return run_model(model, params, example, one).f

    return surrogate_loss(
        model, example_loss, 1 + samples, randomness="uniforms", smoothness="smooth"
    )


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_every_draw_is_the_mean_of_relaxed_units_with_noise_of_the_state(noise):
    """z given the state, drawn by the quantile of its truncated law."""
    v = np.random.default_rng(0).uniform(size=(7, 2))
    law, p = SCIPY[noise], SCIPY[noise].cdf(A)
    for state in (0, 1):
        g = slopes(partial(gumbel_rao, samples=2, temperature=0.7), noise, A, state, jnp.asarray(v))
        z = law.ppf(v * p) if state else -law.ppf(v * (1 - p))
        assert np.all((z < A) == state)
        np.testing.assert_allclose(g, soft(z, t=0.7).mean(1), rtol=1e-10)


@pytest.mark.slow
def test_the_mean_is_that_of_st_gumbel_softmax_and_the_variance_falls_with_the_samples(monkeypatch):
    """Var(K) = Var of the mean given the state + (what is left of Var ST-GS) / K."""
    monkeypatch.setattr(_quadrature, "_SMOOTH", (16,))  # precise enough, and fewer points
    for noise, most in (("logistic", 2), ("laplace", 1)):
        mean, variance = found(st_gumbel_softmax, noise)
        p = SCIPY[noise].cdf(A)
        h = [derivative(x) * given_state(soft, noise, A, x > 0) for x in (-1, 1)]
        np.testing.assert_allclose(mean, (1 - p) * h[0] + p * h[1], rtol=1e-9)
        limit = p * (1 - p) * (h[1] - h[0]) ** 2
        assert limit < variance
        for k in range(1, most + 1):
            own, spread = found(partial(gumbel_rao, samples=k), noise)
            np.testing.assert_allclose(own, mean, rtol=1e-9)
            np.testing.assert_allclose(spread, limit + (variance - limit) / k, rtol=1e-8)


@pytest.mark.slow
def test_noise_of_the_wrong_tail_is_seen():
    mean, _ = found(st_gumbel_softmax)
    wrong, _ = found(wrong_tail)
    assert abs(wrong / mean - 1) > 0.01


@pytest.mark.slow
def test_two_units_that_interact_have_the_mean_of_st_gumbel_softmax_too():
    a, t = np.array([0.5, -0.8]), 0.6

    def model(params, example, binary):
        x = binary(params[0], noise="normal")
        return (1 + x[0] + x[0] ** 2 / 3) * (0.5 - x[1] + x[1] ** 3)

    s = np.linspace(-3.1, 3.1, 63)
    node = special.expit(np.pi * np.sinh(s))
    weight = np.cosh(s) * node * (1 - node)
    weight /= weight.sum()
    grid = np.stack(np.meshgrid(node, node, indexing="ij"), -1).reshape(-1, 2)
    both = np.outer(weight, weight).ravel()
    p = stats.norm.cdf(a)
    loss = gumbel_rao(model, temperature=t, samples=1)
    draw = jax.jit(jax.vmap(jax.grad(loss.example_loss), (None, 0, None)))
    right = np.zeros(2)
    mean = np.zeros(2)
    for x in np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]):
        chance = np.prod(np.where(x > 0, p, 1 - p))
        u = np.broadcast_to((1.0 - x) / 2, grid.shape)
        g = draw((jnp.asarray(a),), ((jnp.asarray(u),), (jnp.asarray(grid),)), BATCH[0])[0]
        mean += chance * both @ np.asarray(g)
        given = [
            given_state(lambda z, k=k: soft(z, a[k], t), "normal", a[k], x[k] > 0) for k in (0, 1)
        ]
        df = [
            (1 + 2 * x[0] / 3) * (0.5 - x[1] + x[1] ** 3),
            (1 + x[0] + x[0] ** 2 / 3) * (-1 + 3 * x[1] ** 2),
        ]
        right += chance * np.array(df) * given
    np.testing.assert_allclose(mean, right, rtol=1e-9)


@pytest.mark.slow
def test_the_states_are_those_of_the_path_whatever_the_further_streams():
    params = (jnp.array([0.3, -0.6, 1.1]),)
    key = jax.random.key(3)
    losses = [m(unit) for m in (straight_through, gumbel_rao, reinmax_rao)]
    values = [jax.jit(loss)(params, key, BATCH) for loss in losses]
    assert values[0] == values[1] == values[2]


@pytest.mark.parametrize("noise", ["logistic", "triangular"])
@pytest.mark.slow
def test_many_samples_at_low_temperature_give_zgr(noise):
    """The mean given the state, by quadrature: at t the draw with all samples."""
    for state in (0, 1):
        right = slopes(zgr, noise, A, state, np.zeros((1, 0)))[0]
        gaps = []
        for t in (0.2, 0.1, 0.05, 0.025):
            v = (np.arange(4000) + 0.5)[None] / 4000
            make = partial(gumbel_rao, temperature=t, samples=1)
            g = slopes(make, noise, A, state, jnp.asarray(v.T))
            gaps.append(abs(float(jnp.mean(g)) - right))
        assert np.all(np.diff(gaps) < 0)
        assert gaps[-1] < 0.2 * gaps[0]


# ------------------------------------------------------------------------------ ReinMax-Rao


def of_q(p, b, t):
    """J_t at q = (p + b) / 2, by SciPy: logistic z given that sign(l - z) is the state."""
    lead = special.logit((p + b) / 2)
    return given_state(lambda z: soft(z, lead, t) / 2, "logistic", lead, b)


@pytest.mark.parametrize(("noise", "t"), [("logistic", 1.0), ("uniform", 0.5)])
@pytest.mark.slow
def test_mean_and_variance_of_reinmax_rao_by_their_own_integral(noise, t):
    p, logit_slope = SCIPY[noise].cdf(A), SCIPY[noise].pdf(A)
    logit_slope /= p * (1 - p)
    j = [(2 * of_q(p, b, t) - p * (1 - p) / 2) * logit_slope for b in (0, 1)]
    mean, _ = found(partial(reinmax_rao, temperature=t, samples=1), noise)
    right = (1 - p) * 2 * j[0] * derivative(-1) + p * 2 * j[1] * derivative(1)
    np.testing.assert_allclose(mean, right, rtol=1e-8)


def test_reinmax_rao_is_reinmax_with_a_mean_of_other_noise_and_not_it():
    """ReinMax has q(1 - q), a function of the state; the two agree at no temperature."""
    for state in (0, 1):
        right = float(slopes(reinmax, "logistic", A, state, np.zeros((1, 0)))[0])
        p, b = stats.logistic.cdf(A), state
        q = (p + b) / 2
        np.testing.assert_allclose(right, 2 * (2 * q * (1 - q) - p * (1 - p) / 2), rtol=1e-12)
    mean = [
        sum(
            chance * 2 * (2 * of_q(stats.logistic.cdf(A), b, t) - stats.logistic.pdf(A) / 2)
            for b, chance in ((0, stats.logistic.sf(A)), (1, stats.logistic.cdf(A)))
        )
        for t in (2.0, 1.0, 0.5, 0.004)
    ]
    truth = 2 * stats.logistic.pdf(A)
    assert np.all(np.abs(np.array(mean) / truth - 1) > 0.02)
    np.testing.assert_allclose(mean[-1], truth / 2, rtol=1e-2)  # as t goes to 0


# ------------------------------------------------------------------------------ all samples


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_all_samples_are_the_integral_over_the_noise_of_the_state(noise):
    """By SciPy, at temperatures down to 0.01, in likely and in unlikely states."""
    law = SCIPY[noise]
    leads = [xa for xa in (-5.0, -2.5, -0.95, -0.3, 0.0, 0.6, 0.95, 5.0) if law.cdf(xa) > 1e-9]
    for t in (0.01, 0.3, 1.0, 8.0):
        found = mean_slope(get_noise(noise), jnp.array(leads), t)
        right = [integral_given_state(law, xa, t) for xa in leads]
        np.testing.assert_allclose(found, right, rtol=1e-7, atol=1e-10)


def integral_given_state(law, xa, t):
    """The mean of y(1 - y) / t over l = x (a - z), on pieces of the scale of t and of the noise."""
    mode = max(xa, 0)
    ends = [0, *(t * np.array([1, 5, 20])), mode, *(mode + np.array([1, 5, 20, 45]))]
    ends += [xa + law.support()[1], xa - law.support()[1], mode + 45 * t]
    ends = sorted({end for end in ends if 0 <= end <= mode + 45 * min(t, 1)})
    return sum(
        integrate.fixed_quad(
            lambda lead: soft(0, lead, t) / 2 * law.pdf(xa - lead) / law.cdf(xa), *part, n=100
        )[0]
        for part in itertools.pairwise(ends)
    )


@pytest.mark.parametrize("make", [gumbel_rao, reinmax_rao])
@pytest.mark.parametrize("noise", ["logistic", "triangular"])
@pytest.mark.slow
def test_all_samples_are_the_mean_of_many(make, noise):
    v = (np.arange(20_000) + 0.5)[None] / 20_000
    for t, state in ((0.3, 0), (2.0, 1)):
        many = slopes(partial(make, temperature=t, samples=1), noise, A, state, v.T)
        every = slopes(
            partial(make, temperature=t, samples="all"), noise, A, state, np.zeros((1, 0))
        )
        np.testing.assert_allclose(every[0], np.mean(many), rtol=1e-5)


@pytest.mark.parametrize("noise", ["logistic", "laplace", "triangular"])
@pytest.mark.first(1)
def test_all_samples_leave_the_variance_of_the_states_alone(noise):
    """The moments are exact, by the two states; the mean is that of ST-Gumbel-Softmax."""
    make = partial(gumbel_rao, samples="all")
    assert make(unit).randomness == "states"
    mean, variance = found(make, noise)
    p = SCIPY[noise].cdf(A)
    h = [derivative(x) * given_state(soft, noise, A, x > 0) for x in (-1, 1)]
    np.testing.assert_allclose(mean, (1 - p) * h[0] + p * h[1], rtol=1e-8)
    np.testing.assert_allclose(variance, p * (1 - p) * (h[1] - h[0]) ** 2, rtol=1e-8)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
@pytest.mark.slow
def test_all_samples_at_a_temperature_near_0_are_zgr_in_both_precisions(noise):
    leads, own = np.array([-30, -0.9, 0, 0.9, 30]), get_noise(noise)
    double = mean_slope(own, jnp.array(leads), 1e-3)
    right = np.asarray(own.hazard(jnp.array(leads))) / 2
    first_order = 2e-3 * (1 + np.abs(leads)) * right + 1e-12  # in t F''/F', or t/(1 - |a|)
    assert np.all(np.abs(double - right) <= (10 if own.bound < np.inf else 1) * first_order)
    infinite = mean_slope(own, jnp.array([-jnp.inf, jnp.inf]), 1e-3)
    assert np.isfinite(infinite[0]) and infinite[1] == 0
    with single():
        narrow = mean_slope(own, jnp.array(leads, "float32"), 1e-3)
        assert narrow.dtype == np.float32
        possible = np.asarray(own.cdf(jnp.array(leads, "float32"))) > 0  # in its numbers
        np.testing.assert_allclose(narrow[possible], double[possible], rtol=1e-3, atol=1e-6)
        assert np.all(narrow[~possible] == 0)


@pytest.mark.slow
def test_a_temperature_that_is_traced_averages_all_samples_too():
    def gradient(t):
        loss = gumbel_rao(unit, temperature=t, samples="all")
        return jax.grad(loss)((jnp.asarray(A),), jax.random.key(0), BATCH)[0]

    for t in (0.4, 3.0):
        np.testing.assert_allclose(jax.jit(gradient)(t), gradient(t), rtol=1e-12)


def test_analytic_gumbel_rao_is_a_name():
    for name in ("agr", "analytic-gumbel-rao"):
        entry, arguments = get_estimator(name)
        assert (entry.name, arguments) == ("gumbel_rao", {"samples": "all"})
        assert entry.describe(**arguments).randomness == "states"


# -------------------------------------------------------------------------------------- both


@pytest.mark.slow
@pytest.mark.parametrize("make", [gumbel_rao, reinmax_rao])
def test_saturated_units_have_finite_gradients_that_vanish_in_float32(make):
    with single():
        a = jnp.tile(jnp.array([-40.0, 40.0, -1.0, 1.0, 0.0]), 4)
        v = jnp.repeat(jnp.array([6e-8, 0.4, 0.7, 1 - 6e-8]), 5)

        def model(params, example, binary):
            return sum(jnp.sum(binary(p, noise=n)) for p, n in zip(params, NOISES, strict=True))

        for samples, u, likely in (
            (n, *case) for n in (1, "all") for case in ((0.3, True), (0.0, False), (1.0, False))
        ):
            us = ((jnp.full(20, u),) * 5, (v,) * 5)
            loss = make(model, samples=samples, temperature=0.3)
            g = np.stack(jax.grad(loss.example_loss)((a,) * 5, us, BATCH[0]))
            assert g.dtype == np.float32
            assert np.all(np.isfinite(g))
            if likely:
                np.testing.assert_allclose(g.reshape(5, 4, 5)[:, :, :2], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("gumbel_rao(samples=0)", "samples is 0; give a whole number of at least 1"),
        (
            "gumbel_rao(samples='al')",
            "samples is 'al'; give a whole number of at least 1, or 'all'",
        ),
        ("gumbel_rao(temperature=-1)", "temperature is -1; give a positive number"),
        ("reinmax_rao(samples=1.5)", "samples is 1.5; give a whole number of at least 1"),
        ("reinmax_rao(temperature=0)", "temperature is 0; give a positive number"),
    ],
)
def test_a_wrong_hyperparameter_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)
