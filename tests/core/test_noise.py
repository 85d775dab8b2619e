"""Noises against SciPy, their definitions, and at pre-activations where everything saturates."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, precision, threshold
from scipy import stats

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import NOISES as REGISTERED
from gradbench.core.noise import get_noise

GRID = np.linspace(-3.95, 4.05, 81)  # not the kinks, -1, 0 and 1
SATURATED = np.array([-1e4, -1e3, -200, -40, -15, -1, 1, 15, 40, 200, 1e3, 1e4])

each_noise = pytest.mark.parametrize("name", NOISES)
each_precision = pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])


@cache
def quantities(name, double):
    """Everything a noise computes, on both grids: one compiled function per noise and precision."""
    noise = get_noise(name)

    def everything(a):
        return {
            "cdf": noise.cdf(a),
            "pdf": noise.pdf(a),
            "hazard": noise.hazard(a),
            "score of +1": noise.score(jnp.ones_like(a), a),
            "score of -1": noise.score(-jnp.ones_like(a), a),
            "logit slope": noise.logit_slope(a),
            "probability of -1": noise.probability(-jnp.ones_like(a), a),
            "reverse": jax.vmap(jax.grad(noise.cdf))(a),
            "forward": jax.vmap(jax.jacfwd(noise.cdf))(a),
            "second reverse": jax.vmap(jax.grad(jax.grad(noise.cdf)))(a),
            "second forward": jax.vmap(jax.jacfwd(jax.jacfwd(noise.cdf)))(a),
        }

    with precision(double):
        points = np.concatenate([GRID, SATURATED]).astype(float if double else np.float32)
        values = jax.jit(everything)(points)
        assert all(value.dtype == points.dtype for value in values.values())
        values = {key: np.asarray(value, float) for key, value in values.items()}
    return tuple({k: v[part] for k, v in values.items()} for part in (np.s_[:81], np.s_[81:]))


def ratio(above, below):
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def test_the_five_noises_are_registered():
    assert set(REGISTERED) == set(NOISES) == set(SCIPY)


def test_an_unknown_noise_is_refused_with_the_closest_name():
    with pytest.raises(GradbenchError, match=r"unknown noise 'logistc'; did you mean 'logistic'\?"):
        get_noise("logistc")


@pytest.mark.parametrize("noise", [["logistic"], {}, None, 3])
def test_what_is_no_name_of_a_noise_is_refused(noise):
    with pytest.raises(GradbenchError) as caught:
        get_noise(noise)
    assert str(caught.value).startswith(f"unknown noise {noise!r}; ")


def test_a_noise_object_is_taken_as_it_is():
    assert get_noise(get_noise("normal")) is get_noise("normal")


@each_noise
def test_cdf_and_density_are_those_of_scipy(name):
    found, truth = quantities(name, True)[0], SCIPY[name]
    np.testing.assert_allclose(found["cdf"], truth.cdf(GRID), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found["pdf"], truth.pdf(GRID), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found["probability of -1"], truth.cdf(-GRID), rtol=1e-13, atol=1e-15)


@each_noise
def test_noise_is_symmetric(name):
    for found in quantities(name, True):
        np.testing.assert_allclose(found["probability of -1"], 1 - found["cdf"], atol=3e-16)


@each_noise
@pytest.mark.usefixtures("float64")
def test_the_quantile_inverts_the_cdf(name):
    noise, u = get_noise(name), np.linspace(1e-9, 1 - 1e-9, 101)
    z, back = jax.jit(lambda u: (noise.quantile(u), noise.cdf(noise.quantile(u))))(u)
    np.testing.assert_allclose(z, SCIPY[name].ppf(u), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(back, u, rtol=1e-12, atol=1e-15)


@each_noise
def test_the_density_is_the_derivative_of_the_cdf_in_forward_and_reverse_mode(name):
    found, step = quantities(name, True)[0], 1e-5
    difference = (SCIPY[name].cdf(GRID + step) - SCIPY[name].cdf(GRID - step)) / (2 * step)
    for mode in ("forward", "reverse"):
        np.testing.assert_allclose(found[mode], found["pdf"], rtol=1e-14)
        np.testing.assert_allclose(found[mode], difference, atol=1e-9)


@each_noise
def test_the_second_derivative_of_the_cdf_is_the_slope_of_the_density(name):
    found, step = quantities(name, True)[0], 1e-5
    difference = (SCIPY[name].pdf(GRID + step) - SCIPY[name].pdf(GRID - step)) / (2 * step)
    for mode in ("second forward", "second reverse"):
        np.testing.assert_allclose(found[mode], difference, atol=1e-9)


@each_noise
def test_hazard_score_and_logit_slope_follow_their_definitions(name):
    found, truth = quantities(name, True)[0], SCIPY[name]
    f, slope, rest = truth.cdf(GRID), truth.pdf(GRID), truth.cdf(-GRID)
    np.testing.assert_allclose(found["hazard"], ratio(slope, f), rtol=1e-12)
    np.testing.assert_allclose(found["score of +1"], ratio(slope, f), rtol=1e-12)
    np.testing.assert_allclose(found["score of -1"], -ratio(slope, rest), rtol=1e-12)
    np.testing.assert_allclose(found["logit slope"], ratio(slope, f * rest), rtol=1e-11)


@each_noise
@each_precision
def test_saturated_pre_activations_give_finite_and_right_numbers(name, double):
    found, truth = quantities(name, double)[1], SCIPY[name]
    kind = np.finfo(float if double else np.float32)
    tolerance = {"rtol": 1e4 * kind.eps, "atol": 10 * kind.tiny}
    inside = np.abs(SATURATED) != 1  # the density of the bounded noises jumps there
    np.testing.assert_allclose(found["cdf"], truth.cdf(SATURATED), **tolerance)
    for derivative in ("pdf", "forward", "reverse"):
        right = truth.pdf(SATURATED)
        np.testing.assert_allclose(found[derivative][inside], right[inside], **tolerance)
    assert all(np.all(np.isfinite(value)) for value in found.values())
    for x, key in ((1.0, "score of +1"), (-1.0, "score of -1")):
        possible = inside & (truth.cdf(x * SATURATED) > 100 * kind.tiny)
        right = x * np.exp(
            truth.logpdf(SATURATED[possible]) - truth.logcdf(x * SATURATED[possible])
        )
        np.testing.assert_allclose(found[key][possible], right, **tolerance)


@each_noise
def test_samples_follow_the_cdf_and_decide_states_with_probability_f(name):
    noise, n = get_noise(name), 50_000
    z = np.asarray(jax.jit(lambda key: noise.sample(key, (n,)))(jax.random.key(3)))
    assert z.dtype == np.float32
    assert stats.kstest(z, SCIPY[name].cdf).pvalue > 1e-6
    a = np.array([-0.9, -0.3, 0.0, 0.6])
    p = SCIPY[name].cdf(a)
    errors = ((z[:, None] < a).mean(0) - p) / np.sqrt(p * (1 - p) / n)
    assert np.max(np.abs(errors)) < threshold(1e-6, 4)


@each_precision
def test_the_lowest_sample_is_as_far_out_as_the_highest(double, monkeypatch):
    # A generator returns 0 once in 2^23 float32 draws; a logistic -87 in its place has weight.
    def ends(key, shape, dtype):
        zero = jnp.zeros((), dtype)
        return jnp.stack([zero, 1 - jnp.finfo(zero.dtype).eps])

    monkeypatch.setattr(jax.random, "uniform", ends)
    with precision(double):
        for name in NOISES:
            low, high = np.asarray(get_noise(name).sample(jax.random.key(0), (2,)), float)
            assert low == pytest.approx(-high, rel=1e-6)
