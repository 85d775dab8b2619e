"""Checks of arguments that are numbers, of Python or of numpy; booleans are none."""

import contextlib
import math
import operator
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
    number = _number(value)
    if not math.isfinite(number):
        raise GradbenchError(f"{name} is {value!r}; give a number")
    return number


def positive(name: str, value: object) -> float:
    """Return a value that has to be a positive, finite number.

    Raises:
        GradbenchError: it is not.
    """
    number = _number(value)
    if not 0 < number < math.inf:
        raise GradbenchError(f"{name} is {value!r}; give a positive number")
    return number


def _number(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, Real):
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            return float(value)
    return math.nan


def at_least(least: int, name: str, value: object) -> int:
    """Return a value that has to be a whole number of at least ``least``.

    Raises:
        GradbenchError: it is not.
    """
    number = _number(value)
    if not (number >= least and number.is_integer()):
        raise GradbenchError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(number)


def limit(name: str, value: Any) -> Any:
    """Return a value that has to be a positive number; infinity means no limit.

    Raises:
        GradbenchError: it is not.
    """
    if not _number(value) > 0:
        raise GradbenchError(f"{name} is {value!r}; give a positive number")
    return value


def fraction(name: str, value: object) -> float:
    """Return a value that has to be a number from 0 to 1.

    Raises:
        GradbenchError: it is not.
    """
    number = _number(value)
    if not 0 <= number <= 1:
        raise GradbenchError(f"{name} is {value!r}; give a number from 0 to 1")
    return number


def as_int(value: object) -> int | None:
    """Return the value as an int if it is a whole number, else None."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None
