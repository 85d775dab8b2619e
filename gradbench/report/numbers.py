"""Numbers and names in sentences: two digits, thousands apart, times in their unit."""

import math
import re
from collections.abc import Sequence

from markupsafe import Markup, escape

from gradbench.core.display import display_name
from gradbench.metrics.sentences import Name, Sentence
from gradbench.report.glossary import full_name

SEVERAL = 4  # examples of a kind that a sentence gives
_MOST = 8  # names in a row
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def about(value: float) -> str:
    """Return a number with two significant digits: "0.038", "3 800", "1.3 million", "2·10⁻⁷"."""
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else str(value)
    rounded = round(value, 1 - math.floor(math.log10(abs(value))))
    if rounded >= 1e9 or abs(rounded) < 1e-4:
        lead, _, power = f"{rounded:.1e}".partition("e")
        return f"{lead.removesuffix('.0')}·10{str(int(power)).translate(_RAISED)}"
    if rounded >= 1e6:
        return f"{rounded / 1e6:.2g} million"
    return f"{rounded:,.0f}".replace(",", "\u202f") if rounded >= 100 else f"{rounded:.2g}"


def duration(seconds: float) -> str:
    """Return a time in its unit: "3.4 ms"."""
    for unit, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.995 * unit:
            return f"{about(seconds / unit)} {name}"
    return f"{about(seconds / 1e-9)} ns"


def span(values: list[float]) -> str:
    """Return the range of some numbers: "0.0036 to 0.035"."""
    low, high = about(min(values)), about(max(values))
    return low if low == high else f"{low} to {high}"


def code(name: str) -> Markup:
    """Return the name of an estimator within a sentence."""
    text = '<b class="estimator" title="{}">{}</b>'
    return Markup(text).format(full_name(name), display_name(name))


def marked(sentence: Sentence) -> Markup:
    """Return a sentence of a verdict, with the names of estimators marked."""
    parts = (code(part) if isinstance(part, Name) else escape(part) for part in sentence)
    return Markup("").join(parts)


def with_code(text: str) -> Markup:
    """Return a text of a terminal as HTML; what is between backticks is code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def codes(names: Sequence[str]) -> Markup:
    """Return the names of estimators within a sentence; of many, the first ones and a count."""
    parts = [code(name) for name in names]
    if len(names) > _MOST:
        parts = [*parts[: _MOST - 1], Markup("{} more").format(len(names) - _MOST + 1)]
    return Markup(" and ").join([Markup(", ").join(parts[:-1]), parts[-1]][len(parts) == 1 :])
