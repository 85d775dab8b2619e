"""Text in columns, and the formats that tables of results are printed in."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from gradbench.core.names import in_csv, in_latex, in_markdown, visible
from gradbench.core.registry import Registry

Row = Sequence[str]


def _unchanged(text: str) -> str:
    return text


class Best(str):
    """A cell that is the best of its column: formats for papers print it in bold."""


class Format(NamedTuple):
    """A format that tables of results are printed in.

    ``table(rows, right, heading)`` returns a table as text: its first row are the titles, its
    columns from number ``right`` on are numbers. ``note(text)`` returns what is printed below it.
    Where ``formulas`` is true, it is for papers: titles of metrics are formulas in dollar signs,
    and estimators have their display names. Where ``numbers`` is given, it replaces all this:
    ``numbers(frame)`` returns a pandas frame as text.
    """

    table: Callable[[Sequence[Row], int, str], str]
    note: Callable[[str], str] = _unchanged
    formulas: bool = False
    numbers: Callable[[Any], str] | None = None


FORMATS: Registry[Format] = Registry("format")


def aligned(rows: Sequence[Row], right: int | None = None) -> list[str]:
    """Return the rows as lines of aligned cells, to the right from the column ``right`` on."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = len(widths) if right is None else right
    return [
        "  ".join(
            cell.ljust(width) if k < right else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(rows: Sequence[Row], right: int | None = None) -> list[str]:
    """Return the lines of a table of the package in Markdown; the first row is its header."""
    head, *body = rows
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in body]
    return _markdown_lines(head, cells, right)


def _markdown_lines(
    head: Sequence[str], body: Sequence[Row], right: int | None = None
) -> list[str]:
    right = len(head) if right is None else right
    marks = ["---" if k < right else "---:" for k in range(len(head))]
    titles = [cell.replace("|", "\\|") for cell in head]
    return [f"| {' | '.join(line)} |" for line in (titles, marks, *body)]


def latex(rows: Sequence[Row], right: int, heading: str = "") -> list[str]:
    """Return the lines of a table in LaTeX with booktabs rules; a title in dollar signs stays."""
    head, *body = rows
    titles = [title if title.startswith("$") else in_latex(title) for title in head]
    columns = "l" * right + "r" * (len(head) - right)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if heading:
        lines += [f"\\multicolumn{{{len(head)}}}{{l}}{{{in_latex(heading)}}} \\\\", "\\midrule"]
    lines += [f"{' & '.join(titles)} \\\\", "\\midrule"]
    for k, row in enumerate(body):
        if k and head[0] == "layer" and row[0]:
            lines.append("\\addlinespace")
        lines.append(_not_optional(f"{' & '.join(map(_number, row))} \\\\"))
    return [*lines, "\\bottomrule", "\\end{tabular}"]


def _not_optional(line: str) -> str:
    r"""Return a row that the ``\\`` or the rule before it cannot take for its argument."""
    return f"{{}}{line}" if re.match(r"\s*[\[*(]", line) else line


def _number(cell: str) -> str:
    """Return a number with its power of ten as LaTeX writes it, other text escaped."""
    found = re.fullmatch(r"(< )?(-?[\d.]+(?:\([\d.]+\))?)(?:e([+-]\d+))?", cell)
    best, text = isinstance(cell, Best), in_latex(cell.strip())
    if not found:
        return f"\\textbf{{{text}}}" if best else text
    power = rf" \cdot 10^{{{int(found[3])}}}" if found[3] else ""
    number = f"{found[1] or ''}{found[2]}{power}"
    return f"$\\mathbf{{{number}}}$" if best else f"${number}$"


def _terminal(rows: Sequence[Row], right: int, heading: str) -> str:
    shown = [[visible(cell) for cell in row] for row in rows]
    return "\n".join([visible(heading), *(f"  {line}" for line in aligned(shown, right))])


def _markdown(rows: Sequence[Row], right: int, heading: str) -> str:
    head, *body = rows
    body = [[in_markdown(cell) for cell in row] for row in body]
    return "\n".join([f"**{in_markdown(heading)}**", "", *_markdown_lines(head, body, right)])


def _latex(rows: Sequence[Row], right: int, heading: str) -> str:
    return "\n".join(latex(rows, right, heading))


def _latex_comment(text: str) -> str:
    return "\n".join(f"% {visible(line)}" for line in text.splitlines())


def _csv(frame: Any) -> str:
    safe = frame.rename(columns=lambda title: in_csv(str(title)))
    for column in safe.columns:
        if not _is_number(safe[column].dtype):
            safe[column] = [in_csv(one) if isinstance(one, str) else one for one in safe[column]]
    return str(safe.to_csv(index=False)).rstrip("\n")


def _json(frame: Any) -> str:
    """Return rows as JSON: a list of objects. NaN is null, an infinite number is a text."""

    def plain(value: Any) -> Any:
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        return value

    rows = [{str(k): plain(v) for k, v in row.items()} for row in records(frame)]
    return as_json(rows)


def records(frame: Any) -> list[dict[str, Any]]:
    """Return the rows of a pandas frame as dictionaries, as ``to_dict`` does in ten times the time.

    Its columns have different names.
    """
    names = list(frame.columns)
    columns = [frame[name].to_numpy().tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def records_by(frame: Any, keys: Sequence[str]) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Yield the values of some columns, once each, and the rows that have them, as ``records``.

    Columns are taken apart once: a frame of each group takes ten times as long.
    """
    names = list(frame.columns)
    columns = [frame[name].to_numpy().tolist() for name in names]
    places: dict[Any, list[int]] = {}
    for k, key in enumerate(zip(*(columns[names.index(key)] for key in keys), strict=True)):
        places.setdefault(key, []).append(k)
    for key, own in places.items():
        parts = [[column[k] for k in own] for column in columns]
        yield key, [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]


def as_json(value: Any) -> str:
    """Return a value as indented JSON in ASCII."""
    import json

    return json.dumps(value, indent=1, default=str)


def _is_number(kind: Any) -> bool:
    return getattr(kind, "kind", "O") in "biuf"


FORMATS.add("terminal", Format(_terminal), aliases=("text",), summary="Aligned columns of text.")
FORMATS.add("markdown", Format(_markdown), summary="Tables in Markdown.")
FORMATS.add(
    "latex",
    Format(_latex, _latex_comment, formulas=True),
    summary="Tables in LaTeX, for the package booktabs.",
)
FORMATS.add(
    "csv",
    Format(_terminal, numbers=_csv),
    summary="Comma-separated values: every column of the frame, numbers in full.",
)
FORMATS.add(
    "json",
    Format(_terminal, numbers=_json),
    summary="JSON: a list with an object for each row, numbers in full.",
)
