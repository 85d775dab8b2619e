"""The uniforms that drive estimators: ``streams x sites`` arrays from one key.

The generator is Threefry 2x32 with 20 rounds, the default of JAX, written in elementary operations,
so that XLA fuses it with the use of the bits; both words of its output are used. Source: Salmon et
al. 2011, Parallel random numbers: as easy as 1, 2, 3.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from gradbench.core.errors import GradbenchError

Uniforms: TypeAlias = tuple[Array, ...]  # one array per site
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def check_key(key: Any) -> None:
    """Refuse anything but one key of ``jax.random.key`` or ``jax.random.PRNGKey``.

    Raises:
        GradbenchError: it is None, an array of keys, or something else.
    """
    if key is None:
        raise GradbenchError(
            "there is no key; give key=jax.random.key(seed), another for each call"
        )
    if is_key(key):
        return
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise GradbenchError(
            f"the key is an array of keys of shape {shape}; give one, and jax.vmap for several"
        )
    what = type(key).__name__ if dtype is None else f"an array of {dtype} of shape {shape}"
    raise GradbenchError(f"the key is {what}; give one of jax.random.key or jax.random.split")


def is_key(key: Any) -> bool:
    """Return whether it is one key of ``jax.random.key`` or ``jax.random.PRNGKey``."""
    shape, dtype = getattr(key, "shape", None), getattr(key, "dtype", None)
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return shape == ()
    try:
        raw = bool(dtype == jnp.uint32)
    except TypeError:  # a type of another library
        return False
    return raw and shape in ((2,), (4,))  # PRNGKey, by the implementation


def draw_uniforms(
    key: Array | None, shapes: Sequence[tuple[int, ...]], streams: int, examples: int, dtype: Any
) -> tuple[Uniforms, ...]:
    """Return ``streams x sites`` arrays ``[*shape, examples]`` of uniforms on the open (0, 1).

    Stream s depends only on ``key`` and s, so that estimators with more streams see the same first
    path as those with one. A stream is drawn as one flat vector, since short last axes are slow.
    Half precision gets uniforms in float32: bfloat16 has 128 of them.

    Raises:
        GradbenchError: ``key`` is no single key.
    """
    check_key(key)
    assert key is not None
    dtype = jnp.promote_types(dtype, jnp.float32)
    sizes = [examples * math.prod(shape) for shape in shapes]
    ends = list(accumulate(sizes))

    def stream(s: int) -> Uniforms:
        flat = _open_uniforms(jax.random.fold_in(key, s), sum(sizes), dtype)
        return tuple(
            flat[end - size : end].reshape(*shape, examples)
            for shape, size, end in zip(shapes, sizes, ends, strict=True)
        )

    return tuple(stream(s) for s in range(streams))


def unit_uniforms(
    key: Array | None, shape: tuple[int, ...], streams: int, dtype: Any
) -> tuple[Array, ...]:
    """Return uniforms on (0, 1) for units of one shape, one array per stream.

    Each number depends only on its own place, so that every device draws its own part of a sharded
    array. This uses one word of each output of the generator, where ``draw_uniforms`` uses both.

    Raises:
        GradbenchError: ``key`` is no single key.
    """
    check_key(key)
    assert key is not None
    return tuple(_placed(jax.random.fold_in(key, s), shape, dtype) for s in range(streams))


@partial(jax.jit, static_argnums=(1, 2), inline=True)
def _placed(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    seed = jax.random.bits(key, (2,), jnp.uint32)
    row = jax.lax.broadcasted_iota(jnp.uint32, shape, 0) if len(shape) > 1 else jnp.uint32(0)
    place = jnp.zeros(shape, jnp.uint32)
    for axis in range(int(len(shape) > 1), len(shape)):  # the number within the row
        number = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place * jnp.uint32(shape[axis]) + number
    return open_uniform(threefry(seed, place, row + jnp.zeros_like(place))[0], dtype)


@partial(jax.jit, static_argnums=(1, 2), inline=True)  # without jit, some hundred calls
def _open_uniforms(key: Array, n: int, dtype: Any) -> Float[Array, " n"]:
    return open_uniform(random_words(key, n), dtype)


def open_uniform(words: UInt32[Array, " n"], dtype: Any) -> Float[Array, " n"]:
    """Return midpoints (k + 1/2) / 2^m of (0, 1) from 32 random bits; m is 32, in float32 23."""
    kept = min(32, jnp.finfo(dtype).nmant)
    return ((words >> (32 - kept)).astype(dtype) + 0.5) * 2.0**-kept


def random_words(key: Array, n: int) -> UInt32[Array, " n"]:
    """Return ``n`` words of 32 random bits, from a JAX key of any kind."""
    seed = jax.random.bits(key, (2,), jnp.uint32)
    counters = jnp.arange((n + 1) // 2, dtype=jnp.uint32)
    return jnp.concatenate(threefry(seed, counters, jnp.zeros_like(counters)))[:n]


def threefry(key: Array | Sequence[Array], x: Array, y: Array) -> tuple[Array, Array]:
    """Encrypt pairs of words (x, y) under a key of two words; of arrays of numpy, in numpy."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(_PARITY))
    x, y = x + schedule[0], y + schedule[1]
    for block in range(1, 6):
        for rotation in _ROTATIONS[(block - 1) % 2]:
            x = x + y
            y = ((y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))) ^ x
        x = x + schedule[block % 3]
        y = y + schedule[(block + 1) % 3] + np.uint32(block)
    return x, y
