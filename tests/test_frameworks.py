"""Model functions in plain JAX, Equinox and Flax NNX: the same draws, names, refusals, bfloat16."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import KINDS, flax_list
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbench import GradbenchError
from gradbench.core.pytrees import layers_of
from gradbench.estimators import ESTIMATORS, make_estimator

pytestmark = pytest.mark.usefixtures("quick_compilation")

NOISE = ("logistic", "normal")
KEY = jax.random.key(5)
ANY_MODEL = tuple(name for name, entry in sorted(ESTIMATORS.items()) if not entry.needs)
random = np.random.default_rng(3)
WEIGHTS = [random.uniform(-1, 1, shape).astype(np.float32) for shape in ((3, 2), (2, 3), (1, 2))]
BIASES = [random.uniform(-1, 1, n).astype(np.float32) for n in (3, 2, 1)]
INPUTS = random.standard_normal((4, 2)).astype(np.float32)
BATCH = (INPUTS, np.array([1, -1, 1, 2], np.float32))


def objective(out, target):
    return jnp.sum(jnp.sin(out)) * target


# ----------------------------------------------------- one network, written in several ways


def tuple_params(dtype=np.float32):
    return tuple(
        {"weight": jnp.asarray(w, dtype), "bias": jnp.asarray(b, dtype)}
        for w, b in zip(WEIGHTS, BIASES, strict=True)
    )


def plain(params, example, binary):
    x = example[0].astype(params[0]["weight"].dtype)
    for layer, noise in zip(params[:-1], NOISE, strict=True):
        x = binary(layer["weight"] @ x + layer["bias"], noise=noise)
    return objective(params[-1]["weight"] @ x + params[-1]["bias"], example[1].astype(x.dtype))


def of_dict(params, example, binary):
    return plain((*params["hidden"], params["head"]), example, binary)


class Linear(eqx.Module):
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return self.weight @ x + self.bias


class Network(eqx.Module):
    """With leaves that are no arrays: functions, numbers, flags, names."""

    hidden: list
    head: Linear
    activation: Callable
    noise: tuple = NOISE
    power: int = 1
    training: bool = True

    def __call__(self, x, binary):
        assert self.training is True and self.power == 1  # as they were given
        for layer, noise in zip(self.hidden, self.noise, strict=True):
            x = binary(self.activation(layer(x)), noise=noise) ** self.power
        return self.head(x)


def identity(x):
    return x


def equinox_network():
    first, second, head = map(Linear, map(jnp.asarray, WEIGHTS), map(jnp.asarray, BIASES))
    return Network([first, second], head, jax.jit(identity))


def of_module(module, example, binary):
    return objective(module(example[0], binary), example[1])


class FlaxNetwork(nnx.Module):
    def __init__(self, rngs):
        self.hidden = flax_list([nnx.Linear(*sizes, rngs=rngs) for sizes in ((2, 3), (3, 2))])
        self.head = nnx.Linear(2, 1, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)  # holds keys and counts, which have no gradient

    def __call__(self, x, binary):
        for layer, noise in zip(self.hidden, NOISE, strict=True):
            x = binary(layer(x), noise=noise)
        return self.head(x)


def flax_network():
    module = FlaxNetwork(nnx.Rngs(0))
    layers = (*module.hidden, module.head)
    for layer, w, b in zip(layers, WEIGHTS, BIASES, strict=True):
        layer.kernel[...], layer.bias[...] = jnp.asarray(w.T), jnp.asarray(b)
    return module


def draw_of_tuple(spec):
    loss = make_estimator(spec, plain)
    return jax.jit(jax.value_and_grad(loss))(tuple_params(), KEY, BATCH)


def draw_of_dict(spec):
    *hidden, head = tuple_params()
    loss = make_estimator(spec, of_dict)
    value, g = jax.jit(jax.value_and_grad(loss))({"hidden": hidden, "head": head}, KEY, BATCH)
    return value, (*g["hidden"], g["head"])


def draw_of_equinox(spec):
    """On the module itself, by Equinox's own filters."""
    loss = make_estimator(spec, of_module)
    value, g = eqx.filter_jit(eqx.filter_value_and_grad(loss))(equinox_network(), KEY, BATCH)
    assert jax.tree.leaves((g.activation, g.noise, g.power, g.training)) == []
    return value, [vars(layer) for layer in (*g.hidden, g.head)]


def draw_of_partition(spec):
    params, static = eqx.partition(equinox_network(), eqx.is_inexact_array)
    loss = make_estimator(spec, lambda p, *rest: of_module(eqx.combine(p, static), *rest))
    value, g = jax.jit(jax.value_and_grad(loss))(params, KEY, BATCH)
    return value, [vars(layer) for layer in (*g.hidden, g.head)]


def flax_layers(g):
    layers = (*(g["hidden"][k] for k in range(2)), g["head"])
    return [{"weight": layer["kernel"][...].T, "bias": layer["bias"][...]} for layer in layers]


def draw_of_flax_state(spec):
    graph, params, rest = nnx.split(flax_network(), nnx.Param, ...)
    loss = make_estimator(spec, lambda p, *others: of_module(nnx.merge(graph, p, rest), *others))
    value, g = jax.jit(jax.value_and_grad(loss))(params, KEY, BATCH)
    return value, flax_layers(g)


def draw_of_flax_module(spec):
    """On the module itself, by the transformations of NNX."""
    loss = make_estimator(spec, of_module)
    value, g = nnx.jit(nnx.value_and_grad(loss))(flax_network(), KEY, BATCH)
    return value, flax_layers(g)


WAYS = (
    draw_of_dict,
    draw_of_equinox,
    draw_of_partition,
    draw_of_flax_state,
    draw_of_flax_module,
)


def assert_same_draw(found, right):
    np.testing.assert_allclose(found[0], right[0], rtol=1e-5)
    for layer, own in zip(found[1], right[1], strict=True):
        for name in ("weight", "bias"):
            np.testing.assert_allclose(layer[name], own[name], rtol=1e-4, atol=1e-6)


QUICK = ("reinforce", "straight_through", "psa")
each_kind = pytest.mark.parametrize(
    "spec", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in KINDS]
)


@each_kind
@pytest.mark.slow
def test_a_draw_is_the_same_in_plain_jax_equinox_and_flax(spec):
    right = draw_of_tuple(spec)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(right[1][1:]))
    for draw in WAYS:
        assert_same_draw(draw(spec), right)


ONE_LAYER = tuple(name for name in ANY_MODEL if ESTIMATORS[name].layers == "one")
DEEP = sorted(set(ANY_MODEL) - {*ONE_LAYER, "per_layer"})  # which goes by their order, see below


@pytest.mark.slow
@pytest.mark.parametrize("spec", DEEP)
def test_every_estimator_that_takes_any_model_has_the_same_draw_on_flax_and_on_equinox(spec):
    right = draw_of_tuple(spec)
    assert_same_draw(draw_of_flax_state(spec), right)
    assert_same_draw(draw_of_partition(spec), right)


@pytest.mark.slow
@pytest.mark.parametrize("spec", DEEP)
def test_every_estimator_takes_a_module_with_leaves_that_are_no_arrays(spec):
    assert_same_draw(draw_of_equinox(spec), draw_of_tuple(spec))


@pytest.mark.slow
@pytest.mark.parametrize("spec", ONE_LAYER)
def test_estimators_for_one_layer_have_the_same_draw_on_a_module(spec):
    def of_layer(layer, example, binary):
        return jnp.sum(jnp.sin(binary(layer(example[0])))) * example[1]

    def of_entry(params, example, binary):
        return of_layer(Linear(**params), example, binary)

    draw = jax.value_and_grad(make_estimator(spec, of_entry))
    value, g = jax.jit(draw)(tuple_params()[0], KEY, BATCH)
    filtered = eqx.filter_jit(eqx.filter_value_and_grad(make_estimator(spec, of_layer)))
    found, own = filtered(equinox_network().hidden[0], KEY, BATCH)
    assert_same_draw((found, [vars(own)]), (value, [g]))


@pytest.mark.slow
def test_per_layer_goes_by_the_layers_of_a_module_as_by_the_entries_of_a_tuple():
    right = draw_of_tuple("per_layer(layers='reinforce, zgr, psa')")
    for draw in WAYS:
        in_order = draw in (draw_of_equinox, draw_of_partition)
        layers = "reinforce, zgr, psa" if in_order else "psa, reinforce, zgr"  # head, hidden
        assert_same_draw(draw(f"per_layer(layers={layers!r})"), right)


# -------------------------------------------------------------------------- names of layers


@pytest.mark.slow
def test_layers_have_the_names_of_their_place():
    *hidden, head = tuple_params()
    module = flax_network()
    _, params, _ = nnx.split(module, nnx.Param, ...)
    for tree, names in (
        (tuple_params(), ["layer 1", "layer 2", "output"]),
        ({"hidden": hidden, "head": head}, ["head", "hidden.0", "hidden.1"]),
        (equinox_network(), ["hidden.0", "hidden.1", "head"]),
        (params, ["head", "hidden.0", "hidden.1"]),
        (module, ["head", "hidden.0", "hidden.1"]),
        (jnp.ones(3), ["params"]),
        ({"only": {"deep": {"a": jnp.ones(1), "b": jnp.ones(1)}}}, ["only.deep.a", "only.deep.b"]),
    ):
        assert sorted(name for name, _ in layers_of(tree)) == sorted(names)


ARRAYS = st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32))
OTHERS = st.sampled_from([None, 3, True, "name", identity, np.arange(2), jax.random.key(0)])
TREES = st.recursive(
    ARRAYS | OTHERS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.lists(children, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from(["a", "b", "layers", "w_1"]), children, max_size=3)
        | st.dictionaries(st.integers(0, 3), children, max_size=3)
    ),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=200)
@pytest.mark.slow
def test_every_real_leaf_of_any_pytree_is_in_one_layer_and_no_name_is_there_twice(tree):
    real = [leaf for leaf in jax.tree.leaves(tree) if getattr(leaf, "dtype", None) == np.float32]
    layers = layers_of(tree)
    found = [leaf for _, leaves in layers for leaf in leaves]  # as vectors, one after another
    assert sorted(map(id, found)) == sorted(map(id, real))
    names = [name for name, _ in layers]
    assert len(set(names)) == len(names)
    assert all(leaves for _, leaves in layers)


# ------------------------------------------------------------ binary inside transformations


def inside_cond(f, a):
    return jax.lax.cond(a[0] > 0, f, lambda a: a, a)


def inside_scan(f, a):
    return jax.lax.scan(lambda carry, row: (carry, f(row)), 0, a)[1]


def inside_grad(f, a):
    return jax.grad(lambda a: jnp.sum(f(a)))(a)


INSIDE = (
    lambda f, a: jax.jit(f)(a),
    lambda f, a: jax.vmap(f)(a),
    lambda f, a: jax.checkpoint(f)(a),
    inside_scan,
    inside_cond,
    inside_grad,
)


@pytest.mark.slow
def test_binary_inside_a_transformation_is_refused_by_every_estimator_in_the_same_sentence():
    def model(params, example, binary, wrap):
        return jnp.sum(wrap(binary, params["w"]) * example)

    params, batch = {"w": jnp.array([0.3, -0.4])}, jnp.ones((2, 1))
    said = set()
    for spec in ANY_MODEL:
        for wrap in INSIDE:
            loss = make_estimator(spec, partial(model, wrap=wrap))
            with pytest.raises(GradbenchError) as caught:
                jax.eval_shape(loss, params, KEY, batch)
            said.add(str(caught.value))
    (sentence,) = said
    assert "calls binary() inside jit, vmap, scan, cond, grad or checkpoint" in sentence
    assert "\n" not in sentence


# ------------------------------------------------------------------------------- bfloat16

# Of the norm of a gradient. bfloat16 has 8 bits: what is computed in it has errors of 0.4 % each.
# States are the same but where a uniform falls between two probabilities that differ so little.
OF_BFLOAT16 = 0.05


@each_kind
@pytest.mark.slow
def test_parameters_in_bfloat16_have_the_gradient_of_float32_within_their_digits(spec):
    half = tuple_params(jnp.bfloat16)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half)  # the same numbers
    draw = jax.jit(jax.grad(make_estimator(spec, plain)))
    found, right = draw(half, KEY, BATCH), draw(single, KEY, BATCH)
    for g, own in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        assert g.dtype == jnp.bfloat16
        assert np.all(np.isfinite(np.asarray(g, np.float32)))
        error = np.linalg.norm(np.asarray(g, np.float32) - own)
        assert error <= OF_BFLOAT16 * np.linalg.norm(own)
