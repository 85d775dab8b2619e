"""Columns of text in the width of a terminal."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from gradbench.core.text import aligned

_WORD = r"(?:[^\s(-]|-(?![A-Za-z]{3}))*(?:-(?=[A-Za-z]{3})|\(|\s+|$)"
_NARROW = ("as published", "source", "full name")  # what a narrow terminal goes without


def fitted(table: Sequence[Mapping[str, str]], width: int | None) -> list[str]:
    """Return the lines of a table; columns that a narrow terminal has no room for are left out."""
    left_out: list[str] = []
    for name in ("", *_NARROW):
        left_out.append(name)
        kept = [{k: v for k, v in row.items() if k not in left_out} for row in table]
        lines = aligned(_wrapped([[*kept[0]], *([*row.values()] for row in kept)], width))
        if width is None or max(map(len, lines)) <= width:
            break
    return lines


def _wrapped(rows: Sequence[Sequence[str]], width: int | None) -> Sequence[Sequence[str]]:
    """Break cells into further rows where lines would exceed a width.

    Words are not broken, so that lines are wider where the width is less than some 120 characters.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(len(title), *(len(line) for cell in cells for line in _broken(cell, 0, k == 0)))
        for k, (title, *cells) in enumerate(columns)
    ]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        free = [k for k, most in enumerate(widths) if most > least[k]]
        if not free:
            break
        widths[max(free, key=widths.__getitem__)] -= 1
    return [
        line
        for row in rows
        for line in zip_longest(
            *(
                _broken(cell, most, k == 0)
                for k, (cell, most) in enumerate(zip(row, widths, strict=True))
            ),
            fillvalue="",
        )
    ]


def _broken(cell: str, width: int, indent: bool) -> list[str]:
    """Break a cell into lines, which end after words, at hyphens, or before arguments."""
    first, *parts = re.findall(_WORD, cell)
    lines = [first]
    for part in parts:
        if len(lines[-1] + part.rstrip()) > width and part:
            lines.append("  " * indent)
        lines[-1] += part
    return [line.rstrip() for line in lines]
