"""Double precision where it is needed, without switching a global flag."""

from contextlib import AbstractContextManager

import jax


def float64() -> AbstractContextManager[None]:
    """A context in which JAX computes in float64; outside it nothing changes."""
    enable = getattr(jax, "enable_x64", None)
    if enable is None:  # jax < 0.8
        from jax.experimental import enable_x64 as enable
    return enable(True)
