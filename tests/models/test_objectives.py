"""Objectives: losses, their targets, and the evidence bound of latent-variable models.

The reference of the bound is its definition, summed over all states in plain numpy. Its derivative
is that of an imaginary step, right to rounding.
"""

import itertools
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import (
    NOISES,
    SCIPY,
    assert_mean,
    every_kind,
    flat,
    random_params,
    relative,
    small,
)
from jax.lax import stop_gradient
from scipy import special, stats

from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import ESTIMATORS, arm, make_estimator, psa, reinforce, straight_through
from gradbench.exact.enumeration import brute_force, expected_loss, recursion
from gradbench.exact.moments import moments
from gradbench.exact.size import check_size
from gradbench.models.compose import Compose
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.elbo import ELBO
from gradbench.models.losses import (
    OBJECTIVES,
    Readout,
    bernoulli_likelihood,
    logistic_loss,
    multinomial_likelihood,
    softmax_cross_entropy,
    squared_error,
)
from gradbench.models.network import SBN, dense_network

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
KEY = jax.random.key(0)
EXACT = 1e-10  # relative, for what is unbiased
BIASED = 1e-3  # relative, for what must be seen


# --------------------------------------------------------------------------------- losses


@pytest.mark.slow
def test_losses_have_their_values():
    out = jnp.array([0.3, -1.2, 2.0])
    right = np.log1p(np.exp(-0.7 * -1))
    np.testing.assert_allclose(logistic_loss(jnp.array([-0.7]), -1.0), np.log1p(np.exp(-0.7)))
    np.testing.assert_allclose(logistic_loss(jnp.array([-0.7]), 1.0), right)
    p = np.exp(out) / np.exp(out).sum()
    np.testing.assert_allclose(softmax_cross_entropy(out, 2), -np.log(p[2]))
    np.testing.assert_allclose(squared_error(out, jnp.array([0.0, 1, 2])), 0.3**2 + 2.2**2)


def test_likelihoods_are_those_of_scipy():
    out = np.array([0.3, -1.2, 2.0])
    bits, counts = jnp.array([1.0, 1.0, -1.0]), np.array([2, 0, 5])
    right = -stats.bernoulli.logpmf([1, 1, 0], special.expit(out)).sum()
    np.testing.assert_allclose(bernoulli_likelihood(jnp.asarray(out), bits), right, rtol=1e-14)
    coefficient = special.gammaln(8) - special.gammaln(counts + 1).sum()
    right = coefficient - stats.multinomial.logpmf(counts, 7, special.softmax(out))
    found = multinomial_likelihood(jnp.asarray(out), jnp.asarray(counts))
    np.testing.assert_allclose(found, right, rtol=1e-13)


@pytest.mark.slow
def test_losses_stay_finite_at_huge_outputs():
    np.testing.assert_allclose(logistic_loss(jnp.array([1e4]), -1.0), 1e4)
    assert logistic_loss(jnp.array([1e4]), 1.0) == 0
    far = jnp.array([1e4, -1e4])
    np.testing.assert_allclose(softmax_cross_entropy(far, 1), 2e4)
    np.testing.assert_allclose(bernoulli_likelihood(far, jnp.array([-1.0, -1.0])), 1e4)
    np.testing.assert_allclose(multinomial_likelihood(far, jnp.array([1, 2])), 4e4)

    @jax.jit
    def gradients(far):
        one = jax.grad(logistic_loss)(far[:1], -1.0)
        bits = [
            jax.grad(f)(far, jnp.ones(2)) for f in (bernoulli_likelihood, multinomial_likelihood)
        ]
        return one, jax.grad(softmax_cross_entropy)(far, 1), bits

    assert np.all(np.isfinite(flat(gradients(far))))


TARGETS = {
    "logistic_loss": np.array([-1.0, 1.0]),
    "softmax_cross_entropy": np.array([0, 2]),
    "squared_error": np.ones((2, 3)),
    "bernoulli_likelihood": np.array([[1, -1, 1], [-1, -1, 1]]),
    "multinomial_likelihood": np.array([[1, 0, 4], [0, 0, 2]]),
}


@pytest.mark.parametrize(
    "loss", [name for name in OBJECTIVES if not isinstance(OBJECTIVES[name], type)]
)
@pytest.mark.slow
def test_every_loss_gives_a_gradient_and_takes_its_shape_of_targets(loss):
    outputs = 1 if loss == "logistic_loss" else 3
    network = dense_network((2, 2, outputs), loss)
    params, batch = random_params((2, 2, outputs)), (np.ones((2, 2)), TARGETS[loss])
    network.check(params, batch)

    @jax.jit
    def both(params):
        routes = (recursion, brute_force)
        return [jax.grad(partial(route, network))(params, batch) for route in routes]

    assert relative(*both(params)) < 1e-12


@pytest.mark.parametrize(
    ("loss", "targets", "sentence"),
    [
        ("logistic_loss", [1.0, 0.0], "logistic_loss got the target 0.0; code the two classes"),
        ("softmax_cross_entropy", [0, 3], "got the target 3; give integer classes from 0 to 2"),
        ("softmax_cross_entropy", [0, -1], "got the target -1; give integer classes"),
        ("softmax_cross_entropy", [0.0, 1.0], "got the target 0.0; give integer classes"),
        ("softmax_cross_entropy", [True, False], "got the target True; give integer classes"),
        (
            "bernoulli_likelihood",
            [[1.0, 0.0, 1.0], [1.0, 1.0, -1.0]],
            "bernoulli_likelihood got the target 0.0; code bits as -1 and .1",
        ),
        (
            "multinomial_likelihood",
            [[1, 0, 2], [3, -1, 0]],
            "multinomial_likelihood got the target -1; give counts, at least 0",
        ),
    ],
)
def test_targets_that_the_loss_is_not_made_for_are_refused(loss, targets, sentence):
    outputs = 1 if loss == "logistic_loss" else 3
    network = dense_network((2, 2, outputs), loss)
    with pytest.raises(GradbenchError, match=sentence):
        network.check(random_params((2, 2, outputs)), (np.zeros((2, 2)), np.array(targets)))


@pytest.mark.parametrize("loss", [squared_error, bernoulli_likelihood, multinomial_likelihood])
@pytest.mark.parametrize("shape", [(), (2,), (3, 1)])
def test_losses_refuse_targets_that_would_broadcast(loss, shape):
    with pytest.raises(GradbenchError, match=r"got 3 outputs and a target of shape .* per output"):
        loss(jnp.ones(3), jnp.ones(shape))


def test_targets_with_an_axis_too_many_are_refused():
    network, params, (inputs, targets) = small((2, 2, 1))
    with pytest.raises(GradbenchError, match=r"objective of shape \(1,\)"):
        reinforce(network)(params, KEY, (inputs, targets[:, None]))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Readout(2, 1, "logistic"), "did you mean 'logistic_loss'"),
        (lambda: Readout(2, 3, "logistic_loss"), "logistic_loss got 3 outputs; give 1"),
        (lambda: ELBO(()), r"an ELBO got the decoders \(\); give a tuple with one for each layer"),
        (lambda: ELBO((Dense(3, 4),), "close"), "kl is 'close'; did you mean 'closed'"),
        (lambda: ELBO((Dense(3, 4),), None), "kl is None; choose one of closed, sampled"),
        (
            lambda: ELBO((Dense(3, 4),), likelihood="bernouli_likelihood"),
            "the likelihood is 'bernouli_likelihood'; did you mean 'bernoulli_likelihood'",
        ),
        (
            lambda: SBN((Dense(4, 3), Dense(3, 3)), ELBO((Dense(3, 4),))),
            "an ELBO got 2 stochastic layers and decoders: 1; give one decoder for each layer",
        ),
        (
            lambda: SBN((Dense(4, 2),), ELBO((Dense(3, 4),))),
            "layer 1 has 2 units but the next expects 3",
        ),
        (
            lambda: SBN((Dense(4, 3), Dense(3, 2)), ELBO((Dense(2, 4), Dense(2, 3)))),
            "decoder 1 reads 2 and gives 4, but layer 1 .* make the decoder undo the layer",
        ),
        (
            lambda: SBN((Dense(4, 3), Dense(3, 2)), ELBO((Dense(3, 4), Dense(2, 4)))),
            "decoder 2 reads 2 and gives 4, but layer 2 reads 3 and gives 2; make the decoder undo",
        ),
        (
            lambda: SBN(
                (Conv((4, 4, 1), 1, 1), Dense(16, 2)),
                ELBO((Conv((2, 8, 1), 1, 1), Dense(2, 16))),
            ),
            r"decoder 1 reads \(2, 8, 1\) .* make the decoder undo the layer",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_one_sentence(build, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        build()


# --------------------------------------------------------- the bound by its definition


CDF = {  # again, for complex numbers: the imaginary step needs analytic functions
    "logistic": lambda a: 1 / (1 + np.exp(-a)),
    "normal": lambda a: special.erfc(-a / np.sqrt(2)) / 2,
    "uniform": lambda a: np.where(np.abs(a.real) < 1, (a + 1) / 2, a.real > 0),
    "triangular": lambda a: np.where(
        np.abs(a.real) < 1,
        np.where(a.real < 0, (1 + a) ** 2 / 2, 1 - (1 - a) ** 2 / 2),
        a.real > 0,
    ),
    "laplace": lambda a: np.where(
        a.real < 0, np.exp(np.minimum(a.real, 0) + 1j * a.imag) / 2, 1 - np.exp(-a) / 2
    ),
}


@pytest.mark.parametrize("noise", NOISES)
def test_the_cdf_of_the_reference_is_that_of_scipy(noise):
    a = np.linspace(-3, 3, 41)
    np.testing.assert_allclose(CDF[noise](a + 0j).real, SCIPY[noise].cdf(a), rtol=1e-13)
    step = CDF[noise](a + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(step[1:-1], SCIPY[noise].pdf(a)[1:-1], rtol=1e-12, atol=1e-15)


def states(units):
    return np.array(list(itertools.product((-1.0, 1.0), repeat=units)))


def forward(theta, x):
    """An affine map, or two with tanh between them."""
    if isinstance(theta, dict):
        return x @ theta["weight"].T + theta["bias"]
    first, _, second = theta
    return forward(second, np.tanh(forward(first, x)))


def log(p):
    """The logarithm, of 0 any number: it is multiplied with 0."""
    return np.log(np.where(p == 0, 1, p))


def log_bernoulli(cdf, x, a):
    """log P(x | a), summed over the last axis."""
    return np.sum(log(cdf(x * a)), axis=-1)


def log_joint(params, target, path):
    """log p(target, x_1, ..., x_L), of one path of states."""
    decoders, sigmoid = params[-1]["decoders"], CDF["logistic"]
    total, below = log_bernoulli(sigmoid, path[-1], params[-1]["prior"]), target
    for theta, x in zip(decoders, path, strict=True):
        total = total + log_bernoulli(sigmoid, below, forward(theta, x))
        below = x
    return total


def negative_elbo(params, batch, noises):
    """E_q [log q(x | input) - log p(target, x)], a sum over all paths of all layers."""
    total = 0.0
    for example, target in zip(*batch, strict=True):
        sizes = [len(forward(params[0], example))]
        for theta in params[1:-1]:
            sizes.append(len(forward(theta, np.zeros(sizes[-1]))))
        for path in itertools.product(*map(states, sizes)):
            probability, entropy, below = 1.0, 0.0, example
            for theta, x, noise in zip(params[:-1], path, noises, strict=True):
                a = forward(theta, below)
                probability = probability * np.prod(CDF[noise](x * a))
                entropy, below = entropy + log_bernoulli(CDF[noise], x, a), x
            if probability != 0:
                total += probability * (entropy - log_joint(params, target, path))
    return total / len(batch[0])


def slope(f, params):
    """The derivative of f along a fixed direction by an imaginary step, and the direction."""
    direction = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size)).reshape(leaf.shape), params)
    step = jax.tree.map(lambda leaf, d: leaf + 1e-30j * d, params, direction)
    return np.imag(f(step)) / 1e-30, flat(direction)


def layer(inputs, outputs, noise="logistic", hidden=0):
    """A linear map, or one with a layer of tanh in it."""
    if not hidden:
        return Dense(inputs, outputs, noise)
    return Compose((Dense(inputs, hidden), jnp.tanh, Dense(hidden, outputs, noise)))


@cache
def autoencoder(sizes, noises, hidden=0, kl="closed", scale=1.0):
    """A network with the bound as objective, with parameters and a batch; sizes[0] are the bits."""
    pairs = list(itertools.pairwise(sizes))
    encoder = [layer(m, n, noise, hidden) for (m, n), noise in zip(pairs, noises, strict=True)]
    network = SBN(tuple(encoder), ELBO(tuple(layer(n, m, hidden=hidden) for m, n in pairs), kl))
    generator = np.random.default_rng(sum(sizes))
    shapes = jax.eval_shape(network.init, KEY)
    params = jax.tree.map(lambda leaf: generator.uniform(-scale, scale, leaf.shape), shapes)
    bits = generator.choice([-1.0, 1.0], (2, sizes[0]))
    return network, params, (bits, bits)


def sampled_too(network):
    """The networks with the closed and the sampled divergence."""
    return network, replace(network, objective=replace(network.objective, kl="sampled"))


@pytest.mark.parametrize(
    ("sizes", "noises", "hidden"),
    [
        ((4, 3), ("logistic",), 2),
        ((3, 2, 3), ("normal", "laplace"), 0),
        ((3, 3, 2), ("triangular", "uniform"), 2),
    ],
)
@pytest.mark.slow
def test_the_bound_and_its_gradient_are_those_of_the_definition(sizes, noises, hidden):
    network, params, batch = autoencoder(sizes, noises, hidden)

    @jax.jit
    def both(params):
        return [
            jax.value_and_grad(partial(recursion, kind))(params, batch)
            for kind in sampled_too(network)
        ]

    definition = partial(negative_elbo, batch=batch, noises=noises)
    right, (derivative, direction) = definition(params), slope(definition, params)
    for value, gradient in both(params):  # closed and sampled
        np.testing.assert_allclose(value, right, rtol=1e-12)
        np.testing.assert_allclose(flat(gradient) @ direction, derivative, rtol=EXACT)


@pytest.mark.slow  # bounds of two layers are compared above with their definition
def test_recursion_equals_brute_force_for_a_bound_of_three_layers():
    network, params, batch = autoencoder(
        (3, 2, 3, 2), ("normal", "logistic", "uniform"), 0, "sampled"
    )

    @jax.jit
    def both(params):
        routes = (recursion, brute_force)
        return [jax.value_and_grad(partial(route, network))(params, batch) for route in routes]

    (value, gradient), (right, right_gradient) = both(params)
    np.testing.assert_allclose(value, right, rtol=1e-13)
    for one, two in zip(gradient, right_gradient, strict=True):
        assert relative(one, two) < 1e-12


@pytest.mark.parametrize("noise", ["uniform", pytest.param("triangular", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_saturated_encoders_of_bounded_noise_have_finite_and_right_bounds(noise):
    network, params, batch = autoencoder((4, 3), (noise,))
    a = np.abs(forward(params[0], batch[0]))
    assert np.any(a > 1)
    assert np.any(a < 1)
    definition = partial(negative_elbo, batch=batch, noises=(noise,))
    derivative, direction = slope(definition, params)

    @jax.jit
    def both(params):
        found = [
            jax.value_and_grad(partial(recursion, kind))(params, batch)
            for kind in sampled_too(network)
        ]
        return found, jax.value_and_grad(psa(sampled_too(network)[1]))(params, KEY, batch)

    found, draw = both(params)
    for value, gradient in found:
        np.testing.assert_allclose(value, definition(params), rtol=1e-12)
        np.testing.assert_allclose(flat(gradient) @ direction, derivative, rtol=EXACT)
    assert np.all(np.isfinite(flat(draw)))


def log_evidence(params, target):
    """log p(target), summed over all states of one layer."""
    terms = [log_joint(params, target, (x,)) for x in states(len(params[-1]["prior"]))]
    return special.logsumexp(terms)


@pytest.mark.slow
def test_the_bound_is_below_the_evidence_and_reaches_it_at_the_exact_posterior():
    network, params, batch = autoencoder((3, 1), ("logistic",))
    (decoder,) = params[-1]["decoders"]
    weight, bias = decoder["weight"][:, 0], decoder["bias"]
    evidence = np.mean([log_evidence(params, target) for target in batch[1]])

    # The logit of the posterior is affine in the bits t: prior + sum_j log p(t_j | 1) / p(t_j | -1)
    plus, minus = (
        np.log(special.expit(t * (bias + weight)) / special.expit(t * (bias - weight)))
        for t in (1, -1)
    )
    posterior = {
        "weight": ((plus - minus) / 2)[None],
        "bias": params[-1]["prior"] + np.sum(plus + minus) / 2,
    }
    route = jax.jit(jax.value_and_grad(partial(recursion, network)))
    value, _ = route(params, batch)
    assert value > -evidence + BIASED
    value, gradient = route((posterior, params[-1]), batch)
    np.testing.assert_allclose(value, -evidence, rtol=1e-13)
    assert np.max(np.abs(flat(gradient[0]))) < 1e-13


@pytest.mark.slow
def test_fourteen_bits_in_one_layer_are_exact():
    network, params, batch = autoencoder((4, 14), ("logistic",), scale=0.5)
    found = jax.jit(partial(expected_loss, network))(params, batch)
    sigmoid, x, total = CDF["logistic"], states(14), 0.0
    for example in batch[0]:
        a = forward(params[0], example)
        terms = log_bernoulli(sigmoid, x, a) - log_joint(params, example, (x,))
        total += np.exp(log_bernoulli(sigmoid, x, a)) @ terms
    np.testing.assert_allclose(found, total / len(batch[0]), rtol=1e-12)


@pytest.mark.slow
def test_six_and_six_bits_are_exact_by_both_routes():
    network, params, batch = autoencoder((4, 6, 6), ("logistic", "normal"))
    found = [jax.jit(partial(route, network))(params, batch) for route in (recursion, brute_force)]
    np.testing.assert_allclose(*found, rtol=1e-13)


@pytest.mark.slow
def test_the_memory_that_is_checked_is_that_of_wide_outputs_too():
    network = SBN((Dense(4, 14),), Readout(14, 20_000, "multinomial_likelihood"))
    params, batch = jax.eval_shape(network.init, KEY), (np.ones((1, 4)), np.ones((1, 20_000)))
    program = jax.jit(jax.grad(partial(recursion, network))).lower(params, batch).compile()
    needed = program.memory_analysis().temp_size_in_bytes
    with pytest.raises(GradbenchError, match="over the memory budget"):
        check_size(network, params, batch, needed)


# ------------------------------------------------------------------- the direct gradient


def per_layer(estimated, gradient):
    """Per entry, the distance to the exact gradient relative to its norm."""
    return np.array([relative(a, b) for a, b in zip(estimated, gradient, strict=True)])


def assert_draws(draws, exact):
    """Refuses draws ``[n, ...]`` of a wrong mean; what is the same in all of them must be right."""
    rows = np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(draws)], 1)
    exact, random = flat(exact), np.ptp(rows, axis=0) > 1e-9
    np.testing.assert_allclose(rows[0, ~random], exact[~random], rtol=0, atol=1e-9)
    if random.any():
        assert_mean(rows[:, random], exact[random])


@every_kind
@pytest.mark.slow
def test_the_gradient_in_the_objective_s_own_parameters_is_unbiased_in_every_estimator(kinds):
    network, params, batch = autoencoder((3, 2, 2), ("logistic", "normal"))
    entries = [(name, ESTIMATORS[name]) for name in kinds]
    names = [n for n, e in entries if e.estimates_value() and e.randomness == "states"]
    assert names

    @jax.jit
    def everything(params):
        truth = jax.grad(partial(recursion, network))(params, batch)
        found = {n: moments(make_estimator(n, network), params, batch).mean for n in names}
        return truth, found

    truth, found = everything(params)
    assert np.linalg.norm(flat(truth[-1]["prior"])) > BIASED
    for name, mean in found.items():
        assert relative(mean[-1]["prior"], truth[-1]["prior"]) < EXACT, name
        assert relative(mean[-1]["decoders"], truth[-1]["decoders"]) < EXACT, name
    if "psa" in found:
        assert np.all(per_layer(found["reinforce"], truth) < EXACT)
        assert per_layer(found["psa"], truth)[1] < EXACT  # the last layer


@pytest.mark.slow
def test_arm_is_unbiased_for_the_bound_in_all_its_parameters():
    network, params, batch = autoencoder((3, 2), ("logistic",), 2)
    keys = jax.random.split(jax.random.key(5), 20_000)

    @jax.jit
    def both(params):
        draws = jax.vmap(jax.grad(arm(network)), (None, 0, None))(params, keys, batch)
        return draws, jax.grad(partial(recursion, network))(params, batch)

    assert_draws(*both(params))


@pytest.mark.parametrize(
    ("kl", "hidden"), [pytest.param("closed", 0, marks=pytest.mark.slow), ("sampled", 2)]
)
@pytest.mark.slow
def test_psa_and_reinforce_are_unbiased_for_bounds_of_one_layer(kl, hidden):
    network, params, batch = autoencoder((3, 3), ("laplace",), hidden, kl)

    @jax.jit
    def everything(params):
        truth = jax.grad(partial(recursion, network))(params, batch)
        return truth, [moments(make(network), params, batch).mean for make in (psa, reinforce)]

    truth, means = everything(params)
    for mean in means:
        assert np.all(per_layer(mean, truth) < EXACT)


@pytest.mark.slow
def test_straight_through_is_unbiased_for_the_part_of_the_bound_that_is_linear_in_the_states():
    class Divergence(ELBO):
        """Without the likelihood: what is left is affine in each state."""

        def term(self, params, k, noise, below, a, x):
            likelihood = super().term(params, k, noise, below, a, x)
            logits = self.decoders[k](params[-1]["decoders"][k], x)
            return likelihood - bernoulli_likelihood(logits, below[1])

    network, params, batch = autoencoder((3, 3), ("laplace",), 0, "sampled")
    network = SBN(network.layers, Divergence(network.objective.decoders, "sampled"))
    truth = jax.jit(jax.grad(partial(recursion, network)))(params, batch)
    found = jax.jit(partial(moments, straight_through(network)))(params, batch)
    assert relative(found.mean[0], truth[0]) < EXACT
    assert relative(found.mean[1]["prior"], truth[1]["prior"]) < EXACT


class Direct(ELBO):
    """An objective that no state enters: parameters of encoder and objective, directly."""

    def term(self, params, k, noise, below, a, x):
        return jnp.sum(jnp.sin(a) * params[-1]["prior"]) + jnp.sum(params[0]["weight"] ** 2)


@every_kind
@pytest.mark.slow
def test_an_objective_without_states_has_its_gradient_in_every_estimator(kinds):
    network, params, batch = autoencoder((3, 2), ("logistic",))
    network = SBN(network.layers, Direct(network.objective.decoders))
    keys = jax.random.split(jax.random.key(7), 5_000)

    def objective(params):
        a = batch[0] @ params[0]["weight"].T + params[0]["bias"]
        direct = jnp.mean(jnp.sum(jnp.sin(a) * params[-1]["prior"], axis=1))
        return direct + jnp.sum(params[0]["weight"] ** 2)

    @jax.jit
    def everything(params):
        found = {}
        for name in kinds:
            loss = make_estimator(name, network)
            if ESTIMATORS[name].randomness == "states":
                found[name] = moments(loss, params, batch).mean
            else:
                found[name] = jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, batch)
        return jax.grad(objective)(params), found

    truth, found = everything(params)
    for name, g in found.items():
        if ESTIMATORS[name].randomness == "states":
            np.testing.assert_allclose(flat(g), flat(truth), rtol=0, atol=1e-12, err_msg=name)
        else:
            assert_draws(g, truth)


class Deaf(ELBO):
    """A bound that has lost its direct gradient in the encoder."""

    def term(self, params, k, noise, below, a, x):
        return super().term(params, k, noise, below, stop_gradient(a), x)


def without_direct(model):
    """REINFORCE that has lost the gradient of the objective itself."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        f = stop_gradient(run.f)
        units = zip(run.sites, run.x, run.a, strict=True)
        return f + sum(gradient_term(f * site.noise.score(x, a), a) for site, x, a in units)

    return surrogate_loss(model, example_loss)


@pytest.mark.slow
def test_a_lost_direct_gradient_is_seen():
    network, params, batch = autoencoder((3, 2), ("logistic",))
    deaf = SBN(network.layers, Deaf(network.objective.decoders))

    @jax.jit
    def everything(params):
        losses = reinforce(network), reinforce(deaf), without_direct(network)
        truth = jax.grad(partial(recursion, network))(params, batch)
        return truth, [moments(loss, params, batch).mean for loss in losses]

    truth, means = everything(params)
    right, in_encoder, everywhere = (per_layer(mean, truth) for mean in means)
    assert np.all(right < EXACT)
    assert in_encoder[0] > BIASED
    assert in_encoder[1] < EXACT
    assert everywhere[0] > BIASED
    np.testing.assert_allclose(everywhere[1], 1, rtol=1e-9)


# --------------------------------------------------------------------- semantic hashing


@pytest.mark.slow
def test_semantic_hashing_has_its_exact_gradient_and_unbiased_estimators():
    network = SBN((Dense(5, 3),), Readout(3, 5, "multinomial_likelihood"))
    params = random_params((5, 3, 5), seed=2)
    counts = np.array([[2, 0, 1, 0, 4], [0, 3, 0, 1, 1]])
    batch = (counts / np.sum(counts, axis=1, keepdims=True), counts)
    network.check(params, batch)

    def definition(params):
        total = 0.0
        for words, target in zip(*batch, strict=True):
            p = np.prod(CDF["logistic"](states(3) * forward(params[0], words)), axis=1)
            out = forward(params[1], states(3))
            total += p @ -((out - np.log(np.exp(out).sum(1, keepdims=True))) @ target)
        return total / len(counts)

    @jax.jit
    def everything(params):
        exact = jax.value_and_grad(partial(recursion, network))(params, batch)
        return exact, [moments(make(network), params, batch).mean for make in (psa, reinforce)]

    (value, gradient), means = everything(params)
    np.testing.assert_allclose(value, definition(params), rtol=1e-13)
    derivative, direction = slope(definition, params)
    np.testing.assert_allclose(flat(gradient) @ direction, derivative, rtol=1e-12)
    for mean in means:
        assert np.all(per_layer(mean, gradient) < EXACT)


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "change",
    [
        lambda theta: {**theta, "prior": np.ones(3)},
        lambda theta: {"prior": theta["prior"]},
        lambda theta: {**theta, "decoders": ()},
        lambda theta: (),
    ],
)
def test_parameters_that_are_not_those_of_a_bound_are_refused(change):
    network, params, batch = autoencoder((3, 2), ("logistic",))
    with pytest.raises(GradbenchError, match="ELBO"):
        expected_loss(network, (params[0], change(params[-1])), batch)


def test_targets_of_another_size_than_the_decoder_s_are_refused():
    network, params, (bits, _) = autoencoder((3, 2), ("logistic",))
    with pytest.raises(GradbenchError, match=r"bernoulli_likelihood got 3 outputs and a target of"):
        expected_loss(network, params, (bits, bits[:, :2]))
    with pytest.raises(GradbenchError, match=r"bernoulli_likelihood got the target 0.0; code bits"):
        network.check(params, (bits, (bits + 1) / 2))


@pytest.mark.parametrize("noise", ["uniform", pytest.param("triangular", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_states_that_a_flip_makes_impossible_count_nothing_in_the_sampled_divergence(noise):
    """PSA keeps the states above a flip; the logarithm of their probability 0 is no number."""
    layers = (Dense(3, 3, noise), Dense(3, 2, noise))
    network = SBN(layers, ELBO((Dense(3, 3), Dense(2, 3)), "sampled"))
    params = network.init(jax.random.key(1))
    bits = jnp.array([[1.0, -1, 1], [-1, -1, 1]])

    def bias(dtype):
        cast = partial(jax.tree.map, lambda leaf: leaf.astype(dtype))
        found = jax.jit(partial(moments, psa(network)))(cast(params), cast((bits, bits))).mean
        return np.linalg.norm(flat(found[0]) - flat(truth[0])) / np.linalg.norm(flat(truth[0]))

    truth = jax.jit(jax.grad(partial(recursion, network)))(params, (bits, bits))
    exact = bias(jnp.float64)
    assert exact < 10
    np.testing.assert_allclose(bias(jnp.float32), exact, rtol=1e-3)
