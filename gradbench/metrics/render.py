"""Rows as text, and numbers with their uncertain digits."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gradbench.core.text import FORMATS
from gradbench.metrics.intervals import Estimate, digits

_BIASES = ("bias", "bias2", "scale_free_bias")
_MEANS = ("cosine", "signs")  # over groups


def by_layer(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows, layer by layer, each with the layer in its first column, once per layer."""
    layers: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)
    for layer, own in layers.items():
        for k, row in enumerate(own):
            yield "" if k else layer, row


def render(rows: Sequence[Sequence[str]], form: str, heading: str, right: int) -> str:
    """Return a table under its heading.

    Args:
        rows: cells; the first row has the titles of the columns.
        form: one of ``FORMATS`` that prints tables.
        heading: what the table is of.
        right: the first column that is aligned to the right.
    """
    return FORMATS.find(form).table(rows, right, heading)


def shown(row: Mapping[str, Any], name: str, intervals: bool = False) -> str:
    """Return the text of a metric in a row of a frame, with its uncertain digits.

    A bias that a theorem says to be zero is "0 by theorem"; a mean over too few groups for an
    interval is followed by "(too few)".
    """
    found = Estimate(*(row[f"{name}{end}"] for end in ("", "_se", "_low", "_high")))
    if name in _BIASES and row.get("bias_source") == "theorem":
        return "0 by theorem"
    if name in _MEANS and math.isnan(found.low) and not math.isnan(found.value):
        return f"{found.value:.2g} (too few)"
    return number(found, intervals)


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
    return FORMATS.find(form).note(text)
