"""Noises against SciPy, their definitions, and at pre-activations where everything saturates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, threshold
from scipy import stats

from gradbench.errors import GradbenchError
from gradbench.noise import NOISES as REGISTERED
from gradbench.noise import get_noise
from gradbench.precision import float64

SCIPY = {
    "logistic": stats.logistic,
    "normal": stats.norm,
    "uniform": stats.uniform(-1, 2),
    "triangular": stats.triang(0.5, -1, 2),
    "laplace": stats.laplace,
}
GRID = np.setdiff1d(np.linspace(-3.9, 4.1, 81), [-1, 0, 1])  # without the kinks
SATURATED = np.array([-1e4, -1e3, -200, -40, -15, -1, 1, 15, 40, 200, 1e3, 1e4])

each_noise = pytest.mark.parametrize("name", NOISES)


def test_the_five_noises_are_registered():
    assert set(REGISTERED) == set(NOISES) == set(SCIPY)


def test_an_unknown_noise_is_refused_with_the_closest_name():
    with pytest.raises(GradbenchError, match=r"unknown noise 'logistc'; did you mean 'logistic'\?"):
        get_noise("logistc")


def test_a_noise_object_is_taken_as_it_is():
    assert get_noise(get_noise("normal")) is get_noise("normal")


@each_noise
@pytest.mark.usefixtures("float64")
def test_cdf_density_and_quantile_are_those_of_scipy(name):
    noise, truth = get_noise(name), SCIPY[name]
    u = np.linspace(1e-9, 1 - 1e-9, 101)
    np.testing.assert_allclose(noise.cdf(GRID), truth.cdf(GRID), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(noise.pdf(GRID), truth.pdf(GRID), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(noise.quantile(u), truth.ppf(u), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(noise.cdf(noise.quantile(u)), u, rtol=1e-12)


@each_noise
@pytest.mark.usefixtures("float64")
def test_noise_is_symmetric(name):
    noise = get_noise(name)
    a = np.concatenate([GRID, SATURATED])
    np.testing.assert_allclose(noise.cdf(-a), 1 - noise.cdf(a), atol=2e-16)
    np.testing.assert_array_equal(noise.pdf(-a), noise.pdf(a))


@each_noise
@pytest.mark.usefixtures("float64")
def test_the_density_is_the_derivative_of_the_cdf_in_forward_and_reverse_mode(name):
    noise = get_noise(name)
    step = 1e-5
    difference = (SCIPY[name].cdf(GRID + step) - SCIPY[name].cdf(GRID - step)) / (2 * step)
    for derivative in (jax.grad, jax.jacfwd):
        slope = jax.vmap(derivative(noise.cdf))(jnp.asarray(GRID))
        np.testing.assert_array_equal(slope, noise.pdf(GRID))
        np.testing.assert_allclose(slope, difference, atol=1e-9)


@each_noise
@pytest.mark.usefixtures("float64")
def test_the_second_derivative_of_the_cdf_is_the_slope_of_the_density(name):
    step = 1e-5
    difference = (SCIPY[name].pdf(GRID + step) - SCIPY[name].pdf(GRID - step)) / (2 * step)
    for outer in (jax.grad, jax.jacfwd):
        curvature = jax.vmap(outer(jax.grad(get_noise(name).cdf)))(jnp.asarray(GRID))
        np.testing.assert_allclose(curvature, difference, atol=1e-9)


@each_noise
@pytest.mark.usefixtures("float64")
def test_hazard_score_and_logit_slope_follow_their_definitions(name):
    noise, truth = get_noise(name), SCIPY[name]
    f, slope = truth.cdf(GRID), truth.pdf(GRID)
    rest = truth.cdf(-GRID)

    def ratio(above, below):
        return np.divide(above, below, out=np.zeros_like(above), where=below > 0)

    np.testing.assert_allclose(noise.hazard(GRID), ratio(slope, f), rtol=1e-12)
    np.testing.assert_allclose(noise.score(1.0, GRID), ratio(slope, f), rtol=1e-12)
    np.testing.assert_allclose(noise.score(-1.0, GRID), -ratio(slope, rest), rtol=1e-12)
    np.testing.assert_allclose(noise.logit_slope(GRID), ratio(slope, f * rest), rtol=1e-11)
    np.testing.assert_allclose(noise.probability(-1.0, GRID), rest, rtol=1e-13, atol=1e-16)


@each_noise
@pytest.mark.usefixtures("float64")
def test_the_score_has_mean_zero(name):
    noise = get_noise(name)
    mean = sum(noise.probability(x, GRID) * noise.score(x, GRID) for x in (-1.0, 1.0))
    np.testing.assert_allclose(mean, 0, atol=1e-16)


@each_noise
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_saturated_pre_activations_give_finite_and_right_numbers(name, double):
    noise, truth = get_noise(name), SCIPY[name]
    dtype = np.float64 if double else np.float32
    if double:
        with float64():
            check_saturation(noise, truth, dtype)
    else:
        check_saturation(noise, truth, dtype)


def check_saturation(noise, truth, dtype):
    a, tiny = jnp.asarray(SATURATED, dtype), np.finfo(dtype).tiny
    tolerance = {"rtol": 1e4 * np.finfo(dtype).eps, "atol": 10 * tiny}
    for quantity, right in (
        (noise.cdf(a), truth.cdf(SATURATED)),
        (noise.pdf(a), np.where(np.abs(SATURATED) == 1, noise.pdf(a), truth.pdf(SATURATED))),
        (jax.vmap(jax.grad(noise.cdf))(a), noise.pdf(a)),
    ):
        assert quantity.dtype == dtype
        np.testing.assert_allclose(quantity, right, **tolerance)
    for x in (-1.0, 1.0):
        score = np.asarray(noise.score(x, a))
        assert score.dtype == dtype
        assert np.all(np.isfinite(score))
        # d log F / da = exp(log F' - log F) holds far into the tail; 0 is allowed where F = 0.
        with np.errstate(all="ignore"):
            right = x * np.exp(truth.logpdf(SATURATED) - truth.logcdf(x * SATURATED))
        normal = truth.cdf(x * SATURATED) > 100 * tiny
        inside = np.abs(SATURATED) != 1  # at the ends of a bounded noise the density has two values
        np.testing.assert_allclose(score[normal & inside], right[normal & inside], **tolerance)
        assert np.all(score[truth.cdf(x * SATURATED) == 0] * x >= 0)
    assert np.all(np.isfinite(noise.logit_slope(a)))
    for outer in (jax.grad, jax.jacfwd):
        assert np.all(np.isfinite(jax.vmap(outer(jax.grad(noise.cdf)))(a)))


@each_noise
def test_samples_follow_the_cdf(name):
    z = np.asarray(get_noise(name).sample(jax.random.key(3), (50_000,)))
    assert z.dtype == np.float32
    assert stats.kstest(z, SCIPY[name].cdf).pvalue > 1e-6


@each_noise
def test_the_noise_decides_states_with_probability_f(name):
    noise, a, n = get_noise(name), np.array([-0.9, -0.3, 0.0, 0.6]), 50_000
    z = np.asarray(noise.sample(jax.random.key(5), (n, 4)))
    p = SCIPY[name].cdf(a)
    errors = ((z < a).mean(0) - p) / np.sqrt(p * (1 - p) / n)
    assert np.max(np.abs(errors)) < threshold(1e-6, 4)


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_the_lowest_sample_is_as_far_out_as_the_highest(double, monkeypatch):
    # A generator returns 0 once in 2^23 float32 draws; a logistic -87 in its place has weight.
    def ends(key, shape, dtype):
        return jnp.array([0, 1 - jnp.finfo(dtype).eps], dtype)

    monkeypatch.setattr(jax.random, "uniform", ends)
    with jax.enable_x64(double):
        for name in NOISES:
            low, high = np.asarray(get_noise(name).sample(jax.random.key(0), (2,)), float)
            assert low == pytest.approx(-high, rel=1e-6)
