"""Rows as text in four formats, and numbers with their uncertain digits."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.text import FORMS, aligned, latex, markdown
from gradbench.metrics.intervals import Estimate, digits


def by_layer(frame: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows, layer by layer, each with the layer in its first column, once per layer."""
    for layer, part in frame.groupby("layer", sort=False):
        for k, row in enumerate(part.to_dict("records")):
            yield "" if k else str(layer), row


def render(rows: Sequence[Sequence[str]], form: str, heading: str, right: int) -> str:
    """Return a table under its heading.

    Args:
        rows: cells; the first row has the titles of the columns.
        form: one of ``FORMS`` but "csv".
        heading: what the table is of.
        right: the first column that is aligned to the right.
    """
    if form == "markdown":
        return "\n".join([f"**{heading}**", "", *markdown(rows, right)])
    if form == "latex":
        return "\n".join(latex(rows, right, heading))
    return "\n".join([heading, *(f"  {line}" for line in aligned(rows, right))])


def check_form(form: str) -> str:
    """Return ``form`` if it is a format of tables.

    Raises:
        GradbenchError: it is not.
    """
    if form not in FORMS:
        raise GradbenchError(f"unknown format {form!r}; {did_you_mean(form, FORMS)}")
    return form


def shown(row: Mapping[str, Any], name: str, intervals: bool = False) -> str:
    """Return the text of a metric in a row of a frame, with its uncertain digits."""
    return number(
        Estimate(*(row[f"{name}{end}"] for end in ("", "_se", "_low", "_high"))), intervals
    )


def number(found: Estimate, intervals: bool = False) -> str:
    """Return the text of an estimate: "0.213(4)", "< 0.01", or with limits "0.21 [0.2, 0.22]"."""
    if found.low == 0.0 and 0.0 < found.high < math.inf and found.se > 0.0:
        return f"< {found.high:.2g}"
    if not intervals or not 1e-6 * abs(found.value) < found.se < math.inf:
        return digits(found.value, found.se)
    last = math.floor(math.log10(found.se)) - 1  # the power of ten of the second digit of the error
    size = max(abs(found.value), found.se)
    if size < 1e-4:
        form = f"#.{math.floor(math.log10(size)) - last + 1}g"
    else:
        form = f".{max(-last, 0)}f"
    value, low, high = (f"{round(x, -last):{form}}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def comment(text: str, form: str) -> str:
    """Return text below a table, as a comment in LaTeX."""
    if form == "latex":
        return "\n".join(f"% {line}" for line in text.splitlines())
    return text
