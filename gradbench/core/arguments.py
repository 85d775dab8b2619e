"""Checks of arguments that are numbers, of Python, numpy or JAX; booleans are none.

Hyper-parameters that train or anneal (``finite``, ``positive``, ``not_negative``, ``fraction``) may
be real numbers that JAX traces, in ``jit``, ``vmap`` or ``grad``. Their values are checked if the
program runs under ``jax.experimental.checkify``, and not otherwise: a value outside its range then
gives whatever the formula gives.
"""

import contextlib
import math
import operator
import sys
from collections.abc import Callable
from numbers import Real
from typing import Any

from gradbench.core.errors import GradbenchError


def finite(name: str, value: object) -> float:
    """Return a value that has to be a finite number.

    Args:
        name: what the value is called in the sentence of an error.
        value: what was given.

    Raises:
        GradbenchError: it is no finite number.
    """
    return _checked(name, value, lambda number: abs(number) < math.inf, "a number")


def positive(name: str, value: object) -> float:
    """Return a value that has to be a positive, finite number.

    Raises:
        GradbenchError: it is not.
    """
    within = lambda number: (number > 0) & (number < math.inf)  # noqa: E731
    return _checked(name, value, within, "a positive number")


def not_negative(name: str, value: object) -> float:
    """Return a value that has to be a finite number of at least 0.

    Raises:
        GradbenchError: it is not.
    """
    within = lambda number: (number >= 0) & (number < math.inf)  # noqa: E731
    return _checked(name, value, within, "a number of at least 0")


def are_known(*numbers: float) -> bool:
    """Return whether none of some numbers, as these functions return them, is traced by JAX."""
    return not any(map(_is_traced, numbers))


def _number(value: Any) -> float:
    if _is_traced(value):
        return math.nan
    if _is_scalar(value):
        value = value.item()  # of an array
    if not isinstance(value, bool) and isinstance(value, Real):
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            return float(value)
    return math.nan


def _is_traced(value: Any) -> bool:
    """Return whether JAX traces a real number: these modules do not import JAX."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer) and _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    """Return whether this is a real array of no dimension; V are half precisions of JAX."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)  # keys have a dtype without one
    return getattr(value, "shape", None) == () and kind in ("i", "u", "f", "V")


def _shown(value: object) -> str:
    """Return a value as a sentence shows it: arrays and keys are written on several lines."""
    return " ".join(repr(value).split())


def _checked(name: str, value: Any, within: Callable[[Any], Any], wanted: str) -> float:
    """Return a number, or what is traced in its place, if it is within its range."""
    if _is_traced(value):
        from jax.experimental import checkify  # loaded where something is traced

        sentence = f"{name} is {{value}}; give {wanted}"
        checkify.debug_check(within(value), sentence, value=value)
        return value
    number = _number(value)
    if not within(number):
        raise GradbenchError(f"{name} is {_shown(value)}; give {wanted}")
    return number


def at_least(least: int, name: str, value: object) -> int:
    """Return a value that has to be a whole number of at least ``least``.

    Raises:
        GradbenchError: it is not.
    """
    number = _number(value)
    if not (number >= least and number.is_integer()):
        raise GradbenchError(f"{name} is {_shown(value)}; give a whole number of at least {least}")
    return int(number)


def limit(name: str, value: Any) -> Any:
    """Return a value that has to be a positive number; infinity means no limit.

    Raises:
        GradbenchError: it is not.
    """
    if not _number(value) > 0:
        raise GradbenchError(f"{name} is {_shown(value)}; give a positive number")
    return value


def fraction(name: str, value: object) -> float:
    """Return a value that has to be a number from 0 to 1.

    Raises:
        GradbenchError: it is not.
    """
    within = lambda number: (number >= 0) & (number <= 1)  # noqa: E731
    return _checked(name, value, within, "a number from 0 to 1")


def as_int(value: object) -> int | None:
    """Return the value as an int if it is a whole number, else None."""
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
