"""FouST: each switch by enumeration of states and exact quadrature of the evaluation points."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, flat, small

from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import single
from gradbench.core.run import run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import check_spec, foust, get_estimator, straight_through, zgr
from gradbench.exact.moments import moments

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

BATCH = np.zeros((1, 1))
A = np.array([0.45, -0.7])
NODE, WEIGHT = np.polynomial.legendre.leggauss(6)  # exact for polynomials of degree 11
NODE, WEIGHT = (NODE + 1) / 2, WEIGHT / 2


def product(x):
    """Multilinear, without a linear term in one of the units."""
    return 0.8 * x[0] * x[1] - 0.5 * x[1]


def separable(x):
    return jnp.sum(0.7 * x - 0.4 * x**2 + 0.9 * x**3 + 0.3 * x**4 - 0.6 * x**5)


def quadratic(x):
    return product(x) + x[0] ** 2 - 0.7 * x[1] ** 2 + 0.4 * x[0] ** 2 * x[1]


OBJECTIVES = {
    "linear": lambda x: 0.8 * x[0] - 0.5 * x[1],
    "multilinear": product,
    "quadratic": quadratic,
    "separable": separable,
}


def mean_and_truth(make, h, noise, rho):
    """E g of two units by all states, Gauss points and noisy bits; and the gradient of E h."""
    loss = make(lambda p, e, b: h(b(p[0], noise=noise)))
    cdf, pdf = SCIPY[noise].cdf, SCIPY[noise].pdf
    states = [((1 - x) / 2, cdf(x * A), np.array(x)) for x in map(np.array, _signs())]
    truth = sum(float(h(jnp.asarray(x, float))) * x * pdf(A) * p[::-1] for _, p, x in states)
    bits = [((0 + rho) / 2, rho)]
    bits += [(rho + (1 - rho) * k / 4, (1 - rho) / 2) for k in (1, 3)] if rho < 1 else []
    axes = [[(u, np.prod(p)) for u, p, _ in states]]
    if loss.streams > 1 + (rho < 1):
        axes.append(_pairs(zip(NODE, WEIGHT, strict=True)))
    if rho < 1:
        axes.append(_pairs(bits))
    rows = list(itertools.product(*axes))
    chance = np.array([np.prod([w for _, w in row]) for row in rows])
    np.testing.assert_allclose(chance.sum(), 1, rtol=1e-12)
    u = tuple((jnp.asarray(np.stack([row[k][0] for row in rows])),) for k in range(len(axes)))
    draw = jax.jit(jax.vmap(jax.grad(loss.example_loss), (None, 0, None)))
    return chance @ np.asarray(draw((jnp.asarray(A),), u, BATCH[0])[0]), truth


def _signs():
    return itertools.product((-1, 1), repeat=2)


def _pairs(axis):
    """Of both units, independent."""
    both = itertools.product(list(axis), repeat=2)
    return [(np.array([s, t]), v * w) for (s, v), (t, w) in both]


SWITCHES = [
    {"weight": w, "uniform_point": v, "rho": r}
    for w, v, r in ((0, 0, 1.0), (1, 0, 1.0), (0, 1, 1.0), (1, 1, 1.0), (1, 0, 0.6), (1, 1, 0.6))
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.slow
def test_each_switch_is_exact_for_what_is_claimed_and_for_nothing_more(switches):
    exact = {}
    for name, h in OBJECTIVES.items():
        mean, truth = mean_and_truth(partial(foust, **switches), h, "laplace", switches["rho"])
        error = np.max(np.abs(mean - truth))
        exact[name] = error < 1e-12
        assert exact[name] or error > 1e-3
    claim = get_estimator("foust")[0].claim(**switches)
    classes = ["linear", "multilinear", "quadratic"]
    assert [exact[c] for c in classes] == [k <= classes.index(claim) for k in range(3)]
    assert exact["separable"] == bool(switches["weight"] and switches["uniform_point"])


def test_the_noise_operator_shrinks_a_product_of_two_units_by_rho():
    for rho in (0.3, 0.8):
        make = partial(foust, uniform_point=False, rho=rho)
        mean, truth = mean_and_truth(make, lambda x: x[0] * x[1], "normal", rho)
        np.testing.assert_allclose(mean, rho * truth, rtol=1e-12)


@pytest.mark.parametrize("noise", NOISES)
def test_the_default_is_exact_for_any_objective_of_one_unit(noise):
    """By the integral over the point, of an objective that is no polynomial."""
    loss = foust(lambda p, e, b: jnp.exp(1.3 * b(p[0], noise=noise)))
    draw = jax.jit(jax.vmap(jax.grad(loss.example_loss), (None, 0, None)))
    node, weight = np.polynomial.legendre.leggauss(24)
    p = SCIPY[noise].cdf(0.45)
    mean = 0
    for x, chance in ((1.0, p), (-1.0, 1 - p)):
        u = (jnp.full(24, (1 - x) / 2),), (jnp.asarray((node + 1) / 2),)
        g = draw((jnp.asarray(0.45),), u, BATCH[0])[0]
        mean += chance * weight / 2 @ np.asarray(g)
    right = SCIPY[noise].pdf(0.45) * (np.exp(1.3) - np.exp(-1.3))
    np.testing.assert_allclose(mean, right, rtol=1e-12)


@pytest.mark.slow
def test_exact_moments_know_the_evaluation_points_and_the_noisy_bits():
    model, params = (lambda p, e, b: jnp.exp(b(p[0]) / 2)), (jnp.asarray(0.45),)
    right = SCIPY["logistic"].pdf(0.45) * (np.exp(0.5) - np.exp(-0.5))
    found = moments(foust(model), params, BATCH)
    np.testing.assert_allclose(found.mean[0], right, rtol=1e-9)
    np.testing.assert_allclose(found.value, moments(zgr(model), params, BATCH).value, rtol=1e-12)
    # In one unit a noisy bit that is not kept has no gradient: only the variance grows, by rho.
    kept = moments(foust(model, uniform_point=False), params, BATCH)
    noisy = moments(foust(model, uniform_point=False, rho=0.6), params, BATCH)
    np.testing.assert_allclose(noisy.mean[0], kept.mean[0], rtol=1e-12)
    square = (kept.variance[0] + kept.mean[0] ** 2) / 0.6
    np.testing.assert_allclose(noisy.variance[0] + noisy.mean[0] ** 2, square, rtol=1e-12)


def uniforms(sizes, streams, seed=0):
    generator = np.random.default_rng(seed)
    return tuple(
        tuple(jnp.asarray(generator.uniform(size=n)) for n in sizes) for _ in range(streams)
    )


@pytest.mark.slow
def test_without_switches_it_is_straight_through_and_with_the_weight_zgr_at_any_depth():
    network, params, batch = small((2, 3, 2, 1), ("laplace", "uniform"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = uniforms((3, 2), 1)
    for weight, other in ((False, straight_through), (True, zgr)):
        loss = foust(network, weight=weight, uniform_point=False)
        draws = (jax.jit(jax.grad(f.example_loss)) for f in (loss, other(network)))
        one, two = (draw(params, u, example) for draw in draws)
        np.testing.assert_array_equal(flat(one), flat(two))


@pytest.mark.slow
def test_the_moved_run_at_the_states_themselves_is_zgr_at_any_depth():
    """v = 1, all kept: the two ways to write the same rule agree, weights and value included."""
    network, params, batch = small((2, 3, 2, 1), ("normal", "triangular"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    path = uniforms((3, 2), 1)
    ones = tuple(jnp.ones(n) for n in (3, 2))

    def draw(loss, u):
        return jax.jit(jax.value_and_grad(loss.example_loss))(params, u, example)

    moved, right = draw(foust(network), (*path, ones)), draw(zgr(network), path)
    np.testing.assert_allclose(moved[0], right[0], rtol=1e-13)
    np.testing.assert_allclose(flat(moved[1]), flat(right[1]), rtol=1e-11, atol=1e-15)
    zeros = tuple(jnp.zeros(n) for n in (3, 2))
    _, kept = draw(foust(network, uniform_point=False, rho=0.5), (*path, zeros))
    last = slice(-sum(w.size for w in jax.tree.leaves(params[-1])), None)
    np.testing.assert_allclose(flat(kept)[last], flat(right[1])[last], rtol=1e-12)


def shrunk(model):
    """The derivative in the sampled state of f(x v), v times too small: a bug."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)

        def moved(shift):
            def unit(site, a):
                slope = site.noise.hazard(run.x[0] * run.a[0])
                y = run.x[0] * u[1][0]
                return surrogate_gradient(lambda y, a, s: s, y, a + shift, slope * u[1][0])

            return run_model(model, params, example, unit).f

        return run.f + gradient_term(jax.grad(moved)(jnp.zeros_like(run.a[0])), run.a[0])

    return surrogate_loss(model, example_loss, 2, randomness="uniforms", smoothness="smooth")


def test_the_derivative_in_the_state_in_place_of_that_at_the_point_is_seen():
    mean, truth = mean_and_truth(shrunk, OBJECTIVES["linear"], "normal", 1.0)
    np.testing.assert_allclose(mean, truth / 2, rtol=1e-12)


@pytest.mark.slow
def test_saturated_units_have_finite_gradients_that_vanish_in_float32():
    with single():
        a = jnp.tile(jnp.array([-40.0, 40.0, -1.0, 1.0, 0.0]), 3)

        def model(params, example, binary):
            return sum(
                jnp.sum(binary(p, noise=n) ** 3) for p, n in zip(params, NOISES, strict=True)
            )

        draw = jax.jit(jax.grad(foust(model, rho=0.9).example_loss))
        for level, likely in ((0.3, True), (0.0, False), (1.0, False)):
            v, w = jnp.repeat(jnp.array([0.1, 0.5, 0.9]), 5), jnp.full(15, 0.5)
            us = ((jnp.full(15, level),) * 5, (v,) * 5, (w,) * 5)
            g = np.stack(draw((a,) * 5, us, BATCH[0]))
            assert g.dtype == np.float32
            assert np.all(np.isfinite(g))
            if likely:
                np.testing.assert_allclose(g.reshape(5, 3, 5)[:, :, :2], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("foust(rho=0)", "rho is 0.0; give a positive number"),
        ("foust(rho=1.5)", "rho is 1.5; give a number from 0 to 1"),
        ("foust(wieght=True)", "did you mean 'weight'?"),
    ],
)
def test_a_wrong_hyperparameter_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)
