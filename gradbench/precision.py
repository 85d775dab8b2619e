"""Double precision where it is needed, without switching a global flag."""

from contextlib import AbstractContextManager

import jax
import jax.experimental


def float64() -> AbstractContextManager[None]:
    """A context in which JAX computes in float64; outside it nothing changes."""
    home = jax if hasattr(jax, "enable_x64") else jax.experimental  # experimental before jax 0.8
    return home.enable_x64(True)
