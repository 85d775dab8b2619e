"""Second derivatives through sampled states are refused wherever they are taken; first are not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small

import gradbench
from gradbench import GradbenchError
from gradbench.core.autodiff import refuses_second_derivatives
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.exact.enumeration import brute_force
from gradbench.models import BinaryWeights, MultiSample

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(1)
PARAMS = (jnp.array([[0.3, -0.4], [0.1, 0.8]]), jnp.array([0.5, -1.0]))
BATCH = (jnp.array([[1.0, -0.5], [0.2, 0.7]]), jnp.array([0.4, -1.0]))
SMOOTH = {"exact", "mean_field", "ap2", "local_reparameterization", "concrete"}


def model(params, example, binary):
    return jnp.sin(params[1] @ binary(params[0] @ example[0]) - example[1])


def square(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


def unrolled(f):
    """Three steps of gradient descent, differentiated."""

    def step(params, _):
        return jax.tree.map(lambda p, d: p - 0.1 * d, params, jax.grad(f)(params)), None

    return jax.grad(lambda params: square(jax.lax.scan(step, params, None, 3)[0]))


def along(f):
    return lambda p: jax.jvp(f, (p,), (p,))[1]


SECOND = {
    "hessian": jax.hessian,
    "gradient of a gradient's norm": lambda f: jax.grad(lambda p: square(jax.grad(f)(p))),
    "jvp of grad": lambda f: along(jax.grad(f)),
    "jvp of jvp": lambda f: along(along(f)),
    "grad of jvp": lambda f: jax.grad(along(f)),
    "jacrev of jacfwd under jit": lambda f: jax.jit(jax.jacrev(jax.jit(jax.jacfwd(f)))),
    "linearize of grad": lambda f: lambda p: jax.linearize(jax.grad(f), p)[1](p),
    "vjp of grad": lambda f: lambda p: jax.vjp(jax.grad(f), p)[0],
    "hessian of checkpoint": lambda f: jax.hessian(jax.checkpoint(f)),
    "checkpoint of grad": lambda f: jax.grad(lambda p: square(jax.checkpoint(jax.grad(f))(p))),
    "steps in a scan": unrolled,
    "vmap of hessian": lambda f: lambda p: jax.vmap(lambda c: jax.hessian(f)(p))(jnp.arange(2.0)),
}
FIRST = {
    "grad": jax.grad,
    "value_and_grad": lambda f: lambda p: jax.value_and_grad(f)(p)[1],
    "jacrev": jax.jacrev,
    "jacfwd": jax.jacfwd,
    "vjp": lambda f: lambda p: jax.vjp(f, p)[1](jnp.ones(()))[0],
    "linearize": lambda f: lambda p: jax.grad(lambda q: jax.linearize(f, p)[1](q))(p),
    "jit": lambda f: jax.jit(jax.grad(jax.jit(f))),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(f)),
    "vmap": lambda f: (
        lambda p: jax.tree.map(lambda g: g[1], jax.vmap(lambda c: jax.grad(f)(p))(jnp.arange(2.0)))
    ),
    "scan": lambda f: lambda p: jax.lax.scan(lambda c, _: (c, jax.grad(f)(c)), p, None, 1)[1],
}


def of_binarize(params):
    x = gradbench.binarize(params[0] @ BATCH[0][0], key=jax.random.clone(KEY))
    return jnp.sin(params[1] @ x)


g = gradbench.expectation(lambda x, v: jnp.sin(v @ x), "disarm")


def of_expectation(params):
    return g(params[0][0], jax.random.clone(KEY), params[1])


def of_estimator(spec):
    loss = make_estimator(spec, model)
    return lambda params: loss(params, KEY, BATCH)


ENTRIES = {
    "binarize": of_binarize,
    "expectation": of_expectation,
    "disarm": of_estimator("disarm"),
    "zgr": of_estimator("zgr"),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("way", SECOND)
@pytest.mark.first(24)
def test_a_second_derivative_is_refused(entry, way):
    with pytest.raises(GradbenchError, match="differentiated once more") as caught:
        jax.eval_shape(SECOND[way](ENTRIES[entry]), PARAMS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", FIRST)
@pytest.mark.parametrize("entry", ["binarize", "expectation", "disarm"])
@pytest.mark.slow
def test_a_first_derivative_is_what_it_was(entry, way):
    right = jax.grad(ENTRIES[entry])(PARAMS)
    found = FIRST[way](ENTRIES[entry])(PARAMS)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(np.squeeze(one), other, rtol=1e-5, atol=1e-7)


def tried(name):
    """A problem that the estimator takes, its parameters and batch."""
    needs = ESTIMATORS[name].needs
    if not needs:
        return model, PARAMS, BATCH
    network, params, batch = small((2, 2, 1))
    if "MultiSample" in needs:
        return MultiSample(network, 3), params, batch
    if needs.startswith("an SBN"):
        return network, params, batch
    weights = BinaryWeights(network, activations=gradbench.estimators.zgr)
    return weights, weights.init(KEY), batch


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
@pytest.mark.first(1)
def test_every_estimator_refuses_second_derivatives_or_is_smooth(name):
    problem, params, batch = tried(name)
    loss = make_estimator(name, problem)
    params = jax.tree.map(jnp.asarray, params)
    assert refuses_second_derivatives(loss, params, KEY, batch) == (name not in SMOOTH)


@pytest.mark.slow
def test_a_smooth_loss_whose_objective_is_an_estimator_is_refused():
    network, _, batch = small((2, 2, 1))
    weights = BinaryWeights(network, activations=gradbench.estimators.reinforce)
    loss = make_estimator("mean_field", weights)
    assert refuses_second_derivatives(loss, weights.init(KEY), KEY, batch)


@pytest.mark.parametrize("spec", ["mean_field", "concrete"])
@pytest.mark.slow
def test_the_second_derivative_of_a_smooth_draw_is_that_of_its_gradient(spec, float64):
    f = of_estimator(spec)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), PARAMS)
    way = jax.tree.map(jnp.cos, params)
    found = jax.jvp(jax.grad(f), (params,), (way,))[1]
    near = [
        jax.grad(f)(jax.tree.map(lambda p, d, s=s: p + s * 1e-5 * d, params, way)) for s in (1, -1)
    ]
    for leaf, up, down in zip(*map(jax.tree.leaves, (found, *near)), strict=True):
        np.testing.assert_allclose(leaf, (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_exact_losses_have_their_second_derivatives(float64):
    network, params, batch = small((2, 2, 1))
    exact = make_estimator("exact", network)
    found, right = (
        jax.jit(along(jax.grad(f)))(params)
        for f in (lambda p: exact(p, KEY, batch), lambda p: brute_force(network, p, batch))
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_what_only_the_function_depends_on_keeps_its_second_derivatives():
    """E f'' is what the second derivative of E f in an argument is."""
    f = gradbench.expectation(lambda x, v: jnp.sum((v * x) ** 2 + v**3), "disarm")
    found = jax.hessian(f, argnums=2)(jnp.zeros(2), KEY, PARAMS[1])
    np.testing.assert_allclose(found, np.diag(2 + 6 * PARAMS[1]), rtol=1e-5)


@pytest.mark.parametrize("inner, outer", [(0, 2), (2, 0)])
def test_a_mixed_derivative_of_an_expectation_is_refused(inner, outer):
    def norm(*args):
        return jnp.sum(jax.grad(g, argnums=inner)(*args) ** 2)

    with pytest.raises(GradbenchError, match="differentiated once more"):
        jax.eval_shape(jax.grad(norm, argnums=outer), jnp.zeros(2), KEY, PARAMS[1])


def test_the_penalty_of_a_gradient_in_the_inputs_is_refused():
    loss = make_estimator("disarm", model)

    def penalty(params):
        return square(jax.grad(loss, argnums=2)(params, KEY, BATCH))

    with pytest.raises(GradbenchError, match="differentiated once more"):
        jax.eval_shape(jax.grad(penalty), PARAMS)


@pytest.mark.slow
def test_a_gradient_that_is_a_constant_may_stand_in_what_is_differentiated():
    f = ENTRIES["disarm"]

    def scaled(params):
        return f(params) / square(jax.grad(f)(jax.lax.stop_gradient(params)))

    own = jax.grad(f)(PARAMS)
    for found, g in zip(*map(jax.tree.leaves, (jax.grad(scaled)(PARAMS), own)), strict=True):
        np.testing.assert_allclose(found, g / square(own), rtol=1e-4)


@pytest.mark.slow
def test_learned_parts_are_learned_through_the_gradient():
    relax = gradbench.estimators.relax(model)
    state = relax.init(PARAMS, BATCH)
    after = jax.jit(relax.adapt)(state, PARAMS, KEY, BATCH)
    moved = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (state, after)))]  # noqa: B905
    assert any(moved)


@pytest.mark.slow
def test_a_hyperparameter_is_learned_through_the_gradient():
    def variance(t):
        loss = gradbench.estimators.rebar(model, temperature=t)
        return square(jax.grad(loss)(PARAMS, KEY, BATCH))

    assert np.isfinite(jax.grad(variance)(0.5)) and jax.grad(variance)(0.5) != 0
