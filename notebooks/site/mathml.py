"""Formulas as MathML, which browsers draw themselves: no script is loaded."""

import re
from typing import Any

from docutils import nodes
from latex2mathml import converter

_FUNCTION = re.compile(r"(<m[io]>(?:log|tanh|logit|sign|max|min|clip)</m[io]>)(?!<mo)")
_DEFINED = re.compile(r"<(m[io])>(:|&#x0003A;)</\1><mo>&#x0003D;</mo>")  # ":" and "=", apart


def convert(formula: str, **options: str) -> str:
    """Return a formula in TeX as MathML, with the spaces that are usual."""
    found = _DEFINED.sub("<mo>&#x02254;</mo>", converter.convert(formula, **options))
    return _FUNCTION.sub(r'\1<mspace width="0.17em" />', found)


def _inline(self: Any, node: nodes.math) -> None:
    """Write a formula of a sentence."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


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


_OPEN, _CLOSE = {"{", "(", "[", r"\begin"}, {"}", ")", "]", r"\end"}


def _term(term: str) -> str:
    """Return a term as MathML in a line; a sign at its beginning is one between two terms."""
    drawn = convert(f"{{}} {term}" if term[0] in "+-" else term, display="block")
    return drawn.replace('display="block"', 'display="inline" displaystyle="true"', 1)


def _block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own, in several lines where a page is too narrow for one."""
    lines = ("<wbr>".join(map(_term, terms)) for terms in parts(node.astext()))
    spans = "\n".join(f"<span>{line}</span>" for line in lines)
    self.body.append(f'<div class="formula">{spans}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
