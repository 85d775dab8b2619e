"""Closed forms of ST, REINFORCE and Concrete: biases, variances and their asymptotics in 1-D.

One unit with pre-activation a and an objective h; p = F(a), mu = 2p - 1; the true gradient is
F'(a)(h(1) - h(-1)). ST and REINFORCE by exact moments, Concrete by integrals over its noise.
"""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, assert_mean, threshold
from scipy import integrate, special, stats

from gradbench.estimators import (
    arm,
    concrete,
    darn,
    disarm,
    psa,
    reinforce,
    reinmax,
    st_gumbel_softmax,
    straight_through,
    zgr,
)
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

C = np.array([0.7, -0.4, 0.9, 0.3])  # h = C1 x + C2 x^2 + C3 x^3 + C4 x^4
POINTS = np.array([-0.8, -0.1, 0.45, 0.7])
BATCH = np.zeros((1, 1))


def polynomial(x, c):
    return sum(c_k * x**k for k, c_k in enumerate(c, 1))


def derivative(x, c):
    return sum(k * c_k * x ** (k - 1) for k, c_k in enumerate(c, 1))


def unit(params, example, binary, noise="logistic"):
    """One unit and a polynomial: the coefficients are parameters of the objective."""
    return polynomial(binary(params[0], noise=noise), params[1])


def unit_moments(make, noise, c=C):
    """Exact mean and variance of the gradient in a, at all POINTS."""
    loss = make(partial(unit, noise=noise))
    at = jax.jit(jax.vmap(lambda a: moments(loss, (a, jnp.asarray(c)), BATCH)))(POINTS)
    return np.asarray(at.mean[0]), np.asarray(at.variance[0])


# -------------------------------------------------------------------- ST and REINFORCE


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_bias_and_variance_of_straight_through_on_a_polynomial(noise):
    p, density = SCIPY[noise].cdf(POINTS), SCIPY[noise].pdf(POINTS)
    mean, variance = unit_moments(straight_through, noise)
    true = density * (polynomial(1, C) - polynomial(-1, C))
    bias = density * (4 * C[1] * (2 * p - 1) + 4 * C[2] + 8 * C[3] * (2 * p - 1))
    jump = derivative(1, C) - derivative(-1, C)
    np.testing.assert_allclose(mean - true, bias, rtol=1e-11)
    np.testing.assert_allclose(variance, 4 * density**2 * p * (1 - p) * jump**2, rtol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_mean_and_variance_of_reinforce(noise):
    p, density = SCIPY[noise].cdf(POINTS), SCIPY[noise].pdf(POINTS)
    high, low = polynomial(1, C), polynomial(-1, C)
    mean, variance = unit_moments(reinforce, noise)
    true = density * (high - low)
    np.testing.assert_allclose(mean, true, rtol=1e-11)
    second = density**2 * (high**2 / p + low**2 / (1 - p))
    np.testing.assert_allclose(variance, second - true**2, rtol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_mean_and_variance_of_zgr(noise):
    """Unbiased up to degree 2; what is left is 4 c3 F' of the cubic and, for x^4, nothing."""
    p, density = SCIPY[noise].cdf(POINTS), SCIPY[noise].pdf(POINTS)
    high, low = derivative(1, C), derivative(-1, C)
    mean, variance = unit_moments(zgr, noise)
    true = density * (polynomial(1, C) - polynomial(-1, C))
    np.testing.assert_allclose(mean, density * (high + low), rtol=1e-11)
    np.testing.assert_allclose(mean - true, 4 * C[2] * density, rtol=1e-10)
    second = density**2 * (high**2 / p + low**2 / (1 - p))
    np.testing.assert_allclose(variance, second - mean**2, rtol=1e-10)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_zgr_is_darn_at_the_midpoint_and_reinmax_at_temperature_one_draw_by_draw(noise):
    keys = jax.random.split(jax.random.key(0), 50)
    params = (jnp.linspace(-0.9, 0.9, 7), jnp.asarray(C))

    def several(params, example, binary):
        return jnp.prod(1 + polynomial(binary(params[0], noise=noise), params[1]) / 9)

    @jax.jit
    def draws(keys):
        kin = (zgr, darn, reinmax)
        losses = [make(several) for make in kin]
        return [jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, BATCH) for loss in losses]

    one, *others = draws(keys)
    for other in others:
        for left, right in zip(one, other, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("phi", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("noise", ["logistic", "triangular"])
@pytest.mark.slow
def test_darn_is_unbiased_for_multilinear_objectives_whatever_phi_and_not_beyond(phi, noise):
    def tensor(params, example, binary):
        x = binary(params[0], noise=noise)
        return (1 + x[0]) * (0.5 - x[1]) * (x[2] + 0.2 * x[3]) + params[1] * x[0] ** 2

    def bias(square):
        params = (jnp.asarray(POINTS), jnp.asarray(square))
        found = moments(darn(tensor, phi=phi), params, BATCH).mean[0]
        return found - jax.grad(lambda p: brute_force(tensor, p, BATCH))(params)[0]

    linear, quadratic = jax.jit(jax.vmap(bias))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(linear, 0, atol=1e-12)
    assert abs(quadratic[0]) > 1e-2  # at 1/2 alone it is ZGR, without this bias


def test_reinmax_at_other_temperatures_is_biased_on_linear_objectives():
    linear = np.array([1.0, 0.0, 0.0, 0.0])
    mean, _ = unit_moments(partial(reinmax, temperature=2.0), "logistic", linear)
    right = 2 * stats.logistic.pdf(POINTS)
    assert np.all(np.abs(mean / right - 1) > 1e-3)


@pytest.mark.parametrize("noise", ["logistic", "uniform"])
@pytest.mark.parametrize("alpha", [0.5, 0.75, 2.0])
@pytest.mark.slow
def test_mean_and_variance_of_generalised_reinmax(noise, alpha):
    """J at both states in plain numpy; on linear objectives the mean is off by a known factor."""
    p, density = SCIPY[noise].cdf(POINTS), SCIPY[noise].pdf(POINTS)
    c = 1 / (2 * alpha)
    q = {b: (1 - c) * p + c * b for b in (0, 1)}
    j = {b: (2 * q[b] * (1 - q[b]) - p * (1 - p) / 2) * density / (p * (1 - p)) for b in q}
    high, low = 2 * j[1] * derivative(1, C), 2 * j[0] * derivative(-1, C)
    make = partial(reinmax, alpha=alpha)
    mean, variance = unit_moments(make, noise)
    right = p * high + (1 - p) * low
    np.testing.assert_allclose(mean, right, rtol=1e-10)
    np.testing.assert_allclose(variance, p * (1 - p) * (high - low) ** 2, rtol=1e-9)
    linear, _ = unit_moments(make, noise, np.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(linear / (2 * density), (3 - 4 * c**2) / 2, rtol=1e-11)
    assert abs((3 - 4 * c**2) / 2 - 1) > 0.05


@pytest.mark.parametrize("noise", ["logistic", "uniform"])
@pytest.mark.first(1)
def test_psa_of_one_unit_is_the_exact_gradient_in_every_draw(noise):
    density = SCIPY[noise].pdf(POINTS)
    mean, variance = unit_moments(psa, noise)
    np.testing.assert_allclose(mean, density * (polynomial(1, C) - polynomial(-1, C)), rtol=1e-12)
    np.testing.assert_allclose(variance, 0, atol=1e-15)


@pytest.mark.parametrize("noise", ["normal", "triangular"])
@pytest.mark.first(1)
def test_bias_and_variance_of_straight_through_on_a_quadratic_form(noise):
    generator = np.random.default_rng(0)
    q = generator.standard_normal((4, 4))
    q, c = q + q.T, generator.standard_normal(4)

    def quadratic(params, example, binary):
        x = binary(params[0], noise=noise)
        return x @ q @ x / 2 + c @ x

    found = jax.jit(partial(moments, straight_through(quadratic)))((POINTS,), BATCH)
    density, mu = SCIPY[noise].pdf(POINTS), 2 * SCIPY[noise].cdf(POINTS) - 1
    off_diagonal = q - np.diag(np.diag(q))
    true = 2 * density * (off_diagonal @ mu + c)
    np.testing.assert_allclose(found.mean[0] - true, 2 * density * np.diag(q) * mu, rtol=1e-11)
    variance = 4 * density**2 * (q**2 @ (1 - mu**2))
    np.testing.assert_allclose(found.variance[0], variance, rtol=1e-10)


@pytest.mark.parametrize("make", [straight_through, reinforce])
@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.first(1)
def test_the_mean_squared_error_of_m_draws_is_squared_bias_plus_variance_over_m(make, m):
    """Literally: over all m-tuples of the draws that one unit can give."""
    a, c = jnp.asarray(0.45), jnp.asarray(C)
    p = stats.logistic.cdf(0.45)
    found = jax.jit(partial(moments, make(unit)))((a, c), BATCH)
    draw = jax.jit(jax.vmap(jax.grad(make(unit).example_loss), (None, 0, None)))
    g = np.asarray(draw((a, c), ((jnp.array([0.0, 1.0]),),), BATCH[0])[0])
    true = stats.logistic.pdf(0.45) * (polynomial(1, C) - polynomial(-1, C))
    error = sum(
        np.prod([(p, 1 - p)[i] for i in tuple_]) * (np.mean(g[list(tuple_)]) - true) ** 2
        for tuple_ in itertools.product((0, 1), repeat=m)
    )
    bias, variance = found.mean[0] - true, found.variance[0]
    np.testing.assert_allclose(error, bias**2 + variance / m, rtol=1e-11)


# ----------------------------------------------------------------------------- Concrete


@cache
def concrete_draws(noise, temperature):
    loss = concrete(partial(unit, noise=noise), temperature=temperature)
    draw = jax.grad(loss.example_loss)
    return jax.jit(
        jax.vmap(lambda a, c, u: draw((a, c), ((u,),), BATCH[0])[0], in_axes=(None, None, 0))
    )


def concrete_moments(a, c, temperature, noise="logistic"):
    """E g and E g^2 of the estimator's own draws, by a fine integral over its noise."""
    z = np.linspace(-36, 36, 200_001)  # trapezoids converge geometrically
    inner = np.clip(SCIPY[noise].cdf(z), 1e-300, 1 - 1e-16)
    g = np.asarray(concrete_draws(noise, temperature)(a, jnp.asarray(c), inner))
    weight = SCIPY[noise].pdf(z) * (z[1] - z[0])
    return weight @ g, weight @ g**2


@pytest.mark.parametrize(("noise", "t"), [("logistic", 1.0), ("logistic", 0.2), ("normal", 0.5)])
@pytest.mark.parametrize("a", [0.0, 0.7])
def test_first_and_second_moment_of_concrete(noise, t, a):
    density = SCIPY[noise].pdf

    def first(v):
        return derivative(v, C) * density(a - 2 * t * np.arctanh(v))

    def second(v):
        return derivative(v, C) ** 2 * (1 - v**2) / (2 * t) * density(a - 2 * t * np.arctanh(v))

    right = [integrate.quad(f, -1, 1, epsabs=1e-11, limit=200)[0] for f in (first, second)]
    np.testing.assert_allclose(concrete_moments(a, C, t, noise), right, rtol=1e-7)


def test_concrete_at_temperature_1_gives_a_third_instead_of_a_half():
    mean, _ = concrete_moments(0.0, [1.0, 0, 0, 0], 1.0)
    np.testing.assert_allclose(mean, 1 / 3, rtol=1e-9)
    np.testing.assert_allclose(2 * stats.logistic.pdf(0), 1 / 2)


def test_bias_and_second_moment_of_concrete_at_low_temperature():
    a, t = 0.7, 0.02
    s = stats.logistic.cdf(a)
    density = s * (1 - s)
    second = density * (1 - 2 * s)  # F''
    third = density * (1 - 6 * density)  # F'''
    quadratic, _ = concrete_moments(a, [0, 1.3, 0, 0], t)
    np.testing.assert_allclose(quadratic, -4 * 1.3 * t * second, rtol=1e-2)
    linear, square = concrete_moments(a, [1.3, 0, 0, 0], t)
    bias = linear - 1.3 * 2 * density
    np.testing.assert_allclose(bias, 1.3 * third * np.pi**2 * t**2 / 3, rtol=2e-2)
    np.testing.assert_allclose(square, 2 * 1.3**2 * density / (3 * t), rtol=1e-2)


@pytest.mark.slow
def test_sampled_draws_of_concrete_have_the_mean_of_the_integral():
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.grad(concrete(unit, temperature=1.0))
    draws = jax.jit(jax.vmap(lambda k: draw((jnp.asarray(0.7), jnp.asarray(C)), k, BATCH)[0]))(keys)
    mean, square = concrete_moments(0.7, C, 1.0)
    assert_mean(draws, mean)
    assert_mean(np.asarray(draws) ** 2, square)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.first(1)
def test_the_chance_that_all_units_of_a_chain_are_unsaturated_falls_as_t_to_the_depth(layers):
    def chain(params, example, binary):
        x, inside = 0.3, 1.0
        for k in range(layers):
            x = binary(params[0] * x + 0.1 * k)
            inside = inside * (jnp.abs(x) < 0.99)
        return inside

    n, temperatures = 300_000, (0.04, 0.12)

    @jax.jit
    def chances(key):
        # a batch is a set of independent examples, its value their mean
        batch = jnp.zeros((n, 1))
        losses = [concrete(chain, temperature=t) for t in temperatures]
        return [loss((jnp.float32(0.8),), key, batch) for loss in losses]

    low, high = map(float, chances(jax.random.key(layers)))
    slope = np.log(high / low) / np.log(temperatures[1] / temperatures[0])
    error = np.sqrt(1 / (n * high) + 1 / (n * low)) / np.log(3)  # of the slope, in sampling
    assert error < 0.07
    assert abs(slope - layers) < threshold(1e-6) * error + 0.03 * layers  # and what is of order t^2


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.first(1)
def test_the_mean_of_straight_through_gumbel_softmax(temperature):
    """E g = h'(1) A+ + h'(-1) A-, the half-range integrals of F'(a - 2t atanh v)."""
    loss = st_gumbel_softmax(unit, temperature=temperature)

    @jax.jit
    def draw(a, u):
        return jax.grad(loss.example_loss)((a, jnp.asarray(C)), ((u,),), BATCH[0])[0]

    def density(v, a):
        z = a - 2 * temperature * np.arctanh(v)
        return special.expit(z) * special.expit(-z)

    nodes, weights = np.polynomial.legendre.leggauss(400)
    for a in POINTS:
        p, mean = stats.logistic.cdf(a), 0.0
        for low, high in ((0, p), (p, 1)):  # the state changes at p
            u = (high + low) / 2 + nodes * (high - low) / 2
            mean += np.sum(weights * jax.vmap(partial(draw, a))(u)) * (high - low) / 2
        plus, minus = (integrate.quad(density, *ends, args=(a,))[0] for ends in ((0, 1), (-1, 0)))
        right = derivative(1, C) * plus + derivative(-1, C) * minus
        np.testing.assert_allclose(mean, right, rtol=1e-7)


@pytest.mark.slow
def test_straight_through_gumbel_softmax_tends_to_the_mean_of_zgr():
    def half(a, t, ends):
        return integrate.quad(lambda v: stats.logistic.pdf(a - 2 * t * np.arctanh(v)), *ends)[0]

    zgr_mean, _ = unit_moments(zgr, "logistic")
    gaps = []
    for t in (0.1, 0.01):
        mean = [
            derivative(1, C) * half(a, t, (0, 1)) + derivative(-1, C) * half(a, t, (-1, 0))
            for a in POINTS
        ]
        gaps.append(np.abs(mean - zgr_mean))
    assert np.linalg.norm(gaps[1]) < 0.2 * np.linalg.norm(gaps[0]) and np.all(gaps[1] < 1e-2)


def test_disarm_never_varies_more_than_arm_in_one_layer():
    """It is ARM averaged over the uniforms that give the same two states."""
    noise, c = "logistic", jnp.asarray(C)
    u = (np.arange(20_000) + 0.5) / 20_000

    @jax.jit
    def variances(a):
        draws = [
            jax.vmap(lambda v, m=m: jax.grad(m(unit).example_loss)((a, c), ((v,),), BATCH[0])[0])(u)
            for m in (arm, disarm)
        ]
        return jnp.array([jnp.mean(g) for g in draws]), jnp.array([jnp.var(g) for g in draws])

    for a in POINTS:
        means, (of_arm, of_disarm) = variances(jnp.asarray(a))
        true = SCIPY[noise].pdf(a) * (polynomial(1, C) - polynomial(-1, C))
        np.testing.assert_allclose(means, true, rtol=1e-3)
        assert of_disarm < of_arm
