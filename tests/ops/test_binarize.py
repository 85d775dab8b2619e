"""``binarize``: states, frequencies and gradients under every transformation, and bad input."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import NOISES, SCIPY, assert_mean, precision
from hypothesis import given, settings
from hypothesis import strategies as st

import gradbench.core.surrogate
from gradbench import GradbenchError, binarize
from gradbench.core.uniforms import unit_uniforms
from gradbench.estimators import concrete, make_estimator, zgr
from gradbench.estimators.arm import arm
from gradbench.estimators.registry import ESTIMATORS
from gradbench.ops.binarize import local_estimators

pytestmark = pytest.mark.usefixtures("quick_compilation")

LOCAL = tuple(local_estimators())
SOFT = tuple(name for name in LOCAL if ESTIMATORS[name].make(lambda *_: 0).soft)
BINARY = tuple(name for name in LOCAL if name not in SOFT)
RANDOM = tuple(name for name in BINARY if name != "deterministic_straight_through")
SPECS = (  # other routes through the same functions
    "concrete(temperature=0.3, relaxation='rebar')",
    "darn(phi=0.2)",
    "foust(uniform_point=False)",
    "foust(rho=0.5)",
    "foust(rho=0.5, uniform_point=False, weight=False)",
    "gumbel_rao(samples=2, temperature=0.5)",
    "straight_through(proxy='tanh', slope=2)",
)
KEY = jax.random.key(7)
A = jnp.array([[-2.5, -0.4, 0.0], [0.3, 1.2, 6.0]])


def sentence(call):
    """The one sentence with which a call is refused."""
    with pytest.raises(GradbenchError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------- states and types


@partial(jax.jit, static_argnums=(1, 2))
def states_and_gradients(a, coding, specs):
    """Of every estimator the states, and the gradient of their sum with some weights."""
    c = jnp.arange(1, a.size + 1).reshape(a.shape).astype(a.dtype)

    def total(a, spec):
        x = binarize(a, key=KEY, estimator=spec, coding=coding)
        return jnp.sum(c * x), x

    return {
        spec: jax.grad(lambda a, spec=spec: total(a, spec), has_aux=True)(a)[::-1] for spec in specs
    }


KINDS_OF_RULES = ("zgr", "gumbel_rao", "st_gumbel_softmax", "deterministic_straight_through")


@pytest.mark.parametrize(
    ("dtype", "specs"),
    [
        ("float32", BINARY),
        ("bfloat16", BINARY),
        ("float64", KINDS_OF_RULES),
        ("float16", KINDS_OF_RULES),
    ],
)
@pytest.mark.slow
def test_states_are_exactly_binary_in_the_shape_and_type_of_the_pre_activations(dtype, specs):
    with precision(dtype == "float64"):
        a = A.astype(dtype)
        found = states_and_gradients(a, "signs", specs)
        for name, (x, g) in found.items():
            assert (x.shape, x.dtype) == (a.shape, a.dtype), name
            assert (g.shape, g.dtype) == (a.shape, a.dtype), name
            assert set(np.asarray(x, float).ravel()) == {-1.0, 1.0}, name
            assert np.all(np.isfinite(np.asarray(g, float))), name
        signs = np.where(A > 0, 1.0, -1.0)
        np.testing.assert_array_equal(found["deterministic_straight_through"][0], signs)
        for name in set(specs) & set(RANDOM):  # one key gives one path, whatever the estimator
            np.testing.assert_array_equal(found[name][0], found["zgr"][0])


@pytest.mark.slow
def test_half_precision_has_the_states_and_the_rounded_gradients_of_float32():
    """Of the same numbers: what is computed in half precision differs in the second digit."""
    rounded = A.astype(jnp.bfloat16)
    single = states_and_gradients(rounded.astype(jnp.float32), "signs", BINARY)
    half = states_and_gradients(rounded, "signs", BINARY)
    for name in BINARY:
        np.testing.assert_array_equal(half[name][0], single[name][0])
        right = single[name][1]
        np.testing.assert_array_equal(half[name][1], right.astype(jnp.bfloat16), err_msg=name)


@pytest.mark.slow
def test_bits_are_half_of_a_sign_and_one_half_and_so_is_their_gradient():
    signs = states_and_gradients(A, "signs", KINDS_OF_RULES)
    bits = states_and_gradients(A, "bits", KINDS_OF_RULES)
    for name in bits:
        np.testing.assert_array_equal(bits[name][0], (signs[name][0] + 1) / 2)
        np.testing.assert_array_equal(bits[name][1], signs[name][1] / 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.slow
def test_the_frequency_of_plus_one_is_f_for_every_noise(dtype):
    """In bfloat16 too: F(6) = 0.9975 would be 0.9961 or 1 there."""
    a = np.array([-6.0, -1.25, -0.5, 0.25, 0.75, 3.0, 6.0])  # all are numbers of bfloat16
    many = jnp.broadcast_to(jnp.asarray(a, dtype), (100_000, a.size))
    for n, noise in enumerate(NOISES):
        x = binarize(many, key=jax.random.fold_in(KEY, n), noise=noise)
        assert_mean(x, 2 * SCIPY[noise].cdf(a) - 1, rate=1e-7)


@pytest.mark.slow
def test_units_have_noise_of_their_own_and_keys_too():
    keys = jax.random.split(KEY, 20_000)
    x = np.asarray(jax.vmap(lambda key: binarize(jnp.zeros(3), key=key))(keys))
    products = [x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[1:, 0] * x[:-1, 0], x[1:, 2] * x[:-1, 0]]
    for product in products:
        assert_mean(product, 0.0, rate=1e-7)


# ------------------------------------------------------------------------------- gradients


def cubic(c, x):
    return jnp.sum(c * (x + 0.3 * x**3))


def linear(c, x):
    return jnp.sum(c * x)


def one_layer(f, noise):
    return lambda params, example, binary: f(params[1], binary(params[0], noise=noise))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("noise", "specs"),
    [
        ("triangular", KINDS_OF_RULES),
        pytest.param("logistic", LOCAL + SPECS, marks=pytest.mark.slow),
        pytest.param("triangular", LOCAL + SPECS, marks=pytest.mark.slow),
    ],
    ids=["kinds", "all", "all with bounded noise"],
)
@pytest.mark.slow
def test_the_gradient_is_the_draw_of_the_estimator_on_a_model_of_one_layer(
    noise, specs, monkeypatch
):
    """At binary states, and at those that are real numbers."""

    def of_units(key, shapes, streams, examples, dtype):
        """The uniforms of ``binarize``, which have an order of their own, for one example."""
        return tuple((u[..., None],) for u in unit_uniforms(key, shapes[0], streams, dtype))

    monkeypatch.setattr(gradbench.core.surrogate, "draw_uniforms", of_units)
    a, c = jnp.array([[0.4, -1.1], [0.2, 0.7]]), jnp.array([[1.0, -2.0], [0.5, 3.0]])

    @jax.jit
    def both(a):
        found, own = {}, {}
        for spec in specs:
            for f in (linear, cubic):
                draw = partial(binarize, key=KEY, estimator=spec, noise=noise, hard=False)
                found[spec, f.__name__] = jax.grad(lambda a, f=f, draw=draw: f(c, draw(a)))(a)
                loss = make_estimator(spec, one_layer(f, noise))
                own[spec, f.__name__] = jax.grad(loss)((a, c), KEY, jnp.zeros((1, 1)))[0]
        return found, own

    found, own = both(a)
    for case, right in own.items():
        np.testing.assert_allclose(found[case], right, rtol=1e-10, err_msg=str(case))


@pytest.mark.slow
def test_hard_false_gives_the_relaxed_states_of_those_that_have_some():
    a = jnp.linspace(-1.0, 1.0, 11)
    soft = ("concrete", "foust", "hard_concrete", "mean_field", "stochastic_times_smooth")
    assert set(SOFT) >= set(soft)
    for name in LOCAL:
        x = np.asarray(binarize(a, key=KEY, estimator=name, hard=False))
        assert np.all(np.abs(x) <= 1)
        assert (name in SOFT) == bool(np.any(np.abs(x) < 1)), name
    mean = binarize(a, estimator="mean_field", hard=False, coding="bits")
    np.testing.assert_allclose(mean, jax.nn.sigmoid(a), rtol=1e-6)


def test_what_is_deterministic_needs_no_key():
    x = binarize(jnp.array([-0.3, 0.0, 2.0]), estimator="deterministic_straight_through")
    np.testing.assert_array_equal(x, [-1, -1, 1])


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_second_derivatives_are_those_of_the_relaxed_states():
    a = jnp.array([0.3, -0.8])

    def second(spec, f):
        """The derivative of the derivative of f(x)."""
        unit = lambda a: f(binarize(a, key=KEY, estimator=spec, hard=False))  # noqa: E731
        return jax.jit(jax.vmap(jax.grad(jax.grad(unit))))(a)

    x = jnp.tanh(a / 2)
    mean = second("mean_field", lambda x: x**2)
    np.testing.assert_allclose(mean, (1 - x**2) * (1 - 3 * x**2) / 2, rtol=1e-12)
    x = jax.vmap(lambda a: binarize(a, key=KEY, estimator="concrete", hard=False))(a)
    soft = second("concrete", lambda x: x)
    np.testing.assert_allclose(soft, -x * (1 - x**2) / 2, rtol=1e-12)
    with pytest.raises(GradbenchError, match="differentiated once more"):  # of a hard state
        second("straight_through", lambda x: x)


# --------------------------------------------------------------------------- transformations


@pytest.mark.slow
def test_jit_and_forward_mode_change_nothing():
    def draw(a):
        return binarize(a, key=KEY, estimator="reinmax")

    @jax.jit
    def compiled(a):
        return *jax.jvp(draw, (a,), (A,)), jax.grad(lambda a: jnp.sum(draw(a) * A))(a)

    x, x_dot, g = compiled(A)
    np.testing.assert_array_equal(draw(A), x)
    np.testing.assert_allclose(x_dot, g, rtol=1e-6)  # elementwise: the Jacobian is a diagonal


@pytest.mark.slow
def test_mapped_with_a_key_per_row_it_is_a_loop_over_rows_and_with_one_key_noise_is_shared():
    rows = jnp.zeros((8, 16))
    keys = jax.random.split(KEY, 8)
    own = jax.vmap(lambda a, key: binarize(a, key=key))(rows, keys)
    for k in range(8):
        np.testing.assert_array_equal(own[k], binarize(rows[k], key=keys[k]))
    assert len(np.unique(own, axis=0)) == 8
    shared = jax.vmap(lambda a: binarize(a, key=KEY))(rows)
    assert len(np.unique(shared, axis=0)) == 1
    assert len(np.unique(binarize(rows, key=KEY), axis=0)) == 8


@pytest.mark.slow
def test_a_scan_over_split_keys_is_a_loop():
    keys = jax.random.split(KEY, 3)

    def step(x, key):
        return binarize(1.5 * x - 0.2, key=key), None

    def looped(a):
        for key in keys:
            a, _ = step(a, key)
        return jnp.sum(A * a)

    scanned = jax.grad(lambda a: jnp.sum(A * jax.lax.scan(step, a, keys)[0]))(A)
    np.testing.assert_allclose(scanned, jax.grad(looped)(A), rtol=1e-6)


@pytest.mark.slow
def test_a_checkpoint_draws_the_same_states_again():
    def f(a):
        x = binarize(a, key=KEY, estimator="st_gumbel_softmax")
        return jnp.sum(jnp.sin(x * A + 1) * binarize(x, key=jax.random.fold_in(KEY, 1)))

    plain = jax.jit(jax.value_and_grad(f))(A)
    again = jax.jit(jax.value_and_grad(jax.checkpoint(f)))(A)
    for found, right in zip(again, plain, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


@pytest.mark.slow
def test_known_numbers_may_be_binarized_while_something_else_is_traced():
    """They are looked at for NaN: not with operations that belong to the trace."""
    right = binarize(A, key=KEY)
    np.testing.assert_array_equal(jax.jit(lambda key: binarize(A, key=key))(KEY), right)
    np.testing.assert_array_equal(jax.jit(lambda key: binarize(np.array(A), key=key))(KEY), right)
    mapped = jax.vmap(lambda key: binarize(A, key=key))(KEY[None])
    np.testing.assert_array_equal(mapped[0], right)
    bad = A * jnp.nan
    assert "NaN" in sentence(lambda: jax.jit(lambda key: binarize(bad, key=key))(KEY))


SHARDED = """
import warnings; warnings.simplefilter("error")
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from gradbench import binarize

assert len(jax.devices()) == 4
key = jax.random.key(3)
a = np.linspace(-3, 3, 8 * 6, dtype=np.float32).reshape(8, 6)

@jax.jit
def draw(a):
    def total(a):
        x = binarize(a, key=key, estimator="st_gumbel_softmax")
        return jnp.sum(jnp.cos(x * jnp.arange(6.0))), x
    return jax.grad(total, has_aux=True)(a)

g, x = draw(a)
assert np.array_equal(binarize(a, key=key), x)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2, 2), ("rows", "units"), axis_types=(kind, kind))
    for spec in (P("rows", "units"), P(("rows", "units"), None), P()):
        sharding = NamedSharding(mesh, spec)
        with jax.set_mesh(mesh):
            put = jax.device_put(a, sharding)
            slope, states = draw(put)
            for found in (slope, states):
                assert found.sharding.is_equivalent_to(sharding, 2), (kind, spec, found.sharding)
            assert np.array_equal(states, x), (kind, spec)
            np.testing.assert_allclose(slope, g, rtol=1e-6)
            if spec == P("rows", "units"):
                eager = binarize(put, key=key)
                assert eager.sharding.is_equivalent_to(sharding, 2), (kind, eager.sharding)
                assert np.array_equal(eager, x), kind
                program = draw.lower(put).compile().as_text()
                gathered = [line for line in program.splitlines() if " all-gather(" in line]
                assert not gathered

mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
def block(a):
    own = jax.random.fold_in(key, jax.lax.axis_index("rows"))
    return binarize(a, key=own)
found = jax.jit(jax.shard_map(block, mesh=mesh, in_specs=P("rows"), out_specs=P("rows")))(a)
blocks = [binarize(a[2 * k : 2 * k + 2], key=jax.random.fold_in(key, k)) for k in range(4)]
assert np.array_equal(found, np.concatenate(blocks))
print("the same everywhere")
"""


@pytest.mark.slow
def test_sharded_pre_activations_have_the_states_of_one_device_and_stay_where_they_are():
    four = "--xla_force_host_platform_device_count=4"
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {four}",
    }
    command = [sys.executable, "-c", SHARDED]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert answer.stdout == "the same everywhere\n", answer.stderr


# ------------------------------------------------------------------------------- any input

POSITIVE = st.floats(0.05, 20).map(repr)
ANY_SPEC = st.one_of(
    st.sampled_from(BINARY),
    st.builds("st_gumbel_softmax(temperature={}, slope={})".format, POSITIVE, POSITIVE),
    st.builds("gumbel_rao(samples={})".format, st.integers(1, 5)),
    st.builds("reinmax(temperature={})".format, POSITIVE),
    st.builds("straight_through(slope={})".format, POSITIVE),
    st.builds("darn(phi={})".format, st.floats(-2, 2).map(repr)),
    st.builds("mve(tau={})".format, POSITIVE),
)
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])


@given(
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    DTYPES,
    ANY_SPEC,
    st.sampled_from(NOISES),
    st.sampled_from(["signs", "bits"]),
    st.booleans(),
)
@settings(max_examples=25)
@pytest.mark.slow
def test_any_shape_and_type_comes_back_from_value_and_gradient(a, dtype, spec, noise, coding, hard):
    def total(a):
        x = binarize(a, key=KEY, estimator=spec, noise=noise, coding=coding, hard=hard)
        return jnp.sum(x.astype(jnp.float32)), x

    like = jax.ShapeDtypeStruct(a, dtype)
    g, x = jax.eval_shape(jax.grad(total, has_aux=True), like)
    assert (g.shape, g.dtype) == (x.shape, x.dtype) == (a, dtype)


@jax.jit
def draws_of_all_noises(a):
    return [
        jax.value_and_grad(lambda a, spec=spec, n=n: one_state(a, spec, n))(a)
        for n in NOISES
        for spec in ("zgr", "st_gumbel_softmax")
    ]


def one_state(a, spec, noise):
    return binarize(a, key=KEY, estimator=spec, noise=noise)


@given(st.floats(-(2.0**100), 2.0**100, width=32))
@pytest.mark.slow
def test_a_state_is_binary_and_its_gradient_finite_wherever_the_pre_activation_is(a):
    found = np.array(draws_of_all_noises(jnp.float32(a)))
    assert np.all(np.abs(found[:, 0]) == 1)
    assert np.all(np.isfinite(found[:, 1]))


@pytest.mark.slow
def test_no_unit_and_a_single_number_are_layers_too():
    for shape in ((0,), (2, 0, 3), ()):
        assert binarize(jnp.zeros(shape), key=KEY).shape == shape
    assert abs(binarize(0.25, key=KEY)) == 1
    np.testing.assert_array_equal(np.abs(binarize([0.1, -3.0], key=KEY)), 1)


def test_infinite_pre_activations_are_certain_states_without_gradient():
    a = jnp.array([-jnp.inf, jnp.inf])
    x, g = states_and_gradients(a, "signs", ("zgr", "straight_through"))["zgr"]
    np.testing.assert_array_equal(x, [-1, 1])
    np.testing.assert_array_equal(g, [0, 0])


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("a", "said"),
    [
        (jnp.arange(3), "the pre-activations are of type int32; give real numbers"),
        (jnp.ones(2) + 1j, "the pre-activations are of type complex64; give real numbers"),
        (np.ones(2, bool), "the pre-activations are of type bool; give real numbers"),
        (None, "the pre-activations are None; give real numbers"),
        ("zgr", "the pre-activations are 'zgr'; give real numbers"),
        (jnp.array([0.0, jnp.nan]), "the pre-activations hold NaN"),
    ],
)
def test_pre_activations_that_are_no_real_numbers_are_refused(a, said):
    assert said in sentence(lambda: binarize(a, key=KEY))


@pytest.mark.parametrize("kind", ["int32", "complex64"])
def test_types_are_refused_at_trace_time_too(kind):
    like = jax.ShapeDtypeStruct((2,), kind)
    assert kind in sentence(lambda: jax.eval_shape(lambda a: binarize(a, key=KEY), like))


@pytest.mark.slow
def test_what_cannot_be_seen_to_be_nan_stays_nan_and_its_neighbours_do_not_become_it():
    a = jnp.array([0.5, jnp.nan, -0.5])
    for spec, coding in (("zgr", "signs"), ("gumbel_rao", "bits"), ("straight_through", "bits")):
        draw = jax.jit(partial(binarize, key=KEY, estimator=spec, coding=coding))
        np.testing.assert_array_equal(np.isnan(draw(a)), [False, True, False])
        g = jax.jit(jax.grad(lambda a, draw=draw: draw(a)[0] + draw(a)[2]))(a)
        np.testing.assert_array_equal(np.isfinite(g[::2]), True)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "there is no key; give key=jax.random.key(seed)"),
        (3, "the key is int; give one of jax.random.key"),
        ("seed", "the key is str; give one of jax.random.key"),
        (np.zeros(2), "the key is an array of float64 of shape (2,)"),
        (jnp.zeros(3, jnp.uint32), "the key is an array of uint32 of shape (3,)"),
        (jax.random.split(KEY, 3), "the key is an array of keys of shape (3,); give one"),
    ],
)
def test_what_is_no_single_key_is_refused(key, said):
    assert said in sentence(lambda: binarize(A, key=key))
    assert said in sentence(lambda: jax.jit(lambda a: binarize(a, key=key))(A))


def test_raw_keys_and_those_of_another_generator_serve():
    raw = jax.random.key_data(KEY)
    np.testing.assert_array_equal(binarize(A, key=raw), binarize(A, key=KEY))
    assert np.all(np.abs(binarize(A, key=jax.random.key(0, impl="rbg"))) == 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "zgrr"}, "unknown estimator 'zgrr'; did you mean 'zgr'?"),
        ({"estimator": 3}, "the estimator is 3; give a spec"),
        ({"estimator": "concrete(temperature=-1)"}, "temperature is -1; give a positive number"),
        ({"estimator": "zgr(temperature=1)"}, "'zgr' has no hyper-parameter 'temperature'"),
        ({"estimator": "arm"}, "arm needs to see the objective"),
        ({"estimator": arm}, "arm needs to see the objective"),
        ({"estimator": "ap2"}, "ap2 needs an SBN"),
        ({"estimator": "vimco"}, "vimco needs a MultiSample model"),
        ({"estimator": "bayesbinn"}, "bayesbinn needs binary weights"),
        ({"estimator": "concrete"}, "concrete are real numbers; give hard=False for these"),
        ({"estimator": "gumbel_softmax"}, "or take an estimator of binary states, such as st_gum"),
        ({"noise": "logistics"}, "unknown noise 'logistics'; did you mean 'logistic'?"),
        ({"noise": 2}, "unknown noise 2"),
        ({"coding": "bit"}, "coding is 'bit'; give 'signs' or 'bits'"),
        ({"coding": None}, "coding is None; give 'signs' or 'bits'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence_that_names_them(options, said):
    assert said in sentence(lambda: binarize(A, key=KEY, **options))
    assert said in sentence(lambda: jax.jit(lambda a: binarize(a, key=KEY, **options))(A))


def test_every_estimator_that_is_no_rule_of_a_unit_is_refused():
    for name in set(ESTIMATORS) - set(LOCAL):
        assert f"{name} needs " in sentence(lambda name=name: binarize(A, key=KEY, estimator=name))


@pytest.mark.slow
def test_a_function_of_a_model_serves_as_a_spec_does():
    pairs = ((zgr, "zgr"), (partial(concrete, temperature=0.5), "concrete(temperature=0.5)"))
    for pair in pairs:
        draws = [partial(binarize, key=KEY, estimator=one, hard=False) for one in pair]
        g, right = (jax.grad(lambda a, draw=draw: jnp.sum(draw(a)))(A) for draw in draws)
        np.testing.assert_array_equal(g, right)


@pytest.mark.parametrize("name", SOFT)
def test_estimators_whose_states_are_real_numbers_are_refused_unless_hard_is_false(name):
    for estimator in (name, ESTIMATORS[name].make):
        said = sentence(lambda estimator=estimator: binarize(A, key=KEY, estimator=estimator))
        assert said.startswith(f"the states of {name} are real numbers; give hard=False")
        assert "st_gumbel_softmax" in said
    assert np.any(np.abs(binarize(A, key=KEY, estimator=name, hard=False)) < 1)


# -------------------------------------------------------------------------------------- keys


def two_layers(a, key, other):
    return jnp.sum(binarize(binarize(a, key=key) + a, key=other))


@pytest.mark.parametrize(
    "under",
    [
        jax.jit,
        jax.grad,
        lambda f: jax.jit(jax.grad(f)),
        lambda f: lambda a, *keys: jax.vmap(lambda row: f(row, *keys))(a),
        lambda f: lambda *args: jax.eval_shape(f, *args),
        lambda f: lambda *args: jax.jvp(lambda a: f(a, *args[1:]), args[:1], args[:1]),
        jax.checkpoint,
    ],
    ids=["jit", "grad", "jit of grad", "vmap", "eval_shape", "jvp", "checkpoint"],
)
@pytest.mark.slow
def test_one_key_for_two_layers_of_a_traced_function_is_refused_and_two_keys_are_not(under):
    key, other = jax.random.split(KEY)
    same = under(lambda a, key: two_layers(a, key, key))
    assert "binarize() got a key that binarize() has used already" in sentence(lambda: same(A, key))
    assert "used already" in sentence(lambda: under(lambda a, _: two_layers(a, key, key))(A, other))
    split = under(lambda a, key: two_layers(a, *jax.random.split(key)))
    clone = under(lambda a, key: two_layers(a, key, jax.random.clone(key)))
    for _ in range(2):  # the second time nothing may be left of the first
        split(A, key)
        clone(A, key)
        under(two_layers)(A, key, other)


@pytest.mark.slow
def test_one_key_in_two_evaluations_is_not_refused():
    x = binarize(A, key=KEY)
    np.testing.assert_array_equal(binarize(A, key=KEY), x)  # outside of any trace
    g = jax.grad(lambda a: jnp.sum(binarize(a, key=KEY)))
    for _ in range(20):  # traces come and go, and new ones may lie where the old ones did
        g(A)
    difference = jax.jit(lambda a: g(a) - g(a))(A)  # two functions in one program
    np.testing.assert_array_equal(difference, 0)
    branches = jax.jit(
        lambda a: jax.lax.cond(
            a[0, 0] > 0, lambda a: binarize(a, key=KEY), lambda a: binarize(-a, key=KEY), a
        )
    )
    np.testing.assert_array_equal(np.abs(branches(A)), 1)


@pytest.mark.slow
def test_an_estimator_may_run_a_model_with_a_fixed_key_inside_many_times():
    """ARM runs the model once a layer more; there the key may not serve two layers either."""

    def model(params, example, binary):
        x = binarize(params[0] * binary(params[1]), key=KEY)
        return jnp.sum(x)

    def twice(params, example, binary):
        x = binarize(params[0] * binary(params[1]), key=KEY)
        return jnp.sum(x * binarize(params[0], key=KEY))

    a = jnp.array([0.3, -0.2])
    args = ((a, a), jax.random.key(1), jnp.zeros((2, 1)))
    assert np.all(np.isfinite(jax.jit(jax.grad(arm(model)))(*args)[1]))
    for under in (jax.grad, jax.jit):
        assert "used already" in sentence(lambda under=under: under(arm(twice))(*args))
