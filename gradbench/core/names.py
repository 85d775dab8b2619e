"""Names and titles, which may come from anyone: what they may be, and how each output shows them.

The names of suites, problems, variants, estimators and layers, and the titles, come from the TOML
files and the results of others. ``unprintable`` finds what is refused when these are read. Each
output has one function that makes it inert for any text: ``file_name`` and ``figure_name`` for
paths, ``literal`` for Python, ``visible`` for the terminal, ``in_latex``, ``in_markdown`` and
``in_csv``. HTML is escaped by the templates of the report, and figures take no text for TeX.
"""

import math
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from gradbench.core.errors import GradbenchError

_PLAIN = "()=,[]+"  # besides letters, digits and "_.-~"
_LONGEST = 200  # letters of the name of a file, without its suffix


def _is_printable(letter: str) -> bool:
    """Return whether a letter has a look: no control, no change of direction, half of a pair."""
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def visible(text: str) -> str:
    r"""Return the text with what cannot be printed written as in Python, such as ``\x1b``.

    Ends of lines are such, too: the text is one line.
    """
    if text.isprintable():
        return text
    return "".join(one if _is_printable(one) else _escape(one) for one in text)


def visible_lines(text: str) -> str:
    """Return the text as ``visible`` does, but with its lines as they are."""
    return "\n".join(map(visible, text.split("\n")))


def _escape(letter: str) -> str:
    number = ord(letter)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def unprintable(value: Any) -> str | None:
    """Return the first text, in a value of JSON or TOML, that cannot be printed; else None.

    Keys count as well as values. The answer is ``visible``.
    """
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            if not one.isprintable() and (shown := visible(one)) != one:
                return shown
        elif isinstance(one, Mapping):
            left += [*one.values(), *one]
        elif isinstance(one, list | tuple):
            left += one
    return None


@lru_cache(maxsize=4096)
def file_name(label: str) -> str:
    """Return a readable file name for a label; ``urllib.parse.unquote`` is the way back.

    It is one part of a path, whatever is in the label.

    Raises:
        GradbenchError: the label is empty, too long, or no Unicode.
    """
    name = _quoted(label)
    if not 1 <= len(name) <= _LONGEST:
        raise GradbenchError(
            f"the name {_short(label)} does not fit into a file name; use 1 to {_LONGEST} plain "
            "letters"
        )
    return name


def figure_name(label: str) -> str:
    """Return the name of the files of a figure; a long label is cut, and ends with a digest."""
    name = _quoted(label)
    if len(name) <= _LONGEST:
        return name
    import hashlib  # some milliseconds, as urllib below

    short = re.sub(r"%.?$", "", name[: _LONGEST - 17])
    return f"{short}~{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"


def _quoted(label: str) -> str:
    from urllib.parse import quote

    try:
        return re.sub(r"^\.", "%2E", quote(label, safe=_PLAIN))
    except UnicodeEncodeError:
        raise GradbenchError(
            f"the name {_short(label)} is no Unicode; use 1 to {_LONGEST} plain letters"
        ) from None


def _short(text: str, most: int = 60) -> str:
    return repr(text) if len(text) <= most else f"{text[:most]!r}..."


def literal(value: Any) -> str:
    """Return the Python literal of a value, in ASCII but for letters: texts cannot leave it.

    Values are texts, numbers, truth values, None, and lists, dictionaries and tuples of these. A
    named tuple is a call of its class with literals.

    Raises:
        GradbenchError: there is no literal of it.
    """
    value = value.item() if hasattr(value, "item") else value  # of numpy
    if isinstance(value, str):
        safe = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{visible(safe)}"'
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{literal(key)}: {literal(part)}" for key, part in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields = (f"{key}={literal(part)}" for key, part in value._asdict().items())
        return f"{type(value).__name__}({', '.join(fields)})"
    if isinstance(value, tuple):
        return f"({''.join(f'{literal(part)}, ' for part in value)})"
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    raise GradbenchError(
        f"{value!r} has no literal for a script; give texts, numbers, lists and dictionaries"
    )


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def in_latex(text: str) -> str:
    """Return the text with the special characters of LaTeX escaped."""
    return re.sub(
        r"[\\~^&%$#_{}<>|]",
        lambda m: _LATEX.get(m[0], f"${m[0]}$" if m[0] in "<>|" else f"\\{m[0]}"),
        visible(text),
    )


def in_markdown(text: str) -> str:
    """Return the text with what Markdown takes for code, links, emphasis or HTML escaped."""
    safe = re.sub(r"[\\`*\[\]|$~]|(?<!\w)_|_(?!\w)", lambda m: f"\\{m[0]}", visible(text))
    return safe.replace("&", "&amp;").replace("<", "&lt;")


# The full-width forms are taken for the plain ones by some spreadsheets.
_COMPUTED = re.compile("[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def in_csv(text: str) -> str:
    """Return the text with an apostrophe before it where a spreadsheet would compute it.

    Source: OWASP, CSV injection: cells that begin with =, +, -, @, a tab or a carriage return.
    """
    return f"'{visible(text)}" if _COMPUTED.match(text) else visible(text)
