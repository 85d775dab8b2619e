"""What models return beside their objective, and the state of modules among their parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small
from flax import nnx

import gradbench
from gradbench import GradbenchError
from gradbench.core.inputs import checked
from gradbench.core.programs import parts
from gradbench.core.run import sampled
from gradbench.core.uniforms import draw_uniforms
from gradbench.estimators import ESTIMATORS, make_estimator
from gradbench.measure.draws import draw
from gradbench.models import MultiSample

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
PARAMS = (jnp.array([[0.3, -0.4], [0.1, 0.8]]), jnp.array([0.5, -1.0]))
BATCH = (jnp.array([[1.0, -0.5], [0.2, 0.7], [0.1, 0.1]]), jnp.array([0.4, -1.0, 0.3]))
ANY_MODEL = sorted(name for name, entry in ESTIMATORS.items() if not entry.needs)

# ------------------------------------------------------------------------------------- aux


def alone(params, example, binary):
    return (params[1] @ binary(params[0] @ example[0]) - example[1]) ** 2


def with_aux(params, example, binary):
    x = binary(params[0] @ example[0])
    return (params[1] @ x - example[1]) ** 2, {"x": x, "none": None}


def path():
    (u,) = draw_uniforms(KEY, [(2,)], 1, 3, jnp.float32)
    return jax.vmap(lambda u, one: sampled(alone, PARAMS, u, one).x[0], (-1, 0))(u, BATCH)


@pytest.mark.parametrize("name", ["disarm", "exact", "concrete", *ANY_MODEL])
@pytest.mark.slow
def test_aux_is_that_of_the_sampled_path_beside_the_same_draw(name):
    loss, same = make_estimator(name, with_aux), make_estimator(name, alone)
    (value, aux), g = jax.jit(jax.value_and_grad(loss, has_aux=True))(PARAMS, KEY, BATCH)
    right, own = jax.jit(jax.value_and_grad(same))(PARAMS, KEY, BATCH)
    np.testing.assert_allclose(value, right, rtol=1e-6)
    for found, leaf in zip(g, own, strict=True):
        np.testing.assert_allclose(found, leaf, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(aux["x"], path())
    assert aux["none"] is None


@pytest.mark.slow
def test_a_model_with_aux_is_measured_like_one_without():
    loss, same = gradbench.estimators.arm(with_aux), gradbench.estimators.arm(alone)
    drawn = (draw(*parts(one), PARAMS, KEY, BATCH) for one in (loss, same))
    for found, right in zip(*drawn, strict=True):
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
    found, right = (gradbench.reference(m, PARAMS, BATCH).gradient[1] for m in (with_aux, alone))
    np.testing.assert_allclose(found, right)


@pytest.mark.parametrize("name", ["moving_average", "nvil", "relax", "mean_of(estimator='nvil')"])
@pytest.mark.first(1)
@pytest.mark.slow
def test_learned_parts_are_learned_from_a_model_with_aux(name):
    loss = make_estimator(name, with_aux).fit(PARAMS, KEY, BATCH, steps=2)
    assert np.isfinite(jax.value_and_grad(loss, has_aux=True)(PARAMS, KEY, BATCH)[0][0])


@pytest.mark.slow
def test_several_samples_of_a_model_drop_its_aux():
    losses = [gradbench.estimators.vimco(MultiSample(m, 2)) for m in (with_aux, alone)]
    found, right = (loss(PARAMS, KEY, BATCH) for loss in losses)
    np.testing.assert_allclose(found, right)


@pytest.mark.parametrize(
    "returned, said",
    [
        (lambda f: (f, f, f), "a tuple of 3 things; return one real number per example, or"),
        (lambda f: (f, "text"), "returns 'text' beside its objective; return arrays"),
        (lambda f: ("text", f), "an objective of type str"),
    ],
)
def test_what_is_no_objective_with_aux_is_refused(returned, said):
    loss = gradbench.estimators.arm(lambda *args: returned(alone(*args)))
    with pytest.raises(GradbenchError, match=said) as caught:
        loss(PARAMS, KEY, BATCH)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------- modules


class Net(nnx.Module):
    def __init__(self, rngs, extra=None):
        self.hidden, self.out = nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 1, rngs=rngs)
        self.extra = extra or (lambda a: a)

    def __call__(self, example, binary):
        x = binary(self.extra(self.hidden(example[0])))
        return (self.out(x)[0] - example[1]) ** 2


def objective(net, example, binary):
    return net(example, binary)


class Dropped(nnx.Module):
    """A model whose gradient in ``scale`` shows the mask of dropout of each example."""

    def __init__(self, rngs):
        self.hidden, self.scale = nnx.Linear(2, 2, rngs=rngs), nnx.Param(jnp.ones((3, 64)))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, example, binary):
        x = binary(self.hidden(example[0]))
        mask = self.dropout(jnp.ones(64))
        return example[1] @ self.scale[...] @ mask + jnp.sum(x) * self.dropout(jnp.ones(()))


def masks(name, key):
    net = Dropped(nnx.Rngs(0))
    loss = make_estimator(name, objective)
    g = nnx.grad(loss)(net, key, (BATCH[0], jnp.eye(3)))
    assert net.dropout.rngs.count[...] == Dropped(nnx.Rngs(0)).dropout.rngs.count[...]
    return np.asarray(g["scale"][...]) > 0


@pytest.mark.parametrize("name", ["disarm", *sorted({*ANY_MODEL} - {"exact", "per_layer"})])
@pytest.mark.first(1)
@pytest.mark.slow
def test_dropout_of_a_module_has_a_mask_for_each_example_and_draw(name):
    first, again, other = (masks(name, jax.random.key(k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    several = np.concatenate([first, other])
    distinct = [(a != b).mean() for k, a in enumerate(several) for b in several[:k]]
    assert all(0.15 < share < 0.85 for share in distinct)  # of 64 fair coins; 2e-8 a pair


@pytest.mark.slow
def test_all_runs_of_a_draw_have_the_same_mask():
    """The draw of ARM differs from that of the masked objective by nothing."""

    def noisy(params, example, binary):
        keep = jax.random.bernoulli(params["key"], 0.5, (2,))
        return jnp.sum(keep * binary(params["a"])) * example

    def given(params, example, binary):
        return jnp.sum(example[1] * binary(params["a"])) * example[0]

    params, batch = {"a": jnp.array([0.3, -1.0]), "key": jax.random.key(0)}, jnp.ones(3)

    def in_logits(a, loss, others, batch):
        return loss(others | {"a": a}, KEY, batch)

    kept = []
    loss = gradbench.estimators.arm(noisy)
    aux = gradbench.estimators.arm(
        lambda p, e, b: (
            noisy(p, e, b),
            jax.random.bernoulli(jax.random.clone(p["key"]), 0.5, (2,)),
        )
    )
    kept = aux(params, KEY, batch)[1]
    found = jax.grad(in_logits)(params["a"], loss, params, batch)
    right = jax.grad(in_logits)(params["a"], gradbench.estimators.arm(given), {}, (batch, kept))
    np.testing.assert_allclose(found, right, rtol=1e-6)
    assert 0 < np.mean(kept) < 1


@pytest.mark.slow
def test_a_raw_key_of_a_draw_does_too():
    params = {"a": jnp.array([0.3, -1.0]), "key": jax.random.split(jax.random.key(0), 2)}

    def noisy(params, example, binary):
        x = binary(params["a"])
        bits = jax.vmap(lambda key: jax.random.bits(key))(params["key"])
        return jnp.sum(x), bits

    bits = gradbench.estimators.arm(noisy)(params, jax.random.PRNGKey(1), jnp.ones(5))[1]
    assert bits.shape == (5, 2) and len(np.unique(bits)) == 10


@pytest.mark.slow
def test_keys_in_the_batch_are_a_mask_for_each_example_everywhere():
    keys = jax.random.split(jax.random.key(2), 3)

    def model(params, example, binary):
        keep = jax.random.bernoulli(example[2], 0.5, (2,))
        return (params[1] @ (keep * binary(params[0] @ example[0])) - example[1]) ** 2

    truth = gradbench.reference(model, PARAMS, (*BATCH, keys)).gradient[1]
    with gradbench.float64():
        found = gradbench.moments(gradbench.estimators.zgr(model), PARAMS, (*BATCH, keys)).mean[1]
    np.testing.assert_allclose(found, truth, rtol=1e-5)  # of a quadratic function, in one layer


@pytest.mark.slow
def test_an_expected_loss_over_keys_is_refused_and_over_idle_ones_is_not():
    net = Dropped(nnx.Rngs(0))
    batch = (BATCH[0], jnp.eye(3))
    with pytest.raises(GradbenchError, match="draws from keys among its parameters"):
        gradbench.expected_loss(objective, net, batch)
    net.dropout.deterministic = True
    assert np.isfinite(gradbench.expected_loss(objective, net, batch))


def batchnorm(training=True):
    net = Net(nnx.Rngs(0), nnx.BatchNorm(2, rngs=nnx.Rngs(1)))
    if not training:
        net.eval()
    return net


@pytest.mark.parametrize("name", ["disarm", "exact", *ANY_MODEL])
@pytest.mark.first(2)
def test_a_module_whose_state_changes_is_refused_by_its_name(name):
    with pytest.raises(GradbenchError, match=r"changes extra\.mean, extra\.var of") as caught:
        nnx.grad(make_estimator(name, objective))(batchnorm(), KEY, BATCH)
    assert "\n" not in str(caught.value) and "module.eval()" in str(caught.value)


@pytest.mark.slow
def test_batchnorm_with_its_running_averages_is_a_model_like_any():
    loss = gradbench.estimators.disarm(objective)
    found = nnx.grad(loss)(batchnorm(training=False), KEY, BATCH)
    right = nnx.grad(loss)(Net(nnx.Rngs(0)), KEY, BATCH)
    np.testing.assert_allclose(
        found["hidden"]["kernel"][...], right["hidden"]["kernel"][...], rtol=1e-3, atol=1e-6
    )


def test_a_new_variable_and_a_changed_dictionary_are_refused():
    def counts(params, example, binary):
        params["seen"] = params["seen"] + 1
        return jnp.sum(binary(params["a"]))

    def adds(params, example, binary):
        params["new"] = params["a"]
        return jnp.sum(binary(params["a"]))

    params = {"a": jnp.ones(2), "seen": jnp.zeros(())}
    for model, name in ((counts, "seen"), (adds, "new")):
        with pytest.raises(GradbenchError, match=rf"changes \['{name}'\] of its parameters"):
            gradbench.estimators.arm(model)(params, KEY, BATCH)


def test_a_state_of_equinox_is_refused():
    class Counter(eqx.Module):
        index: eqx.nn.StateIndex
        weight: jax.Array

        def __init__(self):
            self.index, self.weight = eqx.nn.StateIndex(jnp.zeros(())), jnp.ones(2)

    def model(params, example, binary):
        module, state = params
        state.set(module.index, state.get(module.index) + 1)
        return jnp.sum(binary(module.weight))

    with pytest.raises(GradbenchError, match=r"changes an equinox.nn.State of its parameters"):
        gradbench.estimators.arm(model)(eqx.nn.make_with_state(Counter)(), KEY, BATCH)


def test_batchnorm_of_equinox_is_refused():
    norm, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(2, axis_name="batch", mode="batch")

    def model(params, example, binary):
        a, _ = norm(params @ example[0], state)
        return jnp.sum(binary(a))

    with pytest.raises(GradbenchError, match="averages over an axis of the batch"):
        gradbench.estimators.arm(model)(PARAMS[0], KEY, BATCH)


def test_a_name_error_of_the_model_is_its_own():
    def model(params, example, binary):
        return jnp.sum(binary(params)) + undefined  # noqa: F821

    with pytest.raises(NameError, match="undefined"):
        gradbench.estimators.arm(model)(PARAMS[0], KEY, BATCH)


def test_what_is_checked_says_whether_there_is_aux():
    network, params, batch = small((2, 2, 1))
    assert not checked(network, params, batch).has_aux
    assert checked(with_aux, PARAMS, BATCH).has_aux
