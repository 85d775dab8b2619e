"""Uniforms from a shifted lattice: each point is uniform, products of two are not independent."""

import math
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import flat, relative, small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_estimators import BIASED

from gradbench.core.contract import Scored
from gradbench.core.errors import GradbenchError
from gradbench.core.run import sampled
from gradbench.core.uniforms import draw_uniforms
from gradbench.estimators import check_spec, make_estimator, mean_of, rloo
from gradbench.estimators.leave_one_out import others
from gradbench.estimators.sampling import generators, lattice, lattice_breakpoints
from gradbench.estimators.score import score_loss, stacked
from gradbench.exact.enumeration import expected_loss
from gradbench.exact.moments import moments
from gradbench.models.dense import Dense
from gradbench.models.network import SBN

pytestmark = pytest.mark.usefixtures("float64", "quick_compilation")


# ------------------------------------------------------------------------------------- the points


@settings(max_examples=15)
@given(st.integers(1, 200), st.integers(0, 2**23 - 1), st.integers(1, 6))
@pytest.mark.slow
def test_a_point_is_the_shift_moved_round_the_grid_of_uniforms_exactly(points, number, dimensions):
    """In integers: a bijection of the grid, so that each point is distributed as the shift is."""
    grid, z = 2**23, np.array(generators(points, dimensions))
    u = np.full(dimensions, (number + 0.5) / grid, np.float32)
    (found,) = lattice((jnp.asarray(u),), points)
    steps = np.round(np.arange(points)[:, None] * z % points / points * grid).astype(int)
    expected = ((number + steps) % grid + 0.5) / grid
    np.testing.assert_array_equal(np.asarray(found), expected.astype(np.float32))
    np.testing.assert_array_equal(found[0], u)


@given(st.integers(2, 64), st.integers(1, 40))
def test_every_unit_sees_points_that_are_spread_evenly(points, dimensions):
    z = generators(points, dimensions)
    assert all(math.gcd(one, points) == 1 for one in z)
    assert z == generators(points, dimensions + 1)[:-1]


def test_the_pairs_of_units_differ_as_far_as_the_number_of_points_allows():
    assert len(set(generators(64, 10))) > 8
    assert set(generators(5, 4)) == {1, 2}  # 3 and 4 are the mirror images of these
    assert set(generators(2, 9)) == {1}


@pytest.mark.slow
def test_a_draw_is_the_mean_of_those_at_the_points():
    network, params, batch = small((2, 2, 1))
    part = make_estimator("rloo", network)
    both = mean_of(network, estimator="rloo", draws=3, sampling="lattice")
    assert (both.streams, both.randomness, both.smoothness) == (2, "uniforms", "constant")
    u = draw_uniforms(jax.random.key(0), [(2,)], 2, 1, jnp.float64)
    u = jax.tree.map(lambda leaf: leaf[..., 0], u)
    params, example = jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda x: x[0], batch)))
    points = lattice(u, 3)
    parts = [
        part.example_loss(params, jax.tree.map(lambda v, k=k: v[k], points), example)
        for k in range(3)
    ]
    found = both.example_loss(params, u, example)
    np.testing.assert_allclose(found, np.mean(parts), rtol=1e-12)


# ---------------------------------------------------------------------------------- means


def one_layer(units=2, noise="laplace"):
    network, params, batch = small((1, units, 1), noise, seed=5)
    return network, *jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda x: x[:1], batch)))


def two_layers():
    network, params, batch = small((1, 1, 1, 1), ("normal", "uniform"), seed=5)
    return network, *jax.tree.map(jnp.asarray, (params, jax.tree.map(lambda x: x[:1], batch)))


@cache
def truth(case):
    network, params, batch = case()
    return jax.grad(lambda params: expected_loss(network, params, batch))(params)


CASES = [
    (one_layer, "mean_of(draws=3, sampling='lattice')", 1e-10),
    (two_layers, "mean_of(draws=4, sampling='lattice')", 1e-10),
    (two_layers, "rloo(samples=4, sampling='lattice')", 1e-10),
    (one_layer, "mean_of(draws=2, sampling='lattice', estimator='arm')", 1e-10),
    (one_layer, "mean_of(draws=2, sampling='lattice', estimator='rloo')", 1e-10),
    (one_layer, "baselined(baseline=1, estimator=\"rloo(samples=4, sampling='lattice')\")", 1e-10),
]


@pytest.mark.parametrize(("case", "spec", "tolerance"), CASES)
@pytest.mark.first(1)
@pytest.mark.slow
def test_the_mean_is_the_gradient(case, spec, tolerance):
    network, params, batch = case()
    found = moments(make_estimator(spec, network), params, batch)
    assert relative(found.mean, truth(case)) < tolerance


@pytest.mark.slow
def test_a_lattice_over_streams_of_its_own_and_smooth_draws():
    network, params, batch = one_layer(1)
    one = moments(make_estimator("st_gumbel_softmax(temperature=0.5)", network), params, batch)
    spec = "mean_of(draws=3, sampling='lattice', estimator='st_gumbel_softmax(temperature=0.5)')"
    found = moments(make_estimator(spec, network), params, batch)
    assert relative(found.mean, one.mean) < 1e-8
    assert flat(found.variance).sum() < flat(one.variance).sum() / 2


def rloo_on_one_lattice(model, samples):
    """The planted bug: the others of the same lattice as the baseline."""

    def scored(params, u, example):
        together = lattice(u[0], samples)
        run = stacked(lambda v: sampled(model, params, v, example), 0, together)
        return Scored(jnp.mean(run.f), run, [run.f - others(run.f)] * len(run.sites))

    path = make_estimator("reinforce", model)
    points = lattice_breakpoints(path, samples)
    options = {"randomness": "uniforms", "smoothness": "constant", "breakpoints": points}
    return score_loss(model, scored, **options)


@pytest.mark.slow
def test_a_baseline_from_the_own_lattice_is_a_bias():
    network, params, batch = one_layer()
    found = moments(rloo_on_one_lattice(network, 2), params, batch)
    assert relative(found.mean[0], truth(one_layer)[0]) > 100 * BIASED
    right = moments(rloo(network, samples=4, sampling="lattice"), params, batch)
    assert relative(right.mean, truth(one_layer)) < 1e-10


def four_bits(seed=0):
    """A random function of four bits, as a model of logits alone."""
    random = np.random.default_rng(seed)
    table = jnp.asarray(random.normal(size=16))

    def model(params, example, binary):
        x = binary(params[0])
        index = jnp.round((x + 1) / 2 @ jnp.array([8.0, 4.0, 2.0, 1.0])).astype(int)
        return table[index] + 0 * example

    return model, (jnp.asarray(random.normal(size=4)),), jnp.zeros(1)


@pytest.mark.slow
def test_the_variance_of_four_bits_is_lower_from_lattices():
    """Draws of the whole loss, of some random functions; RLOO in two lattices of half as many."""
    ratios = {}
    for spec in ("mean_of(draws={}, sampling={!r})", "rloo(samples={}, sampling={!r})"):
        for count in (8, 16):
            total = {}
            for seed in range(4):
                model, *given = four_bits(seed)
                keys = jax.random.split(jax.random.key(seed), 1 << 13)
                for sampling in ("independent", "lattice"):
                    loss = make_estimator(spec.format(count, sampling), model)
                    draw = jax.vmap(jax.grad(loss), (None, 0, None))
                    g = jax.jit(draw)(given[0], keys, given[1])[0]
                    total[sampling] = total.get(sampling, 0) + float(jnp.sum(jnp.var(g, axis=0)))
            ratios[spec.partition("(")[0], count] = total["lattice"] / total["independent"]
            print(spec.partition("(")[0], count, total)
    assert all(ratio < 0.97 for ratio in ratios.values()), ratios
    assert ratios["mean_of", 16] < 0.8


@pytest.mark.slow
def test_it_works_on_batches_in_single_precision_and_with_coupled_examples():
    network, params, batch = small((2, 3, 2, 1))
    single = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (params, batch))
    spec = "mean_of(draws=4, sampling='lattice', estimator='reinforce_leave_one_out')"
    for name in (spec, "rloo(samples=6, sampling='lattice')"):
        g = jax.jit(jax.grad(make_estimator(name, network)))(
            single[0], jax.random.key(0), single[1]
        )
        assert flat(g).dtype == np.float32 and np.all(np.isfinite(flat(g)))


@pytest.mark.slow
def test_the_first_point_is_the_path_of_all_estimators():
    network, params, batch = small((2, 2, 1))
    key = jax.random.key(2)
    loss = rloo(network, samples=4, sampling="lattice")
    u = draw_uniforms(key, [(2,)], 2, 3, jnp.float64)
    one = jax.tree.map(lambda leaf: leaf[..., 0], u)
    example = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
    _, run, _ = loss.scored(params, one, example)
    path = sampled(network, params, one[0], example)
    np.testing.assert_array_equal(run.x[0][0], path.x[0])


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("mean_of(sampling='latice')", "sampling is 'latice'; did you mean 'lattice'?"),
        ("rloo(sampling='sobol')", "sampling is 'sobol'; choose one of independent, lattice"),
        ("rloo(sampling='lattice')", "samples is 2; give an even number of at least 4 for"),
        ("rloo(samples=5, sampling='lattice')", "the mean over another"),
    ],
)
def test_what_would_be_a_bias_or_is_unknown_is_refused_in_one_sentence(spec, sentence):
    with pytest.raises(GradbenchError) as caught:
        check_spec(spec)
    assert sentence in str(caught.value)


def test_an_estimator_that_draws_from_keys_is_refused():
    network = SBN((Dense(1, 1),), lambda theta, x, target: x[0])
    spec = "mean_of(sampling='lattice', estimator=\"average(first='exact', second='reinforce')\")"
    with pytest.raises(GradbenchError, match="this one draws from keys; give sampling='indep"):
        make_estimator(spec, network)
