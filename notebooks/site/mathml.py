"""Formulas as MathML, which browsers draw themselves: no script is loaded."""

import re
from typing import Any

from docutils import nodes
from latex2mathml import converter

_FUNCTION = re.compile(r"(<m[io]>(?:log|tanh|logit|sign|max|min|clip)</m[io]>)(?!<mo)")
_DEFINED = "<mo>&#x0003A;</mo><mo>&#x0003D;</mo>"  # two signs, with a space between


def convert(formula: str, **options: str) -> str:
    """Return a formula in TeX as MathML, with the spaces that are usual."""
    found = converter.convert(formula, **options).replace(_DEFINED, "<mo>&#x02254;</mo>")
    return _FUNCTION.sub(r'\1<mspace width="0.17em" />', found)


def _inline(self: Any, node: nodes.math) -> None:
    """Write a formula of a sentence."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def statements(formula: str) -> list[str]:
    """Return the parts of a formula between its wide spaces, those within braces left as they are.

    Each is a formula that may stand on a line of its own where there is no room for all.
    """
    found, depth = [""], 0
    for token in re.findall(r"\\[A-Za-z]+|\\.|.", formula, re.DOTALL):
        depth += token in ("{", r"\begin", r"\left")
        depth -= token in ("}", r"\end", r"\right")
        if token == r"\quad" and depth == 0:
            found.append("")
        else:
            found[-1] += token
    return [part.strip() for part in found]


def _block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own, in lines where it is too wide; a wide line can be scrolled."""
    lines = [convert(part, display="block") for part in statements(node.astext())]
    self.body.append(f'<div class="formula">{"".join(lines)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
