"""Moments of blocks merge to the moments of all draws, whatever the cuts and the order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gradbench.measure.blocks import Blocks, Moments, merge, pool


def moments(draws):
    if not len(draws):
        return Moments(0, np.zeros(draws.shape[1]), np.zeros(draws.shape[1]))
    mean = draws.mean(0)
    return Moments(len(draws), mean, ((draws - mean) ** 2).sum(0))


def assert_close(a, b, scale):
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(a.m2, b.m2, rtol=0, atol=1e-12 * scale**2 * max(1, a.count))


@st.composite
def cut_draws(draw, cuts):
    """Draws `[n, P]` of any offset and size, cut into consecutive parts, some of them empty."""
    count = draw(st.integers(0, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    offset, size = draw(st.sampled_from([0.0, 1.0, -1e4])), draw(st.sampled_from([1e-3, 1.0, 1e3]))
    draws = offset + size * generator.standard_normal((count, draw(st.integers(0, 4))))
    ends = sorted(draw(st.lists(st.integers(0, count), min_size=cuts, max_size=cuts)))
    return draws, np.split(draws, ends), abs(offset) + 5 * size


@settings(deadline=None)
@given(st.integers(0, 8).flatmap(cut_draws))
def test_the_moments_of_any_partition_pool_to_the_moments_of_all_draws(case):
    draws, parts, scale = case
    assert_close(pool(moments(part) for part in parts), moments(draws), scale)


@settings(deadline=None)
@given(cut_draws(2))
def test_merging_is_associative_and_commutative_to_rounding(case):
    _, (a, b, c), scale = case
    a, b, c = moments(a), moments(b), moments(c)
    assert_close(merge(merge(a, b), c), merge(a, merge(b, c)), scale)
    assert_close(merge(a, b), merge(b, a), scale)


def test_equal_draws_keep_exactly_no_variance():
    constant = Moments(7, np.array([0.1, -1e300]), np.zeros(2))
    pooled = pool([constant] * 9)
    assert pooled.count == 63
    np.testing.assert_array_equal(pooled.mean, constant.mean)
    np.testing.assert_array_equal(pooled.m2, 0)


def test_a_large_common_offset_does_not_drown_the_variance():
    draws = 1e8 + np.random.default_rng(0).standard_normal((1000, 1))
    pooled = pool(moments(part) for part in np.array_split(draws, 13))
    np.testing.assert_allclose(pooled.m2, moments(draws).m2, rtol=1e-6)


@settings(deadline=None)
@given(st.integers(0, 8).flatmap(cut_draws))
def test_blocks_pool_to_the_same_bits_one_by_one_and_as_arrays(case):
    parts = [moments(part) for part in case[1]]
    found, known = Blocks.stack(parts).pooled, pool(parts)
    assert found.count == known.count
    assert found.mean.tobytes() == known.mean.tobytes() and found.m2.tobytes() == known.m2.tobytes()
