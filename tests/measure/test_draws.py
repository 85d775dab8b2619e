"""Blocks of draws against NumPy on the same draws, stored."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import precision, small
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import as_bytes, statistics

from gradbench.core.contract import is_deterministic
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import layer_names, layer_vectors
from gradbench.estimators import arm, exact, mean_field, nested, psa, reinforce, rloo
from gradbench.measure import devices
from gradbench.measure import draws as module
from gradbench.measure.blocks import BINS, pool
from gradbench.measure.draws import Plan, make_plan, measure
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.network import RealNetwork

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(11)
PARAMS = ({"weight": np.zeros((2, 1)), "bias": np.zeros(2)}, (), np.zeros(1))
BATCH = np.zeros((3, 1))
GRADIENT = (
    {"weight": np.array([[0.5], [-0.3]]), "bias": np.array([0.1, 0.0])},
    (),
    np.array([0.7]),
)


def random_gradient(params, key, batch):
    """A loss whose gradient is 0.3 plus noise; every eighth draw, about, is zero in both layers."""
    leaves = jax.tree.leaves(params)
    keys = jax.random.split(key, len(leaves) + 1)
    alive = jax.random.bernoulli(keys[-1], 0.875)
    return alive * sum(
        jnp.sum(leaf * (0.3 + jax.random.normal(k, leaf.shape, leaf.dtype)))
        for leaf, k in zip(leaves, keys[:-1], strict=True)
    )


def stored(loss, params, batch, key, count):
    """The first draws, a row each, per layer."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count, dtype=jnp.uint32))
    draws = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))(params, keys, batch)
    return [np.asarray(g, float) for g in layer_vectors(draws, 1)]


@cache
def all_draws():
    with precision(True):
        return stored(random_gradient, PARAMS, BATCH, KEY, 300)


def assert_layer(found, draws, exact, plan):
    """One layer of a block, or its network without the moments, against plain NumPy."""
    expected = statistics(draws, exact, plan.averages, plan.head_sizes)
    for name, mine, theirs in zip(found._fields, found, expected, strict=True):
        if name == "histogram":
            # an angle on the edge of two bins may fall in either
            assert np.abs(np.cumsum(mine, 1) - np.cumsum(theirs, 1)).max(initial=0) <= 1
            np.testing.assert_array_equal(mine.sum(1), found.groups)
        elif np.size(mine) or name not in ("mean", "m2", "heads"):
            np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-12, err_msg=name)
    return expected


def check(plan, blocks=None):
    with precision(True):
        found = list(measure(random_gradient, PARAMS, BATCH, GRADIENT, KEY, plan, blocks))
        exact = [np.asarray(g) for g in layer_vectors(GRADIENT)]
    for block in found:
        cut = slice(block.index * plan.block, min((block.index + 1) * plan.block, plan.draws))
        draws = [layer[cut] for layer in all_draws()]
        for layer, rows, g in zip(block.layers, draws, exact, strict=True):
            expected = assert_layer(layer, rows, g, plan)
            assert layer.heads.shape == expected.heads.shape
        assert_layer(block.network, np.concatenate(draws, 1), np.concatenate(exact), plan)
        assert block.network.mean.shape == block.network.m2.shape == (0,)
        assert block.network.heads.shape == (len(plan.head_sizes), 0)
    return found


@given(st.integers(1, 100), st.lists(st.integers(1, 100), max_size=3))
@settings(max_examples=6)
@pytest.mark.slow
def test_blocks_agree_with_numpy_on_the_stored_draws(draws, averages):
    plan = make_plan(draws, [min(m, draws) for m in averages])
    found = check(plan)
    assert [block.index for block in found] == list(range(plan.blocks))
    assert sum(block.layers[0].count for block in found) == draws


@pytest.mark.slow
def test_averages_that_do_not_divide_the_block_and_a_shorter_last_block():
    found = check(Plan(300, 64, (1, 3, 7, 64), (3, 8, 20, 50), (67, 72)))
    assert [block.layers[0].count for block in found] == [64, 64, 64, 64, 44]
    assert found[-1].layers[0].groups.tolist() == [44, 14, 6, 0]
    assert found[-1].layers[0].heads[-1] == pytest.approx(all_draws()[0][256:].sum(0))


@pytest.mark.slow
def test_draws_that_are_zero_have_cosine_zero():
    draws = all_draws()[0]
    zero = int((np.abs(draws).sum(1) == 0).sum())
    assert zero > 10
    found = check(make_plan(300, (1,)))
    middle = sum(block.layers[0].histogram[0, BINS // 2] for block in found)
    assert middle >= zero  # the angle pi/2


@pytest.mark.slow
def test_draws_that_are_zero_agree_in_no_sign_and_zero_coordinates_are_not_asked():
    """Of four coordinates of the layer three have a sign: agreement is 0, 1/3, 2/3 or 1."""
    draws = all_draws()[0]
    known = [0, 2, 3]  # the bias comes before the weight, its second coordinate is zero
    assert np.asarray(GRADIENT[0]["bias"])[1] == 0.0
    signs = np.sign([0.1, 0.5, -0.3])
    agree = (np.sign(draws[:, known]) == signs).mean(1)
    zero = np.abs(draws).sum(1) == 0
    assert zero.sum() > 10 and not agree[zero].any() and {0.0, 1.0} < set(agree)
    found = check(make_plan(300, (1,)))
    assert sum(block.layers[0].signs[0] for block in found) == pytest.approx(agree.sum())
    assert sum(block.layers[0].signs_sq[0] for block in found) == pytest.approx((agree**2).sum())


def test_pooled_blocks_are_the_moments_of_all_draws():
    blocks = check(make_plan(300))
    for layer, draws in enumerate(all_draws()):
        pooled = pool(block.layers[layer] for block in blocks)
        assert pooled.count == 300
        np.testing.assert_allclose(pooled.mean, draws.mean(0), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(pooled.m2, 300 * draws.var(0), rtol=1e-11)


def test_any_subset_of_blocks_in_any_order_is_the_same_bit_for_bit():
    plan = make_plan(300, (5, 130))
    assert plan.blocks > 30
    whole = {block.index: as_bytes(block) for block in check(plan)}
    some = [plan.blocks - 1, 3, 0, 17]
    found = check(plan, some)
    assert [block.index for block in found] == some
    for block in found:
        assert as_bytes(block) == whole[block.index]
    assert check(plan, []) == []


@pytest.mark.slow
def test_the_size_of_chunks_changes_rounding_only(monkeypatch):
    network, params, batch = small((2, 2, 1), scale=1.0)
    plan = Plan(32, 16, (1, 4), (), ())
    with precision(True):
        params = jax.tree.map(jnp.asarray, params)
        one = list(measure(arm(network), params, batch, params, KEY, plan))
        monkeypatch.setattr(module, "chunk_of", lambda *_: 2)
        two = list(measure(arm(network), params, batch, params, KEY, plan))
        draws = stored(arm(network), params, batch, KEY, 32)
    for a, b in zip(one, two, strict=True):
        for layer, (left, right) in enumerate(zip(a.layers, b.layers, strict=True)):
            for x, y in zip(left[1:7], right[1:7], strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)
            rows = draws[layer][a.index * 16 : (a.index + 1) * 16]
            np.testing.assert_allclose(left.mean, rows.mean(0), rtol=1e-11, atol=1e-14)


def test_plans_that_differ_in_the_number_of_draws_share_their_programs(compilations):
    counts = []
    with precision(True):
        for draws in (300, 301, 460):  # the last two end with a shorter block
            plan = make_plan(draws, (5, 6))
            assert plan.block == 8
            list(measure(random_gradient, PARAMS, BATCH, GRADIENT, KEY, plan))
            counts.append(len(compilations))
    assert counts[0] and len(set(counts)) == 1


@pytest.mark.slow
def test_chunks_count_what_a_draw_makes_of_an_example_flips_and_samples_too():
    network, params, batch = small((2, 16, 16, 1))
    examples = len(batch[1])
    for loss, numbers in (
        (psa(network), examples * 16 * 16),  # all flips of a layer, in all units above
        (rloo(network, samples=64), 64 * examples * 16),  # the states of all samples
        (random_gradient, 16 * 16),  # the largest weight
    ):
        chunk = module.chunk_of(loss, params, batch, 1 << 20)
        assert chunk * numbers <= devices.chunk_numbers() < 2 * chunk * numbers
    assert module.chunk_of(psa(network), params, batch, 2) == 2


@pytest.mark.slow
def test_draws_in_float32_get_statistics_in_float64():
    network, params, batch = small((2, 2, 1))
    plan = Plan(24, 16, (1, 2), (), ())
    single = jax.tree.map(lambda w: np.asarray(w, np.float32), params)
    with precision(True):
        single, data = jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), (single, batch))
        blocks = list(measure(arm(network), single, data, params, KEY, plan))
        draws = stored(arm(network), single, data, KEY, 24)
        exact = [np.asarray(g) for g in layer_vectors(params)]
    for block in blocks:
        for layer, rows, g in zip(block.layers, draws, exact, strict=True):
            assert layer.mean.dtype == layer.m2.dtype == layer.cosine.dtype == np.float64
            cut = rows[block.index * 16 : block.index * 16 + 16]
            np.testing.assert_array_equal(cut, cut.astype(np.float32))  # the draws are float32
            # ... whose rounding differs with the chunk they are made in, by float32 eps
            np.testing.assert_allclose(layer.mean, cut.mean(0), rtol=0, atol=1e-6)
            np.testing.assert_allclose(layer.m2, len(cut) * cut.var(0), rtol=1e-4, atol=1e-6)
            cosines = cut @ g / np.linalg.norm(cut, axis=1) / np.linalg.norm(g)
            np.testing.assert_allclose(layer.cosine[0], cosines.sum(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_another_key_gives_other_draws():
    plan = Plan(4, 4, (1,), (), ())
    with precision(True):
        one, two = (
            next(measure(random_gradient, PARAMS, BATCH, GRADIENT, jax.random.key(k), plan))
            for k in (0, 1)
        )
    assert not np.array_equal(one.layers[0].mean, two.layers[0].mean)


# ------------------------------------------------------------------------- one draw for all


def weighted(activations):
    """A network with binary weights on stochastic units, its parameters and a batch."""
    network, params, batch = small((1, 1, 1))
    return BinaryWeights(network, activations), params, batch


@dataclass(frozen=True)
class Counted:
    """An estimator that counts how often its value is computed, not only traced."""

    loss: Any
    randomness: Any
    runs: list = field(default_factory=list, compare=False)

    def __call__(self, params, key, batch):
        jax.debug.callback(self.runs.append, jax.random.key_data(key))  # of each key: no batching
        return self.loss(params, key, batch)


@pytest.mark.parametrize("estimator", [exact, mean_field])
@pytest.mark.slow
def test_an_estimator_without_randomness_is_run_once_with_the_statistics_of_all_its_draws(
    estimator,
):
    network, params, batch = small((2, 2, 1))
    plan = Plan(22, 8, (1, 3), (2,), (10,))
    loss = estimator(network)
    assert is_deterministic(loss)
    once, always = Counted(loss, "none"), Counted(loss, "uniforms")
    with precision(True):
        params = jax.tree.map(jnp.asarray, params)
        found, expected = (
            list(measure(counted, params, batch, params, KEY, plan)) for counted in (once, always)
        )
        gradient = jax.grad(loss)(params, KEY, batch)
        vectors = [np.asarray(g) for g in layer_vectors(gradient)]
        jax.effects_barrier()
    assert (len(once.runs), len(always.runs)) == (1, 24)  # three blocks of eight
    assert [block.index for block in found] == [block.index for block in expected] == [0, 1, 2]
    for one, other in zip(found, expected, strict=True):
        for left, right, g in zip(one.layers, other.layers, vectors, strict=True):
            np.testing.assert_allclose(left.mean, g, rtol=1e-13)
            assert np.max(left.m2) < 1e-28 * np.max(g**2)
            assert left.histogram.sum() == left.groups.sum()
            for mine, theirs in zip(left, right, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=1e-28)


@pytest.mark.slow
def test_some_blocks_of_an_estimator_without_randomness_are_those_of_all():
    network, params, batch = small((1, 1, 1))
    plan = Plan(7, 2, (1,), (), ())
    with precision(True):
        whole = [
            as_bytes(b) for b in measure(mean_field(network), params, batch, params, KEY, plan)
        ]
        some = measure(mean_field(network), params, batch, params, KEY, plan, [3, 1])
        assert [as_bytes(block) for block in some] == [whole[3], whole[1]]


def test_what_is_random_given_the_weights_is_not_taken_for_the_same():
    """Nested estimators, and estimators of weights over activations that are estimated."""
    model = weighted(exact)[0]
    real = BinaryWeights(RealNetwork(model.network.layers, model.network.objective))
    sampled = weighted(psa)[0]
    assert is_deterministic(exact(model)) and is_deterministic(mean_field(model))
    assert is_deterministic(exact(real)) and is_deterministic(mean_field(real))
    assert not is_deterministic(mean_field(sampled)) and not is_deterministic(psa(model))
    for activations in ("psa", "reinforce", "arm", "straight_through"):
        for weights in ("mean_field", "straight_through", "arm"):
            assert not is_deterministic(nested(model, weights=weights, activations=activations)), (
                weights,
                activations,
            )
    assert is_deterministic(nested(model, weights="mean_field", activations="mean_field"))
    assert not is_deterministic(random_gradient)


@pytest.mark.slow
def test_mean_field_weights_over_sampled_activations_vary():
    model, params, batch = weighted(reinforce)
    with precision(True):
        params = jax.tree.map(jnp.asarray, params)
        plan = Plan(8, 8, (1,), (), ())
        (block,) = measure(mean_field(model), params, batch, params, KEY, plan)
        draws = stored(mean_field(model), params, batch, KEY, 8)
    for layer, rows in zip(block.layers, draws, strict=True):
        np.testing.assert_allclose(layer.m2, 8 * rows.var(0), rtol=1e-9, atol=1e-20)
    assert block.layers[0].m2.min() > 1e-6


# -------------------------------------------------------------------------------- plans


@given(st.integers(1, 10**7), st.lists(st.integers(1, 10**7), max_size=5), st.integers(1, 10**6))
def test_a_plan_covers_the_draws_and_every_average(draws, averages, coordinates):
    averages = [min(m, draws) for m in averages]
    plan = make_plan(draws, averages, coordinates)
    assert plan.block & (plan.block - 1) == 0  # a power of two
    assert (plan.blocks - 1) * plan.block < draws <= plan.blocks * plan.block
    assert plan.block * coordinates <= max(coordinates, module._BLOCK_ENTRIES)
    assert set(averages) <= {*plan.averages, *plan.larger}
    assert all(m <= plan.block for m in plan.averages)
    assert all(m > plan.block for m in plan.larger)
    assert all(0 < r < plan.block for r in plan.head_sizes)
    assert {m % plan.block for m in plan.larger} - {0} == set(plan.head_sizes)
    powers = {2**k for k in range(24) if 2**k <= max(1, draws // 2)}
    assert {*plan.averages, *plan.larger} == powers | set(averages)
    assert list(plan.averages) == sorted(set(plan.averages))


@pytest.mark.parametrize("draws", [0, -5])
def test_no_draws_are_refused(draws):
    with pytest.raises(GradbenchError, match=f"draws is {draws}; give a positive number of draws"):
        make_plan(draws)


@pytest.mark.parametrize("m", [0, -1, 101])
def test_an_average_of_more_draws_than_there_are_is_refused(m):
    with pytest.raises(GradbenchError, match=f"averages has M = {m}; give numbers from 1 to 100"):
        make_plan(100, (1, m))


def test_layers_without_parameters_have_no_name_and_no_vector():
    assert layer_names(PARAMS) == ("layer 1", "output")
    assert [v.shape for v in layer_vectors(PARAMS)] == [(4,), (1,)]
    assert layer_names((*PARAMS[:1], ())) == ("layer 1",)
