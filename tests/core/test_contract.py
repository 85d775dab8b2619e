"""The model contract: what `binary` sees, where gradients are put by hand, what noise is drawn."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, precision, random_batch, random_params, small

from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.errors import GradbenchError
from gradbench.core.run import (
    batch_size,
    draw_state,
    find_sites,
    flip,
    rollout,
    run_at_states,
    run_model,
    sampled,
)
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import arm, make_estimator, psa, reinforce, straight_through

pytestmark = pytest.mark.usefixtures("quick_compilation")
SIZES = (2, 3, 2, 1)
each_precision = pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])


def two_layers(params, example, binary):
    """A model as a user writes it: two layers of different noise and an objective of both."""
    x = binary(params[0]["weight"] @ example[0] + params[0]["bias"])
    y = binary(params[1]["weight"] @ x + params[1]["bias"], noise="normal")
    return jnp.sum(params[2]["weight"] @ y) * example[1] + params[2]["bias"][0] * x[0]


def example_of(batch):
    return jax.tree.map(lambda leaf: leaf[0], batch)


# ------------------------------------------------------------------------- visiting a model


@pytest.mark.usefixtures("float64")
def test_a_visit_returns_the_objective_the_states_the_pre_activations_and_the_sites():
    params, example = random_params(SIZES), example_of(random_batch(2))
    run = run_model(two_layers, params, example, lambda site, a: jnp.sign(a) * (site.index + 1))
    a0 = params[0]["weight"] @ example[0] + params[0]["bias"]
    a1 = params[1]["weight"] @ np.sign(a0) + params[1]["bias"]
    for found, right in zip((*run.a, *run.x), (a0, a1, np.sign(a0), 2 * np.sign(a1)), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-14)
    assert [site.index for site in run.sites] == [0, 1]
    assert [site.shape for site in run.sites] == [(3,), (2,)]
    assert [site.size for site in run.sites] == [3, 2]
    assert [site.noise.name for site in run.sites] == ["logistic", "normal"]
    f = np.sum(params[2]["weight"] @ run.x[1]) * example[1] + params[2]["bias"][0] * run.x[0][0]
    np.testing.assert_allclose(run.f, f, rtol=1e-14)


@pytest.mark.usefixtures("float64")
def test_given_states_replace_those_of_the_first_sites_only():
    params, example = random_params(SIZES), example_of(random_batch(2))
    given = np.array([1.0, -1.0, 1.0])
    asked = []

    def unit(site, a):
        asked.append(site.index)
        return -jnp.ones_like(a)

    run = run_model(two_layers, params, example, unit, (given,))
    assert asked == [1]
    np.testing.assert_array_equal(run.x[0], given)
    np.testing.assert_allclose(run.a[1], params[1]["weight"] @ given + params[1]["bias"])


def test_a_path_with_too_few_states_is_refused():
    with pytest.raises(GradbenchError, match="site 1 has no given state"):
        run_at_states(two_layers, random_params(SIZES), example_of(random_batch(2)), (jnp.ones(3),))


@pytest.mark.usefixtures("float64")
def test_states_are_plus_one_exactly_where_the_uniform_is_below_f():
    site = run_model(two_layers, random_params(SIZES), example_of(random_batch(2)), lambda s, a: a)
    a = jnp.array([0.0, 0.0, 1.0, -1e4, 1e4])
    u = jnp.array([0.4999, 0.5001, 0.73, 1e-300, 1 - 1e-16])
    np.testing.assert_array_equal(draw_state(site.sites[0], a, u), [1, -1, 1, -1, 1])


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_a_tail_keeps_the_states_below_and_samples_those_above_anew():
    params, example = random_params(SIZES), example_of(random_batch(2))
    u = (np.full(3, 0.6), np.array([0.2, 0.9]))
    run = sampled(two_layers, params, u, example)
    other = -run.x[0]
    right = sampled(two_layers, params, u, example, (other,)).f
    np.testing.assert_array_equal(rollout(two_layers, params, example, run, 0, other, u), right)
    last = run_at_states(two_layers, params, example, (run.x[0], -run.x[1])).f
    np.testing.assert_array_equal(rollout(two_layers, params, example, run, 1, -run.x[1], u), last)
    gradient = jax.grad(lambda p: rollout(two_layers, p, example, run, 0, other, u))(params)
    np.testing.assert_array_equal(flat(gradient), 0)


@pytest.mark.slow
def test_a_flip_changes_one_unit_in_any_shape():
    x = jnp.array([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
    for i in range(x.size):
        np.testing.assert_array_equal(np.flatnonzero(flip(x, i) != x), [i])
    np.testing.assert_array_equal(flip(jnp.array(1.0), 0), -1)


# ------------------------------------------------------------------- gradients put by hand


@pytest.mark.usefixtures("float64")
def test_with_slope_keeps_the_value_and_has_the_slope_in_every_mode_of_differentiation():
    x, a, c = jnp.array([1.0, -1.0]), jnp.array([0.3, 0.7]), jnp.array([2.0, 3.0])

    def f(a):
        return surrogate_gradient(lambda x, a, c: c * x * a**2, x, a, c)

    np.testing.assert_array_equal(f(a), x)
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(f))(a), np.diag(c * x * a**2))
        for outer in (jax.jacfwd, jax.jacrev):
            second = jax.jit(outer(lambda a, jacobian=jacobian: jnp.sum(jacobian(f)(a))))(a)
            np.testing.assert_allclose(second, 2 * c * x * a)


@pytest.mark.usefixtures("float64")
def test_with_slope_gives_no_gradient_to_its_value_and_its_arguments():
    one = jnp.array([1.0])
    for argument in (0, 2):
        gradient = jax.grad(
            lambda *args: surrogate_gradient(lambda x, a, c: x * a * c, *args)[0], argnums=argument
        )(one, one, one)
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_credit_is_zero_and_has_its_signal_as_gradient_in_every_mode_of_differentiation():
    a, w = jnp.array([0.3, 0.7]), jnp.array([2.0, 3.0])

    def f(a, w):
        return gradient_term(w**2 * a, a)

    assert f(a, w) == 0
    for jacobian in (jax.jacfwd, jax.jacrev):
        np.testing.assert_allclose(jax.jit(jacobian(f))(a, w), w**2 * a)
        np.testing.assert_array_equal(jax.jit(jacobian(f, argnums=1))(a, w), 0)
        for outer in (jax.jacfwd, jax.jacrev):
            np.testing.assert_allclose(jax.jit(outer(jacobian(f)))(a, w), np.diag(w**2))
            cross = jax.jit(outer(jacobian(f), argnums=1))(a, w)
            np.testing.assert_allclose(cross, np.diag(2 * w * a))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("inner", [jax.jit, lambda f: f], ids=["jit", "no jit"])
@pytest.mark.first(1)
def test_both_can_be_differentiated_twice_through_vmap_and_jit(inner):
    a, x, u = jnp.array([0.3, 0.7]), jnp.array([1.0, -1.0]), jnp.array([1.0, 2.0, 3.0])

    def credited(a, c):
        return jnp.sum(jax.vmap(lambda u: gradient_term(u * c * jnp.ones(2), a))(u))

    def sloped(a, c):
        row = jax.vmap(
            lambda u: jnp.sum(surrogate_gradient(lambda x, a, c: c + 0 * x, x, a * u, c))
        )
        return jnp.sum(row(u))

    for f in (credited, sloped):
        gradient = inner(jax.grad(f))  # 6 c in both coordinates
        np.testing.assert_allclose(gradient(a, 0.5), [3, 3])
        np.testing.assert_allclose(jax.grad(lambda c, g=gradient: jnp.sum(g(a, c) ** 2))(0.5), 72)


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_the_squared_norm_of_a_draw_can_be_differentiated():
    """What estimators with a learned control variate do: d |g|^2 / d c for g = (f - c) score."""
    network, params, batch = small(SIZES)
    params = jax.tree.map(jnp.asarray, params)

    def loss(c):
        def example_loss(params, u, example):
            run = sampled(network, params, u[0], example)
            scores = [s.noise.score(x, a) for s, x, a in zip(run.sites, run.x, run.a, strict=True)]
            return run.f + sum(
                gradient_term((run.f - c) * score, a)
                for score, a in zip(scores, run.a, strict=True)
            )

        return surrogate_loss(network, example_loss)

    @jax.jit
    def hidden(c):
        g = jax.grad(loss(c))(params, jax.random.key(0), batch)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(g[:-1])])

    slope = jax.grad(lambda c: jnp.sum(hidden(c) ** 2))(0.3)
    difference = (jnp.sum(hidden(0.8) ** 2) - jnp.sum(hidden(-0.2) ** 2)) / 1.0  # a parabola in c
    assert abs(slope) > 1e-3
    np.testing.assert_allclose(slope, difference, rtol=1e-10)


# -------------------------------------------------------------------------- finding sites


def test_sites_are_found_without_running_the_model():
    sites = find_sites(two_layers, random_params(SIZES), example_of(random_batch(2)))
    assert [(s.index, s.shape, s.noise.name) for s in sites] == [
        (0, (3,), "logistic"),
        (1, (2,), "normal"),
    ]


def test_a_state_that_nobody_reads_is_a_site_all_the_same():
    def model(params, example, binary):
        binary(params[0])
        return jnp.sum(params[1])

    assert len(find_sites(model, (jnp.ones(3), jnp.ones(2)), ())) == 1


def inside_jit(f, a):
    return jax.jit(f)(a)


def inside_vmap(f, a):
    return jax.vmap(f)(a)


def inside_scan(f, a):
    return jax.lax.scan(lambda carry, row: (carry, f(row)), 0, a)[1]


def inside_cond(f, a):
    return jax.lax.cond(a[0] > 0, f, lambda a: a, a)


def inside_while(f, a):
    return jax.lax.while_loop(lambda a: jnp.sum(a) < 0, f, a)


def inside_grad(f, a):
    return jax.grad(lambda a: jnp.sum(f(a)))(a)


def inside_jvp(f, a):
    return jax.jvp(f, (a,), (a,))[1]


def inside_checkpoint(f, a):
    return jax.checkpoint(f)(a)


def inside_map(f, a):
    return jax.lax.map(f, a)


@pytest.mark.parametrize(
    "wrap",
    [
        inside_jit,
        inside_vmap,
        inside_scan,
        inside_cond,
        inside_while,
        inside_grad,
        inside_jvp,
        inside_checkpoint,
        inside_map,
    ],
)
def test_binary_inside_a_transformation_of_the_users_own_is_refused_in_one_sentence(wrap):
    def model(params, example, binary):
        x = binary(params[0])  # a proper site beside it does not hide the wrong one
        return jnp.sum(wrap(binary, params[1] * jnp.sum(x)))

    params = (jnp.ones(3), jnp.ones(3))
    for call in (
        lambda: jax.grad(reinforce(model))(params, jax.random.key(0), jnp.zeros((2, 1))),
        lambda: jax.jit(psa(model))(params, jax.random.key(0), jnp.zeros((2, 1))),
    ):
        with pytest.raises(
            GradbenchError, match=r"calls binary\(\) inside jit, vmap, scan"
        ) as caught:
            call()
        assert str(caught.value).count(". ") == 0


def test_transformations_that_do_not_contain_binary_are_welcome():
    def model(params, example, binary):
        x = binary(jax.jit(lambda w: w * 2)(params[0]))
        return jnp.sum(jax.vmap(lambda t: t * 3)(x)) + jax.lax.fori_loop(
            0, 2, lambda _, t: t + 1, 0.0
        )

    assert len(find_sites(model, (jnp.ones(3),), ())) == 1


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [
        (lambda x: x, r"of shape \(3,\) and type float32"),
        (lambda x: jnp.sum(x) * 1j, r"of shape \(\) and type complex64"),
        (lambda x: jnp.sum(x) > 0, r"of shape \(\) and type bool"),
        (lambda x: [jnp.sum(x), x], "of type list"),
        (lambda x: None, "of type NoneType"),
    ],
)
def test_an_objective_that_is_not_a_real_number_is_refused(objective, sentence):
    loss = reinforce(lambda params, example, binary: objective(binary(params[0])))
    with pytest.raises(GradbenchError, match=f"objective {sentence}; return one real number"):
        loss((jnp.ones(3),), jax.random.key(0), jnp.zeros((2, 1)))


def test_a_model_that_never_calls_binary_is_refused():
    loss = reinforce(lambda params, example, binary: jnp.sum(params[0]))
    with pytest.raises(GradbenchError, match=r"never calls binary\(\); call it once"):
        loss((jnp.ones(3),), jax.random.key(0), jnp.zeros((2, 1)))


def test_an_unknown_noise_of_a_model_is_refused():
    loss = reinforce(lambda params, example, binary: jnp.sum(binary(params[0], noise="normale")))
    with pytest.raises(GradbenchError, match="did you mean 'normal'"):
        loss((jnp.ones(3),), jax.random.key(0), jnp.zeros((2, 1)))


# -------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((0, 2)),
        3.0,
        (np.zeros((3, 2)), np.zeros(4)),
        (np.zeros((3, 2)), 1.0),
    ],
    ids=["no example", "a number", "lengths", "one number"],
)
def test_a_batch_without_a_common_number_of_examples_is_refused(batch):
    with pytest.raises(GradbenchError, match="same number of examples, at least one"):
        batch_size(batch)


def test_the_batch_size_is_the_length_of_the_first_axis_of_any_tree():
    assert batch_size({"x": np.zeros((5, 2, 2)), "y": [np.zeros(5)]}) == 5


# ------------------------------------------------------------------- the lifted contract


def watcher(params, example, binary):
    """An objective whose gradient in its parameters shows the states of both layers."""
    x = binary(params[0] * example)
    y = binary(params[1] * jnp.sum(x))
    return params[2] @ jnp.concatenate([x, y])


@pytest.mark.slow
def test_the_same_key_gives_the_same_states_in_all_estimators():
    params = (jnp.array([0.3, -0.2, 0.8]), jnp.array([0.4, -0.1]), jnp.ones(5))
    names = ("reinforce", "arm", "straight_through", "psa")

    @jax.jit
    def states(key):
        # With one example the sign is the state: PSA shrinks the last layer, but turns no sign.
        draws = [
            jax.grad(make_estimator(name, watcher))(params, key, jnp.ones(1)) for name in names
        ]
        return jnp.stack([jnp.sign(g[2]) for g in draws])

    seen = {
        tuple(np.asarray(states(key)).ravel()) for key in jax.random.split(jax.random.key(1), 8)
    }
    assert len(seen) > 3
    for rows in seen:
        np.testing.assert_array_equal(np.reshape(rows, (4, 5)), [rows[:5]] * 4)


def test_examples_of_a_batch_have_their_own_noise():
    loss = reinforce(lambda params, example, binary: params[0] * binary(example) * 3)
    batch = jnp.zeros(64)
    value = jax.jit(loss)((jnp.float32(1),), jax.random.key(0), batch)
    assert -3 < value < 3  # the mean of 64 signs; shared noise gives -3 or 3


@each_precision
@pytest.mark.parametrize("name", ["reinforce", "arm", "straight_through", "psa", "exact"])
@pytest.mark.slow
def test_gradients_have_the_type_of_the_parameters(name, double):
    network, params, batch = small(SIZES)
    with precision(double):
        params = jax.tree.map(jnp.asarray, params)
        loss = make_estimator(name, network)
        value, g = jax.jit(jax.value_and_grad(loss))(params, jax.random.key(0), batch)
    expected = np.float64 if double else np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves((value, g))} == {np.dtype(expected)}
    assert jax.tree.structure(g) == jax.tree.structure(params)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "name", ["reinforce", "arm", "straight_through", "psa", "exact", "concrete"]
)
@pytest.mark.parametrize("double", [0, 1], ids=["double inputs", "double targets"])
@pytest.mark.slow
def test_parameters_in_float32_and_data_in_float64_mix(name, double):
    params = jax.tree.map(np.float32, random_params(SIZES))
    batch = list(map(np.float32, random_batch(2)))
    batch[double] = batch[double].astype(float)
    draw = jax.jit(jax.grad(make_estimator(name, two_layers)))
    g = draw(params, jax.random.key(0), tuple(batch))
    assert {leaf.dtype for leaf in jax.tree.leaves(g)} == {np.dtype(np.float32)}
    assert np.all(np.isfinite(flat(g)))


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_losses_compose_with_jit_vmap_and_grad():
    network, params, batch = small(SIZES)
    loss = arm(network)
    keys = jax.random.split(jax.random.key(2), 3)
    draws = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))(params, keys, batch)
    one = jax.jit(jax.grad(loss))
    for i, key in enumerate(keys):
        alone = flat(one(params, key, batch))
        np.testing.assert_allclose(
            flat(jax.tree.map(lambda g, i=i: g[i], draws)), alone, atol=1e-15
        )
    penalty = partial(jax.tree.reduce, lambda s, w: s + jnp.sum(w**2), initializer=0.0)
    total = jax.grad(lambda p: loss(p, keys[0], batch) + penalty(p))
    np.testing.assert_allclose(
        flat(jax.jit(total)(params)), flat(one(params, keys[0], batch)) + 2 * flat(params)
    )


@pytest.mark.usefixtures("float64")
@pytest.mark.slow
def test_forward_mode_gives_the_same_draw_as_reverse_mode():
    network, params, batch = small(SIZES)
    params = jax.tree.map(jnp.asarray, params)
    key = jax.random.key(0)
    direction = jax.tree.map(jnp.cos, params)

    @jax.jit
    def both(params):
        losses = [
            partial(make(network), key=key, batch=batch) for make in (arm, psa, straight_through)
        ]
        pairs = [(jax.grad(f)(params), jax.jvp(f, (params,), (direction,))[1]) for f in losses]
        return pairs

    for reverse, forward in both(params):
        np.testing.assert_allclose(forward, flat(reverse) @ flat(direction), rtol=1e-13)


@pytest.mark.slow
def test_raw_and_typed_keys_give_the_same_draw():
    network, params, batch = small(SIZES)
    loss = jax.jit(reinforce(network))
    typed, raw = jax.random.key(7), jax.random.PRNGKey(7)
    assert loss(params, typed, batch) == loss(params, raw, batch)


@pytest.mark.parametrize("a", [0, jnp.arange(3), jnp.ones(2, complex), jnp.ones(2, bool)])
def test_pre_activations_that_are_not_real_numbers_are_refused(a):
    with pytest.raises(GradbenchError, match=r"binary\(\) got pre-activations of type .*; give re"):
        find_sites(lambda params, example, binary: jnp.sum(binary(a)), (), ())
