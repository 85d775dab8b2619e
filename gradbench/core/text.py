"""Text in columns, for terminals, Markdown and LaTeX."""

import re
from collections.abc import Sequence

FORMS = ("terminal", "markdown", "latex", "csv")
Row = Sequence[str]


def aligned(rows: Sequence[Row], right: int | None = None) -> list[str]:
    """The rows as lines with their cells in columns, from the column ``right`` on to the right."""
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
    """A table in Markdown, the first row its header."""
    head, *body = rows
    right = len(head) if right is None else right
    marks = ["---" if k < right else "---:" for k in range(len(head))]
    cells = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in body]
    titles = [cell.replace("|", "\\|") for cell in head]
    return [f"| {' | '.join(line)} |" for line in (titles, marks, *cells)]


def latex(rows: Sequence[Row], right: int, heading: str = "") -> list[str]:
    """A table in LaTeX, with the rules of the package booktabs; a header in $ signs stays."""
    head, *body = rows
    titles = [title if title.startswith("$") else escaped(title) for title in head]
    columns = "l" * right + "r" * (len(head) - right)
    lines = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule"]
    if heading:
        lines += [f"\\multicolumn{{{len(head)}}}{{l}}{{{escaped(heading)}}} \\\\", "\\midrule"]
    lines += [f"{' & '.join(titles)} \\\\", "\\midrule"]
    lines += [f"{' & '.join(map(_number, row))} \\\\" for row in body]
    return [*lines, "\\bottomrule", "\\end{tabular}"]


_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def escaped(text: str) -> str:
    """The text as LaTeX reads it."""
    return re.sub(
        r"[\\~^&%$#_{}<>|]",
        lambda m: _SPECIAL.get(m[0], f"${m[0]}$" if m[0] in "<>|" else f"\\{m[0]}"),
        text,
    )


def _number(cell: str) -> str:
    """Numbers with powers of ten as LaTeX writes them; other text escaped."""
    found = re.fullmatch(r"(< )?(-?[\d.]+(?:\(\d+\))?)(?:e([+-]\d+))?", cell)
    if not found:
        return escaped(cell)
    power = rf" \cdot 10^{{{int(found[3])}}}" if found[3] else ""
    return f"${found[1] or ''}{found[2]}{power}$"
