"""Evolution strategies, SPSA and forward gradients, I-MLE, and decoupled straight-through."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import (
    EXACT,
    SEEN,
    exact_bias,
    example_draws,
    random_uniforms,
    saturated_draws,
    skipping_problem,
    tiny,
)
from conftest import NOISES, SCIPY, assert_mean, flat, small
from four_bits import BATCH, STATES, A, exact, f, gradient, model, probability
from scipy import stats

from gradbench.core.errors import GradbenchError
from gradbench.core.run import run_model
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    ESTIMATORS,
    check_spec,
    decoupled_st,
    evolution_strategies,
    forward_gradient,
    imle,
    make_estimator,
    spsa,
    straight_through,
)
from gradbench.exact.moments import moments, moments_work

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

PARAMS = (A,)


def slopes():
    """Return df/dx of the function of four bits at all states, per unit of x."""
    return np.asarray(jax.vmap(jax.grad(lambda b: f(b)))(STATES)) / 2


def draws_of(spec, count=100_000, seed=0):
    loss, keys = make_estimator(spec, model), jax.random.split(jax.random.key(seed), count)
    draw = jax.jit(jax.vmap(lambda key: jax.grad(loss)(PARAMS, key, BATCH)[0]))
    return np.asarray(draw(keys))


# ------------------------------------------------------------------ evolution strategies, SPSA


def smoothed(s, direction):
    """Return the mean of both rules on four bits: of e at -1 and +1, or at points of Gauss."""
    if direction == "rademacher":
        nodes, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        nodes, weights = np.polynomial.hermite_e.hermegauss(16)
        weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(*[nodes] * 4, indexing="ij"), -1).reshape(-1, 4)
    volume = np.prod(np.stack(np.meshgrid(*[weights] * 4, indexing="ij"), -1).reshape(-1, 4), 1)
    values = np.array([float(f(b)) for b in STATES])

    def loss(a):
        return probability(STATES[:, None], a).T @ values

    return (volume * (loss(A + s * grid) - loss(A - s * grid)) / (2 * s)) @ grid


@pytest.mark.slow
def test_spsa_has_the_mean_of_its_formula_and_a_bias_of_the_order_of_the_squared_scale():
    biases = []
    for s in (0.5, 0.25, 0.125):
        mean, _ = exact(f"spsa(scale={s})")
        np.testing.assert_allclose(mean, smoothed(s, "rademacher"), rtol=1e-9)
        biases.append(np.linalg.norm(mean - gradient()) / np.linalg.norm(gradient()))
    assert 0.01 < biases[0] < 0.2
    np.testing.assert_allclose(np.array(biases[:-1]) / biases[1:], 4, rtol=0.15)


@pytest.mark.slow
def test_evolution_strategies_have_the_mean_of_the_smoothed_loss():
    """A z-test of 100,000 draws; the bias at this scale would be seen, and so would a factor 2."""
    right = smoothed(0.5, "normal")
    draws = draws_of("evolution_strategies(scale=0.5)")
    assert_mean(draws, right, 1e-7)
    assert np.linalg.norm(right) < 2 * np.linalg.norm(gradient())
    with pytest.raises(AssertionError):
        assert_mean(draws, 2 * right, 1e-7)
    # The figure of the collection is 6.5 times the variance of BitFlip-1, and more.
    assert draws.var(0).sum() > 3 * exact("bitflip")[1]


@pytest.mark.parametrize(
    ("make", "entry"), [(spsa, "rademacher"), (evolution_strategies, "normal")]
)
@pytest.mark.slow
def test_a_draw_is_the_symmetric_difference_along_the_direction_on_common_uniforms(make, entry):
    s, u = 0.7, np.random.default_rng(3).uniform(size=(2, 30, 4))
    e = np.sign(u[1] - 0.5) if entry == "rademacher" else stats.norm.ppf(u[1])
    up, down = (u[0] < stats.logistic.cdf(A + sign * s * e) for sign in (1, -1))
    rate = np.array([float(f(1.0 * a) - f(1.0 * b)) for a, b in zip(up, down, strict=True)]) / (
        2 * s
    )
    rows = tuple((jnp.asarray(v),) for v in u)
    (found,) = example_draws([make(model, scale=s)], PARAMS, BATCH[0], rows)
    np.testing.assert_allclose(found, rate[:, None] * e, rtol=1e-9, atol=1e-12)
    value = jax.vmap(lambda u: make(model, scale=s).example_loss(PARAMS, u, BATCH[0]))(rows)
    right = [float(f(1.0 * a) + f(1.0 * b)) / 2 for a, b in zip(up, down, strict=True)]
    np.testing.assert_allclose(value, right, rtol=1e-10)


@pytest.mark.slow
def test_the_bias_of_spsa_falls_as_the_squared_scale_in_deep_networks_too():
    """In every layer, the objective's own parameters and the value, on two kinds of models."""
    for network, *at in (tiny((1, 2, 1, 1), ("logistic", "normal")), skipping_problem()):
        (large, v), (small_, w) = (exact_bias(spsa(network, scale=s), *at) for s in (0.1, 0.05))
        assert np.all(large > EXACT)
        np.testing.assert_allclose(large / small_, 4, rtol=0.1)
        np.testing.assert_allclose(v / w, 4, rtol=0.1)


def one_sided(model, s=0.5):
    """The planted bug: the pre-activations of the second branch are not moved."""

    def example_loss(params, u, example):
        from gradbench.core.autodiff import gradient_term
        from gradbench.core.run import draw_state

        e = [jnp.where(v < 0.5, -1.0, 1.0) for v in u[1]]
        up, down = (
            run_model(
                model,
                params,
                example,
                lambda k, a, c=c: draw_state(k, a + c * s * e[k.index], u[0][k.index]),
            )
            for c in (1, 0)
        )
        rate, loss = (up.f - down.f) / (2 * s), (up.f + down.f) / 2
        for own, a in zip(e, up.a, strict=True):
            loss += gradient_term(rate * own, a)
        return loss

    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=spsa(model, scale=s).breakpoints,
    )


@pytest.mark.slow
def test_half_of_the_difference_is_seen():
    mean = np.asarray(moments(one_sided(model), PARAMS, BATCH).mean[0])
    assert np.linalg.norm(mean - smoothed(0.5, "rademacher")) > 0.3 * np.linalg.norm(mean)


# --------------------------------------------------------------------------- forward gradients


@pytest.mark.parametrize("direction", ["normal", "rademacher"])
@pytest.mark.slow
def test_a_forward_gradient_is_a_projection_of_straight_through_draw_by_draw(direction):
    network, params, batch = small((2, 3, 2, 1), ("logistic", "normal"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = random_uniforms(20, 2, ((3,), (2,)))
    own = run_offsets(network)
    forward, st = forward_gradient(network, direction=direction), straight_through(network)

    @jax.jit
    def both(u):
        def one(u):
            g = jax.grad(lambda z: own(params, u, example, z))([jnp.zeros(3), jnp.zeros(2)])
            return jax.grad(forward.example_loss)(params, u, example), g

        return jax.vmap(one)(u)

    found, g = both(u)
    e = [
        np.where(v < 0.5, -1, 1) if direction == "rademacher" else stats.norm.ppf(v)
        for (v,) in ((np.asarray(u[1][0]),), (np.asarray(u[1][1]),))
    ]
    rate = sum(np.sum(np.asarray(a) * b, axis=1) for a, b in zip(g, e, strict=True))
    for k in range(2):  # the gradient in the biases is that in the pre-activations
        np.testing.assert_allclose(found[k]["bias"], rate[:, None] * e[k], rtol=1e-9, atol=1e-12)
    plain = example_draws([st], params, example, u)[0]
    biases = np.concatenate([np.asarray(a) for a in g], axis=1)
    assert np.all(np.isin(np.round(biases[:, :3], 9), np.round(plain, 9)))


def run_offsets(network):
    """Straight-through as a function of offsets of the pre-activations."""
    from gradbench.core.autodiff import surrogate_gradient
    from gradbench.core.run import draw_state

    def loss(params, u, example, offsets):
        def unit(site, a):
            x = draw_state(site, a, u[0][site.index])
            moved = a + offsets[site.index]
            return surrogate_gradient(lambda x, a: 2 * site.noise.pdf(a), x, moved)

        return run_model(network, params, example, unit).f

    return loss


@pytest.mark.slow
def test_the_mean_of_forward_gradients_is_that_of_straight_through_and_their_variance_larger():
    (mean, variance), (right, least) = (
        exact("forward_gradient(direction='rademacher')"),
        exact("straight_through"),
    )
    np.testing.assert_allclose(mean, right, rtol=1e-10)
    assert variance > 3 * least
    assert_mean(draws_of("forward_gradient"), right, 1e-7)


# --------------------------------------------------------------------------------------- I-MLE


def literal_imle(s):
    """Return the mean on four bits: F of the moved pre-activations where the state is sampled."""
    p, x = stats.logistic.cdf(A), 2 * STATES - 1
    moved = stats.logistic.cdf(A - s * slopes())  # P(u < F(a - s f'))
    # Given x = +1 u is below p, so that the target is -1 where u is above `moved`; and so for -1.
    up = np.clip(1 - moved / p, 0, 1)
    down = np.clip((moved - p) / (1 - p), 0, 1)
    return probability(STATES) @ (np.where(x > 0, up, -down) * 2 / s)


@pytest.mark.parametrize("s", [0.3, 1.0, 4.0])
@pytest.mark.slow
def test_imle_has_the_mean_of_its_rule(s):
    draws = draws_of(f"imle(step={s})")
    assert_mean(draws, literal_imle(s), 1e-7)
    assert np.all((draws == 0) | (np.abs(np.abs(draws) - 2 / s) < 1e-9))


@pytest.mark.slow
def test_imle_tends_to_a_one_sided_slope_which_is_right_where_units_do_not_see_themselves():
    """f' counts at +1 where it is positive and at -1 where it is negative."""
    x, d = 2 * STATES - 1, slopes()
    side = np.where(x > 0, np.maximum(d, 0), np.minimum(d, 0))
    rest = probability(STATES)[:, None] / np.where(
        x > 0, stats.logistic.cdf(A), stats.logistic.sf(A)
    )
    limit = 2 * stats.logistic.pdf(A) * np.sum(rest * side, axis=0)
    errors = [np.linalg.norm(literal_imle(s) - limit) for s in (1e-2, 1e-3, 1e-4)]
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 10, rtol=0.1)
    bias = np.linalg.norm(literal_imle(1.0) - gradient()) / np.linalg.norm(gradient())
    assert 0.1 < bias < 1  # of the order of magnitude of the collection's .30


@pytest.mark.parametrize("noise", ["normal", "uniform"])
def test_imle_is_exact_on_linear_objectives_of_one_layer_as_its_step_goes_to_zero(noise):
    """Its mean over a grid of uniforms is a difference quotient of 2F, whose limit is 2F' c."""
    c, a, count = np.array([0.5, -1.5]), np.array([0.3, -0.4]), 40_000

    def linear(params, example, binary):
        return jnp.asarray(c) @ binary(params[0], noise=noise)

    u = (np.arange(count) + 0.5) / count
    rows = ((jnp.stack([jnp.asarray(u)] * 2, axis=1),),)
    cdf = SCIPY[noise].cdf
    for s in (1.0, 0.05):
        (draws,) = example_draws([imle(linear, step=s)], (jnp.asarray(a),), BATCH[0], rows)
        np.testing.assert_allclose(draws.mean(0), 2 * (cdf(a) - cdf(a - s * c)) / s, rtol=1e-2)
    np.testing.assert_allclose(draws.mean(0), 2 * SCIPY[noise].pdf(a) * c, rtol=0.03)


@pytest.mark.slow
def test_imle_goes_through_two_layers_by_what_arrives_at_each():
    """A chain of one unit each: the lower one gets w times the draw of the upper one."""
    network, params, batch = small((1, 1, 1, 1), "logistic")
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u, s = random_uniforms(40, 1, ((1,), (1,))), 5.0
    ((found,),) = [example_draws([imle(network, step=s)], params, example, u)]
    v = [np.asarray(w)[:, 0] for w in u[0]]
    x, a = [], float(params[0]["weight"][0, 0] * example[0][0] + params[0]["bias"][0])
    pre = [np.full(40, a)]
    x.append(np.where(v[0] < stats.logistic.cdf(a), 1.0, -1.0))
    pre.append(params[1]["weight"][0, 0] * x[0] + params[1]["bias"][0])
    x.append(np.where(v[1] < stats.logistic.cdf(pre[1]), 1.0, -1.0))
    g = np.asarray(
        jax.vmap(jax.grad(lambda y: network.objective(params[2], y, example[1])))(
            jnp.asarray(x[1])[:, None]
        )
    )[:, 0]
    top = (x[1] - np.where(v[1] < stats.logistic.cdf(pre[1] - s * g), 1, -1)) / s
    g = params[1]["weight"][0, 0] * top
    low = (x[0] - np.where(v[0] < stats.logistic.cdf(pre[0] - s * g), 1, -1)) / s
    assert np.any(low != 0) and np.any(top != 0)
    draw = jax.jit(jax.vmap(jax.grad(imle(network, step=s).example_loss), (None, 0, None)))
    found = draw(params, u, example)
    np.testing.assert_allclose(found[0]["bias"][:, 0], low, rtol=1e-12)
    np.testing.assert_allclose(found[1]["bias"][:, 0], top, rtol=1e-12)
    np.testing.assert_allclose(found[1]["weight"][:, 0, 0], top * x[0], rtol=1e-12)


@pytest.mark.slow
def test_the_draws_of_imle_do_not_depend_on_the_size_of_the_batch_or_the_weight_of_the_loss():
    network, params, batch = small((2, 2, 1))
    loss, key = imle(network, step=2.0), jax.random.key(1)
    plain = flat(jax.grad(loss)(params, key, batch))
    scaled = flat(jax.grad(lambda p: 3 * loss(p, key, batch))(params))
    np.testing.assert_allclose(scaled, 3 * plain, rtol=1e-12)
    assert np.linalg.norm(plain) > 0


# ---------------------------------------------------------------- decoupled straight-through


@pytest.mark.parametrize(
    ("own", "other"),
    [
        (decoupled_st, straight_through),
        (partial(decoupled_st, backward=0.5), partial(straight_through, slope=2.0)),
    ],
)
@pytest.mark.first(1)
def test_at_the_temperature_of_the_model_it_is_straight_through_with_a_slope(own, other):
    network, params, batch = small((2, 3, 2, 1), ("logistic", "laplace"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    u = random_uniforms(10, 1, ((3,), (2,)))
    one, two = example_draws([own(network), other(network)], params, example, u)
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize(("hot", "cold"), [(0.5, 2.0), (3.0, 0.7)])
@pytest.mark.first(1)
def test_its_states_and_slopes_have_their_own_temperatures(hot, cold):
    """The exact mean: of states of probability F(l / t_f), of slopes 2F'(l / t_b) / t_b."""
    mean, _ = exact(f"decoupled_st(forward={hot}, backward={cold})")
    slope = 2 * stats.logistic.pdf(A / cold) / cold
    np.testing.assert_allclose(mean, slope * (probability(STATES, A / hot) @ slopes()), rtol=1e-10)


def test_scaled_logits_make_it_the_straight_through_of_a_slope():
    """Of a model that divides by t_f itself, as the paper's does: m = t_f / t_b, for states."""
    hot, cold = 0.5, 2.0

    def divided(params, example, binary):
        return model((params[0] / hot,), example, binary)

    u = random_uniforms(20, 1, ((4,),))
    losses = [decoupled_st(model, forward=hot, backward=cold)]
    losses += [straight_through(divided, slope=hot / cold)]
    one, two = example_draws(losses, PARAMS, BATCH[0], u)
    np.testing.assert_allclose(one, two, rtol=1e-12)


# ---------------------------------------------------------------------------- what surrounds them

ALL = (evolution_strategies, spsa, forward_gradient, imle, decoupled_st)


@pytest.mark.parametrize("make", ALL)
@pytest.mark.first(1)
@pytest.mark.slow
def test_saturated_units_leave_draws_finite_in_float32(make):
    found = saturated_draws(make, NOISES if make is not imle else ("logistic", "uniform"))
    assert np.all(np.isfinite(found)) and found.dtype == np.float32
    if make in (imle, forward_gradient, decoupled_st):  # the others see whole evaluations
        zero = found[..., :2] if make is not forward_gradient else found[:, :, :0]
        assert np.all(zero == 0) or np.max(np.abs(zero)) < 1e-12
    assert np.any(np.abs(found[..., 2]) > SEEN)


def test_those_that_jump_on_no_grid_say_so_and_the_others_have_exact_moments():
    for make in (evolution_strategies, imle):
        assert moments_work(make(model), PARAMS, BATCH) == np.inf
        with pytest.raises(GradbenchError, match=r"are not known, since .*; measure draws of it"):
            moments(make(model), PARAMS, BATCH)
    for spec in ("spsa", "decoupled_st(forward=2)", "forward_gradient(direction='rademacher')"):
        assert moments_work(make_estimator(spec, model), PARAMS, BATCH) < np.inf


def test_what_the_registry_says():
    for name in ("evolution_strategies", "spsa"):
        entry = ESTIMATORS[name]
        assert entry.claim() == "biased" and not entry.needs_derivative()
        assert not entry.estimates_value() and str(entry.price().at(L=1)) == "2 * 1"
    assert ESTIMATORS["forward_gradient"].claim() == "multilinear"
    assert ESTIMATORS["imle"].claim() == "biased"
    assert ESTIMATORS["decoupled_st"].claim() == "multilinear"
    assert ESTIMATORS["decoupled_st"].claim(backward=2) == "biased"
    assert ESTIMATORS["decoupled_st"].estimates_value(backward=2)
    assert not ESTIMATORS["decoupled_st"].estimates_value(forward=2)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("evolution_strategies(scale=0)", "scale is 0; give a positive number"),
        ("spsa(scale='small')", "scale is 'small'; give a positive number"),
        ("imle(step=-1)", "step is -1; give a positive number"),
        ("forward_gradient(direction='gaussian')", "direction is 'gaussian'; choose one of"),
        ("decoupled_st(forward=0)", "forward is 0; give a positive number"),
        ("decoupled_st(backward=-1)", "backward is -1; give a positive number"),
        ("reinmax(alpha=0)", "alpha is 0; give a positive number"),
    ],
)
def test_hyperparameters_that_are_none_are_refused(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert str(caught.value).startswith(sentence)
