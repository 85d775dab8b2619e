"""Pooling, which layers of convolutions read through."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.errors import GradbenchError


@dataclass(frozen=True)
class AveragePool:
    """The mean over windows of ``window`` along all axes but the last, without incomplete ones."""

    window: Any

    def __call__(self, x: Float[Array, "*space channels"]) -> Float[Array, "*pooled channels"]:
        """Return the means of the input ``x`` of one example.

        Raises:
            GradbenchError: a window that is not a whole number, or larger than an axis.
        """
        w, space = self.window, x.shape[:-1]
        if not isinstance(w, int | np.integer) or w < 1 or any(n < w for n in space):
            raise GradbenchError(
                f"average pooling over {w} got an input of shape {x.shape}; "
                f"give a window from 1 to {min(space, default=0)}"
            )
        return jnp.mean(self._windows(x), axis=0)

    def _windows(self, x: Array) -> Float[Array, "entries *pooled channels"]:
        """Return the entries of all windows, the entries of each along the first axis."""
        w, axes = self.window, x.ndim - 1
        x = x[tuple(slice(n // w * w) for n in x.shape[:-1])]
        split = x.reshape(*(part for n in x.shape[:-1] for part in (n // w, w)), -1)
        split = jnp.moveaxis(split, range(1, 2 * axes, 2), range(axes))
        return split.reshape(w**axes, *split.shape[axes:])

    def flip_pullback(
        self, pull: Callable[..., Array], x: Array, flipped: Array, a: Array, g: Array
    ) -> Array:
        """Return the ``flip_pullback`` of pooling before a layer, whose own is ``pull``.

        ``x`` and ``flipped`` are [*space, channels]; ``a`` and ``g`` are [*outputs] of the layer.
        An input changes only the mean of its window, so one call of ``pull`` for each entry of a
        window is enough.
        """
        change, back = jax.vjp(self._windows, flipped - x)
        mean = self(x)
        pulled = jax.lax.map(lambda c: pull(mean, mean + c / len(change), a, g), change)
        return back(pulled)[0]
