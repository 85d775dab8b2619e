"""Checks of what user code hands in: real numbers, and keys that are used once."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.errors import GradbenchError
from gradbench.core.uniforms import check_key

# By the identity of a key: a reference to it, and which call used it in which evaluation and trace.
_USED: dict[int, tuple[weakref.ref, list[tuple[Any, str]]]] = {}
_PLACES = 16  # the last uses of a key are remembered, older ones are forgotten

# The current evaluation of an objective, and the keys that it and those around it draw from.
_evaluating: ContextVar[tuple[Any, tuple[Any, ...]]] = ContextVar("evaluating", default=(None, ()))


@contextmanager
def evaluation(key: Any = None) -> Iterator[None]:
    """Mark an evaluation of an objective by an estimator that draws from ``key``.

    An estimator may evaluate the objective several times: what the objective draws from its own
    keys it draws again in each evaluation. The key of the estimator is not for the objective.
    """
    keys = _evaluating.get()[1]
    token = _evaluating.set((object(), keys if key is None else (*keys, key)))
    try:
        yield
    finally:
        _evaluating.reset(token)


def is_evaluating() -> bool:
    """Return whether an estimator is evaluating an objective, see ``evaluation``."""
    return _evaluating.get()[0] is not None


def note_use(key: Any, user: str, beside: Any) -> None:
    """Refuse a key that another call in the same trace has drawn from.

    Two layers with one key have the same noise. Outside of any trace nothing is refused: there it
    is right to call a function twice with one key, and gives the same numbers.

    Args:
        key: the key.
        user: the name of the function that draws from it.
        beside: its other arrays, by which a trace is recognised.

    Raises:
        GradbenchError: the key is used already, or is no key.
    """
    check_key(key)
    current, taken = _evaluating.get()
    if any(key is other for other in taken):
        raise _used(user, "expectation")
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((key, beside)))
    if not traced or jax.config.jax_disable_jit:  # type: ignore[attr-defined]
        return
    where, number = (current, trace_state()), id(key)
    if number not in _USED or _USED[number][0]() is not key:
        _USED[number] = weakref.ref(key, lambda _: _USED.pop(number, None)), []
    places = _USED[number][1]
    for other, before in places:
        if other == where:
            raise _used(user, before)
    places[:] = [*places[1 - _PLACES :], (where, user)]


def _used(user: str, before: str) -> GradbenchError:
    return GradbenchError(
        f"{user}() got a key that {before}() has used already, so that their noise would be the "
        "same; give each a key of jax.random.split, or jax.random.clone(key) where common random "
        "numbers are meant"
    )


def trace_state() -> Any:
    """Return the transformation that is being traced, to be compared with another one."""
    home = jax.extend.core if hasattr(jax.extend.core, "get_opaque_trace_state") else jax.core
    return home.get_opaque_trace_state(convention="gradbench")


def real(what: str, a: Any) -> Array:
    """Return real numbers as an array.

    Args:
        what: what they are called in the sentence of an error.
        a: the numbers, of any shape.

    Raises:
        GradbenchError: they are not real, or hold NaN as far as this is known while tracing.
    """
    try:
        a = jnp.asarray(a)
    except (TypeError, ValueError) as error:
        raise GradbenchError(f"the {what} are {a!r}; give real numbers") from error
    if not jnp.issubdtype(a.dtype, jnp.floating):
        raise GradbenchError(f"the {what} are of type {a.dtype}; give real numbers")
    if not isinstance(a, jax.core.Tracer):  # known numbers, also while something else is traced
        with jax.ensure_compile_time_eval():
            bad = bool(jnp.isnan(a).any())
        if bad:
            raise GradbenchError(
                f"the {what} hold NaN; see what made them, with jax.debug_nans(True)"
            )
    return a
