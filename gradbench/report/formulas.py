"""Formulas as MathML, which browsers draw themselves."""

import re

from latex2mathml import converter
from markupsafe import Markup

_FUNCTION = re.compile(r"(<m[io]>(?:log|tanh|logit|sign|max|min|clip)</m[io]>)(?!<mo)")
_DEFINED = re.compile(r"<(m[io])>(:|&#x0003A;)</\1><mo>&#x0003D;</mo>")  # ":" and "=", apart
_OPEN, _CLOSE = {"{", "(", "[", r"\begin"}, {"}", ")", "]", r"\end"}


def mathml(formula: str, words: str = "") -> Markup:
    """Return a formula in LaTeX as MathML; one that cannot be read is shown as it is written.

    Args:
        formula: the formula.
        words: the same in words, for readers who do not see it.
    """
    try:
        found = convert(formula, "block")  # with limits above and below their signs
    except Exception:  # of many kinds: formulas of plugins may be anything
        return Markup("<code>{}</code>").format(formula)
    label = Markup(' aria-label="{}"').format(words) if words else ""
    inline = Markup('display="inline" displaystyle="true"{}').format(label)
    return Markup(found.replace('display="block"', inline, 1))


def lines(formula: str) -> Markup:
    """Return a formula as ``mathml`` does, to be broken into lines where a page is too narrow."""
    signed = ([f"{{}} {t}" if t[:1] in "+-" else t for t in terms] for terms in parts(formula))
    spans = (Markup("<wbr>").join(map(mathml, terms)) for terms in signed)
    return Markup("\n").join(Markup("<span>{}</span>").format(span) for span in spans)


def convert(formula: str, display: str = "inline") -> str:
    """Return a formula in LaTeX as MathML, with the spaces that are usual.

    Its ``display`` is "inline" or "block".
    """
    found = _DEFINED.sub("<mo>&#x02254;</mo>", converter.convert(formula, display=display))
    return _FUNCTION.sub(r'\1<mspace width="0.17em" />', found)


def parts(formula: str) -> list[list[str]]:
    """Return the statements of a formula, each as the terms between which a line may end.

    Statements are apart by wide spaces, and terms begin with a sign that has spaces around it. What
    is within braces, brackets or parentheses stays together.
    """
    found: list[list[str]] = [[""]]
    depth = 0
    for token in re.findall(r" [+-] |\\[A-Za-z]+|\\.|.", formula, re.DOTALL):
        depth += token in _OPEN
        depth -= token in _CLOSE
        if depth == 0 and token == r"\quad":
            found.append([""])
        elif depth == 0 and token in (" + ", " - "):
            found[-1].append(token)
        else:
            found[-1][-1] += token
    return [[term.strip() for term in terms] for terms in found]
