"""SA against enumeration, and against its recursion written out with integrals by quadrature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, flat, random_batch, random_params, relative, small
from jax.lax import stop_gradient

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.precision import single
from gradbench.core.run import flip, run_at_states, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import ESTIMATORS, psa, sa
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-10  # relative, for what is unbiased
BIASED = 1e-3  # relative, for what must be seen
CHAIN = (2, 2, 3, 1)


def peculiar(theta, x, target):
    """Neither multilinear nor smooth."""
    return jnp.exp(theta * jnp.sum(x)) + jnp.maximum(x[0], target) * jnp.abs(x[1] + x[-1] + 0.3)


def triple(theta, x, target):
    return theta * x[0] * x[1] * x[2] + target * x[0] * x[2]


def pairs(theta, x, target):
    return theta * x[0] * x[1] + x[1] * x[2] - target * x[0] * x[2]


def by_hand(params, example, binary):
    """A skip connection, two noises, an objective that is not multilinear."""
    x = binary(params[0]["weight"] @ example[0] + params[0]["bias"])
    y = binary(params[1]["weight"] @ x + params[1]["bias"], noise="normal")
    return jnp.exp(params[2] @ jnp.concatenate([x, y]) / 3) + example[1] * x[0] * y[0]


def by_hand_params():
    return (*random_params((2, 2, 2), seed=3), np.array([0.7, -0.9, 0.4, 0.8]))


def errors(model, params, batch):
    """Per layer, the distance of the exact mean to the gradient; last, that of the value."""

    @jax.jit
    def both(params):
        truth = jax.value_and_grad(partial(brute_force, model))(params, batch)
        found = moments(sa(model), params, batch)
        return truth, (found.value, found.mean)

    (value, gradient), (mean_value, mean) = both(params)
    layers = [relative(*pair) for pair in zip(mean, gradient, strict=True)]
    return np.array([*layers, abs(mean_value - value) / abs(value)])


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.slow
def test_without_smoothing_it_is_unbiased_in_one_layer_on_any_objective(noise):
    network = SBN((Dense(2, 3, noise),), peculiar)
    params = (*random_params((2, 3)), np.array(0.4))
    assert np.all(errors(network, params, random_batch(2, examples=2)) < EXACT)


@pytest.mark.parametrize(("objective", "biased"), [(pairs, False), (triple, True)])
@pytest.mark.slow
def test_without_smoothing_it_is_unbiased_below_the_last_layer_for_terms_of_pairs(
    objective, biased
):
    network = SBN((Dense(2, 2, "laplace"), Dense(2, 3)), objective)
    params = (*random_params((2, 2, 3)), np.array(0.6))
    found = errors(network, params, random_batch(2, examples=2))
    assert np.all(found[1:] < EXACT)
    assert found[0] > BIASED if biased else found[0] < EXACT


@pytest.mark.slow
def test_on_a_hand_written_model_it_is_unbiased_in_the_last_layer_and_the_value():
    found = errors(by_hand, by_hand_params(), random_batch(2, examples=2))
    assert np.all(found[1:] < EXACT)


# ------------------------------------------------------------- the recursion, written out


def literal_sa(model, t, half=0.5, weigh=1.0):
    """Every unit carries a quantity q of value zero; the means over s in (-t, t) by quadrature.

    Planted bugs: another factor than 1/2, and ``weigh=0``, which takes P for 1/2.
    """
    nodes, weights = (jnp.asarray(part) for part in np.polynomial.legendre.leggauss(400))

    def example_loss(params, u, example):
        def mean(f):
            """Over s, along a first axis."""
            return jnp.tensordot(weights, jax.vmap(f)(t * nodes), 1) / 2

        def unit(site, a):
            p = mean(lambda s: site.noise.cdf(a + s))
            return jnp.where(u[0][site.index] < p, 1.0, -1.0)

        run = run_model(model, params, example, unit)
        x, below = run.x, jnp.zeros(0)
        for k, site in enumerate(run.sites):
            cdf, a = site.noise.cdf, stop_gradient(run.a[k])
            p = weigh * mean(lambda s, a=a, k=k, f=cdf: f(x[k] * (a + s))) + (1 - weigh) / 2
            total = -x[k] * cdf(run.a[k]) * half / p

            def lost(other, a=a, k=k, f=cdf):
                return mean(lambda s: jnp.maximum(x[k] * (f(a + s) - f(other)), 0))

            for i, q in enumerate(below):
                flipped = [*x[: k - 1], flip(x[k - 1], i), *x[k:]]
                there = stop_gradient(run_at_states(model, params, example, flipped).a[k])
                total += (lost(there) - lost(a)) / p * q
            below = total - stop_gradient(total)
        value = run.f
        for i, q in enumerate(below):
            flipped = [*x[:-1], flip(x[-1], i)]
            change = run_at_states(model, params, example, flipped).f - run.f
            share = (1 - p[i]) / x[-1].size
            value += change * share + stop_gradient(change) * q
        return value

    return surrogate_loss(model, example_loss)


def fixed(model, params, batch):
    """One example, and three sets of uniforms."""
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    shapes = [x.shape for x in run_model(model, params, example, lambda site, a: jnp.sign(a)).x]
    generator = np.random.default_rng(0)
    return example, tuple(jnp.asarray(generator.uniform(size=(3, *shape))) for shape in shapes)


def draws(makes, model, params, batch):
    """Of each estimator, the values and gradients of one example at three sets of uniforms."""
    example, u = fixed(model, params, batch)

    @jax.jit
    def run(params):
        losses = [jax.value_and_grad(make(model).example_loss) for make in makes]
        return [jax.vmap(f, (None, (0,), None))(params, (u,), example) for f in losses]

    return run(jax.tree.map(jnp.asarray, params))


@pytest.mark.slow
def test_a_smoothed_draw_is_the_recursion_with_its_integrals_by_quadrature():
    """The quadrature has kinks; the two agree as far as it goes, and bugs are far beyond."""
    model, params, batch = small((2, 2, 2, 1), ("laplace", "logistic"))
    (right,) = draws([partial(sa, smoothing=0.8)], model, params, batch)
    example, u = fixed(model, params, batch)

    @jax.jit
    def variants(params):
        def one(half, weigh):
            draw = jax.value_and_grad(literal_sa(model, 0.8, half, weigh).example_loss)
            return jax.vmap(draw, (None, (0,), None))(params, (u,), example)

        return jax.vmap(one)(jnp.array([0.5, 1.0, 0.5]), jnp.array([1.0, 1.0, 0.0]))

    rows = variants(jax.tree.map(jnp.asarray, params))
    literal, double, unweighted = (jax.tree.map(lambda v, n=n: v[n], rows) for n in range(3))
    np.testing.assert_allclose(flat(right), flat(literal), rtol=1e-3, atol=1e-4)
    assert relative(literal, right) < 1e-4
    for bug in (double, unweighted):
        assert relative(bug[1][:-1], right[1][:-1]) > 0.05


@pytest.mark.slow
def test_the_structure_of_a_chain_gives_the_draws_of_the_same_function():
    network, params, batch = small(CHAIN, ("normal", "laplace"), states=(0, 1))

    def plain(params, example, binary):
        return network(params, example, binary)

    makes = [lambda m, n=n: sa(n, smoothing=0.7) for n in (network, plain)]
    fast, slow = draws(makes, network, params, batch)
    np.testing.assert_allclose(flat(fast), flat(slow), rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_the_integral_of_the_cdf_is_that_by_quadrature(noise):
    nodes, weights = np.polynomial.legendre.leggauss(60)
    for low, high in ((-3.0, -1.0), (-1.0, 0.0), (0.0, 1.0), (1.0, 2.5)):  # smooth in each
        right = weights @ SCIPY[noise].cdf((high + low + (high - low) * nodes) / 2)
        integral = get_noise(noise).integral
        found = integral(jnp.array(high)) - integral(jnp.array(low))
        np.testing.assert_allclose(found, right * (high - low) / 2, rtol=1e-12, atol=1e-14)
    far = get_noise(noise).integral(jnp.array([-800.0, 800.0]))
    np.testing.assert_allclose(far, [0, 800], atol=1e-300)


# ------------------------------------------------------------------------- smoothing


@pytest.mark.slow
def test_one_smoothed_unit_has_the_exact_gradient_and_another_value():
    """By the exact integral over its uniform, which jumps where the smoothed unit does."""
    cubic = SBN((Dense(1, 1, "uniform"),), lambda c, x, y: c[0] * x[0] + c[1] * x[0] ** 2)
    theta = {"weight": jnp.array([[0.7]]), "bias": jnp.array([-0.2])}
    params, batch = (theta, jnp.array([0.8, -0.5])), (np.array([[0.9], [-1.4]]), np.zeros(2))
    value, gradient = jax.value_and_grad(partial(brute_force, cubic))(params, batch)
    found = moments(sa(cubic, smoothing=0.5), params, batch)
    assert relative(found.mean[0], gradient[0]) < EXACT
    assert relative(found.mean[1], gradient[1]) > BIASED
    assert abs(found.value - value) > BIASED * abs(value)


@pytest.mark.slow
def test_smoothing_biases_a_layer_of_several_units():
    network = SBN((Dense(1, 2),), lambda theta, x, y: theta * x[0] * x[1] + x[0] * y)
    params = (jax.tree.map(jnp.asarray, random_params((1, 2)))[0], jnp.array(0.9))
    batch = (np.array([[1.5]]), np.array([0.4]))
    gradient = jax.grad(partial(brute_force, network))(params, batch)
    found = moments(sa(network, smoothing=2), params, batch)
    assert relative(found.mean[0], gradient[0]) > BIASED


@pytest.mark.slow
def test_without_smoothing_states_are_the_sampled_path_and_with_much_they_are_fair_coins():
    network, params, batch = small((2, 4, 1), loss=lambda out, target: out[0], seed=5)
    example, u = jax.tree.map(lambda leaf: leaf[0], batch), (jnp.array([0.3, 0.52, 0.48, 0.7]),)

    def seen(**options):
        """The objective's gradient in the weights without its average over flips."""
        g = jax.jit(jax.grad(sa(network, **options).example_loss))(params, (u,), example)
        return np.sign(g[1]["weight"][0])

    path = sampled(network, params, u, example).x[0]
    np.testing.assert_array_equal(seen(), np.asarray(path))
    np.testing.assert_array_equal(seen(smoothing=1e6), np.where(u[0] < 0.5, 1, -1))
    assert not np.array_equal(path, np.where(u[0] < 0.5, 1, -1))


@pytest.mark.slow
def test_with_much_smoothing_the_gradient_is_that_of_psa_at_the_same_states():
    """The error falls as 1/t; the objective's own parameters have another average over flips."""
    network, params, batch = small(CHAIN, ("triangular", "logistic"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    widths = [layer.outputs for layer in network.layers]
    x = [jnp.asarray(np.random.default_rng(w).choice([-1.0, 1.0], n)) for w, n in enumerate(widths)]

    @jax.jit
    def gradients(params):
        path = tuple((1 - s) / 2 for s in x)  # 0 for +1 and 1 for -1
        return [
            jax.grad(loss.example_loss)(params, (path,), example)[:-1]
            for loss in (psa(network), sa(network, smoothing=1e3), sa(network, smoothing=1e4))
        ]

    right, coarse, fine = gradients(jax.tree.map(jnp.asarray, params))
    assert relative(fine, right) < BIASED
    np.testing.assert_allclose(relative(coarse, right) / relative(fine, right), 10, rtol=0.02)


@pytest.mark.slow
def test_a_little_smoothing_is_nearly_none():
    network, params, batch = small(CHAIN, "normal")
    makes = [partial(sa, smoothing=t) for t in (0.0, 1e-4)]
    none, little = draws(makes, network, params, batch)
    assert 0 < relative(little, none) < BIASED


# ------------------------------------------------------------------------ what surrounds it


@pytest.mark.parametrize(
    ("noise", "smoothing"), [("normal", 0.0), ("triangular", 0.0), *((n, 1.0) for n in NOISES)]
)
@pytest.mark.slow
def test_single_precision_and_saturated_units_leave_draws_finite(noise, smoothing):
    network, params, batch = small((2, 3, 2, 1), noise)
    params[0]["bias"][:] = [40, -40, 0.3]
    params[1]["bias"][:] = [-40, 40]
    with single():
        narrow = jax.tree.map(np.float32, params), jax.tree.map(np.float32, batch)
        ((value, g),) = draws([partial(sa, smoothing=smoothing)], network, *narrow)
    assert {leaf.dtype for leaf in jax.tree.leaves((value, g))} == {np.dtype(np.float32)}
    assert np.all(np.isfinite(flat((value, g))))
    np.testing.assert_allclose(g[1]["bias"], 0, atol=1e-6)


def test_what_the_registry_says_depends_on_the_smoothing():
    entry = ESTIMATORS["sa"]
    assert entry.hyperparameters == {"smoothing": 0.0}
    assert (entry.claim(), entry.claim(smoothing=1.0)) == ("one layer", "biased")
    assert sa(by_hand).randomness == "states"
    assert sa(by_hand, smoothing=2).randomness == "uniforms"
    assert entry.price().evaluate(L=3, D=7, n=2) == (3, 0, 8)


@pytest.mark.parametrize("value", [-1, float("nan"), "much", None])
def test_an_impossible_smoothing_is_refused(value):
    with pytest.raises(GradbenchError, match=r"^smoothing is .*; give a number"):
        sa(by_hand, smoothing=value)


@pytest.mark.slow
def test_a_noise_without_an_integral_runs_without_smoothing_alone():
    logistic = get_noise("logistic")
    own = Noise(
        "own",
        *(getattr(logistic, f) for f in ("cdf", "pdf", "quantile", "hazard")),
        logistic.log_cdf,
    )
    network, params, batch = small((2, 2, 1))
    same = SBN(tuple(Dense(2, 2, own) for _ in network.layers), network.objective)
    right, found = draws([sa, lambda _: sa(same)], network, params, batch)
    np.testing.assert_array_equal(flat(found), flat(right))
    with pytest.raises(
        GradbenchError, match="the noise 'own', whose integral is infinite; take smoo"
    ):
        draws([partial(sa, smoothing=1)], same, params, batch)
