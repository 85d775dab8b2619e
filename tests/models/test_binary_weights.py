"""Binary weights: exact gradients, estimators of weights and activations, and what is refused.

All examples of a batch share the weights, so a model with binary weights has one example, the
batch. Its sites are the arrays of weights; each feeds the objective directly, none another one.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, assert_mean, flat, largest_z, precision, relative, threshold
from scipy import special

from gradbench.core.contract import is_deterministic
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.noise import get_noise
from gradbench.core.precision import single
from gradbench.core.run import run_model
from gradbench.core.uniforms import draw_uniforms
from gradbench.estimators import (
    arm,
    check_spec,
    concrete,
    exact,
    get_estimator,
    make_estimator,
    nested,
    psa,
    reinforce,
    straight_through,
)
from gradbench.exact.enumeration import expected_loss
from gradbench.exact.moments import moments
from gradbench.exact.size import check_size
from gradbench.measure.exact_reference import exact_gradient
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.compose import Function
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.losses import Readout, squared_error
from gradbench.models.network import SBN, RealNetwork

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-10  # relative, for what is unbiased
BIASED = 1e-3  # relative, for what must be seen
KEY = jax.random.key(0)


def random_like(network, seed=0, scale=0.9):
    """Parameters from U(-scale, scale): inside the support of every noise."""
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: generator.uniform(-scale, scale, leaf.shape), network.init(KEY)
    )


def targets(examples, seed=1):
    return np.random.default_rng(seed).choice([-1.0, 1.0], examples)


def inputs(*shape, seed=2):
    return np.random.default_rng(seed).standard_normal(shape)


# --------------------------------------------------------- the exact gradient, in plain numpy


def bounded(a, inside):
    return np.where(abs(a.real) < 1, inside, a.real > 0)


# Distribution functions that continue to the complex numbers beside the real line, so that the
# imaginary part of f(x + ih) / h is the derivative to rounding.
CDF = {
    "logistic": lambda a: 1 / (1 + np.exp(-a)),
    "normal": special.ndtr,
    "uniform": lambda a: bounded(a, (a + 1) / 2),
    "triangular": lambda a: bounded(
        a, np.where(a.real < 0, (1 + a) ** 2 / 2, 1 - (1 - a) ** 2 / 2)
    ),
    "laplace": lambda a: np.where(a.real < 0, np.exp(a) / 2, 1 - np.exp(-a) / 2),
}
ACTIVATION = {jnp.tanh: np.tanh, jnp.sign: lambda a: np.where(a.real > 0, 1.0, -1.0)}
LOSS = {
    "logistic_loss": lambda out, y: np.log1p(np.exp(-out[0] * y)),
    "squared_error": lambda out, y: np.sum((out - y) ** 2),
}


def signs(size):
    return map(np.array, itertools.product((-1.0, 1.0), repeat=size))


def pre_activation(layer, theta, x):
    if isinstance(layer, Dense):
        return theta["weight"] @ x.ravel() + theta["bias"]
    (taps,), (stride,) = layer.kernel, layer.stride
    windows = [x[i : i + taps] for i in range(0, len(x) - taps + 1, stride)]
    return np.array([np.tensordot(theta["weight"], w, 2) + theta["bias"] for w in windows])


def expected_by_hand(network, params, x, y, k=0):
    """E f of one example from layer k on: a sum over the states of each layer in turn."""
    if k == len(network.layers):
        out = params[k]["weight"] @ x.ravel() + params[k]["bias"]
        return LOSS[network.objective.loss](out, y)
    layer = network.layers[k]
    a = pre_activation(layer, params[k], x)
    if isinstance(network, RealNetwork):
        return expected_by_hand(network, params, ACTIVATION[network.activation](a), y, k + 1)
    total, cdf = 0.0, CDF[layer.noise]
    for states in signs(a.size):
        probability = np.prod(cdf(a.ravel() * states))
        coded = np.where(states > 0, network.states[1], network.states[0]).reshape(a.shape)
        total += probability * expected_by_hand(network, params, coded, y, k + 1)
    return total


def expected_over_weights_by_hand(model, params, batch):
    """E f by enumeration of all weights, and for each of all activations."""
    binary = range(len(params)) if model.entries is None else model.entries
    shapes = [params[k]["weight"].shape for k in binary]
    eta = np.concatenate([params[k]["weight"].ravel() for k in binary])
    ends, total = np.cumsum([np.prod(shape) for shape in shapes])[:-1], 0.0
    for w in signs(eta.size):
        drawn = list(params)
        for k, part, shape in zip(binary, np.split(w, ends), shapes, strict=True):
            drawn[k] = {**params[k], "weight": part.reshape(shape)}
        values = [expected_by_hand(model.network, drawn, x, y) for x, y in zip(*batch, strict=True)]
        total += np.prod(CDF[model.noise](eta * w)) * np.mean(values)
    return total


def complex_step(f, params):
    """The derivative of f in every coordinate, without cancellation."""
    point, unravel = jax.flatten_util.ravel_pytree(params)
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    shapes = [leaf.shape for leaf in leaves]

    def at(i):
        moved = np.asarray(point, complex)
        moved[i] += 1e-30j
        parts = zip(np.split(moved, ends), shapes, strict=True)
        return jax.tree.unflatten(structure, [part.reshape(shape) for part, shape in parts])

    return unravel(jnp.array([f(at(i)).imag / 1e-30 for i in range(point.size)]))


def dense(*sizes, noise="logistic"):
    return tuple(Dense(m, n, noise) for m, n in itertools.pairwise(sizes))


TANH = RealNetwork(dense(2, 2), Readout(2, 1))
SHARED_KERNEL = (Conv((4, 1), 1, 2),)
MODELS = {
    "tanh": (BinaryWeights(TANH, noise="uniform"), 2),
    "sign": (BinaryWeights(RealNetwork(dense(2, 2), Readout(2, 1), jnp.sign), noise="normal"), 2),
    "some entries": (BinaryWeights(TANH, entries=[1], noise="laplace"), 2),
    "deep, coded {0,1}": (
        BinaryWeights(SBN(dense(1, 2, 1), Readout(1, 1), (0, 1)), exact, "triangular"),
        1,
    ),
    "stochastic convolution": (BinaryWeights(SBN(SHARED_KERNEL, Readout(3, 1)), exact), (4, 1)),
}


def case(name, examples=2):
    """A model, its parameters and a batch."""
    model, shape = MODELS[name]
    x = inputs(examples, *((shape,) if isinstance(shape, int) else shape))
    return model, random_like(model.network), (x, targets(examples))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.slow
def test_the_exact_gradient_is_that_of_a_plain_enumeration(name):
    model, params, batch = case(name)
    found = exact_gradient(model, params, batch)
    by_hand = partial(expected_over_weights_by_hand, model, batch=batch)
    np.testing.assert_allclose(found.value, by_hand(params), rtol=1e-12)
    right = complex_step(by_hand, params)
    for one, two in zip(found.gradient, right, strict=True):
        assert relative(one, two) < EXACT
    stochastic = isinstance(model.network, SBN)
    assert found.route == ("over_weights" if stochastic else "brute_force")
    assert (found.agreement["brute force"] is not None) == stochastic
    assert all((error or 0) < 1e-9 for error in found.agreement.values())


def test_the_exact_gradients_are_tested_with_every_noise():
    assert {model.noise for model, _ in MODELS.values()} == set(NOISES)


# ------------------------------------------------------------------ estimators of the weights


def cells(model, params):
    """The midpoints and volumes of the boxes of uniforms in which a draw of ARM is of degree 1.

    It is so in each u between the values where a weight changes, F(eta) and 1 - F(eta): the sum
    over midpoints is then the exact mean.
    """
    latent = model.latent(params)
    p = np.asarray(get_noise(model.noise).cdf(jnp.asarray(flat(latent))))
    ends = [np.unique([0, 1, q, 1 - q]) for q in p]
    axes = [list(zip((e[1:] + e[:-1]) / 2, np.diff(e), strict=True)) for e in ends]
    boxes = np.array(list(itertools.product(*axes)))
    splits = np.cumsum([eta.size for eta in latent])[:-1]
    parts = zip(np.split(boxes[..., 0], splits, axis=1), latent, strict=True)
    return tuple(u.reshape(-1, *eta.shape) for u, eta in parts), np.prod(boxes[..., 1], axis=1)


def mean_over_cells(loss, params, example, u, volumes):
    """The exact mean value and gradient of an estimator that is driven by uniforms."""
    draw = jax.vmap(jax.value_and_grad(loss.example_loss), (None, 0, None))
    draws = draw(params, (u,), example)
    return jax.tree.map(lambda leaf: jnp.tensordot(volumes, leaf, 1), draws)


def exact_mean(make, model, params, batch):
    found = moments(make(model), params, batch)
    return found.value, found.mean


@pytest.mark.slow  # their certificates have binary weights too
def test_reinforce_arm_and_psa_are_unbiased_for_weights():
    """Weights feed the objective directly: one layer, in which PSA is unbiased whatever f.

    So the network may be deep, and not smooth; it is the depth of the activations that makes a
    PSA of theirs biased. Here they are enumerated, and a draw depends on the weights alone.
    """
    model = BinaryWeights(SBN(SHARED_KERNEL, Readout(3, 1)), exact, "triangular")
    params, batch = random_like(model.network, seed=3), (inputs(2, 4, 1), targets(2))

    @jax.jit
    def means(params, u, volumes):
        truth = jax.value_and_grad(lambda p: expected_loss(model, p, batch))(params)
        by_states = [exact_mean(make, model, params, batch) for make in (reinforce, psa)]
        example = model.as_single_example(KEY, batch)
        return truth, [*by_states, mean_over_cells(arm(model), params, example, u, volumes)]

    truth, found = means(params, *cells(model, params))
    for value, gradient in found:
        np.testing.assert_allclose(value, truth[0], rtol=EXACT)
        for one, two in zip(gradient, truth[1], strict=True):
            assert relative(one["weight"], two["weight"]) < EXACT
            assert relative(one["bias"], two["bias"]) < EXACT


@pytest.mark.slow
def test_straight_through_is_exact_for_weights_in_which_the_objective_is_multilinear():
    """So is any network without activations, at any depth: no weight meets itself on a path."""
    layers = (Conv((4, 1), 2, 2, noise="laplace"), Dense(6, 1))
    params = random_like(RealNetwork(layers, Readout(1, 1)), scale=0.7)
    batch = inputs(2, 4, 1), targets(2)[:, None]

    @jax.jit
    def errors(params):
        found = []
        for loss in (lambda out, y: jnp.sum(out * y), squared_error):
            network = RealNetwork(layers, Readout(1, 1, loss), lambda a: a)
            model = BinaryWeights(network, noise="triangular", entries=(0, 2))
            truth = jax.grad(lambda p, m=model: expected_loss(m, p, batch))(params)
            found.append((moments(straight_through(model), params, batch).mean, truth))
        return found

    (multilinear, truth), (other, other_truth) = errors(params)
    for one, two in zip(multilinear, truth, strict=True):
        assert relative(one, two) < EXACT
    for one, two in zip(other, other_truth, strict=True):
        assert relative(one["bias"], two["bias"]) < EXACT  # real, through sampled weights
    for k in (0, 2):
        assert relative(other[k]["weight"], other_truth[k]["weight"]) > BIASED


@pytest.mark.slow
def test_the_identity_rule_is_straight_through_without_the_slope_draw_by_draw():
    """dE/dw = (dE/d eta) / 2F'(eta), for every noise."""
    network = RealNetwork((Conv((4, 1), 1, 2),), Readout(3, 1))
    params, batch = random_like(network), (inputs(2, 4, 1), targets(2))

    @jax.jit
    def draws(params, keys):
        def rows(model, proxy):
            g = jax.grad(straight_through(model, proxy=proxy))
            return jax.vmap(g, (None, 0, None))(params, keys, batch)

        models = {noise: BinaryWeights(network, noise=noise) for noise in NOISES}
        return {
            n: (rows(m, "density"), rows(m, "identity"), m.with_weights(get_noise(n).pdf, params))
            for n, m in models.items()
        }

    for density, identity, slope in draws(params, jax.random.split(KEY, 5)).values():
        for one, two, pdf in zip(density, identity, slope, strict=True):
            np.testing.assert_allclose(
                one["weight"] / (2 * pdf["weight"]), two["weight"], rtol=1e-12
            )
            np.testing.assert_array_equal(one["bias"], two["bias"])


@pytest.mark.slow
def test_concrete_weights_approach_the_exact_gradient_faster_if_the_objective_is_multilinear():
    """The error of its mean falls as t^2 if every weight appears linearly, else as t."""
    params = ({"weight": np.array([[0.7]]), "bias": np.array([0.3])}, ())
    batch, points = (np.array([[0.8]]), np.array([0.5])), 4096
    u = (np.arange(points) + 0.5) / points  # a smooth integrand with flat ends: no error left

    @jax.jit
    def errors(params):
        found = []
        for objective in (lambda _, x, y: x[0] * y, lambda _, x, y: (x[0] - y) ** 2):
            model = BinaryWeights(RealNetwork(dense(1, 1), objective, lambda a: a), entries=(0,))
            truth = jax.grad(lambda p, m=model: expected_loss(m, p, batch))(params)
            for t in (0.1, 0.05, 0.025):
                g = jax.grad(concrete(model, temperature=t).example_loss)
                example = model.as_single_example(KEY, batch)
                rows = jax.vmap(lambda v, g=g, e=example: g(params, ((v,),), e))(u[:, None, None])
                found.append(jnp.mean(rows[0]["weight"]) - truth[0]["weight"][0, 0])
        return jnp.reshape(jnp.array(found), (2, 3))

    multilinear, other = np.abs(errors(params))
    np.testing.assert_allclose(multilinear[1:] / multilinear[:-1], 1 / 4, rtol=0.05)
    np.testing.assert_allclose(other[1:] / other[:-1], 1 / 2, rtol=0.1)
    assert other[0] > BIASED


# ------------------------------------------------------- one draw of the weights for all examples


@pytest.mark.slow
def test_all_examples_of_a_batch_share_one_draw_of_the_weights():
    """The value is the mean of the network at the weights that the key gives, the variance theirs.

    Weights drawn for each example would have the same mean and less variance.
    """
    model = BinaryWeights(TANH, noise="normal")
    params, batch = random_like(TANH, seed=5), (inputs(3, 2), targets(3))

    def each_its_own(params, example, binary):
        return TANH(model.with_weights(lambda eta: binary(eta, "normal"), params), example)

    @jax.jit
    def run(params, key):
        shapes = [params[0]["weight"].shape, params[1]["weight"].shape]
        (u,) = draw_uniforms(key, shapes, 1, 1, jnp.float64)
        w = [
            jnp.where(v[..., 0] < get_noise("normal").cdf(theta["weight"]), 1.0, -1.0)
            for v, theta in zip(u, params, strict=True)
        ]
        drawn = [{**theta, "weight": part} for theta, part in zip(params, w, strict=True)]
        at_w = jnp.mean(jax.vmap(lambda example: TANH(tuple(drawn), example))(batch))
        both = [moments(reinforce(m), params, batch) for m in (model, each_its_own)]
        return reinforce(model)(params, key, batch), at_w, both

    value, at_w, (shared, own) = run(params, KEY)
    np.testing.assert_allclose(value, at_w, rtol=1e-14)
    for one, two in zip(shared.mean, own.mean, strict=True):
        assert relative(one, two) < EXACT
    by_hand = variance_of_reinforce_by_hand(model, params, batch)
    np.testing.assert_allclose(shared.variance[0]["weight"], by_hand, rtol=EXACT)
    assert np.all(np.abs(own.variance[0]["weight"] / by_hand - 1) > 0.1)


def variance_of_reinforce_by_hand(model, params, batch):
    """Of the first layer's weights, one draw of all weights for the batch: f times the score."""
    eta = np.concatenate([theta["weight"].ravel() for theta in params])
    cdf, first = CDF[model.noise], params[0]["weight"]
    slope = np.exp(-(eta**2) / 2) / np.sqrt(2 * np.pi)
    draws, weights = [], []
    for w in signs(eta.size):
        drawn = [
            {**theta, "weight": part.reshape(theta["weight"].shape)}
            for theta, part in zip(params, np.split(w, [first.size]), strict=True)
        ]
        f = np.mean([expected_by_hand(TANH, drawn, x, y) for x, y in zip(*batch, strict=True)])
        draws.append((f * w * slope / cdf(w * eta))[: first.size])
        weights.append(np.prod(cdf(w * eta)))
    mean = np.average(draws, axis=0, weights=weights)
    return np.average((draws - mean) ** 2, axis=0, weights=weights).reshape(first.shape)


# ----------------------------------------- estimators of weights and activations, freely combined

PAIRS = tuple(  # with PSA for the activations too: it is that of the model below
    f"nested(weights='{one}', activations='{two}')"
    for one in ("reinforce", "psa")
    for two in ("reinforce", "arm")
)
SPECS = ("exact", "reinforce", "arm", "psa", "straight_through")
SPECS += ("straight_through(proxy='identity')", "concrete(temperature=0.5)", "mean_field")
SPECS += ("zgr", "disarm")
SPECS += ("st_gumbel_softmax(temperature=0.5)",)
SPECS += ("nested", "nested(weights='mean_field', activations='straight_through')", *PAIRS)


@dataclass(frozen=True)
class Tapped:
    """An objective that is a sum of terms, (x.read - target)^2 and the mean of tap * (a input^T).

    Where the inputs are unit vectors, the gradient in ``tap`` shows the weights of a draw.
    """

    inputs: int

    def term(self, params, k, noise, below, a, x):
        theta = params[-1]
        fit = (jnp.dot(theta["read"], x) - below[1]) ** 2
        return fit + jnp.sum(theta["tap"] * jnp.outer(a, below[0]))

    def init(self, key):
        return {"read": jnp.ones(self.inputs), "tap": jnp.zeros((self.inputs, 2))}


TAPPED = BinaryWeights(SBN(dense(2, 2), Tapped(2)), psa, "triangular", entries=(0,))
TAPPED_BATCH = (np.eye(2), np.array([0.5, -1.0]))
DRAWS = 20_000


@pytest.fixture(scope="module")
def all_draws():
    """Compiled once: the truth, and values and gradients of every estimator for the same keys."""
    with precision(True):
        params = random_like(TAPPED.network, seed=8)

        @jax.jit
        def run(params, keys):
            truth = jax.value_and_grad(lambda p: expected_loss(TAPPED, p, TAPPED_BATCH))(params)
            rows = {}
            for spec in SPECS:
                draw = jax.value_and_grad(make_estimator(spec, TAPPED))
                rows[spec] = jax.vmap(draw, (None, 0, None))(params, keys, TAPPED_BATCH)
            return truth, rows

        keys = jax.random.split(jax.random.key(6), DRAWS)
        return params, *jax.device_get(run(params, keys))


@pytest.mark.slow
def test_every_estimator_gives_finite_gradients_like_the_parameters(all_draws):
    params, _, rows = all_draws
    for spec, (value, gradient) in rows.items():
        assert value.shape == (DRAWS,)
        assert jax.tree.structure(gradient) == jax.tree.structure(params)
        for leaf, like in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True):
            assert leaf.shape == (DRAWS, *like.shape)
            assert leaf.dtype == value.dtype == np.float64
            assert np.all(np.isfinite(leaf)), spec


@pytest.mark.slow
def test_nested_is_the_one_estimator_with_the_other_inside_draw_by_draw(all_draws):
    params, _, rows = all_draws
    first = jax.tree.map(lambda leaf: leaf[:5], rows)
    np.testing.assert_allclose(flat(first["nested"]), flat(first["straight_through"]), rtol=1e-12)
    loss = psa(replace(TAPPED, activations=reinforce))
    draw = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0, None)))
    right = draw(params, jax.random.split(jax.random.key(6), DRAWS)[:5], TAPPED_BATCH)
    found = first["nested(weights='psa', activations='reinforce')"]
    np.testing.assert_allclose(flat(found), flat(right), rtol=1e-12, atol=1e-15)
    assert relative(first["psa"], found) > BIASED


@pytest.mark.slow
def test_the_same_key_gives_the_same_weights_in_every_estimator(all_draws):
    params, _, rows = all_draws
    bias, p = params[0]["bias"], CDF["triangular"](params[0]["weight"])
    with precision(True):
        keys = jax.random.split(jax.random.key(6), DRAWS)
        u = jax.jit(jax.vmap(lambda k: draw_uniforms(k, [(2, 2)], 1, 1, float)[0][0]))(keys)
    right = np.where(u[..., 0] < p, 1, -1)
    assert np.all(np.abs(right.mean(0)) < 1)
    drawn = [spec for spec in SPECS if spec != "exact" and "mean_field" not in spec]
    for spec in drawn:
        shown = 2 * rows[spec][1][1]["tap"] - bias[:, None]  # w, though relaxed or averaged
        np.testing.assert_array_equal(np.sign(shown), right, err_msg=spec)


@pytest.mark.slow
def test_the_value_estimates_the_loss_where_the_registry_says_so(all_draws):
    _, (truth, _), rows = all_draws

    def claimed(spec):
        entry, arguments = get_estimator(spec)
        parts = {**entry.hyperparameters, **arguments}.values() if entry.needs else ()
        return entry.estimates_value() and all(map(claimed, parts))

    specs = [spec for spec in SPECS if claimed(spec)]
    assert set(SPECS) - set(specs) == {s for s in SPECS if "concrete" in s or "mean_field" in s}
    random = specs[1:]
    np.testing.assert_allclose(rows[specs[0]][0], truth, rtol=1e-13)
    values = np.stack([rows[spec][0] for spec in random], axis=1)
    assert_mean(values, np.full(len(random), truth))


@pytest.mark.slow
def test_the_unbiased_are_so_also_with_estimators_of_the_activations_inside(all_draws):
    """One hidden layer: PSA is unbiased for it too. What is biased is seen by the same test."""
    _, (_, truth), rows = all_draws
    specs = ("reinforce", "arm", "psa", *PAIRS)
    right = flat(truth)

    def draws(spec):
        return np.concatenate(
            [leaf.reshape(DRAWS, -1) for leaf in jax.tree.leaves(rows[spec][1])], axis=1
        )

    assert_mean(np.concatenate([draws(s) for s in specs], axis=1), np.tile(right, len(specs)))
    np.testing.assert_allclose(draws("exact"), np.tile(right, (DRAWS, 1)), rtol=1e-12)
    for spec in ("straight_through(proxy='identity')", "concrete(temperature=0.5)", "mean_field"):
        assert largest_z(draws(spec), right) > threshold(1e-6, right.size)


@pytest.mark.slow
def test_every_estimator_runs_in_single_precision_and_is_pure():
    specs = [spec for spec in SPECS if not spec.startswith("nested(")]
    with single():
        params = jax.tree.map(jnp.float32, random_like(TAPPED.network, seed=8))
        batch = jax.tree.map(jnp.float32, TAPPED_BATCH)

        @jax.jit
        def run(params, keys):
            draws = {s: jax.value_and_grad(make_estimator(s, TAPPED)) for s in specs}
            return {s: jax.vmap(d, (None, 0, None))(params, keys, batch) for s, d in draws.items()}

        rows = run(params, jax.random.split(KEY, 9)[jnp.arange(10) % 9])
    for spec, (value, gradient) in rows.items():
        assert jax.tree.structure(gradient) == jax.tree.structure(params)
        for leaf in (value, *jax.tree.leaves(gradient)):
            assert leaf.dtype == np.float32
            assert np.all(np.isfinite(leaf)), spec
            np.testing.assert_array_equal(leaf[0], leaf[9])  # the same key, the same draw
        assert np.all(value == value[0]) == (spec == "exact"), spec


# ------------------------------------------------------------- weights outside a bounded support


@pytest.mark.parametrize("noise", ["uniform", pytest.param("triangular", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_latent_weights_outside_the_support_are_fixed_and_have_no_gradient(noise):
    model = BinaryWeights(TANH, noise=noise)
    params, batch = random_like(TANH), (inputs(2, 2), targets(2))
    params[0]["weight"] = np.array([[1.5, -1.0], [1.0, -40.0]])
    with pytest.warns(GradbenchWarning, match="2 of 6 latent weights .* probability 1 .* zero; cl"):
        exact_gradient(model, params, batch)
    BinaryWeights(TANH, noise="laplace").warn_outside(params)  # warnings are errors here
    fixed = ({**params[0], "weight": np.sign(params[0]["weight"])}, params[1])

    only = BinaryWeights(TANH, noise=noise, entries=(1,))
    by_hand = partial(expected_over_weights_by_hand, only, batch=batch)
    identity = partial(straight_through, proxy="identity")

    @jax.jit
    def run(params, keys):
        makes = (exact, reinforce, arm, psa, straight_through, identity)
        draws = [jax.value_and_grad(make(model)) for make in makes]
        return [jax.vmap(draw, (None, 0, None))(params, keys, batch) for draw in draws]

    rows = run(params, jax.random.split(KEY, 20))
    value, gradient = rows[0]
    np.testing.assert_allclose(value, by_hand(fixed), rtol=1e-12)
    for name in ("weight", "bias"):
        right = complex_step(by_hand, fixed)[1][name]
        np.testing.assert_allclose(gradient[1][name][0], right, rtol=EXACT)
    for _, gradient in rows[:-1]:
        np.testing.assert_array_equal(gradient[0]["weight"], 0)
        assert np.all(np.any(gradient[1]["weight"] != 0, axis=0))
    assert np.all(np.any(rows[-1][1][0]["weight"] != 0, axis=0))


# ---------------------------------------------------------------------------------- bad input

STOCHASTIC = SBN(dense(2, 2), Readout(2, 1))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: BinaryWeights(STOCHASTIC), "of an SBN need an estimator for its activations; giv"),
        (
            lambda: BinaryWeights(TANH, noise="gauss"),
            "unknown noise 'gauss'; did you mean 'normal'?",
        ),
        (
            lambda: BinaryWeights(TANH, entries=(0, 2)),
            r"entries \(0, 2\); give numbers from 0 to 1",
        ),
        (lambda: BinaryWeights(TANH, entries=(-1,)), r"entries \(-1,\); give numbers from 0 to 1"),
        (lambda: BinaryWeights(TANH, entries=()), r"entries \(\); give .* at least one"),
        (
            lambda: BinaryWeights(TANH, entries=1),
            "entries 1; give numbers from 0 to 1, at least one",
        ),
        (lambda: BinaryWeights(tuple), "binary weights got a network of type type; give an SBN or"),
        (lambda: BinaryWeights(STOCHASTIC, "psa"), "activations.* 'psa'; give an estimator"),
        (lambda: nested(TAPPED, weights="nested"), "nested.* weights='nested'; give .* not nested"),
        (lambda: nested(TAPPED, activations="nested"), "nested.*='nested'; give .* not nested"),
        (lambda: nested(STOCHASTIC), r"nested\(\) got a model without binary weights under"),
        (lambda: nested(BinaryWeights(TANH)), r"nested\(\) got a model without binary weights un"),
        (lambda: nested(TAPPED, weights="amr"), "unknown estimator 'amr'; did you mean 'ar'?"),
        (lambda: nested(TAPPED, activations="pas"), "unknown estimator 'pas'; did you mean 'psa'?"),
        (
            lambda: check_spec("nested(weight='arm')"),
            "no hyper-parameter 'weight'; did you mean 'w",
        ),
        (lambda: check_spec("nested(weights='concrete(temperature=0)')"), "temperature is 0; give"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(build, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        build()


@pytest.mark.slow
def test_too_many_weights_are_refused_with_their_number_and_the_limit():
    sentence = "all 2.45 values of 45 binary weights.*, over the limit of 2e.12; use narrower"
    layers, batch = dense(8, 5), (np.ones((2, 8)), np.ones(2))
    for network in (RealNetwork(layers, Readout(5, 1)), SBN(layers, Readout(5, 1))):
        model = BinaryWeights(network, psa if isinstance(network, SBN) else None)
        for refused in (
            lambda m=model: check_size(m, random_like(m.network), batch),
            lambda m=model: exact(m)(random_like(m.network), KEY, batch),
            lambda m=model: exact_gradient(m, random_like(m.network), batch),
        ):
            with pytest.raises(GradbenchError, match=sentence):
                refused()
    real = BinaryWeights(RealNetwork(layers, Readout(5, 1)))
    with pytest.raises(GradbenchError, match=sentence):
        moments(reinforce(real), random_like(real.network), batch)
    check_size(BinaryWeights(real.network, entries=(1,)), random_like(real.network), batch)


def test_exact_moments_are_refused_where_activations_are_random_beside_the_weights():
    params = random_like(TAPPED.network)
    with pytest.raises(GradbenchError, match="on a model whose objective is not random"):
        moments(reinforce(TAPPED), params, TAPPED_BATCH)


def test_a_model_that_is_run_without_a_key_is_refused():
    model = BinaryWeights(TANH)
    with pytest.raises(GradbenchError, match="run without a key; make an estimator of it"):
        run_model(model, random_like(TANH), (np.ones((2, 2)),), lambda site, a: a)


@pytest.mark.slow
def test_the_exact_loss_is_found_whatever_kind_of_keys_is_the_default():
    model = BinaryWeights(TANH, entries=(1,))
    params, batch = random_like(TANH), (inputs(2, 2), targets(2))
    right = expected_loss(model, params, batch)
    with jax.default_prng_impl("rbg"):
        np.testing.assert_allclose(expected_loss(model, params, batch), right, rtol=1e-14)


def test_a_loss_of_unknown_randomness_inside_counts_as_random():
    def regularised(network):
        inner = psa(network)
        return lambda params, key, batch: inner(params, key, batch) + 0.1

    model = BinaryWeights(STOCHASTIC, regularised)
    assert model.random and not is_deterministic(make_estimator("mean_field", model))
    with pytest.raises(GradbenchError, match="on a model whose objective is not random"):
        moments(reinforce(model), random_like(STOCHASTIC), (inputs(2, 2), targets(2)))


def test_entries_without_a_weight_are_refused():
    layer = Function(lambda theta, x: theta @ x, 2, lambda key: jnp.ones((2, 2)))
    model = BinaryWeights(RealNetwork((layer,), Readout(2, 1)))
    with pytest.raises(GradbenchError, match='entry 0 of the parameters has nothing called "wei'):
        reinforce(model)(model.init(KEY), KEY, (inputs(2, 2), targets(2)))
