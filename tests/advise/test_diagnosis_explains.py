"""A diagnosis says why a row is empty and what would do; losses of a batch get the right remedy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradbench
from gradbench import GradbenchError, diagnose
from gradbench.measure.blocks import Blocks
from gradbench.metrics.reference_noise import Noise
from gradbench.metrics.sampled_truth import known_norm, known_with

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(0)
PARAMS = (jnp.array([[0.3, -0.4], [0.1, 0.8]]), jnp.array([0.5, -1.0]))
X = jnp.array([[1.0, -0.5], [0.2, 0.7], [0.1, 0.1], [-1.0, 2.0]])
Y = jnp.array([0.4, -1.0, 0.3, 2.0])


def model(params, example, binary):
    return (params[1] @ binary(params[0] @ example[0]) - example[1]) ** 2


def output(params, key, x):
    return gradbench.binarize(x @ params[0].T, key=key) @ params[1]


def masked(params, key, batch):
    x, y, m = batch
    return jnp.sum(m * (output(params, key, x) - y) ** 2) / jnp.sum(m)


def all_masked(params, key, batch):
    return masked(params, key, (*batch[:2], 0 * batch[2]))


def normalised(params, key, batch):
    a = batch[0] @ params[0].T
    a = (a - a.mean(0)) / jnp.sqrt(a.var(0) + 1e-5)
    return jnp.mean((gradbench.binarize(a, key=key) @ params[1] - batch[1]) ** 2)


def normalised_without_epsilon(params, key, batch):
    """Of one example the value is finite, and the gradient of the root of 0 is not."""
    a = batch[0] @ params[0].T
    a = (a - a.mean(0)) / (a.std(0) + 1e-3)
    x = gradbench.binarize(a, key=key) @ params[1]
    return jnp.mean(0.001 * x + a[:, 0] * 0 + 10.0)


MASK = jnp.array([1.0, 1.0, 0.0, 1.0])
WHOLE = {
    "masked": (masked, (X, Y, MASK), "of a single example is nan"),
    "batchnorm": (normalised, (X, Y), "depends on the other examples of its batch"),
    "infinite slope": (normalised_without_epsilon, (X, Y), "as with BatchNorm"),
}


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.first(1)
@pytest.mark.slow
def test_a_loss_of_the_batch_is_told_by_example_and_diagnosed_without(name):
    loss, batch, said = WHOLE[name]
    with pytest.raises(GradbenchError, match=said) as caught:
        diagnose(loss, PARAMS, batch, KEY)
    assert "by_example=False" in str(caught.value) and "\n" not in str(caught.value)
    found = diagnose(loss, PARAMS, batch, KEY, by_example=False)
    assert "of its unbiased counterpart" in found.truth


@pytest.mark.slow
def test_a_batch_whose_loss_is_nan_is_no_question_of_examples():
    with pytest.raises(GradbenchError, match=r"loss of the batch is nan; find out where") as caught:
        diagnose(all_masked, PARAMS, (X, Y, MASK), KEY)
    assert "by_example" not in str(caught.value)


@pytest.mark.slow
def test_a_layer_without_an_effect_is_said_to_have_no_gradient():
    idle = gradbench.estimators.zgr(lambda p, ex, binary: model(p, ex, binary) + 0.0 * p[2].sum())
    found = diagnose(idle, (*PARAMS[:2], jnp.ones(2)), (X, Y), KEY)
    assert found.layers["output"].unknown == "the true gradient is 0, to which nothing is relative"
    assert "output: the true gradient is 0" in str(found)
    assert not found.layers["layer 1"].unknown


@pytest.mark.slow
def test_a_row_that_is_not_known_says_how_many_draws_would_do_and_they_do():
    loss = gradbench.estimators.straight_through(
        lambda p, ex, binary: 20 + jnp.sin(jnp.sum(p[1] * binary(p[0] @ ex[0])))
    )
    few = diagnose(loss, PARAMS, (X, Y), KEY, unbiased="reinforce", reference_draws=32)
    why = {name: layer.unknown for name, layer in few.layers.items() if layer.unknown}
    assert why and all("cannot be told from 0 by 32 draws" in said for said in why.values())
    named = [int(n) for said in why.values() for n in re.findall(r"reference_draws=(\d+)", said)]
    for draws in named:
        assert draws > 32
    enough = max(named, default=32 * 16)
    more = diagnose(loss, PARAMS, (X, Y), KEY, unbiased="reinforce", reference_draws=16 * enough)
    assert not any(layer.unknown for layer in more.layers.values())


@pytest.mark.parametrize("seed", range(8))
def test_the_draws_that_are_named_let_the_norm_be_known(seed):
    """With the same gradient and a noise smaller by the factor that is named, and not by half."""
    generator = np.random.default_rng(seed)
    gradient = generator.standard_normal(20)
    rows = gradient + 9.0 * generator.standard_normal((16, 20))

    def norm(factor):
        shrunk = gradient + (rows - gradient) / factor**0.5
        means = shrunk - shrunk.mean(0) + gradient
        blocks = Blocks(np.ones(16), means, np.zeros((16, 20)))
        return known_norm(gradient, Noise.of(blocks)), Noise.of(blocks)

    unknown, noise = norm(1.0)
    factor = known_with(gradient, noise)
    if unknown > 0:
        assert factor <= 1.5
    elif np.isfinite(factor):
        assert factor > 0.5 and norm(2 * factor)[0] > 0
    else:
        assert gradient @ gradient <= noise.trace
