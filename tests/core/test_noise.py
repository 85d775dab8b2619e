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
from gradbench.core.noise import get_noise, make_noise
from gradbench.core.noise_checks import bound_of, check_noise, integral_of, variance_of

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


def test_a_noise_is_found_by_its_aliases_too():
    assert get_noise("gaussian") is get_noise("normal")
    assert get_noise("Double-Exponential") is get_noise("laplace")
    assert all(REGISTERED.facts(name).summary for name in REGISTERED)


def test_a_noise_object_is_taken_as_it_is():
    assert get_noise(get_noise("normal")) is get_noise("normal")


@each_noise
@pytest.mark.first(1)
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
@pytest.mark.first(1)
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


# ------------------------------------------------------------------------ variance and integral


@each_noise
@pytest.mark.first(1)
def test_variance_and_integral_are_those_of_scipy(name):
    noise, truth = get_noise(name), SCIPY[name]
    assert noise.variance == pytest.approx(truth.var(), rel=1e-14)
    points = np.array([-7.0, -1.3, -0.4, 0.0, 0.7, 1.0, 5.0])
    right = [
        truth.expect(lambda z, a=a: a - z, lb=max(truth.support()[0], -60), ub=a) for a in points
    ]
    with precision(True):
        np.testing.assert_allclose(noise.integral(points), right, rtol=1e-6, atol=1e-9)


@each_noise
@pytest.mark.first(1)
def test_the_derivative_of_the_integral_is_the_cdf(name):
    noise = get_noise(name)
    with precision(True):
        np.testing.assert_array_equal(jax.vmap(jax.grad(noise.integral))(GRID), noise.cdf(GRID))


@each_noise
@pytest.mark.slow
def test_the_noises_of_the_package_pass_the_checks_and_could_be_left_to_quadrature(name):
    noise = get_noise(name)
    check_noise(noise)
    assert variance_of(noise, noise.variance) == noise.variance
    assert variance_of(noise, None) == pytest.approx(noise.variance, rel=1e-9)
    assert integral_of(noise, noise.integral) is noise.integral
    assert bound_of(noise, None) == bound_of(noise, noise.bound) == noise.bound
    for double, tolerance in ((True, 1e-9), (False, 1e-6)):
        with precision(double):
            points = jnp.asarray([[-3.0, -0.4, 0.0], [0.7, 1.0, 5.0]])
            found = jax.jit(integral_of(noise, None))(points)
            np.testing.assert_allclose(found, noise.integral(points), rtol=1e-5, atol=tolerance)


# ---------------------------------------------------------------------------- a noise of one's own

SECH = {  # the hyperbolic secant distribution, of variance 1
    "cdf": lambda a: 2 / jnp.pi * jnp.arctan(jnp.exp(jnp.pi / 2 * a)),
    "pdf": lambda a: 1 / (2 * jnp.cosh(jnp.pi / 2 * a)),
    "quantile": lambda u: 2 / jnp.pi * jnp.log(jnp.tan(jnp.pi / 2 * u)),
}


@pytest.mark.slow
def test_what_a_noise_of_ones_own_does_not_give_is_computed():
    noise = make_noise("sech", **SECH)
    assert noise.bound == np.inf
    assert noise.variance == pytest.approx(1, rel=1e-9)
    with precision(True):
        area = float(noise.integral(jnp.array(0.8)))
        assert area == pytest.approx(
            stats.hypsecant(scale=2 / np.pi).expect(lambda z: 0.8 - z, lb=-60, ub=0.8), rel=1e-8
        )
        assert float(noise.hazard(jnp.array(0.3))) == pytest.approx(
            float(SECH["pdf"](0.3) / SECH["cdf"](0.3)), rel=1e-12
        )
        assert float(jax.grad(noise.log_cdf)(0.3)) == float(noise.hazard(jnp.array(0.3)))


def test_a_noise_without_moments_has_an_infinite_variance_and_no_integral():
    cauchy = make_noise(
        "cauchy",
        cdf=lambda a: jnp.arctan2(jnp.ones_like(a), -a) / jnp.pi,
        pdf=lambda a: 1 / (jnp.pi * (1 + a**2)),
        quantile=lambda u: -1 / jnp.tan(jnp.pi * u),
    )
    assert cauchy.variance == np.inf
    assert cauchy.integral is None


def test_what_is_given_of_a_noise_is_kept():
    given = {"variance": 1.0, "bound": np.inf, "hazard": lambda a: SECH["pdf"](a) / SECH["cdf"](a)}
    noise = make_noise("sech", **SECH, **given)
    assert (noise.variance, noise.bound, noise.hazard) == tuple(given.values())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"cdf": lambda a: SECH["cdf"](a - 0.1)},
            r"is not symmetric, since cdf\(0\) = 0.450204 and 1 - cdf\(0\) = 0.549796; give a dis",
        ),
        (
            {"cdf": lambda a: SECH["cdf"](-a)},
            r"has a cdf that falls from cdf\(-?0.3\d+\) = 0.\d+ to cdf\(-?0.3\d+\) = 0.\d+; give",
        ),
        (
            {"pdf": lambda a: 1.01 * SECH["pdf"](a)},
            r"has pdf\(0\) = 0.505 and not 0.5; give the derivative of its cdf",
        ),
        (
            {"pdf": lambda a: jnp.where(jnp.abs(a - 3) < 0.5, 0, SECH["pdf"](a))},
            r"has pdf\(\d.\d+\) = 0 and not 0.0\d+; give the derivative of its cdf",
        ),
        (
            {"quantile": lambda u: 1.01 * SECH["quantile"](u)},
            r"has quantile\(cdf\(-?12.\d+\)\) = -?12.7\d+ and not -?12.\d+; give the inverse",
        ),
        (
            {"quantile": lambda u: -SECH["quantile"](u)},
            r"has quantile\(cdf\(\S+\)\) = \S+ and not \S+; give the inverse of its cdf",
        ),
        ({"quantile": lambda u: 0 * u}, r"has quantile\(0.75\) = 0; give the inverse of its cdf"),
        ({"cdf": lambda a: 2 * SECH["cdf"](a)}, r"has cdf\(\S+\) = 2; give probabilities"),
        ({"cdf": lambda a: a / 0}, r"has cdf\(\S+\) = -?(inf|nan); give finite numbers"),
        ({"cdf": lambda a: jnp.sum(a)}, r"has a cdf that makes an array of shape \(\) of one"),
        (
            {"cdf": np.exp},
            r"has a cdf that fails on an array \((Tracer\w+|Value)Error: .*jax.num",
        ),
        ({"hazard": SECH["pdf"]}, r"has hazard\(\S+\) = \S+ and not 1.5708; leave it out"),
        ({"log_cdf": SECH["cdf"]}, r"has log_cdf\(\S+\) = 1 and not -\S+; leave it out"),
        ({"variance": 1.02}, "has the variance 1.02 and not 1; leave it out to have it computed"),
        ({"bound": 3.0}, r"goes beyond its bound, since cdf\(3\) = 0.994281; leave the bound out"),
        ({"integral": jax.nn.relu}, r"has integral\(0\) = 0 and not 0.37\d+; leave it out"),
    ],
)
def test_a_noise_that_contradicts_itself_is_refused_with_the_worst_point(wrong, sentence):
    with pytest.raises(GradbenchError, match=rf"^the noise 'wrong' {sentence}"):
        make_noise("wrong", **(SECH | wrong))


@pytest.mark.parametrize(("field", "value"), [("variance", -1.0), ("bound", "far")])
def test_a_variance_or_bound_that_is_no_positive_number_is_refused(field, value):
    with pytest.raises(
        GradbenchError, match=f"^the {field} of the noise 'wrong' is {value!r}; give"
    ):
        make_noise("wrong", **SECH, **{field: value})


def test_a_density_with_kinks_and_jumps_is_taken():
    # Two uniform parts with a gap between them: no density within 1/2 of 0.
    make_noise(
        "gap",
        cdf=lambda a: 0.5 + jnp.sign(a) * jnp.clip(jnp.abs(a) - 0.5, 0, 1) / 2,
        pdf=lambda a: jnp.where((jnp.abs(a) > 0.5) & (jnp.abs(a) < 1.5), 0.5, 0.0),
        quantile=lambda u: jnp.sign(u - 0.5) * (2 * jnp.abs(u - 0.5) + 0.5),
    )
