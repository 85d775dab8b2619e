"""Primitives of JAX in numpy, on arrays that may have one more axis in front: that of rows.

A rule gives, for an equation of a jaxpr, the function that does the same with numpy arrays. Where
an argument has rows, so has the result. Axes are counted from the end, so that both are one rule.
"""

import math
import string
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from gradbench.core import numpy_keys
from gradbench.core.numpy_rows import empty, joined, product, reshaped, rows_of

Equation: TypeAlias = Any  # jax.extend.core.JaxprEqn, whose variables have types that differ
Step: TypeAlias = Callable[..., Any]  # of the arguments of an equation; a list for several results


def _special(name: str, x: Any) -> Any:
    """Call a function of scipy.special, which is imported when a rule first needs it."""
    from scipy import special

    return getattr(special, name)(x)


_ELEMENTWISE: dict[str, Step] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "atan2": np.arctan2,
    "ceil": np.ceil,
    "clamp": lambda least, x, most: np.minimum(np.maximum(x, least), most),
    "cos": np.cos,
    "cosh": np.cosh,
    "eq": np.equal,
    "erf": partial(_special, "erf"),
    "erf_inv": partial(_special, "erfinv"),
    "erfc": partial(_special, "erfc"),
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lgamma": partial(_special, "gammaln"),
    "log": np.log,
    "log1p": np.log1p,
    "logistic": partial(_special, "expit"),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "or": np.bitwise_or,
    "pow": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": lambda which, *cases: (
        np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)
    ),
    "shift_left": np.left_shift,
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "xor": np.bitwise_xor,
}
_REDUCTIONS: dict[str, Any] = {
    "reduce_and": np.logical_and.reduce,
    "reduce_max": np.maximum.reduce,
    "reduce_min": np.minimum.reduce,
    "reduce_or": np.logical_or.reduce,
    "reduce_prod": np.multiply.reduce,
    "reduce_sum": np.add.reduce,
}
_SAME = ("copy", "copy_p", "optimization_barrier", "random_clone", "stop_gradient")
_RESHAPED = ("expand_dims", "reshape", "squeeze")
_FEW = 256  # so many numbers are copied faster than they are viewed


def rule(eqn: Equation) -> Step | None:
    """Return what an equation does, in numpy; None where there is no rule for it."""
    name = eqn.primitive.name
    if name in _SAME:
        return (lambda *x: list(x)) if eqn.primitive.multiple_results else (lambda x: x)
    types = {v.aval.dtype for v in eqn.invars + eqn.outvars}
    if not all(isinstance(t, np.dtype) or numpy_keys.is_key_type(t) for t in types):
        return None  # of random keys of another generator
    if name in _ELEMENTWISE:
        return _elementwise(eqn, _ELEMENTWISE[name])
    if name in _REDUCTIONS:
        return _reduction(eqn, _REDUCTIONS[name])
    if name in _RESHAPED:
        return _reshape(eqn)
    make = _RULES.get(name)
    return make(eqn, **eqn.params) if make else None


def _elementwise(eqn: Equation, f: Step) -> Step:
    """Return the function of arrays of one shape, or of scalars and arrays of one shape."""
    ndims = [v.aval.ndim for v in eqn.invars]
    most = max(ndims)
    if all(n == most for n in ndims):
        return f

    def aligned(*xs: Any) -> Any:
        return f(
            *(
                x.reshape((*x.shape, *(1,) * (most - n))) if n < most and x.ndim > n else x
                for x, n in zip(xs, ndims, strict=True)
            )
        )

    return aligned


def _reduction(eqn: Equation, f: Any) -> Step:
    axes = tuple(a - eqn.invars[0].aval.ndim for a in eqn.params["axes"])
    if eqn.primitive.name in ("reduce_sum", "reduce_prod"):
        return partial(f, axis=axes, dtype=eqn.outvars[0].aval.dtype)
    return partial(f, axis=axes)


def _reshape(eqn: Equation) -> Step:
    ndim, shape = eqn.invars[0].aval.ndim, eqn.outvars[0].aval.shape
    order = eqn.params["dimensions"] if eqn.primitive.name == "reshape" else None
    first = _transpose(eqn, order) if order else np.asarray  # order of the axes as they are read

    return lambda x: reshaped(first(x), ndim, shape)


def _broadcast(eqn: Equation, shape: Any, broadcast_dimensions: Sequence[int], **_: Any) -> Step:
    of = eqn.invars[0].aval.shape
    ones = [1] * len(shape)
    for size, axis in zip(of, broadcast_dimensions, strict=True):
        ones[axis] = size
    few = math.prod(shape) <= _FEW

    def broadcast(x: Any, *_: Any) -> Any:
        rows = rows_of(x, len(of))
        if rows or not few:
            return np.broadcast_to(x.reshape((*rows, *ones)), (*rows, *shape))
        found = np.empty(shape, x.dtype)
        found[...] = x.reshape(ones)
        return found

    return broadcast


def _transpose(eqn: Equation, permutation: Sequence[int]) -> Step:
    n = len(permutation)

    def transpose(x: Any) -> Any:
        first = x.ndim - n
        return x.transpose(*range(first), *(first + p for p in permutation))

    return transpose


def _slice(eqn: Equation, start_indices: Any, limit_indices: Any, strides: Any) -> Step:
    steps = strides or (1,) * len(start_indices)
    index = (..., *map(slice, start_indices, limit_indices, steps))
    return lambda x: x[index]


def _concatenate(eqn: Equation, dimension: int) -> Step:
    ndim = eqn.outvars[0].aval.ndim
    return lambda *xs: joined(np.concatenate, xs, ndim, dimension)


def _stack(eqn: Equation, axis: int) -> Step:
    ndim = eqn.invars[0].aval.ndim
    return lambda *xs: joined(np.stack, xs, ndim, axis)


def _unstack(eqn: Equation, axis: int) -> Step:
    place = axis - eqn.invars[0].aval.ndim
    return lambda x: list(np.moveaxis(x, place, 0))


def _split(eqn: Equation, sizes: Sequence[int], axis: int) -> Step:
    ends, place = np.cumsum(sizes)[:-1], axis - eqn.invars[0].aval.ndim
    return lambda x: np.split(x, ends, axis=place)


def _pad(eqn: Equation, padding_config: Sequence[tuple[int, int, int]]) -> Step:
    shape, ndim = eqn.outvars[0].aval.shape, len(padding_config)
    parts: list[slice] = []
    places: list[slice] = []
    for (low, _, inner), size, length in zip(
        padding_config, shape, eqn.invars[0].aval.shape, strict=True
    ):
        step = inner + 1
        # Of the numbers -low, ..., size - low - 1 those that an entry stands at.
        first = -(-max(0, -low) // step) if low < 0 else 0
        last = min(length, -(-(size - low) // step))
        parts.append(slice(first, max(first, last)))
        begin = first * step + low
        places.append(slice(begin, begin + max(0, last - first) * step, step))
    of: Any = (..., *parts)
    to: Any = (..., *places)

    def pad(x: Any, value: Any) -> Any:
        rows = rows_of(x, ndim) or value.shape
        padded = empty(rows, shape, x.dtype)
        padded[...] = value.reshape((*value.shape, *(1,) * ndim))
        padded[to] = x[of]
        return padded

    return pad


def _dot(eqn: Equation, dimension_numbers: Any, **_: Any) -> Step | None:
    if len({v.aval.dtype for v in (*eqn.invars, *eqn.outvars)}) > 1:
        return None  # it sums in another type
    (over_a, over_b), (batch_a, batch_b) = dimension_numbers
    letters = iter(string.ascii_letters)
    a = [next(letters) for _ in range(eqn.invars[0].aval.ndim)]
    b = [next(letters) for _ in range(eqn.invars[1].aval.ndim)]
    for i, j in zip((*over_a, *batch_a), (*over_b, *batch_b), strict=True):
        b[j] = a[i]
    own_a = [a[i] for i in range(len(a)) if i not in (*over_a, *batch_a)]
    own_b = [b[j] for j in range(len(b)) if j not in (*over_b, *batch_b)]
    out = [*(a[i] for i in batch_a), *own_a, *own_b]
    spelled = partial(np.einsum, f"...{''.join(a)},...{''.join(b)}->...{''.join(out)}")

    def dot(x: Any, y: Any) -> Any:
        one = bool(rows_of(x, len(a))) != bool(rows_of(y, len(b)))
        return product(x, y, over_a, over_b, len(a)) if one and not batch_a else spelled(x, y)

    return dot


def _iota(eqn: Equation, dtype: Any, shape: Any, dimension: int, **_: Any) -> Step | None:
    if eqn.invars:
        return None  # of a shape that is not known
    ones = [1] * len(shape)
    ones[dimension] = -1
    found = np.broadcast_to(np.arange(shape[dimension], dtype=dtype).reshape(ones), shape)
    return lambda: found


def _div(eqn: Equation) -> Step | None:
    return _elementwise(eqn, np.divide) if eqn.invars[0].aval.dtype.kind == "f" else None


def _right(kind: str, eqn: Equation) -> Step | None:
    return _elementwise(eqn, np.right_shift) if eqn.invars[0].aval.dtype.kind == kind else None


def _cumulative(f: Any, eqn: Equation, axis: int, reverse: bool) -> Step:
    place = axis - eqn.invars[0].aval.ndim
    dtype = eqn.outvars[0].aval.dtype
    if reverse:
        return lambda x: np.flip(f(np.flip(x, place), axis=place, dtype=dtype), place)
    return partial(f, axis=place, dtype=dtype)


def _rev(eqn: Equation, dimensions: Sequence[int]) -> Step:
    axes = tuple(d - eqn.invars[0].aval.ndim for d in dimensions)
    return partial(np.flip, axis=axes)


def _bitcast(eqn: Equation, new_dtype: Any) -> Step | None:
    same = eqn.invars[0].aval.dtype.itemsize == np.dtype(new_dtype).itemsize
    return (lambda x: x.view(new_dtype)) if same else None


_RULES: dict[str, Callable[..., Step | None]] = {
    "bitcast_convert_type": _bitcast,
    "broadcast_in_dim": _broadcast,
    "concatenate": _concatenate,
    "convert_element_type": lambda eqn, new_dtype, **_: lambda x: x.astype(new_dtype),
    "cumprod": partial(_cumulative, np.cumprod),
    "cumsum": partial(_cumulative, np.cumsum),
    "div": _div,
    "dot_general": _dot,
    "integer_pow": lambda eqn, y: lambda x: 1 / x if y == -1 else x ** x.dtype.type(y),
    "iota": _iota,
    "pad": _pad,
    "rev": _rev,
    "shift_right_arithmetic": partial(_right, "i"),
    "shift_right_logical": partial(_right, "u"),
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "transpose": _transpose,
    "unstack": _unstack,
    **numpy_keys.RULES,
}
