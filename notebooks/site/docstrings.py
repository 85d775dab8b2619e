"""Docstrings as reStructuredText, which they are not: they are plain text with ``code``.

Formulas such as ``f_*`` in plain text would be references or emphasis, and indented lines
quotations: the first are escaped, the second become literal blocks. Signatures name types as the
sources do.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any

from reference_pages import PAGES

from gradbench.core.atomic import Floats
from gradbench.core.contract import Model
from gradbench.estimators.exactness import Exactness

_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Note):$")
_ITEM = re.compile(r" *(-|\d+\.) ")
_SPECIAL = re.compile(r"([\\*|`]|_(?!\w))")
# Types as the sources name them, and not as Python spells them out.
_SHORT = {
    inspect.formatannotation(Model): "Model",
    inspect.formatannotation(Floats): "Floats",
    inspect.formatannotation(Exactness): "Exactness",
}
_MODULE = re.compile(r"\b(?:[a-z_]\w*\.)+(?=[A-Z])")


def escaped(text: str) -> str:
    """Return plain text whose code, in double backticks, is code and nothing else is."""
    parts = re.split(r"(``.+?``)", text, flags=re.DOTALL)
    return "".join(p if k % 2 else _SPECIAL.sub(r"\\\1", p) for k, p in enumerate(parts))


def converted(lines: list[str]) -> Iterator[str]:
    """Yield the lines of a docstring as reStructuredText."""
    kinds = [kind for kind, _ in _kinds(lines)]
    for kind, group in groupby(zip(kinds, lines, strict=True), key=itemgetter(0)):
        own = [line for _, line in group]
        if kind == "literal":
            yield from (".. code-block:: text", "", *own, "")
        else:
            yield from own if kind == "section" else escaped("\n".join(own)).split("\n")


def _kinds(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield what each line is: the head of a section, a line of a literal block, or plain text."""
    section = literal = item = False
    before = ""
    for line in lines:
        if line.strip() and not line.startswith(" "):
            section, literal, item = bool(_SECTION.match(line)), False, bool(_ITEM.match(line))
        starts = line.startswith("    ") and not before.strip()
        if starts and not (section or item or _ITEM.match(line)):
            literal = True
        head = _SECTION.match(line)
        yield "section" if head else "literal" if literal else "plain", line
        before = line


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = converted(lines)


@cache
def _long_types() -> list[tuple[str, str]]:
    """Return the long spellings of the aliases above, the longest first."""
    return sorted(_SHORT.items(), key=lambda pair: -len(pair[0]))


def _signature(app: Any, what: str, name: str, thing: Any, options: Any, own: Any, returns: Any):
    """Return a signature with the short names of types."""

    def short(text: str | None) -> str | None:
        for long, alias in _long_types():
            text = text and text.replace(long, alias)
        return text and _MODULE.sub("", text)

    return short(own), short(returns)


def _skip(app: Any, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave the fields of named tuples out, which their class tells."""
    return True if (thing.__doc__ or "").startswith("Alias for field number") else None


def setup(app: Any) -> dict[str, bool]:
    """Convert docstrings before Napoleon reads their sections."""
    for page in PAGES:  # names that are loaded when they are used
        module = importlib.import_module(page)
        vars(module).update({name: getattr(module, name) for name in module.__all__})
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}
