"""What files of results may hold: shapes of JSON, and a check that a value has one.

A shape is one of these:

    a function          the value passes it
    None or a text      the value is it
    (one, other, ...)   the value has one of several shapes
    [one]               a list whose items have a shape
    {"key": one, "other?": two, ...: three}    an object with a key, perhaps another, and more keys
                        (refused without ``...``), whose values have these shapes

Files come from others, so nothing is taken for granted. JSON has NaN and infinity in Python, and
true is a number there: neither is one here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from gradbench.core.errors import GradbenchError
from gradbench.core.names import file_name
from gradbench.core.specs import parse_spec

Shape = Any


def fault(value: Any, shape: Shape, where: str = "it") -> str:
    """Return the place of the first part that does not have the shape, "" if all have."""
    if isinstance(shape, tuple):
        faults = [fault(value, one, where) for one in shape]
        return "" if "" in faults else max(faults, key=len)  # the one that got farthest
    if isinstance(shape, list):
        if not isinstance(value, list):
            return where
        parts = (fault(one, shape[0], f"{where}[{n}]") for n, one in enumerate(value))
        return next(filter(None, parts), "")
    if isinstance(shape, Mapping):
        return _fault_of_object(value, shape, where)
    fits = shape(value) if callable(shape) else type(value) is type(shape) and value == shape
    return "" if fits else where


def _fault_of_object(value: Any, shape: Mapping[Any, Shape], where: str) -> str:
    if not isinstance(value, dict):
        return where
    known = {key.removesuffix("?"): one for key, one in shape.items() if key is not ...}
    for key in shape:
        if key is not ... and not key.endswith("?") and key not in value:
            return f"{where}.{key}"
    for key, part in value.items():
        if key not in known and ... not in shape:
            return f"{where}.{key}"
        if found := fault(part, known.get(key, shape.get(...)), f"{where}.{key}"):
            return found
    return ""


def anything(value: Any) -> bool:
    """Return True."""
    return True


def flag(value: Any) -> bool:
    """Return whether it is true or false."""
    return isinstance(value, bool)


def text(value: Any) -> bool:
    """Return whether it is a text."""
    return isinstance(value, str)


def name(value: Any) -> bool:
    """Return whether it is a text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def folder(value: Any) -> bool:
    """Return whether it is a text that a folder can be named after."""
    try:
        return name(value) and bool(file_name(value))
    except GradbenchError:
        return False


def spec(value: Any) -> bool:
    """Return whether it is the text of an estimator, with or without arguments."""
    try:
        return folder(value) and bool(parse_spec(value))
    except GradbenchError:
        return False


def number(value: Any) -> bool:
    """Return whether it is a finite number."""
    return type(value) in (int, float) and abs(value) < 1e300 and math.isfinite(value)


def not_negative(value: Any) -> bool:
    """Return whether it is a finite number of at least 0."""
    return number(value) and value >= 0


def positive(value: Any) -> bool:
    """Return whether it is a finite number above 0 that one may divide by."""
    return number(value) and value > 1e-300


def integer(value: Any) -> bool:
    """Return whether it is a whole number of any sign."""
    return type(value) is int and abs(value) < 2**63


def natural(value: Any) -> bool:
    """Return whether it is a whole number of at least 0 that is a float64 as well."""
    return type(value) is int and 0 <= value <= 2**53


def count(value: Any) -> bool:
    """Return whether it is a whole number of at least 1 that is a float64 as well."""
    return natural(value) and value >= 1


def filled(shape: Shape) -> Callable[[Any], bool]:
    """Return the shape of a list that is not empty, without an item twice."""

    def fits(value: Any) -> bool:
        if fault(value, [shape]) or not value:
            return False
        return len(set(map(repr, value))) == len(value)

    return fits
