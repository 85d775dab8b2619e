"""REBAR and RELAX: integrated over their uniforms, and against the papers' formulas.

With logistic noise at temperature 1 and 1/2, or with uniform noise, a draw is an analytic function
of each uniform up to its breaks, so that a few Gauss points make an integral over six of them.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, assert_mean, flat, random_batch, random_params, relative, small
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise, get_noise
from gradbench.core.precision import single
from gradbench.core.run import draw_state, run_model, sampled
from gradbench.estimators import (
    dynamic_rebar,
    get_estimator,
    make_estimator,
    rebar,
    reinforce,
    relax,
)
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.reparameterised import At, conditional, controlled, relaxed
from gradbench.exact import quadrature as _quadrature
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

EXACT = 1e-9  # relative, what the integrals converge to
BIASED = 1e-2  # relative, for what must be seen


@pytest.fixture
def gauss(monkeypatch):
    """Integrals by Gauss's rule of so many points between two breaks."""

    def by(points):
        node, weight = np.polynomial.legendre.leggauss(points)
        monkeypatch.setattr(
            _quadrature, "_rule", lambda smoothness, axes: ((node + 1) / 2, weight / 2)
        )

    return by


def one_example(sizes, noise="logistic", **options):
    network, params, batch = small(sizes, noise, seed=3, **options)
    return network, params, jax.tree.map(lambda x: x[:1], batch)


def integrated(losses, params, batch, **options):
    """Of each loss: relative bias per layer, that of the value of all, and variance per layer.

    All in one integral, of a loss in which each has its own copy of the parameters; its sites and
    breaks are those of the first, unless others are given.
    """

    def first(copies, example, binary):
        return losses[0].model(copies[0], example, binary)

    def together(copies, u, example):
        pairs = zip(losses, copies, strict=True)
        return sum(loss.example_loss(copy, u, example) for loss, copy in pairs)

    @jax.jit
    def truth(params):
        models = {loss.model for loss in losses}
        exact = {m: jax.value_and_grad(partial(brute_force, m))(params, batch) for m in models}
        return [exact[loss.model] for loss in losses]

    loss = replace(losses[0], model=first, example_loss=together, **options)
    found = moments(loss, (params,) * len(losses), batch)
    values, gradients = zip(*truth(params), strict=True)
    copies = zip(found.mean, gradients, strict=True)
    bias = [[relative(a, b) for a, b in zip(*copy, strict=True)] for copy in copies]
    variance = [[np.sum(flat(layer)) for layer in copy] for copy in found.variance]
    return np.array(bias), abs(found.value / sum(values) - 1), np.array(variance)


def flat_tree(tree):
    return ravel_pytree(tree)[0]


def two_sites(params, example, binary):
    """No chain: the objective, not multilinear between the states, sees both of them."""
    x = binary(params[0] * example[0], noise="uniform")
    y = binary(params[1] @ jnp.concatenate([x, example[0]]))
    return jnp.exp(params[2] @ jnp.concatenate([x, y])) + example[1] * x[0] * y[0] ** 3


TWO = (np.array([0.4]), np.array([[0.6, -0.2]]), np.array([0.5, -0.7]))
TWO_BATCH = (np.array([[0.9]]), np.array([-1.0]))


# ------------------------------------------------------------------------ exact integrals


@pytest.mark.parametrize(
    "noises", [("normal", "triangular"), pytest.param(NOISES, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_rebar_is_unbiased_with_every_noise(noises, monkeypatch):
    def one_unit(noise):
        def model(params, example, binary):
            x = binary(params[0] * example, noise=noise)
            return jnp.exp(params[1] @ x) + jnp.sum(x**3)

        return model

    losses = [rebar(one_unit(noise), temperature=1) for noise in noises]

    def breakpoints(stream, run):
        """Of all of them: the pre-activations are the same."""
        sites = [replace(run.sites[0], noise=get_noise(noise)) for noise in noises]
        p = jnp.stack([site.noise.cdf(run.a[0]) for site in sites])
        own = [losses[0].breakpoints(stream, run._replace(sites=(site,)))[0] for site in sites]
        return [jnp.concatenate(own if stream else [p, 1 - p, *own])]

    monkeypatch.setattr(_quadrature, "_SMOOTH", (12,))
    params, batch = (np.array([0.4]), np.array([0.6])), np.array([[1.5]])
    bias, value, _ = integrated(losses, params, batch, breakpoints=breakpoints)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_rebar_is_unbiased_of_several_units_in_a_layer(gauss):
    gauss(5)
    network, params, batch = one_example((1, 2, 1), scale=0.5)
    bias, value, _ = integrated([rebar(network, temperature=1, scale=0.8)], params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_rebar_is_unbiased_through_two_layers_and_hard_states_above_a_relaxed_one_are_seen(gauss):
    def hard(at, z):
        def unit(site, a):
            return draw_state(site, a, at.u[site.index])

        given = (*at.run.x[: at.k], jnp.tanh(z / 2))
        return run_model(two_sites, at.params, at.example, unit, given).f

    gauss(6)
    losses = (rebar(two_sites, temperature=1), controlled(two_sites, hard, "local"))
    (right, wrong), value, _ = integrated(losses, TWO, TWO_BATCH)
    assert value < EXACT
    assert np.all(right < EXACT)
    assert wrong[0] > 0.1  # with an error of the integral, which has further jumps there
    assert np.all(wrong[1:] < EXACT)


OTHERS = (
    {"coupling": "tied"},
    {"relaxation": "rebar"},
    {"coupling": "tied", "relaxation": "rebar"},
)
COMBINED = ({}, *OTHERS)


@pytest.mark.slow
def test_every_coupling_and_relaxation_is_unbiased_and_a_tie_without_its_derivative_is_not(
    monkeypatch,
):
    """One unit, and an objective that is no polynomial; the first has the streams of all."""

    def unit(params, example, binary):
        x = binary(params[0] * example, noise="normal")
        return jnp.exp(params[1] @ x) + jnp.sum(x**3)

    monkeypatch.setattr(_quadrature, "_SMOOTH", (12,))
    params, batch = (np.array([0.4]), np.array([0.6])), np.array([[1.5]])
    losses = [rebar(unit, temperature=1, **options) for options in COMBINED]
    as_if_z = replaced(losses[1], "untied", lambda site, x, a, u: jnp.zeros_like(a))
    (*bias, wrong), value, _ = integrated([*losses, as_if_z], params, batch)
    assert np.all(np.array(bias) < EXACT)
    assert value < EXACT
    assert wrong[0] > BIASED


@pytest.mark.slow
def test_every_coupling_and_relaxation_is_unbiased_through_two_layers(gauss):
    gauss(6)
    losses = [rebar(two_sites, temperature=1, scale=0.8, **options) for options in COMBINED]
    bias, value, _ = integrated(losses, TWO, TWO_BATCH)
    assert value < EXACT
    assert np.all(bias < 1e-7)  # REBAR's relaxation is steeper: the integral has two digits less


# ---------------------------------------------------------- planted bugs, for contrast


def with_conditional(loss, other):
    """The same estimator with another z~."""
    return replaced(loss, "conditional", other)


def replaced(loss, name, other):
    """The same estimator with another function in its computation."""

    def example_loss(params, u, example):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(controlled.__globals__, name, other)
            return loss.example_loss(params, u, example)

    return replace(loss, example_loss=example_loss)


def no_derivative(site, x, a, v):
    return stop_gradient(conditional(site, x, a, v))


def wrong_logit(site, x, a, v):
    """log u' + log1p(u')."""
    noise = replace(site.noise, quantile=lambda u: jnp.log(u) + jnp.log1p(u))
    return conditional(replace(site, noise=noise), x, a, v)


@pytest.mark.slow
def test_planted_bugs_are_seen(gauss):
    gauss(6)
    network, params, batch = one_example((1, 1, 1))
    right = rebar(network, temperature=1)

    def into_the_objective(params, u, example):
        """The control variate reaches the parameters of the objective."""
        run = sampled(network, params, u[0], example)
        c = relaxed(
            network, 1.0, At(params, u[0], example, run, 0, run.a[0]), stop_gradient(run.a[0])
        )
        return right.example_loss(params, u, example) + c - stop_gradient(c)

    losses = [with_conditional(right, conditional)]
    losses += [with_conditional(right, w) for w in (no_derivative, wrong_logit)]
    losses += [replace(right, example_loss=into_the_objective)]
    (none, *planted, last), value, _ = integrated(losses, params, batch)
    assert value < EXACT
    assert np.all(none < EXACT)
    for bias in planted:
        assert bias[0] > BIASED
        assert bias[1] < EXACT
    assert last[0] < EXACT
    assert last[1] > BIASED


# --------------------------------------------------------------------- draw by draw


@pytest.mark.parametrize("options", COMBINED, ids=str)
@pytest.mark.first(1)
def test_a_draw_is_the_formula_of_the_paper(options):
    """In {0,1} coding and with its u'; v is counted from the other end where b = 0.

    Tied, v is what makes u' = u, and a constant to the derivative. The relaxation of REBAR is
    sig(z/t + a t/(t + 1)).
    """
    tied, wide = "coupling" in options, "relaxation" in options
    network, params, batch = one_example((2, 3, 1))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    generator = np.random.default_rng(5)
    u, second = generator.uniform(size=(2, 3))
    t, c = 0.7, 0.6
    a = params[0]["weight"] @ example[0] + params[0]["bias"]

    def f(b):
        return network.objective(params[1], 2 * b - 1, example[1])

    def paper(a):
        p = jax.nn.sigmoid(a)
        b = jnp.where(u < p, 1.0, 0.0)
        v = stop_gradient(jnp.where(b > 0, u / p, (1 - u) / (1 - p))) if tied else second

        def z(a):
            return a - jnp.log(u / (1 - u))

        def z_given(a):
            p = jax.nn.sigmoid(a)
            other = jnp.where(b > 0, v * p, p + (1 - v) * (1 - p))
            return a - jnp.log(other / (1 - other))

        def relaxed_f(z, a):
            return f(jax.nn.sigmoid(z / t + wide * a * t / (t + 1)))

        slope = jax.grad(lambda a: relaxed_f(z(a), a) - relaxed_f(z_given(a), a))(a)
        return (f(b) - c * relaxed_f(z_given(a), a)) * (b - p) + c * slope

    loss = rebar(network, temperature=t, scale=c, **options).example_loss
    g = jax.jit(jax.grad(loss))(params, ((jnp.array(u),), (jnp.array(second),)), example)
    np.testing.assert_allclose(g[0]["bias"], jax.jit(paper)(a), rtol=1e-10)


@pytest.mark.slow
def test_what_is_learned_starts_as_rebar_or_as_reinforce_draw_by_draw():
    network, params, batch = small((2, 3, 1), "normal", seed=3)
    same = {"temperature": 0.3, "scale": 0.7}
    losses = [reinforce(network), relax(network, black_box=True), rebar(network, **same)]
    losses += [relax(network, **same)]

    @jax.jit
    def draws(key):
        return [flat_tree(jax.value_and_grad(loss)(params, key, batch)) for loss in losses]

    score, alone, fixed, both = draws(jax.random.key(4))
    for found, expected in ((alone, score), (both, fixed)):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)
    assert np.max(np.abs(fixed - score)) > BIASED


@pytest.mark.slow
def test_a_constant_in_the_objective_costs_rebar_nothing_and_reinforce_much():
    network = SBN((Dense(2, 2),), lambda theta, x, shift: shift + jnp.tanh(theta @ x) + x[0] ** 2)
    params, inputs = (*random_params((2, 2)), np.array([0.7, -0.4])), random_batch(2)[0]

    @jax.jit
    def draws(keys, shift):
        batch = (inputs, jnp.full(3, shift))
        return [
            jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, batch)[0]["weight"]
            for loss in (rebar(network), reinforce(network))
        ]

    keys = jax.random.split(jax.random.key(0), 500)
    (plain, _), (other, score) = draws(keys, 0.0), draws(keys, 30.0)
    np.testing.assert_allclose(other, plain, rtol=1e-10, atol=1e-12)
    assert np.var(other, axis=0).sum() < np.var(score, axis=0).sum() / 100


# --------------------------------------------------------------------------- learned


@pytest.mark.slow
def test_relax_is_unbiased_at_its_fitted_state_and_has_less_variance_there(gauss):
    gauss(8)
    network, params, batch = one_example((1, 1, 1), "uniform", scale=0.5)
    loss = relax(network, hidden=3, scale=0.2, rate=0.03)
    before = loss.frozen(loss.init(params, batch))
    after = loss.fit(params, jax.random.key(1), batch, 300)
    losses = [before, after, reinforce(network)]
    bias, value, variance = integrated(losses, params, batch)
    assert value < EXACT
    assert np.all(bias < EXACT)
    assert variance[1, 0] < 0.5 * variance[0, 0] < 0.5 * variance[2, 0]


@pytest.mark.slow
def test_relax_alone_needs_no_differentiable_objective_and_rebar_does(gauss):
    gauss(8)
    network = SBN(
        (Dense(1, 1, "uniform"),),
        lambda theta, x, target: theta * jnp.where(x[0] > 0, 1.0, target),
    )
    params = jax.tree.map(jnp.asarray, (*random_params((1, 1), 0.5), np.array(0.7)))
    batch = (np.ones((1, 1)), np.array([3.0]))
    loss = relax(network, hidden=3, black_box=True, rate=0.03)
    after = loss.fit(params, jax.random.key(1), batch, 300)
    losses = [after, reinforce(network), replace(rebar(network), breakpoints=after.breakpoints)]
    bias, value, variance = integrated(losses, params, batch)
    assert value < EXACT
    assert np.all(bias[:2] < EXACT)
    assert bias[2, 0] > BIASED
    assert variance[0, 0] < 0.2 * variance[1, 0]


@pytest.mark.slow
def test_the_first_step_goes_against_the_derivative_of_the_squared_norm_of_a_draw():
    network, params, batch = small((2, 2, 1), seed=3)
    params, key = jax.tree.map(jnp.asarray, params), jax.random.key(2)
    loss = dynamic_rebar(network, rate=0.01)
    (start, memory) = loss.init(params, batch)
    leaves, tree = jax.tree.flatten(start)
    assert len(leaves) == 2  # temperature and scale

    @jax.jit
    def square(*leaves):
        g = jax.grad(loss.loss)(params, key, batch, (jax.tree.unflatten(tree, leaves), memory))
        return sum(jnp.sum(w**2) for w in jax.tree.leaves(g))

    step = jax.tree.leaves(jax.jit(loss.adapt)((start, memory), params, key, batch)[0])
    for k, (old, new) in enumerate(zip(leaves, step, strict=True)):
        ends = [square(*leaves[:k], old + h, *leaves[k + 1 :]) for h in (-1e-5, 1e-5)]
        slope = (ends[1] - ends[0]) / 2e-5
        assert abs(slope) > 1e-4
        np.testing.assert_allclose(new - old, -0.01 * np.sign(slope), rtol=1e-3)  # Adam's first


# ----------------------------------------------------------------- larger, by sampling


@pytest.mark.parametrize(
    ("sizes", "noise", "learned"),
    [
        pytest.param((2, 2, 2, 1), ("laplace", "normal"), True, marks=pytest.mark.slow),
        ((2, 3, 1), "triangular", False),
    ],
)
@pytest.mark.slow
def test_means_of_draws_of_larger_networks_are_the_gradient(sizes, noise, learned):
    network, params, batch = small(sizes, noise, seed=5)
    params = jax.tree.map(jnp.asarray, params)
    loss = rebar(network, temperature=0.4, scale=0.9)
    if learned:
        loss = relax(network, hidden=3)
        phi, memory = loss.init(params, batch)
        generator = np.random.default_rng(6)
        phi = jax.tree.map(lambda w: w + generator.uniform(-0.5, 0.5, w.shape), phi)
        loss = loss.frozen((phi, memory))

    @jax.jit
    def draws(keys):
        truth = flat_tree(jax.value_and_grad(partial(brute_force, network))(params, batch))
        draw = jax.value_and_grad(loss)
        return truth, jax.vmap(lambda key: flat_tree(draw(params, key, batch)))(keys)

    truth, found = draws(jax.random.split(jax.random.key(7), 5000))
    assert_mean(found, truth)


# ------------------------------------------------------------------------- saturation


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"coupling": "tied", "relaxation": "rebar"}], ids=str)
def test_draws_are_finite_at_any_saturation_in_single_precision(options):
    """Pre-activations far outside, on the edge, and inside of bounded support; with every noise."""
    levels = np.array([-40, -6, -1, -0.999999, 0, 0.999999, 1, 6, 40])

    def of(part):
        """Each row of pre-activations has a noise of its own."""
        parts = [getattr(get_noise(noise), part) for noise in NOISES]
        return lambda a: jnp.stack([f(row) for f, row in zip(parts, a, strict=True)])

    noise = Noise("mixed", *map(of, ("cdf", "pdf", "quantile", "hazard", "log_cdf")))

    def model(params, example, binary):
        return jnp.tanh(jnp.sum(params[1] * binary(params[0], noise=noise)))

    with single():
        a = jnp.tile(jnp.array(levels, float), (5, 1))
        loss = rebar(model, temperature=0.1, **options)

        @jax.jit
        def draws(keys):
            return jax.vmap(jax.grad(loss), (None, 0, None))((a, a / 100), keys, jnp.ones(1))

        hidden, objective = draws(jax.random.split(jax.random.key(8), 1000))
    assert hidden.dtype == np.float32
    assert np.all(np.isfinite(hidden))
    assert np.all(np.isfinite(objective))
    np.testing.assert_allclose(hidden[..., [0, -1]], 0, atol=1e-12)  # no noise gets there
    assert np.all(np.std(hidden[..., 3:6], axis=0) > 0)


# ------------------------------------------------------------------ costs and refusals


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.first(1)
def test_the_cost_is_what_is_counted(layers):
    network, params, batch = small((2, *[2] * layers, 1))
    counts = {"objective": 0, "gradient": 0, "layers": 0}

    @jax.custom_vjp
    def counted(f):
        return f

    def forward(f):
        return f, None

    def backward(_, g):
        counts["gradient"] += 1
        return (g,)

    counted.defvjp(forward, backward)

    def model(params, example, binary):
        def unit(*given):
            counts["layers"] += 1
            return binary(*given)

        f = network(params, example, unit)
        counts["objective"] += 1
        return counted(f)

    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = tuple(jnp.full(2, 0.3) for _ in range(layers))
    passes = {"rebar": 2, "dynamic_rebar": 2, "relax": 2, "relax(black_box=True)": 0}
    passes |= {f"{name}(coupling='tied')": 1 for name in ("rebar", "dynamic_rebar")}
    for spec, relaxed_passes in passes.items():

        def traced(params, spec=spec):
            loss = make_estimator(spec, model)
            if isinstance(loss, Learned):
                loss = loss.frozen(loss.init(params, batch))
            counts.update(dict.fromkeys(counts, 0))
            return loss.example_loss(params, (u, u), example)

        jax.make_jaxpr(traced)(params)
        entry, arguments = get_estimator(spec)
        cost = entry.price(**arguments).evaluate(L=layers)
        assert cost == (counts["objective"], counts["gradient"], counts["layers"])
        assert cost[:2] == (1 + relaxed_passes * layers, relaxed_passes * layers)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(rebar, temperature=0), "temperature is 0; give a positive number"),
        (partial(rebar, scale=np.inf), "scale is inf; give a number"),
        (partial(dynamic_rebar, rate=-1), "rate is -1; give a positive number"),
        (partial(rebar, coupling="tide"), "coupling is 'tide'; did you mean 'tied'?"),
        (partial(dynamic_rebar, coupling=1), "coupling is 1; choose one of independent, tied"),
        (partial(rebar, relaxation="rebr"), "relaxation is 'rebr'; did you mean 'rebar'?"),
        (partial(dynamic_rebar, relaxation=2), "relaxation is 2; choose one of concrete, rebar"),
        (partial(dynamic_rebar, scale="one"), "scale is 'one'; give a number"),
        (partial(relax, hidden=0), "hidden is 0; give a whole number of at least 1"),
        (partial(relax, black_box="no"), "black_box is 'no'; give True or False"),
        (partial(relax, temperature=None), "temperature is None; give a positive number"),
    ],
)
def test_an_impossible_hyperparameter_is_refused_in_one_sentence(make, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(two_sites)
    assert str(caught.value) == sentence
