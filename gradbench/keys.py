"""What user code hands in: real numbers, and keys that are there and used once."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.errors import GradbenchError
from gradbench.uniforms import check_key

# Per key by identity: a reference to it, what used it, and the trace in which it did.
_USED: dict[int, tuple[weakref.ref, str, Any]] = {}


_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)


@contextmanager
def evaluation() -> Iterator[None]:
    """An evaluation of an objective by an estimator: one of several that use the same keys."""
    token = _evaluating.set(True)
    try:
        yield
    finally:
        _evaluating.reset(token)


def note_use(key: Any, user: str, beside: Any) -> None:
    """Refuses a key that another call in the same trace has drawn from, ``beside`` some arrays.

    Two layers with one key have the same noise. Outside of any trace nothing is told: to call a
    function twice with one key is right there, and gives the same numbers.

    Raises:
        GradbenchError: the key is used already, or is none.
    """
    check_key(key)
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, beside)))
    if _evaluating.get() or not traced:
        return
    trace = _trace()
    known = _USED.get(id(key))
    if known and known[0]() is key and known[2] == trace:
        raise GradbenchError(
            f"{user}() got a key that {known[1]}() has used already, so that their noise would be "
            "the same; give each a key of jax.random.split, or jax.random.clone(key) if it is meant"
        )
    number = id(key)
    _USED[number] = weakref.ref(key, lambda _: _USED.pop(number, None)), user, trace


def _trace() -> Any:
    """The transformation that is being traced."""
    home = jax.extend.core if hasattr(jax.extend.core, "get_opaque_trace_state") else jax.core
    return home.get_opaque_trace_state(convention="gradbench")


def real(what: str, a: Any) -> Array:
    """Real numbers as an array, not NaN as far as that can be seen.

    Raises:
        GradbenchError: they are not.
    """
    a = jnp.asarray(a)
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise GradbenchError(f"the {what} are of type {a.dtype}; give real numbers")
    if not isinstance(a, jax.core.Tracer) and bool(jnp.isnan(a).any()):
        raise GradbenchError(f"the {what} hold NaN; see what made them, with jax.debug_nans(True)")
    return a
