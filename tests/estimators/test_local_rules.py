"""Rules local to a unit: what each is exact for, its closed forms, its limits.

Classes are found by enumeration with SciPy's distributions, draws are compared with formulas. One
layer of units with several noises serves most tests: a rule that is wrong for one noise is wrong
there. Nothing is compiled but in exact moments: the operations are few.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, small
from scipy import integrate, optimize, special, stats

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.precision import single
from gradbench.core.run import run_model
from gradbench.estimators import (
    check_spec,
    concrete,
    darn,
    deterministic_straight_through,
    gapped_straight_through,
    get_estimator,
    hard_concrete,
    make_estimator,
    mean_field,
    mve,
    st_gumbel_softmax,
    st_zgr,
    stochastic_times_smooth,
    straight_through,
    swish_sign,
    zgr,
)
from gradbench.estimators.proxies import PROXIES
from gradbench.estimators.straight_through import with_derivative
from gradbench.exact.moments import moments

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

A = np.array([0.45, -0.7, 0.6, -0.35, 0.8])
OF_FIVE, WHERE = ("logistic", "triangular", "laplace"), (slice(0, 1), slice(1, 3), slice(3, 5))
CLASSES = ("linear", "multilinear", "quadratic", "cubic")
BATCH = np.zeros((1, 1))
C = np.array([0.7, -0.4, 0.9, 0.3])  # h = C1 x + C2 x^2 + C3 x^3 + C4 x^4


def features(x):
    """Terms of degree 1 in each unit, in one and in several; of degree 2; of degree 3."""
    xp = np if isinstance(x, np.ndarray) else jnp
    products = [x[0] * x[1], x[1] * x[4], x[2] * x[3], x[1] * x[2] * x[3], xp.prod(x)]
    squares = [*x**2, x[0] ** 2 * x[1], x[1] ** 2 * x[2] ** 2 * x[3]]
    return [x, xp.stack(products), xp.stack(squares), xp.append(x**3, x[0] ** 3 * x[4] ** 2)]


def five(params, example, binary):
    """Five units; the objective is a polynomial whose terms the parameters choose."""
    x = jnp.concatenate(
        [binary(params[0][at], noise=noise) for noise, at in zip(OF_FIVE, WHERE, strict=True)]
    )
    return sum(c @ terms for c, terms in zip(params[1], features(x), strict=True))


def polynomials():
    """Coefficients of random objectives, one of each class: those of degree so high, none above."""
    generator = np.random.default_rng(5)
    sizes = [len(terms) for terms in features(np.zeros(5))]
    full = [generator.uniform(0.2, 1, n) * generator.choice([-1, 1], n) for n in sizes]
    return [np.stack([c * (k <= row) for row in range(4)]) for k, c in enumerate(full)]


PATHS = np.array(list(itertools.product((-1.0, 1.0), repeat=5)))
ON_PATHS = tuple(jnp.asarray((1 - PATHS[:, at]) / 2) for at in WHERE)  # the uniforms of them
NOISE_OF = [n for n, at in zip(OF_FIVE, WHERE, strict=True) for _ in range(at.stop - at.start)]
P = np.stack([SCIPY[noise].cdf(PATHS[:, k] * A[k]) for k, noise in enumerate(NOISE_OF)], axis=1)
DENSITY = np.array([SCIPY[noise].pdf(a) for noise, a in zip(NOISE_OF, A, strict=True)])


def found_class(make):
    """The class of objectives up to which a rule has no bias in any unit, by all 32 paths."""
    coefficients = polynomials()
    terms = [np.stack([features(x)[k] for x in PATHS]) for k in range(4)]
    f = sum(t @ c.T for t, c in zip(terms, coefficients, strict=True))  # [paths, classes]
    right = f.T @ (np.prod(P, axis=1)[:, None] * PATHS * DENSITY / P)
    loss = make(five)
    cases = [jnp.repeat(c, 32, axis=0) for c in coefficients]  # [classes * paths, terms]
    u = (tuple(jnp.tile(v, (4, 1)) for v in ON_PATHS),) if loss.streams else ()

    def draw(coefficients, u):
        return jax.grad(loss.example_loss)((jnp.asarray(A), coefficients), u, BATCH[0])[0]

    draws = np.asarray(jax.jit(jax.vmap(draw))(cases, u)).reshape(4, 32, 5)
    mean = np.einsum("p,cpi->ci", np.prod(P, axis=1), draws)
    errors = np.abs(mean - right).max(1)
    exact = errors < 1e-12
    assert np.all(errors[~exact] > 1e-3)  # nothing between exact and wrong
    assert np.all(np.diff(exact.astype(int)) <= 0)
    return "biased" if not exact[0] else CLASSES[exact.sum() - 1]


SPECS = (  # besides the defaults, which test_certificate.py has
    "straight_through(slope=2)",
    "straight_through(proxy='tanh')",
    "st_zgr(alpha=1)",
    "mve(tau=0)",
    "darn(phi='p')",
    "gapped_straight_through(gap='auto', temperature=0.5)",
)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.slow
def test_a_rule_is_exact_for_what_it_claims_and_for_nothing_more(spec):
    entry, arguments = get_estimator(spec)
    assert found_class(lambda model: entry.make(model, **arguments)) == entry.claim(**arguments)


@pytest.mark.slow
def test_a_lost_sign_in_darn_is_seen():
    def wrong(model):
        return with_derivative(
            model, lambda noise, x, a: x * noise.score(x, a) * 2 * x * noise.cdf(-x * a)
        )

    assert found_class(wrong) == "biased"


@pytest.mark.slow
def test_a_dropped_factor_2_in_mve_is_seen():
    def wrong(model):
        def slope(noise, x, a):
            p, other = noise.cdf(x * a), noise.cdf(-x * a)
            return 2 * noise.pdf(a) * (1 + other) / (1 + p * other)

        return with_derivative(model, slope)

    assert found_class(wrong) == "biased"


# ------------------------------------------------------------------ proxies and their noise


def scaled(name, cdf, pdf, quantile):
    """A noise outside the registry."""
    hazard, log = (lambda a: pdf(a) / cdf(a)), (lambda a: jnp.log(cdf(a)))
    return Noise(name, cdf, pdf, quantile, hazard, log)


HALF = scaled(
    "logistic of scale 1/2",
    lambda a: jax.nn.sigmoid(2 * a),
    lambda a: 2 * jax.nn.sigmoid(2 * a) * jax.nn.sigmoid(-2 * a),
    lambda u: (jnp.log(u) - jnp.log1p(-u)) / 2,
)
CAUCHY = scaled(
    "cauchy",
    lambda a: jnp.arctan(a) / jnp.pi + 0.5,
    lambda a: 1 / jnp.pi / (1 + a**2),
    lambda u: jnp.tan(jnp.pi * (u - 0.5)),
)
FAST = scaled(
    "fast sigmoid",
    lambda a: jnp.where(a < 0, 0.5 / (1 - jnp.minimum(a, 0)), 1 - 0.5 / (1 + jnp.abs(a))),
    lambda a: 0.5 / (1 + jnp.abs(a)) ** 2,
    lambda u: jnp.where(u < 0.5, 1 - 0.5 / u, 0.5 / (1 - u) - 1),
)
EXPLAINED = {
    "sigmoid": "logistic",
    "tanh": HALF,
    "hardtanh": "uniform",
    "approxsign": "triangular",
    "erf": "normal",
    "exponential": "laplace",
    "arctan": CAUCHY,
    "fast_sigmoid": FAST,
    "ede": HALF,
}
# What the names say: the function whose derivative the proxy is.
FUNCTIONS = {
    "identity": lambda a: a,
    "sigmoid": lambda a: 2 * jax.nn.sigmoid(a) - 1,
    "tanh": jnp.tanh,
    "hardtanh": lambda a: jnp.clip(a, -1, 1),
    "approxsign": lambda a: jnp.where(jnp.abs(a) < 1, 2 * a - jnp.sign(a) * a**2, jnp.sign(a)),
    "erf": lambda a: jax.lax.erf(a / jnp.sqrt(2.0)),
    "exponential": lambda a: jnp.sign(a) * (1 - jnp.exp(-jnp.abs(a))),
    "arctan": lambda a: 2 / jnp.pi * jnp.arctan(a),
    "fast_sigmoid": lambda a: a / (1 + jnp.abs(a)),
    "ede": jnp.tanh,
    "reste": lambda a: jnp.clip(a, -1.5, 1.5),
    "swish": lambda a: 2 * jax.nn.sigmoid(a) * (1 + a * jax.nn.sigmoid(-a)) - 1,
}


@jax.jit
def proxies_and_derivatives(a, slope):
    """Of every proxy its value at a, and the derivative of what its name says, at slope * a."""
    return {
        name: (PROXIES[name](None, a), slope * jax.vmap(jax.grad(function))(slope * a))
        for name, function in FUNCTIONS.items()
    }


def test_every_proxy_is_the_derivative_of_the_function_it_is_named_after():
    a = jnp.array([-1.7, -0.8, -0.3, 0.2, 0.6, 1.4])
    assert set(FUNCTIONS) == set(PROXIES) - {"density"}
    for name, (found, right) in proxies_and_derivatives(a, 1.0).items():
        np.testing.assert_allclose(found, right, rtol=1e-12, err_msg=name)


def test_every_proxy_is_the_density_of_the_noise_that_explains_it():
    assert set(EXPLAINED) == set(PROXIES) - {"density", "identity", "reste", "swish"}
    a = jnp.linspace(-1.93, 1.97, 40)

    @jax.jit
    def both(a):
        return {n: (PROXIES[n](None, a), 2 * get_noise(z).pdf(a)) for n, z in EXPLAINED.items()}

    for name, (found, density) in both(a).items():
        np.testing.assert_allclose(found, density, rtol=1e-13, err_msg=name)


@pytest.mark.parametrize("proxy", ["tanh", "arctan"])
def test_a_proxy_is_exact_for_multilinear_objectives_with_that_noise_alone(proxy):
    a = np.array([0.4, -1.1])

    def errors(noise):
        """Of E g of x0 x1 - x0 / 3, by the four paths."""
        loss = straight_through(
            lambda p, e, b: (lambda x: x[0] * x[1] - x[0] / 3)(b(p[0], noise=noise)), proxy=proxy
        )
        cdf, pdf = (np.asarray(f(a)) for f in (get_noise(noise).cdf, get_noise(noise).pdf))
        draw, mean = jax.jit(jax.grad(loss.example_loss)), 0
        for x in itertools.product((-1, 1), repeat=2):
            u = jnp.array([(1.0 - s) / 2 for s in x])
            g = draw((jnp.asarray(a),), ((u,),), BATCH[0])[0]
            mean += np.prod(np.where(np.array(x) > 0, cdf, 1 - cdf)) * np.asarray(g)
        other = (2 * cdf - 1)[::-1] - np.array([1 / 3, 0])
        return np.max(np.abs(mean - 2 * pdf * other))

    assert errors(EXPLAINED[proxy]) < 1e-14
    assert errors("logistic") > 1e-2


def derivative_of(loss, a, u=0.3):
    """What a rule has for dx/da: a draw of a model whose objective is the sum of the states."""
    us = ((jnp.full(a.shape, u),),) if loss.streams else ()
    return np.asarray(jax.jit(jax.grad(loss.example_loss))((a,), us, BATCH[0])[0])


def total(params, example, binary, noise="logistic"):
    return jnp.sum(binary(params[0], noise=noise))


@pytest.mark.slow
def test_a_slope_is_that_of_the_function_of_so_many_a():
    a = jnp.array([-1.7, -0.8, -0.3, 0.2, 0.6, 1.4])
    for name, (_, right) in proxies_and_derivatives(a, 1.3).items():
        if name == "reste":  # whose slope is a power, see test_proxies.py
            continue
        for make in (straight_through, deterministic_straight_through):
            found = derivative_of(make(total, proxy=name, slope=1.3), a)
            np.testing.assert_allclose(found, right, rtol=1e-12, err_msg=name)
    found = derivative_of(straight_through(partial(total, noise="normal"), slope=1.3), a)
    np.testing.assert_allclose(found, 2.6 * stats.norm.pdf(1.3 * a), rtol=1e-12)


@pytest.mark.parametrize("beta", [5.0, 10.0])
@pytest.mark.first(1)
def test_the_swish_sign_is_the_derivative_of_the_function_of_the_paper(beta):
    def paper(a):
        s = jax.nn.sigmoid(beta * a)
        return 2 * s * (1 + beta * a * (1 - s)) - 1

    a = jnp.linspace(-1.2, 1.2, 49)
    right = jax.jit(jax.vmap(jax.grad(paper)))(a)
    table = beta * (2 - beta * a * np.tanh(beta * a / 2)) / (1 + np.cosh(beta * a))
    for make in (straight_through, swish_sign):  # at sampled states, and without noise as published
        g = derivative_of(make(total, proxy="swish", slope=beta), a)
        np.testing.assert_allclose(g, right, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(g, table, rtol=1e-10, atol=1e-13)
        np.testing.assert_array_equal(g < 0, np.abs(beta * a) > 2.3994)
    same = derivative_of(swish_sign(total), a)
    np.testing.assert_array_equal(
        same, derivative_of(deterministic_straight_through(total, proxy="swish", slope=5), a)
    )


def test_the_clipped_identity_moves_weights_that_lie_at_its_ends():
    """Where they were clipped: else they would stay there for ever (Courbariaux et al. 2016)."""
    a = jnp.array([-1.0 - 1e-9, -1.0, 0.0, 1.0, 1.0 + 1e-9])
    for make in (straight_through, deterministic_straight_through):
        g = derivative_of(make(total, proxy="hardtanh"), a)
        np.testing.assert_array_equal(g, [0, 1, 1, 1, 0])


@pytest.mark.slow
def test_the_deterministic_network_is_that_of_the_signs_and_takes_no_noise():
    network, params, batch = small((2, 3, 2, 1))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    loss = deterministic_straight_through(network)
    right = run_model(network, params, example, lambda site, a: jnp.sign(a)).f
    assert loss.randomness == "none"
    np.testing.assert_array_equal(loss.example_loss(params, (), example), right)
    assert not get_estimator("deterministic_straight_through")[0].estimates_value()


# ------------------------------------------------------------------------- ZGR and its kin


def cubes(params, example, binary, noise="laplace"):
    x = binary(params[0], noise=noise)
    return jnp.prod(1 + x**3 / 2 + 0.3 * x)


def both_states(make):
    """Draws of a rule in both states of the first of five units with a product for objective."""
    draw = jax.jit(jax.grad(make(cubes).example_loss))
    us = [jnp.array([0.4, 0.7, 0.2, 0.9, 0.5]).at[0].set(u) for u in (0.0, 1.0)]
    return np.stack([draw((jnp.asarray(A),), ((u,),), 0)[0] for u in us])


@pytest.mark.slow
def test_the_rules_between_straight_through_and_zgr_are_mixtures_of_them_draw_by_draw():
    st, z = both_states(straight_through), both_states(zgr)
    mixed = both_states(partial(st_zgr, alpha=0.3))
    np.testing.assert_allclose(mixed, 0.7 * st + 0.3 * z, rtol=1e-11)
    p = SCIPY["laplace"].cdf(A)
    for tau in (0.0, 3.0, 1e12):
        alpha = 2 * tau * p * (1 - p) / (1 + 2 * tau * p * (1 - p))  # of the variance of b
        own = both_states(partial(mve, tau=tau))
        np.testing.assert_allclose(own, (1 - alpha) * st + alpha * z, rtol=1e-11)
    np.testing.assert_allclose(own, z, rtol=1e-10)  # at infinity


@pytest.mark.parametrize("noise", ["logistic", "triangular"])
def test_darn_with_the_mean_is_b_minus_p_squared_over_the_variance(noise):
    a = jnp.asarray(A)
    p = SCIPY[noise].cdf(A)
    for b in (0.0, 1.0):
        found = derivative_of(darn(partial(total, noise=noise), phi="p"), a, 1 - b)
        right = 2 * (b - p) ** 2 * SCIPY[noise].pdf(A) / (p * (1 - p))
        np.testing.assert_allclose(found, right, rtol=1e-12)


@pytest.mark.parametrize("tau", [0.7, 5.0])
@pytest.mark.parametrize("noise", ["logistic", "laplace"])
def test_mve_has_the_least_variance_and_bias_of_all_rules_that_are_right_on_linear(noise, tau):
    """Of J with E J = F', so that J(1) says all: Var J + tau/2 (E J h')^2, h = (b - 1/2)^2."""
    a = 0.7
    p, density = SCIPY[noise].cdf(a), SCIPY[noise].pdf(a)
    loss = mve(partial(total, noise=noise), tau=tau)
    own = [float(derivative_of(loss, jnp.array(a), u)) / 2 for u in (0.0, 1.0)]
    np.testing.assert_allclose(p * own[0] + (1 - p) * own[1], density, rtol=1e-12)

    def price(high):
        low = (density - p * high) / (1 - p)
        variance = p * high**2 + (1 - p) * low**2 - density**2
        return variance + tau / 2 * (p * high - (1 - p) * low) ** 2

    best = optimize.minimize_scalar(price, options={"xtol": 1e-12})
    np.testing.assert_allclose(own[0], best.x, rtol=1e-7)
    assert price(own[0]) <= best.fun + 1e-15


# ----------------------------------------------------------------------------------- gapped


@pytest.mark.parametrize(("gap", "t"), [(1.0, 1.0), (0.3, 0.5), ("auto", 0.7)])
@pytest.mark.parametrize("noise", ["logistic", "uniform"])
def test_gapped_straight_through_is_the_rule_of_the_paper_in_the_logit(noise, gap, t):
    a = jnp.array([-0.9, -0.2, 0.1, 0.8])
    p = SCIPY[noise].cdf(a)
    loss = gapped_straight_through(partial(total, noise=noise), gap=gap, temperature=t)
    for state in (0, 1):
        g = derivative_of(loss, a, 1.0 - state)
        own = p if state else 1 - p
        lead = -np.log(1 - own) / own if gap == "auto" else gap
        m = np.where(own > 0.5, np.maximum(np.abs(special.logit(p)), lead), lead)
        y = special.expit(m / t)
        right = 2 * y * (1 - y) / t * SCIPY[noise].pdf(a) / (p * (1 - p))
        np.testing.assert_allclose(g, right, rtol=1e-11)


def test_the_automatic_gap_is_accurate_for_likely_and_for_unlikely_states():
    a = jnp.array([-40.0, -20.0, -1e-9, 1e-9, 20.0, 40.0])
    g = derivative_of(gapped_straight_through(total, gap="auto"), a, 0.0)  # all are +1
    p = special.expit(a)
    lead = np.where(a < 0, -np.log1p(-np.minimum(p, 0.6)), np.logaddexp(0, a)) / p
    m = np.maximum(a, lead)
    np.testing.assert_allclose(g, 2 * special.expit(m) * special.expit(-m), rtol=1e-12)


# ----------------------------------------------------------------- Concrete and other real states


def derivative(x):
    return sum(k * c * x ** (k - 1) for k, c in enumerate(C, 1))


def unit(params, example, binary, noise="logistic"):
    x = binary(params[0], noise=noise)
    return sum(c * x**k for k, c in enumerate(C, 1))


U = np.linspace(0.003, 0.997, 72)


def assert_draws(make, noise, a, g):
    """Every draw of one unit, at many uniforms, is g(z) of the noise z."""
    loss = make(partial(unit, noise=noise))
    draw = jax.vmap(lambda u: jax.grad(loss.example_loss)((jnp.asarray(a),), ((u,),), BATCH[0])[0])
    right = [g(z) for z in SCIPY[noise].ppf(U)]
    np.testing.assert_allclose(jax.jit(draw)(U), right, rtol=1e-10, atol=1e-13)


def assert_moments(make, noise, a, g, cuts=()):
    """Exact moments are the integrals of g and g^2 over the noise, which jump at ``cuts``."""
    found = moments(make(partial(unit, noise=noise)), (jnp.asarray(a),), BATCH)
    bound = min(get_noise(noise).bound, 38)
    ends = sorted({-bound, 0, bound, *np.clip(cuts, -bound, bound)})
    first, second = (
        sum(
            integrate.quad(
                lambda z, k=k: g(z) ** k * SCIPY[noise].pdf(z), *part, epsabs=1e-12, limit=200
            )[0]
            for part in itertools.pairwise(ends)
        )
        for k in (1, 2)
    )
    np.testing.assert_allclose(found.mean[0], first, rtol=1e-8)
    np.testing.assert_allclose(found.variance[0], second - first**2, rtol=1e-8)


def of_concrete(a, t, factor=1.0):
    def g(z):
        x = np.tanh((factor * a - z) / (2 * t))
        return derivative(x) * factor * (1 - x**2) / (2 * t)

    return g


@pytest.mark.parametrize("relaxation", ["concrete", "rebar"])
@pytest.mark.first(1)
def test_both_relaxations_are_those_of_the_papers_draw_by_draw(relaxation):
    a, t = 0.6, 0.4
    g = of_concrete(a, t, {"concrete": 1.0, "rebar": (t**2 + t + 1) / (t + 1)}[relaxation])
    make = partial(concrete, temperature=t, relaxation=relaxation)
    for noise in NOISES:
        assert_draws(make, noise, a, g)
    if relaxation == "rebar":
        assert_moments(make, "laplace", a, g)


def test_the_relaxation_of_rebar_tends_to_the_mean_field_and_that_of_concrete_to_nothing():
    a = jnp.array([-1.2, 0.3, 0.8])

    def found(temperature, relaxation):
        return derivative_of(concrete(total, temperature=temperature, relaxation=relaxation), a)

    right = derivative_of(mean_field(total), a)
    errors = [np.linalg.norm(found(t, "rebar") - right) for t in (30.0, 300.0)]
    assert errors[1] < 0.15 * errors[0] < 0.15 * np.linalg.norm(right)
    assert np.linalg.norm(found(300.0, "concrete")) < 0.02 * np.linalg.norm(right)


@pytest.mark.slow
def test_hard_concrete_is_that_of_the_paper_draw_by_draw():
    a, t, low, high = 0.3, 2 / 3, -0.1, 1.1

    def g(z):
        y = special.expit((a - z) / t)
        b = low + (high - low) * y
        return derivative(2 * b - 1) * 2 * (high - low) * y * (1 - y) / t * (0 < b < 1)

    for noise in NOISES:
        assert_draws(hard_concrete, noise, a, g)
    cuts = [a - t * special.logit((b - low) / (high - low)) for b in (0, 1)]
    assert_moments(hard_concrete, "laplace", a, g, cuts)
    assert_draws(partial(hard_concrete, low=0, high=1), "normal", a, of_concrete(a, t))


def test_hard_concrete_has_states_that_are_hard():
    seen = []
    loss = hard_concrete(lambda p, e, b: seen.append(b(p[0])) or jnp.sum(seen[-1]))
    a, u = jnp.zeros(999), jnp.linspace(0.001, 0.999, 999)
    loss.example_loss((a,), ((u,),), BATCH[0])
    right = 2 * stats.logistic.cdf(2 / 3 * special.logit(0.1 / 1.2))
    assert abs(np.mean(np.abs(seen[0]) == 1) - right) < 3e-3
    assert np.max(np.abs(seen[0])) == 1


@pytest.mark.parametrize("noise", ["logistic", "triangular"])
@pytest.mark.first(1)
def test_stochastic_times_smooth_has_the_value_and_half_the_gradient_of_multilinear(noise):
    def tensor(params, example, binary):
        x = binary(params[0], noise=noise)
        return (1 + x[0]) * (0.5 - x[1]) + params[1] * x[0] ** 2

    for square in (0.0, 1.0):
        params = (jnp.array([0.4, -0.6]), jnp.array(square))
        found = moments(stochastic_times_smooth(tensor), params, BATCH)
        mu, density = 2 * SCIPY[noise].cdf(params[0]) - 1, SCIPY[noise].pdf(params[0])
        right = 2 * density * np.array([0.5 - mu[1], -1 - mu[0]])
        value = (1 + mu[0]) * (0.5 - mu[1]) + square
        same = square == 0
        assert np.allclose(found.mean[0], right / 2, rtol=1e-11, atol=0) == same
        assert np.allclose(found.value, value, rtol=1e-11, atol=0) == same


@pytest.mark.parametrize("make", [hard_concrete, stochastic_times_smooth])
def test_exact_moments_of_real_states_that_jump_are_refused_in_deep_models(make):
    network, params, batch = small((1, 1, 1, 1))
    with pytest.raises(GradbenchError, match="for one stochastic layer and the model has 2; mea"):
        moments(make(network), params, batch)


@pytest.mark.parametrize(("t", "m"), [(0.5, 1.0), (1.0, 2.0), (0.7, 0.4)])
@pytest.mark.slow
def test_straight_through_gumbel_softmax_is_that_of_two_temperatures_draw_by_draw(t, m):
    a = -0.4

    def g(z):
        y = special.expit((m * a - z) / t)
        return derivative(np.sign(a - z)) * 2 * m * y * (1 - y) / t

    make = partial(st_gumbel_softmax, temperature=t, slope=m)
    for noise in NOISES:
        assert_draws(make, noise, a, g)
    if m == 2:
        assert_moments(make, "triangular", a, g, [a])


# -------------------------------------------------------------------------------------- all

EVERY = ("st_zgr", "mve(tau=1e6)", "darn(phi='p')", "reinmax(temperature=2)")
EVERY += (
    "straight_through(proxy='swish', slope=10)",
    "gapped_straight_through(gap='auto', temperature=0.5)",
    "stochastic_times_smooth",
)
EVERY += ("concrete(relaxation='rebar', temperature=0.3)", "hard_concrete")
EVERY += ("st_gumbel_softmax(slope=3)",)


@pytest.mark.slow
def test_saturated_units_give_every_rule_a_finite_gradient_that_vanishes_in_float32():
    """At a = +-40, and beyond the support of bounded noise, in both states, likely or not."""
    with single():
        a = jnp.tile(jnp.array([-40.0, 40.0, -1.0, 1.0, 0.0]), 4)

        def model(params, example, binary):
            x = jnp.stack([binary(p, noise=n) for p, n in zip(params, NOISES, strict=True)])
            return jnp.sum(x + x**3)

        for spec in EVERY:
            loss = make_estimator(spec, model)
            end = 1e-7 if loss.randomness == "uniforms" else 0.0  # 0 and 1 are paths, not draws
            u = jnp.repeat(jnp.array([end, 0.3, 0.7, 1 - end]), 5)
            g = jax.grad(loss.example_loss)((a,) * 5, ((u,) * 5,), BATCH[0])
            g = np.stack(g).reshape(5, 4, 5)
            assert g.dtype == a.dtype, spec
            assert np.all(np.isfinite(g)), (spec, g)
            np.testing.assert_allclose(g[:, 1:3, :2], 0, atol=1e-6, err_msg=spec)


@pytest.mark.slow
def test_saturated_units_give_every_proxy_a_finite_derivative_in_float32():
    with single():
        a = jnp.array([-1e4, -40.0, -1.0, 0.0, 1.0, 40.0, 1e4])
        for name, proxy in PROXIES.items():
            found = proxy(get_noise("normal"), a)
            assert found.dtype == a.dtype, name
            assert np.all(np.isfinite(found)), name
            least = -0.2 if name == "swish" else 0
            assert np.all((found >= least) & (found <= 2)), name


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("straight_through(proxy='tahn')", "proxy is 'tahn'; did you mean 'tanh'?"),
        ("straight_through(slope=0)", "slope is 0; give a positive number"),
        ("deterministic_straight_through(proxy='dens')", "did you mean 'density'?"),
        ("swish_sign(slope=-1)", "slope is -1; give a positive number"),
        ("st_zgr(alpha='half')", "alpha is 'half'; give a number"),
        ("mve(tau=-1)", "tau is -1; give a number of at least 0"),
        ("darn(phi='q')", "phi is 'q'; give a number"),
        ("concrete(relaxation='rebarr')", "relaxation is 'rebarr'; did you mean 'rebar'?"),
        ("hard_concrete(low=0.1)", "low is 0.1 and high 1.1; give a low of at most 0"),
        ("hard_concrete(high=0.9)", "low is -0.1 and high 0.9; give a low of at most 0"),
        ("st_gumbel_softmax(slope=0)", "slope is 0; give a positive number"),
        ("gapped_straight_through(gap='p')", "gap is 'p'; give a positive number"),
        ("gapped_straight_through(temperature=0)", "temperature is 0; give a positive number"),
    ],
)
def test_a_wrong_hyperparameter_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)
