"""Formulas as MathML, which browsers draw themselves."""

from latex2mathml.converter import convert
from markupsafe import Markup


def mathml(formula: str, words: str = "") -> Markup:
    """Return a formula in LaTeX as MathML; one that cannot be read is shown as it is written.

    Args:
        formula: the formula.
        words: the same in words, for readers who do not see it.
    """
    try:
        found = convert(formula)
    except Exception:  # of many kinds: formulas of plugins may be anything
        return Markup("<code>{}</code>").format(formula)
    label = Markup(' aria-label="{}"').format(words) if words else ""
    return Markup(found.replace("<math", f'<math displaystyle="true"{label}', 1))
