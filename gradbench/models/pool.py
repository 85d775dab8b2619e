"""Pooling, which layers of convolutions read through."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.errors import GradbenchError
from gradbench.models.reads import Reads, channelwise


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

    def reads(self, shape: tuple[int, ...]) -> Reads:
        """Return which inputs of shape [*space, channels] each mean reads."""
        return channelwise(shape, self.window, lambda: self.window ** -(len(shape) - 1.0))
