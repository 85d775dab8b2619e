"""Names in figures: scripts have the code of their template alone, SVG the text of the names."""

import ast
import warnings
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import rc_context
from matplotlib.figure import Figure

from gradbench.core.errors import GradbenchError
from gradbench.core.names import figure_name, visible, visible_lines
from gradbench.metrics.temperature import Unit
from gradbench.plots.layout import finish
from gradbench.plots.save import owned, save
from gradbench.plots.style import PLAIN, styles
from gradbench.plots.suite import Drawing
from gradbench.report.numbers import code, codes
from gradbench.report.svg import SVG, embedded

HOSTILE = [
    'a"""+str(open("PWNED","w"))+"""',
    "/../../../escaped",
    "$\\bar$",
    "$",
    "\\$x$",
    "bell \a \x1b[31m",
    "\u202ereversed\u2028",
    '"); import os; ("',
    "\\",
    '</text><script>alert(1)</script>&amp;"',
    "\x00\ud800",
    "url(#a) estimator=x#1",
]
ANY = st.sampled_from(HOSTILE) | st.text(max_size=30) | st.text("\\\"'$()#\n{}", max_size=20)


def script(name):
    """The script of a figure of a problem, title and unit with this name."""
    units = {name: Unit(0.5, 1.0, 0.0)}
    arguments = {"title": name, "units": units}
    made = Drawing(figure_name(f"x{name}"), "temperature", "summary", {}, arguments)
    return made._replace(rows={"problem": [name], "replicate": [0]}).script(Path("/r/figures"))


class Blank(ast.NodeTransformer):
    """Empties all texts of a program."""

    def visit_Constant(self, node):
        return ast.Constant("") if isinstance(node.value, str) else node


def skeleton(text):
    return ast.dump(Blank().visit(ast.parse(text)))


TEMPLATE = skeleton(script("plain"))


@settings(max_examples=50)
@given(ANY)
def test_a_script_has_the_code_of_its_template_alone(name):
    try:
        text = script(name)
    except GradbenchError as error:  # half of a pair is in no file name
        assert "no Unicode" in str(error)
        return
    assert skeleton(text) == TEMPLATE
    assert text.isprintable() or visible(text.replace("\n", "")) == text.replace("\n", "")
    assert name in [node.value for node in ast.walk(ast.parse(text)) if hasattr(node, "value")]
    assert script("b").splitlines()[0] == text.splitlines()[0]


def drawn(name):
    """A figure with a name in every kind of text."""
    with rc_context(PLAIN):
        figure = Figure(figsize=(2, 2))
        ax = figure.subplots()
        owned(ax.plot([1, 2], label=name)[0], name)
        ax.set(title=name, xlabel=name, ylabel=name)
        ax.set_yticks([1.0], [name])
        ax.annotate(name, (0, 1))
        finish(figure, name, styles([name]) if name == "psa" else {})
    return figure


def texts(svg):
    return ["".join(one.itertext()) for one in ElementTree.fromstring(svg).iter(f"{{{SVG}}}text")]


@settings(max_examples=16)
@given(ANY)
@pytest.mark.slow
def test_names_are_text_in_svg_and_never_formulas(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks
        page = str(embedded(drawn(name), "f", {name: 3}, name))
    assert visible_lines(page) == page
    tags = {one.tag.split("}")[1] for one in ElementTree.fromstring(page).iter()}
    assert not {"script", "a", "foreignObject", "image"} & tags
    shown = visible(name)
    if "\n" not in name and shown.strip():
        assert sum("".join(one.split()) == "".join(shown.split()) for one in texts(page)) >= 4


@pytest.mark.slow
def test_files_of_a_figure_are_written_whatever_its_texts_are(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        *_, svg, _ = save(drawn("$\\bar$ \a\x1b[31m </text>"), tmp_path / "x")
    assert "$\\bar$ \\x07\\x1b[31m </text>" in texts(svg.read_text())


@given(ANY)
def test_names_are_text_in_sentences_of_the_report(name):
    assert str(codes([name])) == str(code(name))
    inside = str(code(name)).removeprefix('<b class="estimator" title="').removesuffix("</b>")
    title, text = inside.split('">')
    assert not {"<", ">", '"'} & set(title + text)


def test_a_formula_that_is_none_is_a_sentence(tmp_path):
    figure = Figure()
    with rc_context({"text.parse_math": True}):
        figure.suptitle(r"$\bar$")
    with pytest.raises(GradbenchError, match=r"cannot draw the figure .* formulas"):
        save(figure, tmp_path / "x")


def test_a_figure_does_not_follow_a_link(tmp_path):
    (tmp_path / "mine").write_text("years of work")
    (tmp_path / "x.svg").symlink_to(tmp_path / "mine")
    save(Figure(), tmp_path / "x")
    assert (tmp_path / "mine").read_text() == "years of work"
