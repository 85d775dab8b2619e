"""Layers: convolutions, composed pre-activations, single flips, exact gradients and PSA on them.

References are independent: the convolution of XLA, plain numpy enumerations, all flips in turn.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, assert_mean, every_kind, flat, relative
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.estimators import arm, make_estimator, psa, reinforce, straight_through
from gradbench.exact.enumeration import expected_loss, recursion
from gradbench.exact.moments import moments
from gradbench.measure.exact_reference import exact_gradient
from gradbench.models import dense as layers
from gradbench.models.compose import Add, Compose, Concatenate, Function
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.elbo import ELBO
from gradbench.models.flips import flip_each
from gradbench.models.layer import axes
from gradbench.models.losses import Readout
from gradbench.models.network import SBN
from gradbench.models.pool import AveragePool

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")
KEY = jax.random.key(0)
EXACT = 1e-10  # relative, for what is unbiased
BIASED = 1e-3  # relative, for what must be seen


def random(seed, *shape):
    return np.random.default_rng(seed).uniform(-1, 1, shape)


def signs(seed, *shape):
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape)


def bits(seed, *shape):
    return (signs(seed, *shape) + 1) / 2


def batch_of(network, examples=2, seed=1):
    """Random inputs of the first layer's shape, and targets in {-1, +1}."""
    return random(seed, examples, *axes(network.layers[0].inputs)), signs(seed + 1, examples)


def initial(part, seed=0):
    """Random parameters of a layer or network, from numpy: nothing to compile."""
    shapes = jax.eval_shape(part.init, KEY)
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: generator.uniform(-1, 1, leaf.shape), shapes)


def per_layer(estimated, gradient):
    """Per layer with parameters, the distance to the exact gradient relative to its norm."""
    pairs = zip(estimated, gradient, strict=True)
    return np.array([relative(a, b) for a, b in pairs if jax.tree.leaves(b)])


def exact_bias(make, network):
    """Exact relative bias per layer, and of the value, by enumeration of all paths."""
    batch = batch_of(network)

    @jax.jit
    def both(params):
        truth = jax.value_and_grad(partial(recursion, network))(params, batch)
        return truth, moments(make(network), params, batch)

    (value, gradient), found = both(initial(network))
    return per_layer(found.mean, gradient), abs(found.value - value) / abs(value)


# ------------------------------------------------------------------------------- convolution


@st.composite
def convolutions(draw, most=6, channels=3):
    """A convolution of any kind along one or two axes, on a small input."""
    space = draw(st.lists(st.integers(1, most), min_size=1, max_size=2))
    per_axis = st.one_of(
        st.integers(1, 3), st.lists(st.integers(1, 3), min_size=len(space), max_size=len(space))
    )
    kernel, stride = draw(per_axis), draw(per_axis)
    padding = draw(st.sampled_from(["same", "valid", 0, 1, 2]))
    inputs = (*space, draw(st.integers(1, channels)))
    noise = draw(st.sampled_from(NOISES))
    try:
        return Conv(inputs, draw(st.integers(1, channels)), kernel, stride, padding, noise)
    except GradbenchError:  # a kernel larger than its padded input
        assume(False)


def by_xla(conv, theta, x):
    """The same convolution by the routine of XLA."""
    space = "HW"[: len(conv.inputs) - 1]
    padding = conv.padding
    padding = padding.upper() if isinstance(padding, str) else [(padding, padding)] * len(space)
    out = jax.lax.conv_general_dilated(
        x[None],
        theta["weight"],
        conv.stride,
        padding,
        dimension_numbers=(f"N{space}C", f"O{space}I", f"N{space}C"),
    )
    return out[0] + theta["bias"]


@settings(max_examples=8)
@given(convolutions())
@example(Conv((5, 4, 2), 3, (2, 3), (2, 1), "same"))
@pytest.mark.slow
def test_a_convolution_and_its_gradient_equal_those_of_xla(conv):
    theta, x = initial(conv), random(0, *conv.inputs)
    weights = random(1, *conv.outputs)

    @jax.jit
    def both(theta, x):
        def out(f):
            value, pull = jax.vjp(f, theta, x)
            return value, pull(weights)

        return out(conv), out(partial(by_xla, conv))

    (found, gradient), (right, right_gradient) = both(theta, x)
    assert found.shape == conv.outputs == right.shape
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-13)
    np.testing.assert_allclose(flat(gradient), flat(right_gradient), rtol=0, atol=1e-12)


def test_same_padding_keeps_the_input_over_the_stride_rounded_up():
    assert Conv((5, 8, 2), 3, 3, 1, "same").outputs == (5, 8, 3)
    assert Conv((5, 8, 2), 3, (2, 5), (2, 3), "same").outputs == (3, 3, 3)
    assert Conv((5, 8, 2), 3, 3).outputs == (3, 6, 3)
    assert Conv((9, 4), 2, 3, 2, 1).outputs == (5, 2)


def test_a_convolution_reads_flat_states_in_the_order_of_its_shape():
    conv = Conv((3, 4, 2), 2, 2)
    theta, x = initial(conv), random(0, 3, 4, 2)
    np.testing.assert_array_equal(conv(theta, x.ravel()), conv(theta, x))


def test_initial_parameters_of_a_convolution_have_the_channels_first():
    theta = Conv((4, 5, 2), 7, (2, 3)).init(KEY)
    assert {name: leaf.shape for name, leaf in theta.items()} == {
        "weight": (7, 2, 3, 2),
        "bias": (7,),
    }
    assert np.all(np.abs(flat(theta)) < 1)


# ------------------------------------------------------------------------------ single flips


@st.composite
def denses(draw):
    sizes = st.integers(1, 9)
    return Dense(draw(sizes), draw(sizes), draw(st.sampled_from(NOISES)))


@settings(max_examples=8)
@given(
    st.one_of(convolutions(most=4, channels=2), denses()),
    st.booleans(),
    st.sampled_from([1, 50, 1 << 17]),
)
@example(Conv((3, 4, 2), 2, 2, (1, 2), "same", "normal"), True, 50)
@example(Dense(7, 9, "uniform"), False, 50)
@example(
    Compose((AveragePool(2), Conv((2, 2, 2), 3, 2, 1, 1, "normal")), inputs=(5, 4, 2)), True, 50
)
@example(Compose((AveragePool(3), Dense(4, 3, "laplace")), inputs=(7, 2)), False, 1)
@example(Compose((Conv((3, 3, 1), 2, 2),)), False, 1 << 17)
@example(Compose((Conv((3, 3, 1), 2, 2),), noise="uniform"), False, 1 << 17)
@example(Compose((jnp.sin, Dense(4, 2)), inputs=4), False, 50)
@pytest.mark.slow
def test_flip_pull_equals_flipping_every_unit_at_once_or_in_chunks(layer, coded, at_once):
    theta, shape = initial(layer), axes(layer.inputs)
    x = bits(1, *shape) if coded else signs(1, *shape)
    flipped = 1 - x if coded else -x
    g = random(2, *axes(layer.outputs))
    cdf = get_noise(layer.noise).cdf
    others = np.where(np.eye(x.size, dtype=bool).reshape(x.size, *shape), flipped, x)

    def in_turn(theta):
        """Every flip written out, without the code under test."""
        above = jax.vmap(partial(layer, theta))(np.concatenate([x[None], others]))
        change = g * (cdf(above[1:]) - cdf(above[0]))
        return jnp.sum(change.reshape(x.size, -1), axis=1).reshape(shape)

    @jax.jit
    def routes(theta):
        a = layer(theta, x)
        fast = layer.flip_pullback(theta, x, flipped, a, g)
        return fast, flip_each(layer, theta, x, flipped, a, g), in_turn(theta)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, "_AT_ONCE", at_once)
        fast, generic, right = routes(theta)
    assert fast.shape == shape
    np.testing.assert_allclose(generic, right, rtol=0, atol=1e-13)
    np.testing.assert_allclose(fast, right, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_flip_pull_of_a_dense_layer_keeps_the_shape_of_its_states():
    layer, x = Dense(12, 3), signs(0, 2, 3, 2)
    theta, g = initial(layer), random(1, 3)
    a = layer(theta, x)
    fast = layer.flip_pullback(theta, x, -x, a, g)
    assert fast.shape == (2, 3, 2)
    np.testing.assert_allclose(fast, flip_each(layer, theta, x, -x, a, g), rtol=0, atol=1e-14)


def flip_memory(pull, layer):
    """Bytes that the compiled flips of a few examples take besides what goes in and out."""
    shapes = [(6, *axes(shape)) for shape in (layer.inputs, layer.inputs, *(layer.outputs,) * 2)]
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in shapes]
    theta = jax.eval_shape(layer.init, KEY)
    program = jax.jit(jax.vmap(pull, (None, 0, 0, 0, 0))).lower(theta, *arrays)
    return program.compile().memory_analysis().temp_size_in_bytes


def sheet(layer):
    """Bytes of all flips of all outputs, for as many examples."""
    return 6 * 8 * np.prod(axes(layer.inputs)) * np.prod(axes(layer.outputs))


@pytest.mark.slow
def test_flips_of_a_convolution_take_memory_linear_in_its_units():
    small, large = (Conv((n, n, 8), 8, 3, padding=1) for n in (16, 32))
    fast = [flip_memory(layer.flip_pullback, layer) for layer in (small, large)]
    assert fast[1] < 6 * fast[0]  # four times the units, sixteen times the sheet
    assert fast[1] < sheet(large) / 100
    assert flip_memory(partial(flip_each, large), large) < sheet(large) / 20


def test_flips_of_a_dense_layer_make_no_sheet_of_all_flips_for_every_example():
    layer = Dense(2048, 2048)
    assert flip_memory(layer.flip_pullback, layer) < sheet(layer) / 10
    assert flip_memory(partial(flip_each, layer), layer) < sheet(layer) / 3  # a copy of the weights


# ------------------------------------------------------------- pooling and composed layers


def test_average_pooling_takes_means_over_windows_and_cuts_the_rest():
    x = np.arange(5 * 4 * 2.0).reshape(5, 4, 2)
    right = [[x[:2, :2].mean((0, 1)), x[:2, 2:].mean((0, 1))]]
    right += [[x[2:4, :2].mean((0, 1)), x[2:4, 2:].mean((0, 1))]]
    np.testing.assert_allclose(AveragePool(2)(jnp.asarray(x)), right, rtol=1e-15)
    line = np.arange(7.0)[:, None]
    np.testing.assert_allclose(AveragePool(3)(jnp.asarray(line)), [[1.0], [4.0]], rtol=1e-15)


@pytest.mark.slow
def test_composed_layers_have_their_values_by_hand():
    one, two = Dense(3, 2), Dense(2, 4)
    x = random(0, 3)

    compose = Compose((one, jnp.tanh, two))
    theta = initial(compose)
    assert theta[1] == ()
    hidden = np.tanh(theta[0]["weight"] @ x + theta[0]["bias"])
    right = theta[2]["weight"] @ hidden + theta[2]["bias"]
    np.testing.assert_allclose(compose(theta, x), right, rtol=1e-14)
    assert (compose.inputs, compose.outputs) == (3, (4,))

    join = Concatenate((one, jnp.sin, Dense(3, 1)))
    theta = initial(join)
    parts = [one(theta[0], x), np.sin(x), Dense(3, 1)(theta[2], x)]
    np.testing.assert_allclose(join(theta, x), np.concatenate(parts), rtol=1e-14)
    assert (join.inputs, join.outputs) == (3, (6,))

    skip = Add((Dense(3, 3), lambda x: 2 * x))
    theta = initial(skip)
    right = theta[0]["weight"] @ x + theta[0]["bias"] + 2 * x
    np.testing.assert_allclose(skip(theta, x), right, rtol=1e-14)
    assert theta[1] == ()


@pytest.mark.slow
def test_layers_of_images_keep_height_width_and_channels():
    conv = Conv((4, 6, 2), 2, 3, padding=1)
    skip = Add((conv, lambda x: x))
    join = Concatenate((conv, jnp.tanh))
    pool = Compose((AveragePool(2), Conv((2, 3, 2), 5, 2)), inputs=(4, 6, 2))
    shapes = [layer.outputs for layer in (skip, join, pool)]
    assert shapes == [(4, 6, 2), (4, 6, 4), (1, 2, 5)]
    x = random(0, 4, 6, 2)
    for layer in (skip, join, pool):
        theta = initial(layer)
        out = layer(theta, x)
        assert out.shape == layer.outputs
        np.testing.assert_array_equal(layer(theta, x.ravel()), out)  # a flat input is read as well
    np.testing.assert_allclose(skip((theta := initial(conv), ()), x), conv(theta, x) + x)


def test_parts_of_a_composed_layer_have_different_random_parameters():
    first, second = Add((Dense(3, 3), Dense(3, 3))).init(KEY)
    assert not np.any(np.isin(flat(first), flat(second)))


def test_noise_is_that_of_the_last_part_or_of_all_parts_or_the_one_given():
    normal, laplace = Dense(3, 3, "normal"), Dense(3, 3, "laplace")
    assert get_noise(Compose((normal, jnp.tanh, laplace, jnp.sin)).noise).name == "laplace"
    assert get_noise(Compose((normal, laplace), noise="uniform").noise).name == "uniform"
    assert get_noise(Compose((jnp.tanh,), inputs=3).noise).name == "logistic"
    for kind in (Add, Concatenate):
        assert get_noise(kind((normal, jnp.tanh, normal)).noise).name == "normal"
        assert get_noise(kind((normal, laplace), noise="uniform").noise).name == "uniform"
        with pytest.raises(GradbenchError, match=r"noises \['laplace', 'normal'\]; say which"):
            kind((normal, laplace))


def test_composed_layers_nest_and_can_be_hashed():
    inner = Add([Dense(3, 3), jnp.tanh])
    outer = Compose([inner, Concatenate((Dense(3, 1), jnp.sin))])
    assert outer.outputs == (4,)
    assert outer.inputs == 3
    assert hash(outer) == hash(Compose((inner, Concatenate((Dense(3, 1), jnp.sin)))))


def test_a_function_is_a_layer_with_the_parameters_it_is_given():
    def bilinear(theta, x):
        return jnp.einsum("oij,i,j->o", theta, x, x)

    layer = Function(bilinear, 3, lambda key: jax.random.normal(key, (2, 3, 3)), "normal")
    theta, x = initial(layer), random(0, 3)
    assert (layer.outputs, layer.noise) == ((2,), "normal")
    np.testing.assert_allclose(layer(theta, x), [x @ t @ x for t in theta], rtol=1e-13)
    assert Function(lambda theta, x: x**2, (2, 3)).init(KEY) == ()
    assert Function(lambda theta, x: x**2, (2, 3)).outputs == (2, 3)


# --------------------------------------------------------------------------- exact gradients


def images():
    """Every kind of layer on images: 4 + 4 + 1 + 2 units."""
    return SBN(
        (
            Conv((3, 3, 1), 1, 2, noise="normal"),
            Add((Conv((2, 2, 1), 1, 3, padding=1), lambda x: x / 2)),
            Compose((AveragePool(2), Conv((1, 1, 1), 1, 1, noise="triangular")), inputs=(2, 2, 1)),
            Dense(1, 2, "laplace"),
        ),
        Readout(2, 1),
    )


def lines():
    """Along one axis, with non-affine pre-activations, coded {0, 1}: 4 + 3 + 2 units."""
    return SBN(
        (
            Concatenate((Conv((4, 2), 1, 3, 2, 1), Conv((4, 2), 1, 2, 2)), noise="uniform"),
            Compose((Dense(4, 3), jnp.tanh, Dense(3, 3, "normal"))),
            Function(
                lambda theta, x: theta @ jnp.sin(x) + x[0] * x[1:],
                3,
                lambda key: jax.random.normal(key, (2, 3)),
            ),
        ),
        lambda theta, x, target: jnp.exp(x[0] - target * x[1]),
        states=(0, 1),
    )


def mixed(objective):
    """A convolution and a layer that is not affine, coded {0, 1} but for an ELBO: 4 + 2 units."""
    states = (-1, 1) if isinstance(objective, ELBO) else (0, 1)
    above = Compose((Dense(4, 3), jnp.tanh, Dense(3, 2, "normal")))
    return SBN((Conv((3, 3, 1), 1, 2), above), objective, states)


@pytest.mark.parametrize("make", [images, pytest.param(lines, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_recursion_equals_brute_force_and_finite_differences_with_every_kind_of_layer(make):
    network = make()
    found = exact_gradient(network, initial(network), batch_of(network))
    assert found.route == "recursion"
    assert found.agreement["brute force"] < 1e-12
    assert found.agreement["finite difference"] < 1e-9
    assert all(np.linalg.norm(flat(entry)) > 1e-3 for entry in found.gradient if flat(entry).size)


def by_loops(weight, bias, image):
    """A convolution of one channel, kernel 3 and padding 1, in plain loops."""
    padded = np.pad(image, 1)
    out = np.full(image.shape, bias)
    for i, j in np.ndindex(*image.shape):
        out[i, j] += np.sum(weight * padded[i : i + 3, j : j + 3])
    return out


def enumerated_image(params, image, target):
    """The expected loss of 16 units in an image, 2 units on them and a readout, from scratch."""

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    conv, dense, readout = params
    a = by_loops(conv["weight"][0, :, :, 0], conv["bias"][0], image).ravel()
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=16)))
    p = np.prod(sigmoid(states * a), axis=1)
    total = 0.0
    above = states @ dense["weight"].T + dense["bias"]
    for x in itertools.product((-1.0, 1.0), repeat=2):
        out = readout["weight"][0] @ np.array(x) + readout["bias"][0]
        total += np.sum(p * np.prod(sigmoid(above * np.array(x)), axis=1)) * np.log1p(
            np.exp(-target * out)
        )
    return total


@pytest.mark.slow
def test_a_convolution_of_4_by_4_states_is_exact_as_by_a_plain_enumeration():
    network = SBN((Conv((4, 4, 1), 1, 3, padding=1), Dense(16, 2)), Readout(2, 1))
    params = jax.tree.map(np.asarray, initial(network))
    image, target = np.asarray(random(0, 4, 4)), -1.0
    batch = (image[None, ..., None], np.array([target]))
    value, gradient = jax.jit(jax.value_and_grad(partial(expected_loss, network)))(params, batch)
    np.testing.assert_allclose(value, enumerated_image(params, image, target), rtol=1e-13)
    # An imaginary step has no cancellation: the derivative to rounding.
    direction = jax.tree.map(lambda leaf: np.cos(np.arange(leaf.size)).reshape(leaf.shape), params)
    stepped = jax.tree.map(lambda leaf, d: leaf + 1e-30j * d, params, direction)
    slope = np.imag(enumerated_image(stepped, image, target)) / 1e-30
    np.testing.assert_allclose(flat(gradient) @ flat(direction), slope, rtol=1e-11)


def test_states_of_natural_shape_reach_an_arbitrary_objective():
    def corner(theta, x, target):
        assert x.shape == (3, 2, 2)
        return x[0, 1, 0] * target + 2 * x[2, 0, 1] * x[0, 0, 0] - x[1, 1, 1]

    layer = Conv((3, 2, 1), 2, 3, padding=1, noise="laplace")
    network = SBN((layer,), corner)
    params, batch = initial(network), batch_of(network)
    found = jax.jit(partial(expected_loss, network))(params, batch)
    mean = 2 * SCIPY["laplace"].cdf(jax.jit(jax.vmap(partial(layer, params[0])))(batch[0])) - 1
    right = mean[:, 0, 1, 0] * batch[1] + 2 * mean[:, 2, 0, 1] * mean[:, 0, 0, 0] - mean[:, 1, 1, 1]
    np.testing.assert_allclose(found, right.mean(), rtol=1e-13)


# ---------------------------------------------------------------------- exactness classes


def deep_image():
    """Two layers of convolutions and a dense one: 4 + 4 + 2 units."""
    return SBN(
        (Conv((3, 3, 1), 1, 2), Conv((2, 2, 1), 1, 2, 1, "same"), Dense(4, 2)), Readout(2, 1)
    )


@pytest.mark.slow
def test_reinforce_is_unbiased_on_convolutions_and_on_layers_that_are_not_affine():
    bias, value = exact_bias(reinforce, mixed(Readout(2, 1)))
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_arm_is_unbiased_on_a_convolutional_network():
    network = SBN((Conv((3, 1), 1, 2), Conv((2, 1), 2, 2)), Readout(2, 1))
    params, batch = initial(network), batch_of(network, 1)
    keys = jax.random.split(jax.random.key(3), 20_000)
    draws = jax.jit(jax.vmap(jax.grad(arm(network)), (None, 0, None)))(params, keys, batch)
    exact = jax.jit(jax.grad(partial(recursion, network)))(params, batch)
    rows = np.concatenate([leaf.reshape(len(keys), -1) for leaf in jax.tree.leaves(draws)], axis=1)
    assert_mean(rows, flat(exact))


def peculiar(theta, x, target):
    """Neither multilinear nor smooth, of an image."""
    return jnp.exp(theta["weight"][0] @ jnp.ravel(x) / 3) + jnp.maximum(
        x[0, 0, 0], target
    ) * jnp.abs(x[1, 1, 0] + x[0, 1, 0] + 0.3)


class Peculiar(Readout):
    """The same as an objective with parameters."""

    __call__ = staticmethod(peculiar)
    flips = property()  # as a function: without that of Readout


@pytest.mark.slow
def test_psa_is_unbiased_in_one_layer_of_a_convolution_on_any_objective():
    network = SBN((Conv((3, 3, 2), 1, 2, noise="triangular"),), Peculiar(4, 1))
    bias, value = exact_bias(psa, network)
    assert len(bias) == 2
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_psa_is_exact_in_the_last_layer_and_the_objective_and_biased_below():
    bias, value = exact_bias(psa, deep_image())
    assert np.all(bias[2:] < EXACT)
    assert value < EXACT
    assert np.all(bias[:2] > BIASED)


@pytest.mark.slow
def test_psa_is_unbiased_if_no_windows_of_convolutions_of_one_channel_overlap():
    first, halved = Conv((4, 1), 1, 3, padding=1, noise="laplace"), Conv((4, 1), 1, 2, 2)
    bias, value = exact_bias(psa, SBN((first, halved, Conv((2, 1), 1, 2)), Readout(1, 1)))
    assert np.all(bias < EXACT)
    assert value < EXACT


@pytest.mark.slow
def test_straight_through_is_unbiased_in_one_convolution_on_multilinear_objectives():
    def product(theta, x, target):
        return 3 * x[0, 0, 0] * x[1, 1, 0] * x[0, 1, 0] + target * x[0, 1, 0] - x[1, 0, 0]

    network = SBN((Conv((3, 3, 1), 1, 2, noise="normal"),), product)
    bias, value = exact_bias(straight_through, network)
    assert np.all(bias < EXACT)
    assert value < EXACT


@every_kind
@pytest.mark.slow
def test_every_estimator_runs_on_convolutions_and_on_layers_that_are_not_affine(kinds):
    network = mixed(Readout(2, 1))
    params, batch = initial(network), batch_of(network)

    @jax.jit
    def draws(params):
        losses = {name: make_estimator(name, network) for name in kinds}
        return {name: jax.value_and_grad(f)(params, KEY, batch) for name, f in losses.items()}

    for name, (value, g) in draws(params).items():
        assert jax.tree.map(jnp.shape, g) == jax.tree.map(jnp.shape, params), name
        assert np.isfinite(value), name
        assert np.all(np.isfinite(flat(g))), name
        assert np.linalg.norm(flat(g)) > 1e-6, name


# --------------------------------------------------------------------- two routes of PSA


def plain(network):
    """The same network as a function, of which PSA knows nothing."""
    return lambda params, example, binary: network(params, example, binary)


@pytest.mark.parametrize(
    ("make", "at_once"),
    [
        (deep_image, 1),
        (lines, 1 << 17),
        pytest.param(
            lambda: mixed(ELBO((Conv((2, 2, 1), 1, 2, padding=1), Dense(2, 4)))),
            30,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_psa_of_a_chain_equals_psa_by_flips_of_the_whole_model_draw_by_draw(
    make, at_once, monkeypatch
):
    network = make()
    params, (inputs, targets) = initial(network), batch_of(network)
    batch = (inputs, signs(4, *inputs.shape) if isinstance(network.objective, ELBO) else targets)
    monkeypatch.setattr(layers, "_AT_ONCE", at_once)

    @jax.jit
    def both(params):
        routes = (network, plain(network))
        return [jax.value_and_grad(psa(model))(params, KEY, batch) for model in routes]

    (value, fast), (right, generic) = both(params)
    np.testing.assert_allclose(value, right, rtol=1e-13)
    assert np.all(per_layer(fast, generic) < 1e-12)


@pytest.mark.slow
def test_psa_goes_by_the_flips_of_the_layer_above():
    class Deaf(Conv):
        """A convolution that answers flips with zero."""

        def flip_pullback(self, theta, x, flipped, a, g):
            return jnp.zeros_like(x)

    network = SBN((Conv((3, 1), 1, 2), Deaf((2, 1), 1, 2)), Readout(1, 1))
    bias, _ = exact_bias(psa, network)
    np.testing.assert_allclose(bias[0], 1, rtol=1e-9)
    assert np.all(bias[1:] < EXACT)


# ------------------------------------------------------------------------------- refusals


IMAGE = (4, 4, 1)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: Conv(IMAGE, 1, 5),
            r"the kernel \(5, 5\) is larger than its padded input \(4, 4\)",
        ),
        (lambda: Conv((4, 1), 1, 7, padding=1), r"kernel \(7,\) is larger than its padded input"),
        (lambda: Conv(16, 1, 3), r"input shape \(16,\); give \[length, channels\]"),
        (lambda: Conv(IMAGE, 1, (3, 3, 3)), "2 axes got kernel .* give one number for each axis"),
        (lambda: Conv(IMAGE, 1, 3, (1,)), "2 axes got stride .* give one number for each axis"),
        (lambda: Conv(IMAGE, 1, 0), "the kernel of a convolution got .* whole numbers of at least"),
        (lambda: Conv(IMAGE, 1, 3.0), "kernel .*3.0"),
        (lambda: Conv(IMAGE, 1, None), "kernel .*None"),
        (lambda: Conv(IMAGE, 1, 3, 0), "the stride of a convolution got .* numbers of at least 1"),
        (lambda: Conv(IMAGE, 1, 3, 1.5), "stride .*1.5"),
        (lambda: Conv(IMAGE, 0, 3), r"a convolution got \(4, 4, 1, 0\); give whole numbers"),
        (lambda: Conv(IMAGE, 1, 3, padding="full"), "the padding of a convolution is 'full'; give"),
        (lambda: Conv(IMAGE, 1, 3, padding=-1), "the padding of a convolution is -1; give"),
        (lambda: Conv(IMAGE, 1, 3, padding=(1, 1)), "the padding of a convolution is .1, 1.; give"),
        (lambda: Dense(2, 0), r"a dense layer got \(2, 0\); give whole numbers"),
        (lambda: Dense(2.5, 1), r"a dense layer got \(2.5, 1\); give whole numbers"),
        (
            lambda: Compose((AveragePool(5), Dense(4, 1)), inputs=IMAGE),
            r"average pooling over 5 got an input of shape \(4, 4, 1\); give a window from 1 to 4",
        ),
        (lambda: AveragePool(0)(jnp.ones(IMAGE)), "average pooling over 0 got"),
        (lambda: Compose((jnp.tanh, Dense(2, 2))), "begins with a function, .* give inputs=shape"),
        (lambda: Compose(()), r"Compose got the parts \(\); give a tuple of layers"),
        (lambda: Compose((Dense(2, 3), Dense(4, 1))), r"an affine layer .* input of shape \(3,\)"),
        (
            lambda: Compose((Dense(2, 4), Conv(IMAGE, 1, 3))),
            r"a layer that reads \(4, 4, 1\) got an input of shape \(4,\)",
        ),
        (
            lambda: Add((Dense(2, 3), Dense(2, 4))),
            r"Add got parts with outputs of shapes \[\(3,\), \(4,\)\]; make them equal",
        ),
        (
            lambda: Concatenate((Conv(IMAGE, 1, 3), Conv(IMAGE, 1, 1))),
            r"Concatenate cannot read an input of shape \(4, 4, 1\) \(.*make its parameters .* fit",
        ),
        (lambda: Compose((Dense(2, 3), "tanh")), "Compose cannot read .* not callable"),
        (
            lambda: Function(lambda theta, x: jnp.ones((2, 4)) @ x, 3),
            r"Function cannot read an input of shape \(3,\)",
        ),
        (lambda: Function(lambda x: x, 3), "Function cannot read .* positional argument"),
        (lambda: Function(lambda theta, x: (x, x), 3), "cannot read .* return one array"),
        (lambda: Function(lambda theta, x: theta["w"] * x, 3, lambda key: {}), "cannot read .*w"),
        (
            lambda: SBN((Dense(2, 16), Conv(IMAGE, 1, 1), Conv((2, 8, 1), 1, 1)), Readout(16, 1)),
            r"layer 2 has states of shape \(4, 4, 1\) but the next expects \(2, 8, 1\)",
        ),
        (
            lambda: SBN((Dense(2, 15), Conv(IMAGE, 1, 1)), Readout(16, 1)),
            r"layer 1 has states of shape \(15,\) but the next expects \(4, 4, 1\)",
        ),
        (
            lambda: SBN((Conv(IMAGE, 2, 3),), Readout(16, 1)),
            r"layer 1 has states of shape \(2, 2, 2\) but the next expects \(16,\)",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_construction_in_one_sentence(build, sentence):
    with pytest.raises(GradbenchError, match=sentence):
        build()


def test_sizes_may_be_numbers_of_numpy():
    one, three = np.int64(1), np.int64(3)
    assert Conv((4, 4, 1), three, three, one, one).outputs == (4, 4, 3)
    assert Dense(three, one).outputs == 1


@pytest.mark.parametrize(
    ("layer", "theta", "x", "sentence"),
    [
        (
            Conv(IMAGE, 2, 3),
            {"weight": np.ones((2, 3, 3, 2)), "bias": np.ones(2)},
            np.ones(IMAGE),
            r"got a weight of shape \(2, 3, 3, 2\); give a weight of shape \(2, 3, 3, 1\)",
        ),
        (Conv(IMAGE, 2, 3), {"bias": np.ones(2)}, np.ones(IMAGE), "a convolution got no weight"),
        (Conv(IMAGE, 2, 3), np.ones(3), np.ones(IMAGE), "a convolution got no weight; give"),
        (
            Conv(IMAGE, 2, 3),
            {"weight": np.ones((2, 3, 3, 1)), "bias": np.ones(3)},
            np.ones(IMAGE),
            r"an affine layer with weight .* and bias \(3,\)",
        ),
        (
            Conv(IMAGE, 1, 3),
            {"weight": np.ones((1, 3, 3, 1)), "bias": np.ones(1)},
            np.ones((2, 8, 1)),
            r"a layer that reads \(4, 4, 1\) got an input of shape \(2, 8, 1\); make the two equal",
        ),
        (Compose((Dense(2, 2), jnp.tanh)), (), np.ones(2), "Compose .*parameter"),
        (Add((Dense(2, 2), jnp.tanh)), (), np.ones(2), "Add .*parameter"),
    ],
)
def test_parameters_and_inputs_that_do_not_fit_are_refused_when_they_meet(
    layer, theta, x, sentence
):
    with pytest.raises(GradbenchError, match=sentence):
        layer(theta, jnp.asarray(x))


def test_an_objective_that_is_no_scalar_is_refused_by_every_user_of_the_model():
    network = SBN((Conv((3, 3, 1), 1, 2),), lambda theta, x, target: x[0, :, 0] * target)
    params, batch = initial(network), batch_of(network)
    for use in (
        lambda: psa(network)(params, KEY, batch),
        lambda: expected_loss(network, params, batch),
    ):
        with pytest.raises(GradbenchError, match=r"objective of shape \(2,\) .* return one real"):
            use()


def test_a_network_whose_enumeration_would_not_fit_is_refused():
    network = SBN((Conv((8, 8, 1), 1, 3),), Readout(36, 1))
    params, batch = initial(network), batch_of(network)
    with pytest.raises(
        GradbenchError, match=r"layers of 36 units .* over the memory budget of 2 G"
    ):
        expected_loss(network, params, batch)
    with pytest.raises(GradbenchError, match=r"all 2.36 paths through 36 units .*the limit"):
        expected_loss(plain(network), params, batch)
