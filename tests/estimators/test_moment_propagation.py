"""AP2 and local reparameterization: against plain numpy, exact integrals and each other."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, flat, random_batch, random_params, relative, small
from scipy import special

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.precision import single
from gradbench.core.run import find_sites
from gradbench.estimators import ESTIMATORS, ap2, exact, local_reparameterization, mean_field
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.compose import Compose, Function
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout
from gradbench.models.network import SBN, RealNetwork
from gradbench.models.pool import AveragePool

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-10
BIASED = 1e-3
KEY = jax.random.key(0)
BOTH = (ap2, local_reparameterization)


def run(loss, params, batch, seed=0):
    """Mean value and gradient of the examples, at uniforms of numpy: these compile at once."""
    params, batch = jax.tree.map(jnp.asarray, (params, batch))
    sites = find_sites(loss.model, params, jax.tree.map(lambda leaf: leaf[0], batch))
    random, n = np.random.default_rng(seed), len(batch[0])
    u = [tuple(jnp.asarray(random.uniform(size=(n, *site.shape))) for site in sites)]

    @jax.jit
    def mean(params):
        return jnp.mean(jax.vmap(loss.example_loss, (None, 0, 0))(params, u[: loss.streams], batch))

    return jax.value_and_grad(mean)(params)


# ----------------------------------------------------------------- AP2 in plain numpy

CDF = {"logistic": lambda a: 1 / (1 + np.exp(-a)), "normal": special.ndtr}  # also of complex a


def ap2_by_hand(layers, params, x, y, squared=True, variance=None):
    """The loss of one example, an outer product at a time; ``params`` may be complex."""
    mean, v = x, np.zeros(len(x))
    for layer, theta in zip(layers, params, strict=False):
        w = theta["weight"]
        total = (w * w if squared else w) @ v
        a = w @ mean + theta["bias"]
        a = a / np.sqrt(1 + total / (variance or SCIPY[layer.noise].var()))
        p = CDF[layer.noise](a)
        mean, v = 2 * p - 1, 4 * p * (1 - p)
    out = params[-1]["weight"] @ mean + params[-1]["bias"]
    return np.log1p(np.exp(-out[0] * y))


def complex_step(f, params):
    """The derivative of f in every coordinate, without cancellation."""
    leaves, structure = jax.tree.flatten(params)
    point = np.concatenate([np.ravel(leaf) for leaf in leaves]).astype(complex)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def at(i):
        moved = point + 1e-30j * (np.arange(point.size) == i)
        parts = zip(np.split(moved, ends), leaves, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(leaf.shape) for part, leaf in parts])

    return np.array([f(at(i)).imag / 1e-30 for i in range(point.size)])


@pytest.mark.slow
def test_value_and_gradient_of_ap2_are_those_of_plain_numpy():
    network, params, batch = small((2, 4, 3, 2, 1), ("logistic", "normal", "logistic"), seed=3)
    value, g = run(ap2(network), params, batch)

    def by_hand(params, **bug):
        pairs = zip(*batch, strict=True)
        return np.mean([ap2_by_hand(network.layers, params, x, y, **bug) for x, y in pairs])

    np.testing.assert_allclose(value, by_hand(params), rtol=1e-13)
    np.testing.assert_allclose(flat(g), complex_step(by_hand, params), rtol=1e-11, atol=1e-14)
    for bug in ({"squared": False}, {"variance": 1.0}):
        assert abs(by_hand(params, **bug) / value - 1) > BIASED


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_the_units_of_every_noise_take_their_variance_into_account(noise):
    """Two layers: p = F(m / sqrt(1 + v / V_S)) for a unit above a single one."""
    network = SBN((Dense(1, 1, "normal"), Dense(1, 1, noise)), lambda theta, x, y: x[0])
    params = (*({"weight": np.array([[w]]), "bias": np.array([b])} for w, b in WEIGHTS), ())
    value, _ = run(ap2(network), params, (np.array([[0.6]]), np.zeros(1)))
    (w, b), (w2, b2) = WEIGHTS
    m = 2 * SCIPY["normal"].cdf(0.6 * w + b) - 1
    a = (w2 * m + b2) / np.sqrt(1 + w2**2 * (1 - m**2) / SCIPY[noise].var())
    np.testing.assert_allclose(value, 2 * SCIPY[noise].cdf(a) - 1, rtol=1e-13)


WEIGHTS = ((0.5, 0.2), (0.8, -0.1))

# ------------------------------------------------------------------ what it is exact for


def product(theta, x, target):
    """Multilinear, not linear."""
    return theta * jnp.prod(x) + target * x[0] * x[1] + x[2]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.slow
def test_in_one_layer_it_is_mean_field_and_exact_for_multilinear_objectives(make):
    assert ESTIMATORS[make.__name__].claim() == ESTIMATORS["mean_field"].claim() == "multilinear"
    network, batch = SBN((Dense(2, 3, "laplace"),), product, (0, 1)), random_batch(2)
    params = (*random_params((2, 3)), np.array(0.7))
    found = run(make(network), params, batch)
    np.testing.assert_array_equal(flat(found), flat(run(mean_field(network), params, batch)))
    truth = jax.jit(jax.value_and_grad(partial(brute_force, network)))(params, batch)
    assert relative(found, truth) < EXACT
    square = SBN(network.layers, lambda theta, x, target: (theta * jnp.sum(x) + target) ** 2)
    biased = run(make(square), params, batch)
    truth = jax.jit(jax.value_and_grad(partial(brute_force, square)))(params, batch)
    assert relative(biased[1][0], truth[1][0]) > BIASED


def two_units(theta, x, target):
    return theta * x[0] * target


CHAIN = SBN((Dense(2, 1), Dense(1, 1, "normal")), two_units)
CHAIN_PARAMS = (*random_params((2, 1, 1), scale=1.5, seed=1), np.array(1.3))
CHAIN_BATCH = random_batch(2, examples=2)


@cache
def mean_of_local_reparameterization():
    """By the exact integral over the uniforms."""
    found = moments(local_reparameterization(CHAIN), CHAIN_PARAMS, CHAIN_BATCH)
    return found.value, found.mean


@pytest.mark.slow
def test_with_normal_noise_and_a_linear_objective_ap2_is_the_mean_of_local_reparameterization():
    """E Phi(a) = Phi(m / sqrt(1 + v)) for normal a."""
    found = run(ap2(CHAIN), CHAIN_PARAMS, CHAIN_BATCH)
    assert relative(mean_of_local_reparameterization(), found) < 1e-9  # as good as that integral


@pytest.mark.slow
def test_a_wrong_variance_of_the_noise_is_seen():
    wrong = replace(get_noise("normal"), variance=1.05)
    chain = SBN((Dense(2, 1), Dense(1, 1, wrong)), two_units)
    found = run(ap2(chain), CHAIN_PARAMS, CHAIN_BATCH)
    assert relative(mean_of_local_reparameterization(), found) > BIASED


@pytest.mark.slow
def test_as_the_weights_of_the_second_layer_shrink_all_three_become_the_same():
    """They differ by the variance, of second order in these weights: relative to the gradient."""
    network, params, batch = small((2, 3, 2, 1), "normal")

    @jax.jit
    def gaps(scale):
        second = {**params[1], "weight": scale * params[1]["weight"]}
        own = (params[0], second, params[2])
        right, *others = (jax.grad(m(network))(own, KEY, batch)[2] for m in (mean_field, *BOTH))
        return [
            jnp.linalg.norm(right["weight"] - other["weight"]) / jnp.linalg.norm(right["weight"])
            for other in others
        ]

    (large, sampled), (small_, less) = gaps(0.002), gaps(0.001)
    np.testing.assert_allclose(small_ / large, 1 / 4, rtol=0.02)
    np.testing.assert_allclose(less / sampled, 1 / 2, rtol=0.1)  # a sample is off by a deviation
    assert large > 1e-9


@pytest.mark.slow
def test_ap2_is_closer_than_mean_field_to_the_mean_of_a_deep_network():
    """Not a theorem, but what it is made for."""
    network, params, batch = small((2, 5, 3, 1), "logistic", scale=1.5, loss=lambda out, y: out[0])
    truth = jax.jit(jax.grad(partial(brute_force, network)))(params, batch)
    errors = [relative(run(make(network), params, batch)[1], truth) for make in (mean_field, ap2)]
    assert errors[1] < errors[0] / 3


# ------------------------------------------------------------------- layers and coding


@pytest.mark.slow
def test_convolutions_and_pools_pass_variances_as_any_affine_layer_does():
    """The squared kernel, the Jacobian of the same function, and that of a pool before a kernel."""
    first, conv = Conv((3, 3, 1), 2, 2), Conv((2, 2, 2), 2, 2, padding=1, noise="normal")
    pooled = Compose((AveragePool(2), Dense(2, 18)), inputs=(2, 2, 2), noise="normal")
    theta, above = random_like(first), random_like(Readout(18, 1))
    example = (jnp.asarray(np.random.default_rng(0).standard_normal((3, 3, 1))), 1.0)

    @partial(jax.jit, static_argnums=0)
    def value(layer, own):
        network = SBN((first, layer), Readout(18, 1))
        return ap2(network).example_loss((theta, own, above), (), example)

    own = random_like(conv)
    right = value(conv, own)
    jacobian = value(Function(conv.__call__, (2, 2, 2), conv.init, "normal"), own)
    np.testing.assert_allclose(jacobian, right, rtol=1e-13)
    own = random_like(pooled.parts[1])
    matrix = jax.jit(jax.jacobian(pooled.parts[0]))(jnp.zeros((2, 2, 2))).reshape(2, 8)
    right = value(Dense(8, 18, "normal"), {**own, "weight": own["weight"] @ matrix})
    np.testing.assert_allclose(value(pooled, ((), own)), right, rtol=1e-13)


def random_like(part, seed=0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.uniform(-1, 1, leaf.shape), part.init(KEY))


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.slow
def test_the_coding_of_the_states_changes_nothing_but_the_parameters(make):
    network, params, batch = small((2, 3, 2, 1), ("laplace", "triangular"))
    coded = SBN(network.layers, network.objective, (0, 1))
    first, *rest = params
    other = (
        first,
        *({"weight": 2 * t["weight"], "bias": t["bias"] - t["weight"].sum(1)} for t in rest),
    )
    value, g = run(make(network), params, batch)
    same, h = run(make(coded), other, batch)
    np.testing.assert_allclose(same, value, rtol=1e-13)
    np.testing.assert_allclose(flat(h[0]), flat(g[0]), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(h[1]["bias"], g[1]["bias"], rtol=1e-11)


# ------------------------------------------------------------------------ binary weights


def weights_by_hand(model, params, x, noise_of_states, z=None):
    """Mean states above a dense chain of binary weights: moments of all products, one by one."""
    mean, v = x, np.zeros(len(x))
    for k, layer in enumerate(model.network.layers):
        p = SCIPY[model.noise].cdf(params[k]["weight"])
        m, s = 2 * p - 1, 4 * p * (1 - p)
        a = m @ mean + params[k]["bias"]
        variance = sum(
            m[:, i] ** 2 * v[i] + s[:, i] * mean[i] ** 2 + s[:, i] * v[i] for i in range(len(mean))
        )
        if z is not None:
            a = a - np.sqrt(variance) * z[k]
        else:
            a = a / np.sqrt(1 + variance / SCIPY[layer.noise].var())
        if noise_of_states:
            q = SCIPY[layer.noise].cdf(a)
            mean, v = 2 * q - 1, 4 * q * (1 - q)
        else:
            mean, v = np.tanh(a), np.zeros(len(a))
    return mean


def linear(theta, x, target):
    return jnp.sum(theta["weight"] * x) + target


@pytest.mark.slow
def test_binary_weights_are_random_variables_like_states():
    """Weights of two layers; those of the objective are left real."""
    layers = (Dense(2, 3, "laplace"), Dense(3, 2, "normal"))
    params = (*random_params((2, 3, 2), scale=0.8), {"weight": np.array([0.7, -0.4])})
    x, batch = np.array([0.9, -0.3]), (np.array([[0.9, -0.3]]), np.zeros(1))
    u = [np.array([0.2, 0.7, 0.9]), np.array([0.6, 0.1])]
    z = [special.ndtri(v) for v in u]
    stochastic = BinaryWeights(SBN(layers, linear), exact, "triangular", (0, 1))
    real = BinaryWeights(RealNetwork(layers, linear), noise="triangular", entries=(0, 1))

    value, _ = run(ap2(stochastic), params, batch)
    right = params[2]["weight"] @ weights_by_hand(stochastic, params, x, True)
    np.testing.assert_allclose(value, right, rtol=1e-13)
    for model, states in ((stochastic, True), (real, False)):
        loss = local_reparameterization(model).example_loss
        found = jax.jit(loss)(params, (tuple(map(jnp.asarray, u)),), (x, 0.0))
        right = params[2]["weight"] @ weights_by_hand(model, params, x, states, z)
        np.testing.assert_allclose(found, right, rtol=1e-13)


def test_binary_weights_of_an_objective_stand_at_their_means():
    network = SBN((Dense(1, 2),), linear)
    params = (*random_params((1, 2)), {"weight": np.array([0.4, -2.0])})
    batch = (np.array([[0.5]]), np.zeros(1))
    model = BinaryWeights(network, exact, "normal", entries=(1,))
    means = (params[0], {"weight": 2 * SCIPY["normal"].cdf(params[1]["weight"]) - 1})
    value, g = run(ap2(model), params, batch)
    right, h = run(ap2(network), means, batch)
    np.testing.assert_allclose(value, right, rtol=1e-13)
    slope = 2 * SCIPY["normal"].pdf(params[1]["weight"])
    np.testing.assert_allclose(g[1]["weight"], h[1]["weight"] * slope, rtol=1e-12)


@pytest.mark.slow
def test_local_reparameterization_of_weights_is_exact_for_a_quadratic_of_each_activation():
    """Mean and variance of a are those of the sum of weights: a Gaussian has no other moments."""

    def objective(theta, x, target):
        return (x[0] - target) ** 2 + theta * x[0] * x[1]

    model = BinaryWeights(
        RealNetwork((Dense(2, 2),), objective, lambda a: a), noise="uniform", entries=(0,)
    )
    params = (*random_params((2, 2), scale=0.8), np.array(0.6))
    batch = random_batch(2, examples=1)
    truth = jax.jit(jax.value_and_grad(partial(brute_force, model)))(params, batch)
    found = moments(local_reparameterization(model), params, batch)
    assert relative((found.value, found.mean), truth) < 1e-9  # of the rule for smooth draws
    values = [run(local_reparameterization(model), params, batch, n) for n in (1, 2)]
    assert abs(values[0][0] - values[1][0]) > BIASED


# ------------------------------------------------------------------------ what surrounds it


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.first(1)
def test_single_precision_and_saturated_units_leave_draws_finite(noise, make):
    network, params, batch = small((2, 3, 2, 1), noise)
    params[0]["bias"][:] = [40, -40, 1e4]
    params[1]["bias"][:] = [-40, 40]
    with single():
        value, g = run(make(network), *jax.tree.map(np.float32, (params, batch)))
    assert {leaf.dtype for leaf in jax.tree.leaves((value, g))} == {np.dtype(np.float32)}
    assert np.all(np.isfinite(flat((value, g))))
    np.testing.assert_allclose(flat(g[:2]), 0, atol=1e-6)


@pytest.mark.slow
def test_what_a_draw_depends_on():
    network, params, batch = small((2, 3, 2, 1))
    assert (ap2(network).randomness, ap2(network).streams) == ("none", 0)
    assert ESTIMATORS["ap2"].randomness == "none"
    assert ESTIMATORS["local_reparameterization"].randomness == "uniforms"
    rows = [run(local_reparameterization(network), params, batch, n) for n in (1, 2)]
    assert relative(*rows) > BIASED
    assert ESTIMATORS["ap2"].price().evaluate(L=3, D=7, n=2) == (1, 1, 5)


def by_hand(params, example, binary):
    return jnp.sum(binary(params[0]))


HARD = Compose((Dense(2, 2), jnp.tanh, Dense(2, 2)))
REAL = BinaryWeights(RealNetwork((Dense(2, 2),), Readout(2, 1), jnp.sign))


@pytest.mark.parametrize(
    ("make", "model", "sentence"),
    [
        (ap2, by_hand, "ap2() got a model of type function, through which it knows no variances"),
        (ap2, REAL, "ap2() got a model of type RealNetwork"),
        (local_reparameterization, by_hand, "local_reparameterization() got a model of type func"),
        (local_reparameterization, REAL.network, "got a model of type RealNetwork"),
        (ap2, SBN((Dense(2, 2), HARD), Readout(2, 1)), "which is not affine in the states below"),
        (
            ap2,
            SBN((Dense(2, 2), Function(lambda _, x: jnp.abs(x), 2)), Readout(2, 1)),
            "ap2() got layer 2, Function(",
        ),
        (
            local_reparameterization,
            BinaryWeights(RealNetwork((HARD,), Readout(2, 1))),
            "got layer 1, Compose(",
        ),
    ],
)
def test_models_without_known_variances_are_refused(make, model, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(model)
    assert sentence in str(caught.value)
    assert str(caught.value).count("; ") == 1


@pytest.mark.slow
def test_a_first_layer_of_any_kind_is_taken_also_inside_jit():
    network = SBN((HARD, Compose((Dense(2, 1),))), Readout(1, 1))
    params, batch = random_like(network), random_batch(2)
    value = jax.jit(lambda p: ap2(network)(p, KEY, batch))(params)
    assert np.isfinite(value)


def test_a_noise_of_infinite_variance_is_refused():
    f = get_noise("logistic")
    own = Noise("own", f.cdf, f.pdf, f.quantile, f.hazard, f.log_cdf)
    network, params, batch = small((2, 2, 2, 1))
    same = SBN(tuple(Dense(2, 2, own) for _ in network.layers), network.objective)
    with pytest.raises(GradbenchError, match="the noise 'own', whose variance is infinite; take m"):
        ap2(same)(params, KEY, batch)
