"""`gradbench.draws`: the moments of the draws that anybody would make, one by one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradbench
from gradbench import GradbenchError

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
PARAMS = {"w": jnp.array([[0.3, -0.4], [0.1, 0.8]]), "v": jnp.array([0.5, -1.0])}
BATCH = (jnp.array([[1.0, -0.5], [0.2, 0.7], [0.1, 0.1]]), jnp.array([0.4, -1.0, 0.3]))


def model(params, example, binary):
    return (params["v"] @ binary(params["w"] @ example[0]) - example[1]) ** 2


def of_own(params, key, batch):
    """A loss of one's own, with aux."""
    x = gradbench.binarize(batch[0] @ params["w"].T, key=key)
    return jnp.mean((x @ params["v"] - batch[1]) ** 2), x


DISARM = gradbench.estimators.disarm(model)


def one_by_one(loss, n):
    keys = jnp.stack([jax.random.fold_in(KEY, i) for i in range(n)])
    return jax.vmap(jax.value_and_grad(loss), (None, 0, None))(PARAMS, keys, BATCH)


@pytest.mark.parametrize("n", [2, 37, 64, 1000])
@pytest.mark.first(1)
@pytest.mark.slow
def test_the_moments_are_those_of_the_numbered_draws(n, monkeypatch):
    monkeypatch.setattr("gradbench.measure.sample.chunk_of", lambda *_: 8)
    monkeypatch.setattr("gradbench.measure.sample._ENTRIES", 6 * 100)  # calls of 96
    values, gradients = one_by_one(DISARM, n)
    found = gradbench.draws(DISARM, PARAMS, KEY, BATCH, n, stacked=True)
    np.testing.assert_allclose(found.values, values, rtol=1e-5)
    np.testing.assert_allclose(found.value, np.mean(values, dtype=float), rtol=1e-5)
    np.testing.assert_allclose(found.value_se, np.std(values, ddof=1) / n**0.5, rtol=1e-4)
    for name, leaf in gradients.items():
        np.testing.assert_allclose(found.gradients[name], leaf, rtol=1e-4, atol=1e-6)
        assert found.gradients[name].dtype == leaf.dtype
        right = np.asarray(found.gradients[name], float)
        np.testing.assert_allclose(found.mean[name], right.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.variance[name], right.var(0, ddof=1), rtol=1e-9)
        np.testing.assert_allclose(found.se[name], (right.var(0, ddof=1) / n) ** 0.5, rtol=1e-9)


@pytest.mark.slow
def test_draws_are_kept_only_if_they_are_asked_for():
    found = gradbench.draws(DISARM, PARAMS, KEY, BATCH, 64)
    assert found.values is None and found.gradients is None and found.n == 64


@pytest.mark.slow
def test_a_loss_of_ones_own_with_aux_has_moments():
    """With the seed fixed, each coordinate of the mean is within 5 standard errors."""
    found = gradbench.draws(of_own, PARAMS, KEY, BATCH, 512)
    truth = gradbench.reference(model, PARAMS, BATCH).gradient  # of a quadratic objective, by ZGR
    for name in PARAMS:
        assert (abs(found.mean[name] - truth[name]) <= 5 * found.se[name] + 1e-6).all()


@pytest.mark.slow
def test_a_module_with_functions_has_gradients_of_its_form():
    class Net(eqx.Module):
        w: jax.Array
        v: jax.Array
        squash: object = jnp.tanh

    net = Net(**PARAMS)
    loss = gradbench.estimators.zgr(
        lambda n, ex, binary: n.squash(n.v @ binary(n.w @ ex[0]) - ex[1])
    )
    found = gradbench.draws(loss, net, KEY, BATCH, 16, stacked=True)
    assert found.mean.squash is jnp.tanh and found.gradients.w.shape == (16, 2, 2)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"n": 1}, "n is 1; give a whole number of at least 2"),
        ({"n": 2.5}, "n is 2.5; give"),
        ({"key": None}, "there is no key; give"),
        ({"loss": model}, "a model; give a function loss"),
        ({"params": {"w": jnp.ones(2, int)}}, "the parameters hold int32"),
        ({"stacked": 1}, "stacked is 1; give True or False"),
        ({"batch": (jnp.ones((3, 2)), jnp.ones(2))}, "give every leaf the same number"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(changed, said):
    arguments = {"loss": DISARM, "params": PARAMS, "key": KEY, "batch": BATCH, "n": 4} | changed
    with pytest.raises(GradbenchError, match=said) as caught:
        gradbench.draws(**arguments)
    assert "\n" not in str(caught.value)


def test_draws_inside_a_transformation_are_refused():
    with pytest.raises(GradbenchError, match=r"draws\(\) is called inside a transformation"):
        jax.jit(lambda p: gradbench.draws(DISARM, p, KEY, BATCH, 4).mean)(PARAMS)
