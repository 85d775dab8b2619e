"""Single flips of composed layers: many at once, and equal to each in turn."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gradbench
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.models import SBN, Readout, reads
from gradbench.models.compose import Add, Compose, Concatenate, Function
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.layer import axes
from gradbench.models.pool import AveragePool

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


def initial(part, seed=0):
    """Random parameters, from numpy: nothing to compile."""
    shapes = jax.eval_shape(part.init, jax.random.key(0))
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(generator.uniform(-1, 1, leaf.shape)), shapes)


def same(x):
    return x


def affine(x):
    return 1 - 2 * x / 3


FUNCTIONS = (same, affine, jnp.tanh, jax.nn.relu, lambda x: x[::-1])


def out(part, shape):
    if hasattr(part, "outputs"):
        return axes(part.outputs)
    return jax.eval_shape(part, jnp.zeros(shape)).shape


@st.composite
def parts(draw, shape, depth):
    """A part that reads ``shape``: a convolution, pooling, a function, or made of such."""
    kinds = ["conv", "pool", "function", "dense"] + ["chain", "sum", "side"] * (depth > 0)
    kind = draw(st.sampled_from(kinds if len(shape) > 1 else ["function", "dense", *kinds[4:]]))
    if kind == "function":
        return draw(st.sampled_from(FUNCTIONS))
    if kind == "dense":
        return Dense(int(np.prod(shape)), draw(st.integers(1, 3)))
    if kind == "pool":
        window = draw(st.integers(1, 3))
        assume(window <= min(shape[:-1]))
        return AveragePool(window)
    if kind == "conv":
        return draw(convolutions(shape))
    if kind == "chain":
        return draw(chains(shape, depth - 1))
    some = [draw(parts(shape, depth - 1)) for _ in range(draw(st.integers(1, 2)))]
    if kind == "sum" and len(out(some[0], shape)) > 1 and hasattr(some[0], "kernel"):
        some.append(replace(some[0], kernel=1, padding=0))  # a skip connection
    spaces = {out(part, shape)[: None if kind == "sum" else -1] for part in some}
    assume(len(spaces) == 1)
    return (Add if kind == "sum" else Concatenate)(tuple(some), "logistic", shape)


@st.composite
def convolutions(draw, shape):
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    padding = draw(st.sampled_from(["same", 0, 1, (kernel - 1) // 2]))
    try:
        return Conv(shape, draw(st.integers(1, 2)), kernel, stride, padding)
    except GradbenchError:
        assume(False)


@st.composite
def chains(draw, shape, depth):
    found, here = [], shape
    for _ in range(draw(st.integers(1, 3))):
        found.append(draw(parts(here, depth)))
        here = out(found[-1], here)
    noise = draw(st.sampled_from(NOISES))
    return Compose(tuple(found), noise, shape)


shapes = st.sampled_from([(5, 4, 2), (7, 2), (4, 4, 1), (6,), (3, 3, 2)])


def in_turn(layer, theta, x, flipped, g):
    """Every flip written out."""
    cdf = get_noise(layer.noise).cdf
    others = jnp.where(np.eye(x.size, dtype=bool).reshape(x.size, *x.shape), flipped, x)
    above = jax.vmap(partial(layer, theta))(jnp.concatenate([x[None], others]))
    change = g * (cdf(above[1:]) - cdf(above[0]))
    return jnp.sum(change.reshape(x.size, -1), axis=1).reshape(x.shape)


def error(layer, coded=False):
    """The largest distance of the flips of a layer to those written out, in one compilation."""
    theta, shape, draw = initial(layer), axes(layer.inputs), np.random.default_rng(1)
    x = jnp.asarray(draw.choice([-1.0, 1.0], shape))
    x, flipped = ((x + 1) / 2, (1 - x) / 2) if coded else (x, -x)
    g = draw.uniform(-1, 1, axes(layer.outputs))

    @jax.jit
    def both(theta):
        found = layer.flip_pullback(theta, x, flipped, layer(theta, x), g)
        return found, in_turn(layer, theta, x, flipped, g)

    found, right = both(theta)
    assert found.shape == shape
    return float(jnp.max(jnp.abs(found - right)))


@settings(max_examples=30)
@given(st.data(), st.booleans())
@pytest.mark.slow
def test_flips_of_any_composition_equal_those_written_out(data, coded):
    layer = data.draw(chains(data.draw(shapes), depth=2))
    assert error(layer, coded) < 1e-13


IMAGE = (6, 5, 2)
THREE = Conv(IMAGE, 2, 3, padding=1)
SKIP = Add((THREE, same))
POOLED = Compose((AveragePool(2), Conv((3, 2, 2), 3, 2, padding=1)), inputs=IMAGE)
FAST = {
    "skip": SKIP,
    "scaled skip": Add((THREE, affine), noise="normal"),
    "strides": Add((Conv(IMAGE, 3, 3, 2, 1), Conv(IMAGE, 3, 1, 2))),
    "side by side": Concatenate((THREE, same, Conv(IMAGE, 1, 5, padding=2))),
    "pooled": POOLED,
    "pooled, with a rest that is cut": Compose(
        (AveragePool(2), Conv((3, 3, 1), 2, 3, padding=1)), inputs=(7, 6, 1)
    ),
    "pooled after": Compose((THREE, AveragePool(2))),
    "two convolutions": Compose((Conv(IMAGE, 2, 2), Conv((5, 4, 2), 1, 2, 2))),
    "padded in between": Compose((THREE, THREE)),
    "nested": Compose((SKIP, AveragePool(2), Concatenate((Conv((3, 2, 2), 1, 1), same)))),
    "dense": Add((Dense(4, 4), affine)),
    "dense after": Compose((SKIP, Dense(60, 3))),
    "dense below": Compose((Dense(3, 12), Conv((3, 2, 2), 1, 2, padding=1))),
    "dense sums": Concatenate((Add((Dense(5, 5), Dense(5, 5))), same)),
    "tanh": Compose((THREE, jnp.tanh)),
    "residual": Add((Compose((THREE, jnp.tanh, THREE)), same)),
    "encoder": Compose((Dense(6, 4), jnp.tanh, Dense(4, 3))),
    "pools alone": Add((AveragePool(2), AveragePool(2)), inputs=(5, 4, 2)),
}


@pytest.mark.parametrize("name", FAST)
@pytest.mark.first(1)
def test_flips_many_at_once_equal_those_written_out(name):
    assert FAST[name].fast_flips
    assert error(FAST[name]) < 1e-13


def test_flips_of_what_shows_no_structure_are_made_in_turn():
    for layer in (
        Compose((lambda x: x[::-1], Conv(IMAGE, 1, 2)), inputs=IMAGE),
        Add((Conv(IMAGE, 2, 1, 2), lambda x: x[::2, ::2])),
        Add((THREE, Function(lambda theta, x: x * 2, IMAGE))),
        Compose((jnp.sin, Dense(4, 2)), inputs=4),
    ):
        assert not layer.fast_flips
    assert error(layer) < 1e-13


def test_a_layer_reads_flat_states_and_gives_their_flips_flat():
    theta, x = initial(SKIP), jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], IMAGE))

    @jax.jit
    def both(theta):
        a = SKIP(theta, x)
        return [SKIP.flip_pullback(theta, y, -y, a, a) for y in (x, x.ravel())]

    image, flat = both(theta)
    np.testing.assert_array_equal(flat, image.ravel())


def test_flips_keep_the_type_of_the_states():
    theta = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), initial(POOLED))
    x = jnp.ones(IMAGE, jnp.float32)
    a = jax.eval_shape(POOLED, theta, x)
    assert a.dtype == jax.eval_shape(POOLED.flip_pullback, theta, x, -x, a, a).dtype == jnp.float32


BUGS = {
    "zeros between two convolutions": ("_zeros_stay", lambda *_: True, "padded in between"),
    "tanh is taken for affine": ("entrywise", lambda *_: "affine", "tanh"),
    "height and width are mixed up": (
        "_within",
        lambda windows, part, weight: jnp.swapaxes(within(windows, part, weight), 1, 2),
        "side by side",
    ),
}
within = reads._within


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.first(1)
def test_a_planted_bug_in_the_reads_is_seen(bug, monkeypatch):
    name, wrong, layer = BUGS[bug]
    monkeypatch.setattr(reads, name, wrong)
    assert error(FAST[layer]) > 1e-3


def test_a_planted_bug_in_the_colours_is_seen(monkeypatch):
    smaller = property(lambda self: tuple(window.size - 1 for window in self.windows))
    monkeypatch.setattr(reads.Reads, "period", smaller)
    assert error(FAST["tanh"]) > 1e-3


RESIDUAL = SBN(
    (Conv((3, 3, 1), 1, 1), Add((Conv((3, 3, 1), 1, 3, padding=1), same))), Readout(9, 1)
)
BATCH = jnp.ones((2, 3, 3, 1)), jnp.ones(2)


def test_a_residual_network_has_all_flips_at_once_and_explain_says_so():
    told = gradbench.explain("psa", RESIDUAL, initial(RESIDUAL), BATCH)
    assert "layer 1 to layer 2: all flips at once, by Add.flip_pullback" in told


@pytest.mark.slow
def test_psa_of_a_residual_network_equals_psa_by_flips_of_the_whole_model():
    @jax.jit
    def draws(params):
        psas = [gradbench.estimators.psa(f) for f in (RESIDUAL, lambda *run: RESIDUAL(*run))]
        return [jax.grad(psa)(params, jax.random.key(0), BATCH) for psa in psas]

    fast, generic = draws(initial(RESIDUAL))
    for one, other in zip(jax.tree.leaves(fast), jax.tree.leaves(generic), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)
