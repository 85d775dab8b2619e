"""`diagnose`: what it says of the estimator in use is so, whatever the truth is taken from."""

import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_mean, flat, precision

import gradbench
from gradbench import GradbenchError, binarize, diagnose, estimators, expectation, plots
from gradbench.measure.blocks import Blocks
from gradbench.measure.exact_reference import Reference
from gradbench.metrics.reference_noise import Noise
from gradbench.metrics.sampled_truth import known_norm
from gradbench.ops.score_mode import counterpart
from gradbench.plots.style import LIMIT

KEY = jax.random.key(3)
PARAMS = tuple(
    jax.random.normal(jax.random.key(k), shape) for k, shape in enumerate([(3, 2), (3, 3), (3,)])
)
BATCH = (
    jnp.array([[1.0, -0.5], [0.2, 0.7], [-1.0, 0.1], [0.5, 0.5]]),
    jnp.array([1.0, -1, 0, 2]),
)
LAYERS = ["layer 1", "layer 2", "output", "network"]


def model(params, example, binary):
    x, target = example
    x = binary(params[0] @ x)
    x = binary(params[1] @ x)
    return (params[2] @ x - target) ** 2


def own(estimator="zgr"):
    """The same loss as somebody writes it who has no model, only an activation."""

    def loss(params, key, batch):
        def one(key, example):
            keys = iter(jax.random.split(key))
            return model(
                params, example, lambda a: binarize(a, key=next(keys), estimator=estimator)
            )

        return jnp.mean(jax.vmap(one)(jax.random.split(key, len(batch[1])), batch))

    return loss


@pytest.fixture(scope="module")
def truth():
    return gradbench.reference(model, PARAMS, BATCH)


@pytest.fixture(scope="module")
def moments(truth):
    """Relative bias, and standard deviation of a draw, of two estimators by enumeration."""
    found = {}
    with precision(True):
        from gradbench.core.precision import doubled

        params, batch = doubled((PARAMS, BATCH))
        for name in ("straight_through", "psa"):
            exact = gradbench.moments(getattr(estimators, name)(model), params, batch)
            for k, layer in enumerate(LAYERS):
                pick = slice(None) if layer == "network" else slice(k, k + 1)
                norm = np.linalg.norm(flat(truth.gradient[pick]))
                bias = np.linalg.norm(flat(exact.mean[pick]) - flat(truth.gradient[pick]))
                deviation = math.sqrt(flat(exact.variance[pick]).sum())
                found[name, layer] = bias / norm, deviation / norm
    return found


@pytest.mark.parametrize("name", ["straight_through", "psa"])
@pytest.mark.parametrize("source", ["exact", "sampled", "given"])
@pytest.mark.slow
def test_bias_and_deviation_are_those_of_exact_moments(name, source, moments, truth):
    more = {"sampled": {"unbiased": "disarm", "reference_draws": 8192}, "given": {}}
    more["given"]["reference"] = truth
    found = diagnose(
        getattr(estimators, name)(model), PARAMS, BATCH, KEY, draws=4096, **more.get(source, {})
    )
    assert list(found.layers) == LAYERS
    assert found.truth == ("8192 draws of disarm" if source == "sampled" else "the exact gradient")
    for layer, metrics in found.layers.items():
        bias, deviation = moments[name, layer]
        # Five standard errors of what is nearly normal: 1e-6 each.
        square, std = metrics.estimate("bias2"), metrics.estimate("std")
        assert abs(square.value - bias**2) < 5 * square.se
        assert abs(std.value - deviation) < 5 * std.se
        assert square.se < 0.05


def test_a_bias_is_seen_and_none_where_there_is_none():
    found = {
        name: diagnose(
            getattr(estimators, name)(model),
            PARAMS,
            BATCH,
            jax.random.clone(KEY),
            draws=1024,
            unbiased="disarm",
            reference_draws=4096,
        )
        for name in ("straight_through", "reinforce_leave_one_out")
    }
    assert found["straight_through"].layers["layer 1"].estimate("bias").low > 0.2
    for metrics in found["reinforce_leave_one_out"].layers.values():
        square = metrics.estimate("bias2")
        assert square.value < 5 * square.se  # of a mean: 3e-7 each, were it normal


@pytest.mark.parametrize("by_example", [True, False])
@pytest.mark.parametrize("inside", ["plain", "jit"])
@pytest.mark.slow
def test_the_counterpart_of_a_loss_has_the_exact_gradient_in_the_mean(by_example, inside, truth):
    loss = jax.jit(own()) if inside == "jit" else own()
    unbiased = counterpart(loss, by_example)
    draws = jax.jit(jax.vmap(jax.grad(unbiased), (None, 0, None)))(
        PARAMS, jax.random.split(KEY, 4000), BATCH
    )
    for own_draws, exact in zip(draws, truth.gradient, strict=True):
        assert_mean(own_draws, exact)


def body(x, key):  # of a scan, at the top level: JAX keeps its trace
    return binarize(1.5 * x, key=key, estimator="straight_through"), None


def recurrent(params, key, batch):
    x, _ = jax.lax.scan(body, params[0], jax.random.split(key, 3))
    return jnp.mean((x + 0.3) ** 3) + x[0] * x[1] * x[2] + 0 * jnp.sum(batch)


@pytest.mark.slow
def test_the_counterpart_goes_through_scan_and_leaves_the_loss_as_it_was():
    params, batch = (jnp.array([0.3, -0.5, 1.0]),), jnp.zeros((1, 1))
    draw = jax.grad(recurrent)
    before = draw(params, KEY, batch)
    # The chain of three steps by enumeration.
    states = 2.0 * ((np.arange(8)[:, None] >> np.arange(3)) & 1) - 1

    def expected(a):
        p = jnp.prod(jax.nn.sigmoid(states * 1.5 * a), axis=1)
        step = jnp.prod(jax.nn.sigmoid(1.5 * states[:, None] * states[None]), axis=2)
        f = np.mean((states + 0.3) ** 3, axis=1) + states.prod(1)
        return p @ step @ step @ f

    unbiased = counterpart(recurrent, False)
    draws = jax.jit(jax.vmap(jax.grad(unbiased), (None, 0, None)))(
        params, jax.random.split(KEY, 50_000), batch
    )
    assert_mean(draws[0], jax.grad(expected)(params[0]))
    assert np.array_equal(flat(before), flat(draw(params, KEY, batch)))
    fresh = jax.jit(own())  # first traced by the counterpart, then by its user
    jax.grad(counterpart(fresh))(PARAMS, KEY, BATCH)
    draws = jax.grad(fresh)(PARAMS, KEY, BATCH), jax.grad(own())(PARAMS, KEY, BATCH)
    assert np.allclose(*map(flat, draws), rtol=1e-5)


@pytest.mark.slow
def test_a_loss_of_ones_own_is_diagnosed(moments):
    found = diagnose(
        own("straight_through"), PARAMS, BATCH, KEY, draws=2048, reference_draws=16_384
    )
    assert "counterpart" in found.truth
    for layer, metrics in found.layers.items():
        bias, deviation = moments["straight_through", layer]
        square, std = metrics.estimate("bias2"), metrics.estimate("std")
        assert abs(square.value - bias**2) < 5 * square.se
        assert abs(std.value - deviation) < 5 * std.se


@pytest.mark.slow
def test_expectations_inside_a_loss_are_made_unbiased():
    def loss(params, key, batch):
        g = expectation(lambda x, t: jnp.sum(x) ** 3 + t * x[0] * x[1], "straight_through")
        keys = jax.random.split(key, len(batch))
        return jnp.mean(jax.vmap(g, (None, 0, 0))(params[0], keys, batch)) + jnp.sum(params[0] ** 2)

    params, batch = (jnp.array([0.5, -1.0, 0.2]),), jnp.array([1.0, 2.0])
    exact = expectation(lambda x, t: jnp.sum(x) ** 3 + t * x[0] * x[1], "exact")
    true = jax.grad(lambda a: exact(a, None, 1.5) + jnp.sum(a**2))(params[0])
    draws = jax.jit(jax.vmap(jax.grad(counterpart(loss)), (None, 0, None)))(
        params, jax.random.split(KEY, 4000), batch
    )
    assert_mean(draws[0], true)
    found = diagnose(loss, params, batch, KEY, draws=512)
    assert found.layers["output"].estimate("bias").low > 0.1  # the only entry


@pytest.mark.slow
def test_a_loss_with_a_regulariser_takes_an_unbiased_one_with_it():
    def regularised(estimator):
        inner = estimator(model)
        return lambda params, key, batch: (
            inner(params, key, batch) + sum(jnp.sum(theta**2) for theta in params)
        )

    found = diagnose(
        regularised(estimators.zgr),
        PARAMS,
        BATCH,
        KEY,
        unbiased=regularised(estimators.disarm),
        reference_draws=4096,
    )
    plain = diagnose(estimators.zgr(model), PARAMS, BATCH, KEY)
    for layer in LAYERS:  # the same deviation, of a larger gradient
        norms = [one.layers[layer].gradient_norm for one in (found, plain)]
        stds = [one.layers[layer].estimate("std") for one in (found, plain)]
        ratio = stds[0].value * norms[0] / (stds[1].value * norms[1])
        assert abs(ratio - 1) < 0.3
        assert norms[0] != pytest.approx(norms[1], rel=0.05)


@pytest.mark.slow
def test_a_loss_is_traced_once_however_often_it_is_diagnosed():
    traced = []

    def counted(params, example, binary):
        traced.append(jax.tree.leaves(params)[0])
        return model(params, example, binary)

    loss = estimators.straight_through(counted)
    diagnose(loss, PARAMS, BATCH, KEY, unbiased="disarm")
    first = len(traced)
    diagnose(loss, jax.tree.map(lambda x: 2 * x, PARAMS), BATCH, KEY, unbiased="disarm")
    assert len(traced) - first < first / 3  # looking for the sites, not compiling


@pytest.mark.slow
def test_the_same_key_gives_the_same_diagnosis_and_another_one_another():
    loss = own()
    one, two, other = (
        diagnose(loss, PARAMS, BATCH, key).scalars() for key in (KEY, KEY, jax.random.key(4))
    )
    assert one == pytest.approx(two, nan_ok=True)
    assert one["layer 1/cosine"] != other["layer 1/cosine"]


@pytest.mark.slow
def test_what_is_found_comes_as_numbers_a_frame_and_a_table():
    found = diagnose(estimators.zgr(model), PARAMS, BATCH, KEY)
    scalars, frame = found.scalars(), found.frame()
    assert list(frame["layer"]) == LAYERS
    for row in frame.itertuples():
        assert scalars[f"{row.layer}/cosine"] == row.cosine
        assert row.bias_low <= row.bias <= row.bias_high
    assert [line.split("  ")[0].strip() for line in str(found).splitlines()[1:5]] == LAYERS
    assert "64 draws against the exact gradient" in str(found)


@pytest.mark.slow
def test_a_module_of_equinox_is_diagnosed_as_it_is():
    class Net(eqx.Module):
        first: eqx.nn.Linear
        second: eqx.nn.Linear
        activation: object = jnp.tanh

        def __call__(self, x, key):
            return self.second(binarize(self.first(x), key=key))[0]

    def loss(net, key, batch):
        keys = jax.random.split(key, len(batch))
        return jnp.mean((jax.vmap(net)(batch, keys) - 1) ** 2)

    keys = jax.random.split(KEY)
    net = Net(eqx.nn.Linear(2, 3, key=keys[0]), eqx.nn.Linear(3, 1, key=keys[1]))
    found = diagnose(loss, net, jnp.ones((4, 2)), KEY)
    assert list(found.layers) == ["first", "second", "network"]
    # Of degree 2 in one layer: zgr has no bias.
    assert all(
        one.estimate("bias2").value < 5 * one.estimate("bias2").se for one in found.layers.values()
    )


@pytest.mark.slow
def test_a_layer_without_gradient_has_no_numbers():
    flat_model = lambda params, example, binary: jnp.sum(params[1] * binary(0 * params[0]))  # noqa: E731
    found = diagnose(estimators.zgr(flat_model), (jnp.ones(2), jnp.ones(2)), jnp.ones((2, 1)), KEY)
    assert math.isnan(found.scalars()["layer 1/bias"])
    assert "-" in str(found)


X = jnp.array([1.0, 2.0, -0.5])
THREE = (jnp.array([0.3, -0.5, 0.7]),)


@jax.custom_vjp
def ruled(a, key):
    return binarize(a, key=key)


ruled.defvjp(lambda a, key: (binarize(a, key=key), None), lambda _, g: (g, None))
LOST = {
    "compared": lambda a, key: jnp.where(binarize(a, key=key) > 0, X, 0).sum() + jnp.sum(a),
    "stopped": lambda a, key: jax.lax.stop_gradient(binarize(a, key=key)) @ X + jnp.sum(a**2),
    "straight": lambda a, key: jnp.sum(a + jax.lax.stop_gradient(binarize(a, key=key) - a)),
    "one of two": lambda a, key: (
        (binarize(a, key=key) @ X) ** 2 + X[jnp.argmax(binarize(a, key=jax.random.fold_in(key, 1)))]
    ),
    "a rule": lambda a, key: ruled(a, key) @ X,
    "in a scan": lambda a, key: jax.lax.scan(
        lambda c, k: (c + a.sum() + jnp.sign(binarize(a, key=k)) @ X, None),
        0.0,
        jax.random.split(key, 3),
    )[0],
}
KEPT = {
    "checkpoint in a scan": lambda a, key: jax.lax.scan(
        jax.checkpoint(lambda c, k: (c + (binarize(a, key=k) @ X) ** 2, None)),
        0.0,
        jax.random.split(key, 3),
    )[0],
    "states of no parameter": lambda a, key: (binarize(X, key=key) @ a) ** 2,
    "a branch": lambda a, key: jax.lax.cond(
        a[0] > 0, lambda: (binarize(a, key=key) @ X) ** 2, lambda: a @ X
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", [*LOST, *KEPT])
@pytest.mark.first(1)
def test_a_loss_whose_gradient_does_not_come_back_to_the_states_is_refused(name, compiled):
    """The counterpart adds the score where it comes back: without it there would be none."""
    f = (LOST | KEPT)[name]
    loss = lambda params, key, batch: f(params[0], key)  # noqa: E731
    draw = jax.grad(counterpart(jax.jit(loss) if compiled else loss, False))
    if name in KEPT:
        assert np.isfinite(flat(draw(THREE, KEY, jnp.zeros((1, 1))))).all()
        return
    with pytest.raises(GradbenchError, match="does not differentiate through the states"):
        draw(THREE, KEY, jnp.zeros((1, 1)))


@pytest.mark.slow
def test_a_module_with_functions_among_its_leaves_is_diagnosed():
    net = eqx.nn.MLP(2, 3, 4, 1, key=KEY)

    def loss(net, key, batch):
        x, y = batch
        keys = jax.random.split(key, len(y))
        bits = jax.vmap(lambda x, key: binarize(net(x), key=key))(x, keys)
        return jnp.mean((bits.sum(1) - y) ** 2)

    batch = (jnp.ones((4, 2)), jnp.arange(4.0))
    for one in (loss, eqx.filter_jit(loss)):
        found = diagnose(one, net, batch, KEY)
        assert list(found.layers) == ["layers.0", "layers.1", "network"]
    assert found.layers["network"].gradient_norm > 0


@pytest.mark.slow
def test_an_exact_expectation_stays_exact_in_the_counterpart():
    def loss(params, key, batch):
        inner = expectation(lambda x: x.sum() ** 2, "exact")
        return jnp.sin(binarize(params[0] * inner(params[0]), key=key) @ X)

    draws = jax.jit(jax.vmap(jax.grad(counterpart(loss, False)), (None, 0, None)))(
        THREE, jax.random.split(KEY, 20_000), jnp.zeros((1, 1))
    )
    inner = expectation(lambda x: x.sum() ** 2, "exact")
    outer = expectation(lambda x: jnp.sin(x @ X), "exact")
    assert_mean(draws[0], jax.grad(lambda a: outer(a * inner(a)))(THREE[0]))


@pytest.mark.slow
def test_a_diagnosis_keeps_numbers_and_no_draws():
    found = diagnose(estimators.zgr(model), PARAMS, BATCH, KEY)
    assert len(pickle.dumps(found)) < 20_000


def test_what_is_not_told_from_zero_is_not_told():
    """A gradient that is zero, seen through noise: it would be once in 1e4 times, here of 300."""
    random = np.random.default_rng(0)
    told = 0
    for units in (1, 3, 50):
        for _ in range(100):
            draws = random.standard_normal((16, 16, units))
            means = draws.mean(1)
            blocks = Blocks(np.full(16, 16.0), means, ((draws - means[:, None]) ** 2).sum(1))
            noise = Noise.of(blocks)
            told += known_norm(blocks.mean(), noise) > 0
    assert told == 0
    assert known_norm(10 + blocks.mean(), noise) == pytest.approx(10 * 50**0.5, rel=0.05)


def wrong(**changes):
    arguments = {"loss": own(), "params": PARAMS, "batch": BATCH, "key": KEY} | changes
    return diagnose(**arguments)


def without_noise(params, key, batch):
    return jnp.mean(binarize(params[0], estimator="deterministic_straight_through"))


def of_four(params, key, batch):
    def one(x, key):
        return binarize(params[0] @ x, key=key).sum()

    return jnp.mean(jax.vmap(one)(batch[0], jax.random.split(key, 4)))


def summed(params, key, batch):
    return len(batch[1]) * own()(params, key, batch)


class Unhashable:
    __hash__ = None

    def __call__(self, params, key, batch):
        return own()(params, key, batch)


def infinite(params, example, binary):
    return jnp.inf * jnp.sum(params[0] * binary(params[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "there is no key; give key=jax.random.key"),
        ({"draws": 8}, "draws is 8; give a whole number of at least 16"),
        ({"reference_draws": 3}, "reference_draws is 3; give a whole number of at least 32"),
        ({"params": (jnp.arange(3),)}, r"the parameters hold int32 at \[0\]"),
        ({"loss": lambda p, k, b: jnp.sum(p[0])}, "the loss has no model, and calls neither"),
        ({"params": ()}, "the parameters, of type tuple, hold no real array"),
        ({"batch": jnp.zeros((0, 1))}, "the batch has leaves of shapes"),
        ({"loss": lambda p, k, b: [own()(p, k, b), 1]}, "the loss returns <class 'list'>; give"),
        ({"loss": lambda p, k, b: jnp.ones(2)}, r"the loss returns float32\[2\]; give one"),
        ({"loss": Unhashable()}, "the loss of type Unhashable has no hash"),
        ({"loss": of_four}, r"does not run on one example \(ValueError\); give by_example=False"),
        ({"loss": summed}, "is not the mean of the losses of its examples, .*; give by_example"),
        ({"reference": {}}, "reference is of type dict; give a result of gradbench.reference"),
        (
            {"reference": Reference(0.0, (np.ones(2),), "", {})},
            r"the reference has layers of \[2\] parameters and the loss of \[6, 9, 3\]",
        ),
        ({"loss": without_noise}, "deterministic_straight_through has no noise"),
        ({"unbiased": "disarm"}, "unbiased is 'disarm', but the loss is no estimator"),
        (
            {"loss": estimators.zgr(model), "unbiased": "psa"},
            "unbiased is 'psa', which is no unbiased estimator; take one such as 'disarm'",
        ),
        (
            {"loss": estimators.zgr(infinite), "params": (jnp.ones(2),)},
            "draws of the loss are not finite",
        ),
    ],
)
@pytest.mark.first(1)
def test_what_cannot_be_diagnosed_is_refused_in_a_sentence(changes, message):
    with pytest.raises(GradbenchError, match=message) as error:
        wrong(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_figure_has_a_line_for_each_layer_and_marks_where_no_bias_is_seen():
    loss = estimators.reinforce_leave_one_out(model)
    found = {step: diagnose(loss, PARAMS, BATCH, jax.random.key(step)) for step in (10, 0)}
    figure = plots.diagnoses(found, title="training")
    words = [ax.get_ylabel() for ax in figure.axes]
    assert words == ["relative |bias|", "relative std", "cosine", "P(descent)"]
    lines = [line for line in figure.axes[2].get_lines() if len(line.get_xdata()) == 2]
    assert len(lines) == len(LAYERS)
    assert all(list(line.get_xdata()) == [0, 10] for line in lines)
    values = [found[step].scalars()["layer 1/cosine"] for step in (0, 10)]
    assert list(lines[0].get_ydata()) == values
    marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == LIMIT]
    limit = found[0].layers["layer 1"].estimate("bias")
    assert limit.low == 0
    assert any(np.isclose(line.get_ydata(), limit.high).any() for line in marks)
    with pytest.raises(GradbenchError, match="nothing to draw"):
        plots.diagnoses({})
