"""Flip differences and stochastic triples: unbiased by enumeration, one number in one layer."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bias import (
    EXACT,
    SEEN,
    assert_finite_and_zero_where_saturated,
    assert_unbiased,
    exact_bias,
    example_draws,
    random_uniforms,
    skipping_problem,
    tiny,
)
from bugs import kept_descendants
from conftest import NOISES, flat, relative, small

from gradbench.core.autodiff import gradient_term
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import get_noise
from gradbench.core.run import flip, run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import (
    leg,
    measure_valued,
    path_integral,
    ram,
    random_flip,
    stochastic_triples,
)
from gradbench.estimators.choice import choose
from gradbench.exact.enumeration import brute_force

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")

ONE, TWO, CHAIN = (1, 2, 1), (1, 2, 1, 1), (1, 1, 1, 1)
pruned_triples = partial(stochastic_triples, pruned=True)


# ------------------------------------------------------------------------ unbiased, exactly


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "sizes", "noise"),
    [
        (leg, (2, 2, 2, 1, 1), ("laplace", "triangular", "logistic")),
        (ram, TWO, ("normal", "uniform")),
        (measure_valued, CHAIN, ("uniform", "laplace")),
        (partial(random_flip, descendants="independent"), TWO, ("triangular", "normal")),
        (partial(pruned_triples, descendants="independent"), TWO, ("logistic", "triangular")),
        (partial(stochastic_triples, side="two"), CHAIN, ("normal", "logistic")),
    ],
)
def test_the_family_is_unbiased_at_every_depth_and_noise(make, sizes, noise):
    network, *at = tiny(sizes, noise)
    assert_unbiased(make(network), *at)


@pytest.mark.parametrize(
    "make",
    [
        leg,
        partial(ram, descendants="antithetic"),
        pytest.param(partial(pruned_triples, side="two"), marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_the_family_is_unbiased_on_a_hand_written_model(make):
    model, *at = skipping_problem()
    assert_unbiased(make(model), *at)


# ---------------------------------------------------------------------------- planted bugs


@pytest.mark.slow
def test_a_flip_difference_with_kept_descendants_is_seen_to_be_biased_below_the_last_layer():
    network, *at = tiny((2, 2, 2, 1, 1))
    bias, value = exact_bias(kept_descendants(network), *at)
    assert np.all(bias[:2] > 0.9)  # the objective does not see those layers
    assert np.all(bias[2:] < EXACT)
    assert value < EXACT


def other_path(model):
    """RAM whose flipped branch has shared noise, but starts from another path's states below."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        below = sampled(model, params, u[1], example)
        loss = run.f
        for k, (site, a, x) in enumerate(zip(run.sites, run.a, run.x, strict=True)):

            def flipped(i, k=k, x=x):
                path = (*below.x[:k], flip(x, i))
                return sampled(model, params, u[0], example, path).f

            change = run.f - jax.vmap(flipped)(jnp.arange(x.size))
            loss += gradient_term(site.noise.pdf(a) * x * change, a)
        return loss

    return surrogate_loss(model, example_loss, 2, randomness="uniforms", smoothness="constant")


@pytest.mark.slow
def test_descendants_of_another_path_are_seen():
    """By an objective of two layers; one of the last alone does not see the states below."""
    model, *at = skipping_problem()
    bias, _ = exact_bias(other_path(model), *at)
    assert bias[1] > SEEN
    assert bias[0] < EXACT


@pytest.mark.slow
def test_pruned_triples_without_the_total_weight_are_seen():
    network, *at = tiny(ONE)
    right = pruned_triples(network)

    def own_weight(params, u, example):
        """As if the chosen flip kept its own weight."""
        run = sampled(network, params, u[0], example)
        (a,), (x,) = run.a, run.x
        w = (1 - x) / 2 * jax.nn.sigmoid(a)
        other = flip(x, choose(w, u[1][0]))
        f = run_at_states(network, params, example, (other,)).f
        return run.f + gradient_term(w * (run.f - f) * (x - other) / 2, a)

    wrong = surrogate_loss(
        network, own_weight, 2, "uniforms", smoothness="constant", breakpoints=right.breakpoints
    )
    bias, value = exact_bias(wrong, *at)
    assert bias[0] > SEEN
    assert max(bias[1], value) < EXACT


# -------------------------------------------------------------------- identities, by draws


@pytest.mark.slow
def test_leg_ram_go_and_the_measure_valued_derivative_are_the_same_number_in_one_layer():
    network, params, batch = small((2, 3, 1), "normal")
    example = jax.tree.map(lambda leaf: leaf[0], batch)

    def go(params, u, example):
        """As its authors write it for Bernoulli units: the gradient of p times a difference."""
        run = sampled(network, params, u[0], example)
        (site,), (a,), (x,) = run.sites, run.a, run.x

        def f(i, state):
            return run_at_states(network, params, example, (x.at[i].set(state),)).f

        g = jnp.stack([f(i, 1) - f(i, -1) for i in range(3)])
        return run.f + jnp.sum(jax.lax.stop_gradient(g) * site.noise.cdf(a))

    losses = [make(network) for make in (leg, ram, measure_valued)]
    u = random_uniforms(20, 3, ((3,),))
    *draws, expected = example_draws([*losses, surrogate_loss(network, go)], params, example, u)
    for draw in draws:
        np.testing.assert_allclose(draw, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_a_random_flip_averaged_over_its_choice_is_ram_draw_by_draw():
    network, params, batch = small((2, 3, 2, 1), ("logistic", "laplace"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    path = random_uniforms(4, 1, ((3,), (2,)))[0]
    repeated = tuple(jnp.repeat(v, 6, axis=0) for v in path)
    v = jnp.tile((jnp.arange(6) + 0.5) / 6, 4)[:, None]
    choice = (jnp.tile(v, (1, 3)), jnp.tile(v, (1, 2)))
    flips, every = example_draws(
        [random_flip(network), ram(network)], params, example, (repeated, choice)
    )
    np.testing.assert_allclose(
        flips.reshape(4, 6, -1).mean(1), every.reshape(4, 6, -1)[:, 0], rtol=1e-9, atol=1e-13
    )


@pytest.mark.parametrize("side", ["one", "two"])
@pytest.mark.slow
def test_pruned_triples_averaged_over_their_choice_are_all_triples_draw_by_draw(side):
    network, params, batch = small((2, 3, 2, 1), ("logistic", "uniform"))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    pruned, full = (stochastic_triples(network, side=side, pruned=p) for p in (True, False))

    @jax.jit
    def breakpoints(path):
        return pruned.breakpoints(1, sampled(network, params, path, example))[0][:, 0]

    rows, weights = [], []
    for seed in range(4):
        path = random_uniforms(1, 1, ((3,), (2,)), seed)[0]
        ends = np.unique(np.clip([0, 1, *breakpoints(tuple(v[0] for v in path))], 0, 1))
        for low, high in pairwise(ends):
            rows.append((path, (jnp.full((1, 3), (low + high) / 2), jnp.full((1, 2), 0.5))))
            weights.append((seed, high - low))
    u = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *rows)
    one, every = example_draws([pruned, full], params, example, u)
    for seed in range(4):
        mine = np.array([w if s == seed else 0 for s, w in weights])
        np.testing.assert_allclose(mine @ one, mine @ every, rtol=1e-9, atol=1e-13)


def test_triples_have_the_weights_of_the_sheet():
    """One-sided: p where b = 0, nothing where b = 1; two-sided: half of p or of 1 - p."""
    network, params, batch = small((1, 1, 1))
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    a = float(params[0]["weight"][0, 0] * example[0][0] + params[0]["bias"][0])
    p = 1 / (1 + np.exp(-a))
    high, low = (network.objective(params[1], jnp.array([b]), example[1]) for b in (1.0, -1.0))
    u = ((jnp.array([[0.999], [0.001]]),), (jnp.array([[0.5], [0.5]]),))  # b = 0, then b = 1
    one, two = example_draws(
        [pruned_triples(network, side=side) for side in ("one", "two")], params, example, u
    )
    np.testing.assert_allclose(one[:, 0], np.array([p, 0]) * (high - low), rtol=1e-12)
    np.testing.assert_allclose(two[:, 0], np.array([p, 1 - p]) / 2 * (high - low), rtol=1e-12)


# -------------------------------------------------------------------------- path integral


def one_point(model):
    """The path integral with one gradient, at a uniform point of all units together."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        x = 2 * u[1][0] - 1
        g = jax.grad(lambda x: run_at_states(model, params, example, (x,)).f)(x)
        return run.f + gradient_term(2 * run.sites[0].noise.pdf(run.a[0]) * g, run.a[0])

    return surrogate_loss(model, example_loss, 2, randomness="uniforms", smoothness="smooth")


@pytest.mark.parametrize("noise", ["logistic", "triangular"])
@pytest.mark.slow
def test_the_path_integral_is_unbiased_with_a_point_per_unit_and_not_with_one_for_all(noise):
    """Exact: all states, times Gauss-Legendre points in each unit for an analytic objective."""
    network, params, batch = tiny(ONE, noise)
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    node, weight = np.polynomial.legendre.leggauss(12)
    points, volumes = (1 + node) / 2, weight / 2
    states = jnp.array([[i, j] for i in (0.0, 1.0) for j in (0.0, 1.0)])  # u = 0 is +1
    between = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    a = params[0]["weight"] @ example[0] + params[0]["bias"]
    p = np.prod(get_noise(noise).cdf((1 - 2 * states) * a), axis=1)
    total = np.kron(p, np.outer(volumes, volumes).ravel())
    u = (
        (jnp.repeat(states, len(between), axis=0),),
        (jnp.tile(jnp.asarray(between), (len(states), 1)),),
    )
    right, wrong = example_draws([path_integral(network), one_point(network)], params, example, u)
    truth = flat(jax.jit(jax.grad(partial(brute_force, network)))(params, batch))
    assert relative(total @ right, truth) < EXACT
    assert relative(total @ wrong, truth) > SEEN


# ----------------------------------------------------------------- saturation and refusals


@pytest.mark.parametrize(
    ("make", "noises"),
    [
        (leg, NOISES),
        (ram, ("normal", "uniform")),
        (measure_valued, ("logistic",)),
        (random_flip, ("triangular", "laplace")),
        (partial(pruned_triples, side="two"), NOISES),
    ],
)
@pytest.mark.slow
def test_saturated_units_have_finite_and_vanishing_gradients_in_float32(make, noises):
    assert_finite_and_zero_where_saturated(make, noises)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (partial(ram, descendants="common"), "descendants is 'common'; choose one of antithetic"),
        (partial(random_flip, descendants="fresh"), "descendants is 'fresh'; choose one of"),
        (partial(measure_valued, descendants="shred"), "is 'shred'; did you mean 'shared'?"),
        (partial(stochastic_triples, descendants="none"), "descendants is 'none'"),
        (partial(stochastic_triples, side="left"), "side is 'left'; choose one of one, two"),
        (partial(stochastic_triples, pruned="yes"), "pruned is 'yes'; give True or False"),
    ],
)
def test_hyperparameters_that_are_none_are_refused(make, sentence):
    with pytest.raises(GradbenchError) as caught:
        make(None)
    assert sentence in str(caught.value)


def test_the_path_integral_of_a_deeper_model_is_refused():
    network, *at = tiny(TWO)
    with pytest.raises(GradbenchError, match="path_integral is an estimator for one stochastic"):
        jax.eval_shape(path_integral(network), at[0], jax.random.key(0), at[1])
