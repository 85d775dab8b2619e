"""Random keys in numpy: a key of JAX's default generator is one number of 64 bits, its two words.

So arrays of keys have the axes that they have in JAX, and what moves numbers about moves keys too.
The bits are those of ``jax.random``: Threefry, as ``core.uniforms`` has it, of the place of each.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.core.uniforms import threefry

_HALF = np.uint64(32)


def is_key_type(dtype: Any) -> bool:
    """Return whether it is the type of keys that are numbers here."""
    settings: Any = jax.config
    return str(dtype) == "key<fry>" and bool(settings.jax_threefry_partitionable)


def numbers_of(keys: Any) -> Any:
    """Return an array of keys as numbers, other arrays in numpy, other keys as they are."""
    if not jnp.issubdtype(getattr(keys, "dtype", float), jax.dtypes.extended):
        return np.asarray(keys)
    return _joined(*_last(jax.random.key_data(keys))) if is_key_type(keys.dtype) else keys


def keys_of(numbers: Any) -> Any:
    """Return numbers as an array of keys of JAX."""
    words = np.stack([_first(numbers), _second(numbers)], axis=-1)
    return jax.random.wrap_key_data(jnp.asarray(words), impl="threefry2x32")


def _first(keys: Any) -> Any:
    return (keys >> _HALF).astype(np.uint32)


def _second(keys: Any) -> Any:
    return keys.astype(np.uint32)


def _last(words: Any) -> list[Any]:
    """Return the words of keys, which lie along the last axis."""
    return list(np.moveaxis(np.asarray(words), -1, 0))


def _joined(first: Any, second: Any) -> Any:
    return first.astype(np.uint64) << _HALF | second


def _encrypted(keys: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return threefry((_first(keys), _second(keys)), x, y)


def _of_places(keys: Any, shape: Sequence[int]) -> tuple[Any, Any]:
    """Return two words for each place of an array of this shape, for each of the keys."""
    places = np.arange(math.prod(shape), dtype=np.uint64).reshape((*shape, *(1,) * keys.ndim))
    words = _encrypted(keys, _first(places), _second(places))
    own, order = len(shape), range(places.ndim)  # keys lie side by side, as ``numpy_rules`` has it
    first, second = (word.transpose(*order[own:], *order[:own]) for word in words)
    return first, second


def _fold_in(eqn: Any) -> Callable[..., Any]:
    def fold_in(keys: Any, data: Any) -> Any:
        data = data.astype(np.uint32)
        return _joined(*_encrypted(keys, np.zeros_like(data), data))

    return fold_in


def _bits(eqn: Any, bit_width: int, shape: Sequence[int]) -> Callable[..., Any]:
    def bits(keys: Any) -> Any:
        first, second = _of_places(keys, shape)
        if bit_width == 64:
            return _joined(first, second)
        return (first ^ second).astype(f"uint{bit_width}")

    return bits


def _split(eqn: Any, shape: Sequence[int]) -> Callable[..., Any]:
    return lambda keys: _joined(*_of_places(keys, shape))


def _seed(eqn: Any, impl: Any) -> Callable[..., Any]:
    return lambda seeds: seeds.astype(np.uint64) & np.uint64(2 ** (8 * min(8, seeds.itemsize)) - 1)


def _wrap(eqn: Any, impl: Any) -> Callable[..., Any]:
    return lambda words: _joined(*_last(words))


def _unwrap(eqn: Any) -> Callable[..., Any]:
    return lambda keys: np.stack([_first(keys), _second(keys)], axis=-1)


RULES: dict[str, Callable[..., Callable[..., Any]]] = {
    "random_bits": _bits,
    "random_fold_in": _fold_in,
    "random_seed": _seed,
    "random_split": _split,
    "random_unwrap": _unwrap,
    "random_wrap": _wrap,
}
