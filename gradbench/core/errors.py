"""The one exception for bad input, and the help that its sentence gives."""

import difflib
from collections.abc import Iterable, Mapping


class GradbenchWarning(UserWarning):
    """A warning of something that works, but hardly as it is meant. The message is one sentence."""


class GradbenchError(ValueError):
    """Bad input. The message is one sentence that names the thing, the value and the remedy."""


def did_you_mean(
    name: object, known: Iterable[str], aliases: Mapping[str, str] | None = None
) -> str:
    """Return the remedy for an unknown name: the closest known one, or the list of them.

    Args:
        name: what was given.
        known: the names there are.
        aliases: further spellings that may be meant, and the known name of each.
    """
    known = sorted(known)
    names = {**{own: own for own in known}, **(aliases or {})}
    close = difflib.get_close_matches(str(name), names, n=5)
    if not close:
        return f"choose one of {', '.join(known)}"

    def likeness(other: str) -> tuple[float, bool]:
        """Return how like the name another is; of two that are alike, a name beats an alias."""
        return difflib.SequenceMatcher(None, other, str(name)).ratio(), other in known

    return f"did you mean {names[max(close, key=likeness)]!r}?"
