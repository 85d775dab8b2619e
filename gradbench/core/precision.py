"""Double precision where it is needed, without switching a global flag."""

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np


def float64() -> AbstractContextManager[None]:
    """Return a context in which JAX computes in float64; outside it nothing changes."""
    home = jax if hasattr(jax, "enable_x64") else jax.experimental  # experimental before jax 0.8
    return home.enable_x64(True)


def single() -> AbstractContextManager[None]:
    """Return a context in which JAX computes in float32, as it does unless told otherwise."""
    home = jax if hasattr(jax, "enable_x64") else jax.experimental
    return home.enable_x64(False)


def doubled(tree: Any) -> Any:
    """Return a pytree with its real numbers as arrays in float64; for use inside ``float64()``.

    Keys stay as they are.
    """

    def double(leaf: Any) -> jax.Array:
        if jnp.issubdtype(getattr(leaf, "dtype", int), jax.dtypes.extended):
            return jnp.asarray(leaf)
        leaf = np.asarray(leaf)
        return jnp.asarray(leaf, jnp.float64 if jnp.issubdtype(leaf.dtype, jnp.floating) else None)

    return jax.tree.map(double, tree)
