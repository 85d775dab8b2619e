"""Exact bias and variance of an estimator on a small problem, for the tests of its family."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from conftest import NOISES, flat, random_params, relative, small

from gradbench.core.precision import single
from gradbench.exact.enumeration import brute_force
from gradbench.exact.moments import moments

EXACT = 1e-10  # relative, for what is unbiased
SEEN = 1e-3  # relative, for what must be seen


@cache
def _truth(model):
    return jax.jit(jax.value_and_grad(partial(brute_force, model)))


def exact_bias(loss, params, batch):
    """Exact relative bias per layer, and of the value."""
    value, gradient = _truth(loss.model)(params, batch)
    found = moments(loss, params, batch, declared=False)
    bias = [relative(m, g) for m, g in zip(found.mean, gradient, strict=True)]
    return np.array(bias), abs(found.value - value) / abs(value)


def assert_unbiased(loss, params, batch):
    bias, value = exact_bias(loss, params, batch)
    assert np.all(bias < EXACT)
    assert value < EXACT


def total_variance(loss, params, batch):
    """Exact variance of a draw, all coordinates added."""
    return flat(moments(loss, params, batch, declared=False).variance).sum()


@cache
def tiny(sizes, noise="logistic", seed=3, scale=1.0):
    """A network, its parameters and a batch of one example, as arrays of JAX."""
    network, params, batch = small(sizes, noise, seed=seed, scale=scale)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), batch)
    return network, jax.tree.map(jnp.asarray, params), one


def skipping(params, example, binary):
    """Written by hand: a skip connection, two noises, an objective that is not multilinear."""
    x = binary(params[0]["weight"] @ example[0] + params[0]["bias"])
    z = binary(params[1]["weight"] @ x + params[1]["bias"], noise="laplace")
    return jnp.exp(params[2] @ jnp.concatenate([x, z]) / 2) + example[1] * x[0] * z[0]


def skipping_problem():
    *params, _ = random_params((2, 2, 1, 1), seed=3)
    weights = np.random.default_rng(4).uniform(-1, 1, 3)
    batch = (jnp.array([[0.7, -0.4]]), jnp.array([1.0]))
    return skipping, jax.tree.map(jnp.asarray, (*params, weights)), batch


def saturated_draws(make, noises=NOISES, draws=20):
    """Draws ``[draws, noises, units]`` in float32, of a model with a layer of each noise.

    Its parameters are the pre-activations; the first two units of every layer are saturated.
    """
    with single():
        a = jnp.array([40.0, -40.0, 0.3], jnp.float32)

        def model(params, example, binary):
            states = [binary(a, noise=n) for a, n in zip(params, noises, strict=True)]
            x = jnp.concatenate(states)
            return jnp.sin(jnp.dot(x, jnp.arange(1, x.size + 1)))

        draw = jax.grad(make(model))
        keys = jax.random.split(jax.random.key(0), draws)
        found = jax.jit(jax.vmap(draw, (None, 0, None)))((a,) * len(noises), keys, jnp.zeros(1))
        return np.stack(found, axis=1)


def assert_finite_and_zero_where_saturated(make, noises=NOISES):
    found = saturated_draws(make, noises)
    assert np.all(np.isfinite(found))
    assert np.max(np.abs(found[..., :2])) < 1e-12
    assert np.all(np.max(np.abs(found[..., 2]), axis=0) > SEEN)


def random_uniforms(rows, streams, shapes, seed=0):
    """Rows of uniforms as an estimator takes them: streams x sites arrays ``[rows, *shape]``."""
    generator = np.random.default_rng(seed)
    return tuple(
        tuple(jnp.asarray(generator.uniform(size=(rows, *shape))) for shape in shapes)
        for _ in range(streams)
    )


def example_draws(losses, params, example, u):
    """The gradient of each loss for each row of uniforms, ``[rows, coordinates]``."""

    @jax.jit
    def draws(u):
        def one(u):
            return [
                jax.grad(loss.example_loss)(params, u[: loss.streams], example) for loss in losses
            ]

        return jax.vmap(one)(u)

    return [rows_of(draw) for draw in draws(u)]


def rows_of(tree):
    """Gradients of many draws as rows."""
    return np.concatenate([np.reshape(w, (len(w), -1)) for w in jax.tree.leaves(tree)], axis=1)
