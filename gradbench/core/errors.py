"""The one exception for bad input, and the help that its sentence gives."""

import difflib
import re
from collections.abc import Iterable, Mapping

_LONG = re.compile(r"\S{300,}")  # a word that is a name of someone who tries what happens
_MOST_LINES = 20  # of a message, which has a line for each fault in a file


class GradbenchWarning(UserWarning):
    """A warning of something that works, but hardly as it is meant. The message is one sentence."""


class GradbenchError(ValueError):
    """Bad input. The message is one sentence that names the thing, the value and the remedy.

    Words of hundreds of letters are shortened in it, and many lines.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_concise(str(message)))


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory, of the host or of a device."""
    # JAX has no class of its own for this.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def shortened(text: str, most: int = 60) -> str:
    """Return the text, with its middle left out where it is longer than so many letters."""
    if len(text) <= most:
        return text
    return f"{text[: most * 2 // 3]}...{text[len(text) - most // 3 :]}"


def _concise(message: str) -> str:
    lines = message.split("\n", _MOST_LINES)
    if len(lines) > _MOST_LINES:
        lines[-1] = f"... and {lines[-1].count(chr(10)) + 1} more lines"
    words = (_LONG.sub(lambda word: shortened(word[0], 180), line) for line in lines)
    return "\n".join(shortened(line, 4000) for line in words)


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
