"""Losses that differ in numbers alone share a compiled program, which takes these as arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from gradbench.core.contract import Loss

Make = Callable[[Any], Any]  # a loss from its numbers, any pytree of these; it can be hashed


@dataclass(frozen=True)
class _Same:
    """Makes one loss, which has no numbers."""

    loss: Loss

    def __call__(self, numbers: Any) -> Loss:
        return self.loss


# By identity, and only as long as the loss lives: a changed copy of it is another loss.
_KNOWN: WeakKeyDictionary[Any, tuple[Make, Any]] = WeakKeyDictionary()


def share(loss: Any, make: Make, numbers: Any) -> Any:
    """Say that ``make(numbers)`` is the same as a loss, also for numbers that are traced.

    Losses by the same ``make`` with numbers of the same types and shapes are compiled once. Returns
    the loss.
    """
    _KNOWN[loss] = make, numbers
    return loss


def parts(loss: Loss) -> tuple[Make, Any]:
    """Return what makes a loss, a static argument of compiled functions, and its numbers.

    They are what was given to ``share``; a loss of which nothing was said has no numbers.
    """
    try:
        found = _KNOWN.get(loss)
    except TypeError:  # a loss of the user's own, which has no weak references
        found = None
    return (_Same(loss), ()) if found is None else found
