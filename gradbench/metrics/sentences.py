"""Sentences with names of estimators in them, which are texts that are put together later.

A sentence is made of parts, of which those that are a ``Name`` are estimators: ``plain`` gives the
text, and the report marks the names.
"""

from collections.abc import Sequence

from gradbench.core.specs import label

_MOST = 4  # names in a row


class Name(str):
    """An estimator within a sentence."""

    __slots__ = ()


Sentence = tuple[str, ...]  # some parts of which are names


def plain(sentence: Sentence) -> str:
    """Return a sentence as text."""
    return "".join(label(part) if isinstance(part, Name) else part for part in sentence)


def names(estimators: Sequence[str], last: str = " or ", most: int = _MOST) -> Sentence:
    """Return several estimators within a sentence; of many the first ones, and how many more."""
    shown: list[Sentence] = [(Name(one),) for one in estimators[:most]]
    if len(estimators) > most:
        shown.append((f"{len(estimators) - most} more",))
    parts: list[str] = []
    for k, one in enumerate(shown):
        parts += [*([last if k == len(shown) - 1 else ", "] if k else []), *one]
    return tuple(parts)


def enumeration(parts: Sequence[str], last: str = "and") -> str:
    """Return an enumeration: "a", "a and b", "a, b and c"."""
    return f" {last} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
