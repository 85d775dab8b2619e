"""The one exception for bad input, and the help that its sentence gives."""

import difflib
from collections.abc import Iterable


class GradbenchWarning(UserWarning):
    """Something that works, but hardly as it is meant: a sentence."""


class GradbenchError(ValueError):
    """Bad input. The message is one sentence that names the thing, the value and the remedy."""


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the closest known one, or the list of them."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(known)}"
