"""The random numbers behind every draw."""

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_mean, precision
from hypothesis import given
from hypothesis import strategies as st

from gradbench.core.uniforms import (
    draw_uniforms,
    open_uniform,
    random_words,
    threefry,
    unit_uniforms,
)

each_precision = pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
words = st.integers(0, 2**32 - 1)


@given(st.tuples(words, words), st.lists(st.tuples(words, words), min_size=4, max_size=4))
@pytest.mark.slow
def test_the_generator_is_threefry_as_jax_has_it(key, pairs):
    key, x, y = np.array(key, np.uint32), *np.array(pairs, np.uint32).T
    ours = np.concatenate(jax.jit(threefry)(jnp.asarray(key), jnp.asarray(x), jnp.asarray(y)))
    theirs = jax.extend.random.threefry_2x32(tuple(key), np.concatenate([x, y]))
    np.testing.assert_array_equal(ours, theirs)


def test_words_differ_between_keys_and_do_not_repeat():
    many = np.asarray(
        jax.jit(jax.vmap(lambda k: random_words(k, 5)))(jax.random.split(jax.random.key(0), 999))
    )
    assert len(np.unique(many)) > 0.999 * many.size


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_keys_of_any_kind_serve(kind):
    assert random_words(jax.random.key(0, impl=kind), 3).shape == (3,)


@each_precision
def test_uniforms_never_reach_the_ends_of_the_unit_interval(double):
    with precision(double):
        bits = jnp.array([0, 1, 2**31, 2**32 - 2, 2**32 - 1], jnp.uint32)
        dtype = jnp.zeros(()).dtype
        u = open_uniform(bits, dtype)
        assert u.dtype == dtype
        assert np.all((u > 0) & (u < 1))
        assert np.all(jnp.log1p(-u) > -np.inf)
        np.testing.assert_array_equal(u[0], 1 - u[-1])  # antithetic noise needs the symmetry
        np.testing.assert_allclose(u[2], 0.5, atol=1e-6)


def test_half_precision_uniforms_are_open_too():
    bits = jnp.array([0, 2**32 - 1], jnp.uint32)
    for dtype in (jnp.float16, jnp.bfloat16):
        u = open_uniform(bits, dtype)
        assert 0 < u[0] < u[1] < 1


def test_uniforms_have_the_moments_of_a_uniform_variable():
    u = draw_uniforms(jax.random.key(0), [(3,), (2,)], 2, 10_000, jnp.float32)
    columns = [np.asarray(part, float).T for stream in u for part in stream]
    draws = np.concatenate(columns, axis=1) - 0.5
    products = draws[:, :, None] * draws[:, None, :]
    assert_mean(draws, np.zeros(10))
    assert_mean(products, np.eye(10) / 12)  # independent over units, sites and streams


@pytest.mark.slow
def test_uniforms_of_units_have_the_moments_of_uniform_variables_too():
    keys = jax.random.split(jax.random.key(1), 10_000)
    u = jax.vmap(lambda key: jnp.stack(unit_uniforms(key, (2, 3), 2, jnp.float32)))(keys)
    draws = np.asarray(u, float).reshape(len(keys), -1) - 0.5
    assert_mean(draws, np.zeros(12))
    assert_mean(draws[:, :, None] * draws[:, None, :], np.eye(12) / 12)
    (many,) = unit_uniforms(keys[0], (500, 400), 1, jnp.float32)
    assert len(np.unique(many)) > 0.98 * many.size  # 2^23 values: 1.2 % meet by chance
    for axis in (0, 1):
        near = np.asarray(many, float) - 0.5
        assert_mean((near * np.roll(near, 1, axis)).ravel(), 0.0)
    for shape in ((), (5,), (0, 3)):
        assert unit_uniforms(keys[0], shape, 1, jnp.float32)[0].shape == shape


def test_the_first_stream_is_the_same_whatever_the_number_of_streams():
    key = jax.random.key(0)
    one, three = (draw_uniforms(key, [(3,), (2,)], streams, 5, jnp.float32) for streams in (1, 3))
    assert [part.shape for part in one[0]] == [(3, 5), (2, 5)]
    for a, b in zip(one[0], three[0], strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(three[0][0], three[1][0])
    assert draw_uniforms(key, [(3,), (2,)], 0, 5, jnp.float32) == ()
