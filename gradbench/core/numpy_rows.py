"""Arrays of numpy with an axis of rows in front of those that JAX knows of.

The numbers of all rows lie side by side in memory, where numpy runs along them: its loops over the
few units of a row would take several times as long. Most functions of numpy keep that order, and
those that do not are called with the rows last.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def rows_of(x: Any, ndim: int) -> tuple[int, ...]:
    """Return the length of the axis of rows, if there is one beside ``ndim`` axes, else ()."""
    return tuple(x.shape[: x.ndim - ndim])


def side_by_side(x: Any) -> Any:
    """Return an array ``[rows, ...]`` with the numbers of all rows next to each other in memory."""
    return _rows_first(np.ascontiguousarray(_rows_last(x)))


def joined(join: Callable[..., Any], xs: Sequence[Any], ndim: int, axis: int) -> Any:
    """Return ``join(xs, axis)``, as of ``np.stack``, of arrays of ``ndim`` axes and perhaps rows.

    All have rows if some have them. The axis is counted without that of rows.
    """
    rows: tuple[int, ...] = max((rows_of(x, ndim) for x in xs), key=len, default=())
    if not rows:
        return join(xs, axis)
    every = [np.broadcast_to(x, rows + x.shape) if x.ndim == ndim else x for x in xs]
    return _rows_first(join([_rows_last(x) for x in every], axis))


def reshaped(x: Any, ndim: int, shape: tuple[int, ...]) -> Any:
    """Return an array of ``ndim`` axes, and perhaps rows, in another shape but for the rows."""
    if x.ndim == ndim:
        return x.reshape(shape)
    return _rows_first(_rows_last(x).reshape(*shape, len(x)))


def product(x: Any, y: Any, over_x: Sequence[int], over_y: Sequence[int], ndim: int) -> Any:
    """Return the product of two arrays of which one has rows, ``[rows, own of x, own of y]``.

    ``ndim`` counts the axes of x but for rows, as ``over_x`` and ``over_y`` do. It is one product
    for all rows, which takes a fraction of the time of one for each.
    """
    if x.ndim == ndim:
        return _rows_first(np.tensordot(x, _rows_last(y), (list(over_x), list(over_y))))
    found = np.tensordot(y, _rows_last(x), (list(over_y), list(over_x)))
    own = range(y.ndim - len(over_y))
    return found.transpose(-1, *range(len(own), found.ndim - 1), *own)


def empty(rows: tuple[int, ...], shape: tuple[int, ...], dtype: Any) -> Any:
    """Return an array of this shape, and perhaps rows, whose numbers are not set."""
    found = np.empty((*shape, *rows), dtype)
    return _rows_first(found) if rows else found


def _rows_last(x: Any) -> Any:
    return x.transpose(*range(1, x.ndim), 0)


def _rows_first(x: Any) -> Any:
    return x.transpose(-1, *range(x.ndim - 1))
