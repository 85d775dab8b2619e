"""``expectation``: values and gradients against enumeration by hand, black boxes, bad input."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import KINDS, SCIPY, assert_mean

from gradbench import GradbenchError, binarize, expectation
from gradbench.estimators import ESTIMATORS, psa, vimco
from gradbench.estimators import exact as exact_estimator

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings(r"ignore:expectation\(\) takes .* at its initial state"),
]

KEY = jax.random.key(11)
FREE = tuple(name for name, entry in sorted(ESTIMATORS.items()) if not entry.needs)
BLACK_BOX = tuple(name for name in FREE if not ESTIMATORS[name].needs_derivative())
SMOOTH = tuple(name for name in FREE if name not in BLACK_BOX)
A = jnp.array([0.6, -0.4, 0.9])
C = jnp.array([0.7, -1.2, 0.4])


def sentence(call):
    """The one sentence with which a call is refused."""
    with pytest.raises(GradbenchError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def quadratic(x, c):
    """Degree up to 2 in each unit, with products; c has a gradient of its own."""
    return c @ x + jnp.sum(c**2 * x**2) + 1.5 * x[0] * x[1] * c[2] - x[1] * x[2]


def enumerated(f, a, noise="logistic", states=(-1.0, 1.0)):
    """E f(x) by hand, as a function of a that JAX may differentiate."""
    cdf = {"logistic": jax.nn.sigmoid, "laplace": laplace_cdf}[noise]
    total = 0.0
    for signs in itertools.product((-1.0, 1.0), repeat=a.size):
        x = jnp.array([states[sign > 0] for sign in signs])
        total += jnp.prod(cdf(jnp.array(signs) * a)) * f(x)
    return total


def laplace_cdf(a):
    return jnp.where(a < 0, jnp.exp(-jnp.abs(a)) / 2, 1 - jnp.exp(-jnp.abs(a)) / 2)


def assert_close(found, right, rtol=1e-6):
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


# ------------------------------------------------------------------------------------ exact


@pytest.mark.parametrize(
    ("noise", "coding"), [("logistic", "signs"), ("laplace", "bits")], ids=["signs", "bits"]
)
@pytest.mark.slow
def test_exact_is_the_sum_over_all_states_in_value_and_both_gradients(noise, coding):
    states = (-1.0, 1.0) if coding == "signs" else (0.0, 1.0)
    f = lambda x, c: jnp.exp(quadratic(x, c) / 3)  # noqa: E731
    g = expectation(f, "exact", noise=noise, coding=coding)
    found = jax.jit(jax.value_and_grad(lambda a, c: g(a, None, c), (0, 1)))(A, C)
    right = jax.value_and_grad(
        lambda a, c: enumerated(lambda x: f(x, c), a, noise, states), (0, 1)
    )(A, C)
    assert_close(found, right)


def test_laplace_of_this_file_is_that_of_scipy():
    np.testing.assert_allclose(laplace_cdf(A), SCIPY["laplace"].cdf(A), rtol=1e-6)


@pytest.mark.slow
def test_logits_are_any_pytree_and_the_states_have_its_form():
    logits = {
        "a": A[:2],
        "b": (jnp.float32(-0.3), [A[2:].reshape(1, 1)]),
        "none": jnp.zeros((0, 2)),
    }

    def f(x, w):
        assert jax.tree.map(jnp.shape, x) == jax.tree.map(jnp.shape, logits)
        return jnp.sin(x["a"] @ w + x["b"][0]) * x["b"][1][0][0, 0] + jnp.sum(x["none"])

    w = jnp.array([0.5, 2.0])
    g = expectation(f, "exact")
    value, slopes = jax.jit(jax.value_and_grad(lambda a, w: g(a, None, w), (0, 1)))(logits, w)

    def by_hand(logits, w):
        flat = jnp.concatenate([logits["a"], logits["b"][0][None], logits["b"][1][0].ravel()])
        return enumerated(lambda x: jnp.sin(x[:2] @ w + x[2]) * x[3], flat)

    assert_close((value, slopes), jax.value_and_grad(by_hand, (0, 1))(logits, w))
    assert jax.tree.structure(slopes[0]) == jax.tree.structure(logits)
    sampled = jax.eval_shape(jax.grad(expectation(f)), logits, KEY, w)
    assert jax.tree.map(jnp.shape, sampled) == jax.tree.map(jnp.shape, logits)
    scalar = expectation(lambda x: jnp.exp(x), "exact")
    np.testing.assert_allclose(scalar(0.5), enumerated(jnp.exp, jnp.array([0.5]))[0], rtol=1e-6)


def test_exact_takes_twenty_units_and_refuses_more():
    twenty = jax.eval_shape(expectation(jnp.sum, "exact"), jnp.zeros((4, 5)))
    assert twenty.shape == ()
    for make in ("exact", exact_estimator):
        said = sentence(lambda make=make: expectation(jnp.sum, make)(jnp.zeros(21)))
        assert "21 units" in said and "20" in said and "'disarm'" in said


# ---------------------------------------------------------------------------- the estimators


def draws_and_truth(spec, f, draws, noise="logistic"):
    """Draws of value and gradients in logits and argument, as rows, and what they estimate."""
    g = expectation(f, spec, noise=noise)

    @jax.jit
    def some(keys):
        return jax.vmap(lambda key: jax.value_and_grad(g, (0, 2))(A, key, C))(keys)

    value, slopes = some(jax.random.split(KEY, draws))
    right = jax.value_and_grad(lambda a, c: enumerated(lambda x: f(x, c), a, noise), (0, 1))(A, C)
    return (value, *slopes), (right[0], *right[1])


UNBIASED = tuple(
    name for name in FREE if ESTIMATORS[name].claim() in ("exact", "unbiased", "one layer")
)
QUADRATIC = tuple(name for name in FREE if ESTIMATORS[name].claim() == "quadratic")
QUICK = (*KINDS, "zgr", "exact", "rebar")


def quick(names, now=QUICK):
    """All of them, those outside of ``now`` among the slow tests."""
    return [n if n in now else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", quick(UNBIASED + QUADRATIC))
@pytest.mark.slow
def test_what_is_right_for_a_quadratic_function_is_so_on_average(name):
    """Both gradients, and the value where the estimator's has no bias."""
    (value, *slopes), (right, *gradients) = draws_and_truth(name, quadratic, 4000)
    for draws, mean in zip(slopes, gradients, strict=True):
        assert_mean(draws, mean, rate=1e-7)
    if ESTIMATORS[name].estimates_value():
        assert_mean(value, right, rate=1e-7)


@pytest.mark.parametrize("name", quick([n for n in FREE if n not in UNBIASED + QUADRATIC]))
@pytest.mark.slow
def test_what_is_biased_gives_finite_draws_of_value_and_gradients(name):
    (value, *slopes), _ = draws_and_truth(name, quadratic, 100)
    assert np.all(np.isfinite(value))
    assert all(np.all(np.isfinite(part)) for part in slopes)
    assert all(np.any(part != 0) for part in slopes)


@pytest.mark.slow
def test_samples_are_averaged_in_value_and_gradient():
    one = expectation(quadratic, "reinforce")
    mean = expectation(quadratic, "reinforce", samples=5)

    @jax.jit
    def both(key):
        keys = jax.random.split(key, 5)
        each = jax.vmap(jax.value_and_grad(one, (0, 2)), (None, 0, None))(A, keys, C)
        return jax.value_and_grad(mean, (0, 2))(A, key, C), each

    found, each = both(KEY)
    assert_close(found, jax.tree.map(lambda leaf: np.mean(leaf, 0), each), 1e-5)


@pytest.mark.parametrize("name", quick(FREE, (*KINDS, "per_layer")))
@pytest.mark.first(1)
def test_what_f_closes_over_has_the_gradient_that_it_has_as_an_argument(name):
    """Draw by draw: some estimators leave parameters out, and know none but those that they get."""

    def closed_over(c):
        return expectation(lambda x: quadratic(x, c), name)(A, KEY)

    def argument(c):
        return expectation(quadratic, name)(A, KEY, c)

    assert_close(*jax.jit(lambda c: (jax.grad(closed_over)(c), jax.grad(argument)(c)))(C), 1e-5)


# ------------------------------------------------------------------ inside of other programs


@pytest.mark.slow
def test_a_batch_is_mapped_and_is_a_loop_over_its_rows():
    rows, targets = jnp.stack([A, -A, 2 * A]), jnp.stack([C, C, -C])
    keys = jax.random.split(KEY, 3)
    draw = jax.value_and_grad(expectation(quadratic))
    together = jax.jit(jax.vmap(draw))(rows, keys, targets)
    for k in range(3):
        alone = jax.jit(draw)(rows[k], keys[k], targets[k])
        assert_close(jax.tree.map(lambda leaf, k=k: leaf[k], together), alone)


@pytest.mark.slow
def test_a_scan_over_keys_is_the_sum_of_its_steps():
    g = expectation(quadratic, "arm")
    keys = jax.random.split(KEY, 4)

    def scanned(a):
        return jax.lax.scan(lambda total, key: (total + g(a, key, C), None), 0.0, keys)[0]

    each = jax.jit(jax.vmap(jax.grad(g), (None, 0, None)))(A, keys, C)
    assert_close(jax.jit(jax.grad(scanned))(A), jnp.sum(each, axis=0), 1e-5)


def nested(a, w, key, one, other):
    """E of a product of x with E over y whose logits are of x; f closes over w and takes it."""
    key, inner = jax.random.split(key)

    def f(x, w):
        g = expectation(lambda y: jnp.sin(x @ w + y @ a) * y[0], other)
        return x[1] * g(w + a * x[0], inner)

    return jnp.cos(a[0]) * expectation(f, one)(jnp.tanh(a) * w, key, w)


def nested_by_hand(a, w):
    def f(x):
        return x[1] * enumerated(lambda y: jnp.sin(x @ w + y @ a) * y[0], w + a * x[0])

    return jnp.cos(a[0]) * enumerated(f, jnp.tanh(a) * w)


@pytest.mark.slow
def test_expectations_nest_and_live_inside_a_differentiated_program():
    a, w = jnp.array([0.5, -0.8]), jnp.array([1.2, 0.6])
    right = jax.value_and_grad(nested_by_hand, (0, 1))(a, w)

    def draw(one, other):
        return jax.value_and_grad(partial(nested, one=one, other=other), (0, 1))

    assert_close(jax.jit(draw("exact", "exact"))(a, w, KEY), right, 1e-5)
    keys = jax.random.split(KEY, 4000)
    for pair in (("disarm", "leg"), ("leg", "reinforce")):
        value, slopes = jax.jit(jax.vmap(draw(*pair), (None, None, 0)))(a, w, keys)
        assert_mean(value, right[0], rate=1e-7)
        for draws, mean in zip(slopes, right[1], strict=True):
            assert_mean(draws, mean, rate=1e-7)


@pytest.mark.slow
def test_a_binarize_inside_of_f_is_part_of_it():
    """E over x and y of x y s, s = +1 with probability F(x): y by its own straight-through."""

    def f(x, c, key):
        return jnp.sum(x * c * binarize(x + c, key=key, estimator="zgr"))

    def draw(key):
        outer, inner = jax.random.split(key)
        return jax.grad(expectation(f, "leg"), (0, 2))(A, outer, C, inner)

    slopes = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 4000))
    right = jax.grad(
        lambda a, c: enumerated(lambda x: jnp.sum(x * c * jnp.tanh((x + c) / 2)), a), (0, 1)
    )(A, C)
    for draws, mean in zip(slopes, right, strict=True):
        assert_mean(draws, mean, rate=1e-7)


@pytest.mark.slow
def test_arguments_that_are_no_real_arrays_pass_through():
    def f(x, mode, function, power, index, flag, key, w):
        assert (mode, power, flag) == ("sum", 2, None)
        return function(x**power * w["of"]) + x[index] + jax.random.normal(key)

    g = expectation(f, "exact")
    key = jax.random.key(2)
    args = ("sum", jnp.sum, 2, jnp.array(1), None, key, {"of": C, "unused": (1, "name")})
    right = jnp.sum(C) + jnp.tanh(A[1] / 2) + jax.random.normal(key)
    np.testing.assert_allclose(g(A, None, *args), right, rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(lambda w: g(A, None, *args[:-1], {"of": w}))(C), jnp.ones(3), rtol=1e-6
    )
    np.testing.assert_allclose(  # numbers of Python and arrays of numpy are real
        jax.grad(expectation(lambda x, s, t: s * t @ x, "exact"), (2, 3))(
            A, None, 2.0, np.ones(3, np.float32)
        )[0],
        jnp.sum(jnp.tanh(A / 2)),
        rtol=1e-5,
    )


# ------------------------------------------------------------------------------ black boxes


def outside(x):
    """A simulator that JAX cannot look into: the quadratic function in numpy."""
    x, c = np.asarray(x), np.asarray(C)
    linear = x @ c + (x**2) @ c**2
    return (linear + 1.5 * x[..., 0] * x[..., 1] * c[2] - x[..., 1] * x[..., 2]).astype(np.float32)


def simulated(x, method="expand_dims"):
    return jax.pure_callback(outside, jax.ShapeDtypeStruct((), x.dtype), x, vmap_method=method)


@pytest.mark.parametrize("name", quick(BLACK_BOX))
@pytest.mark.first(1)
def test_a_simulator_behind_a_callback_has_the_draws_of_the_function_that_it_computes(name):
    keys = jax.random.split(KEY, 3)

    @jax.jit
    def draws(keys):
        each = jax.vmap(jax.value_and_grad(expectation(simulated, name)), (None, 0))(A, keys)
        f = partial(quadratic, c=C)
        return each, jax.vmap(jax.value_and_grad(expectation(f, name)), (None, 0))(A, keys)

    assert_close(*draws(keys), 1e-4)


def comparing(x):
    return jnp.sum((x > 0) * C) + jnp.where(x[0] > x[1], 1.0, 0.0)


@pytest.mark.slow
def test_a_function_without_a_derivative_is_refused_by_every_estimator_that_needs_one():
    """At trace time, in one sentence; the others take it."""
    for name in SMOOTH:
        for f, why in ((simulated, "a function outside of JAX"), (comparing, "comparisons alone")):
            g = expectation(f, name)
            said = sentence(lambda g=g: jax.eval_shape(g, A, KEY))
            assert said.startswith(f"{name} needs the derivative of f in x") and why in said
    for name in BLACK_BOX:
        if name in QUICK:
            assert jax.eval_shape(expectation(comparing, name), A, KEY).shape == ()


@pytest.mark.slow
def test_a_constant_function_has_a_derivative_which_is_zero():
    for spec in ("zgr", "disarm"):
        value, slope = jax.value_and_grad(expectation(lambda x: 2.0, spec))(A, KEY)
        assert value == 2.0
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.slow
def test_a_callback_that_cannot_be_mapped_is_refused_with_the_remedy():
    f = partial(simulated, method=None)
    said = sentence(lambda: jax.jit(expectation(f, "arm"))(A, KEY))
    assert "without vmap_method" in said and "'sequential'" in said
    said = sentence(lambda: jax.grad(expectation(f, "arm", samples=3))(A, KEY))
    assert "without vmap_method" in said


@pytest.mark.slow
def test_a_callback_on_arguments_has_no_gradient_in_them_and_says_so():
    def f(x, c):
        like = jax.ShapeDtypeStruct((), x.dtype)
        call = lambda x, c: np.sum(x * c, axis=-1, dtype=np.float32)  # noqa: E731
        return jax.pure_callback(call, like, x, c, vmap_method="broadcast_all")

    g = expectation(f, "disarm")
    assert jax.grad(g)(A, KEY, C).shape == (3,)
    said = sentence(lambda: jax.grad(g, 2)(A, KEY, C))
    assert "no derivative in its arguments" in said and "stop_gradient" in said


def test_an_error_of_f_itself_is_left_as_it_is():
    def broken(x):
        raise ValueError("of the user")

    with pytest.raises(ValueError, match="of the user") as caught:
        expectation(broken)(A, KEY)
    assert not isinstance(caught.value, GradbenchError)


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda x: x, "f returns float32[3]; return one real number"),
        (lambda x: jnp.sum(x > 0), "f returns int32[]; return one real number"),
        (lambda x: jnp.sum(x) + 1j, "f returns complex64[]"),
        (lambda x: (jnp.sum(x), x), "f returns a tuple"),
        (lambda x: None, "f returns a NoneType"),
    ],
)
def test_an_f_that_is_no_real_number_is_refused(f, said):
    for spec in ("disarm", "zgr", "exact"):
        assert said in sentence(lambda spec=spec: expectation(f, spec)(A, KEY))


@pytest.mark.parametrize(
    ("logits", "said"),
    [
        (jnp.arange(3), "the logits are of type int32; give real numbers"),
        (A + 1j, "the logits are of type complex64; give real numbers"),
        ({"a": A, "n": 3}, "the logits are of type int32; give real numbers"),
        ((), "the logits are (), without an array"),
        (None, "the logits are None, without an array"),
        (A.at[1].set(jnp.nan), "the logits hold NaN"),
    ],
)
def test_logits_that_are_no_real_numbers_are_refused(logits, said):
    assert said in sentence(lambda: expectation(lambda x: 1.0)(logits, KEY))


@pytest.mark.slow
def test_known_logits_may_stand_inside_of_a_traced_function():
    g = expectation(jnp.sum, "arm")
    np.testing.assert_array_equal(jax.jit(lambda key: g(A, key))(KEY), g(A, KEY))
    bad = A * jnp.nan
    assert "NaN" in sentence(lambda: jax.jit(lambda key: g(bad, key))(KEY))


@pytest.mark.slow
def test_what_cannot_be_seen_to_be_nan_gives_nan():
    a = A.at[0].set(jnp.nan)
    for spec in ("disarm", "zgr", "exact"):
        value, slope = jax.jit(jax.value_and_grad(expectation(jnp.sum, spec)))(a, KEY)
        assert np.isnan(value) and np.isnan(slope[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"estimator": "disram"}, "unknown estimator 'disram'; did you mean 'disarm'?"),
        ({"estimator": 3}, "the estimator is 3; give a spec"),
        ({"estimator": "arms(samples=1)"}, "samples is 1; give a whole number"),
        ({"samples": 0}, "samples is 0; give a whole number of at least 1"),
        ({"samples": 1.5}, "samples is 1.5; give a whole number of at least 1"),
        ({"noise": "logit"}, "unknown noise 'logit'"),
        ({"coding": "bit"}, "coding is 'bit'; give 'signs' or 'bits'"),
    ],
)
def test_wrong_options_are_refused_when_it_is_made(options, said):
    assert said in sentence(lambda: expectation(jnp.sum, **options))


def test_estimators_that_need_a_network_are_refused_when_it_is_made():
    for name, entry in ESTIMATORS.items():
        if entry.needs:
            said = sentence(lambda name=name: expectation(jnp.sum, name))
            assert said.startswith(f"{name} needs {entry.needs}") and "estimators" in said
    assert "vimco" in sentence(lambda: expectation(jnp.sum, vimco)(A, KEY))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "there is no key"),
        (3, "the key is int"),
        (jax.random.split(jax.random.key(12)), "the key is an array of keys of shape (2,)"),
    ],
)
def test_what_is_no_single_key_is_refused(key, said):
    assert said in sentence(lambda: expectation(jnp.sum)(A, key))
    assert said in sentence(lambda: expectation(jnp.sum, psa, samples=2)(A, key))


def test_estimators_without_randomness_need_no_key():
    for spec in ("exact", "mean_field", "deterministic_straight_through"):
        assert expectation(jnp.sum, spec, samples=3)(A).shape == ()


@pytest.mark.slow
def test_one_key_for_two_expectations_of_a_traced_function_is_refused():
    g = expectation(jnp.sum)
    said = "got a key that expectation() has used already"
    assert said in sentence(lambda: jax.jit(lambda a, key: g(a, key) + g(-a, key))(A, KEY))
    both = lambda a, key: g(a, key) * jnp.sum(binarize(a, key=key))  # noqa: E731
    assert said in sentence(lambda: jax.grad(both)(A, KEY))
    split = lambda a, key: g(a, key) + g(a, jax.random.split(key)[0])  # noqa: E731
    for _ in range(2):
        jax.eval_shape(split, A, KEY)
        jax.grad(g)(A, KEY)
    np.testing.assert_array_equal(g(A, KEY), g(A, KEY))


@pytest.mark.parametrize("spec", ["disarm", "zgr"])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.first(1)
def test_the_key_of_an_expectation_is_not_for_what_f_holds(spec, samples):
    """The noise inside would be that outside: seen without any trace of the user's own too."""

    def own(x):
        return jnp.sum(x * binarize(A, key=KEY))

    def nested(x):
        return jnp.sum(x) * expectation(jnp.sum)(A, KEY)

    for f in (own, nested):
        said = sentence(lambda f=f: expectation(f, spec, samples)(A, KEY))
        assert "got a key that expectation() has used already" in said
        jax.eval_shape(expectation(f, spec, samples), A, jax.random.clone(KEY))


@pytest.mark.parametrize("estimator", ["zgr", "disarm"])
def test_an_error_of_f_itself_is_seen_as_it_is(estimator):
    def f(x):
        raise ValueError("the data of f are missing")

    with pytest.raises(ValueError, match="the data of f are missing") as error:
        expectation(f, estimator)(jnp.ones(3), jax.random.key(0))
    assert error.value.__cause__ is None

    @jax.custom_jvp
    def g(x):
        return jnp.sum(x)

    @g.defjvp
    def g_jvp(primals, tangents):
        raise ValueError("no rule of g")

    with pytest.raises(ValueError, match="no rule of g") as error:
        jax.grad(expectation(lambda x, t: g(t) + x.sum(), "disarm"), 2)(
            jnp.ones(3), jax.random.key(0), jnp.ones(2)
        )
    assert error.value.__cause__ is not error.value
