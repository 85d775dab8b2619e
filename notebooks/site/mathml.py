"""Formulas as MathML, which browsers draw themselves: no script is loaded."""

from typing import Any

from docutils import nodes

from gradbench.report.formulas import convert, lines


def _inline(self: Any, node: nodes.math) -> None:
    """Write a formula of a sentence."""
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    """Write a formula of its own, in several lines where a page is too narrow for one."""
    self.body.append(f'<div class="formula">{lines(node.astext())}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
