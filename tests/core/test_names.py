"""Names and titles of others do nothing but stand there, whatever they are made of."""

import ast
import csv
import io
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import assert_one_sentence

from gradbench.core.errors import GradbenchError
from gradbench.core.names import (
    figure_name,
    file_name,
    in_csv,
    in_latex,
    literal,
    unprintable,
    visible,
)
from gradbench.core.text import FORMATS
from gradbench.suites.library import PROBLEMS, add_problem
from gradbench.suites.read_problem import load_problem

HOSTILE = [
    'a"""+str(open("PWNED","w"))+"""',
    "\\",
    '\\" + f()',
    "/../../../escaped",
    "..",
    "$\\bar$",
    "bell \a \x1b[31m",
    '=cmd|" /C calc"!A0',
    "@SUM(1)",
    "+1",
    "\t=1",
    "[1ex] \\input{/etc/passwd}",
    "\u202ereversed",
    "two\nlines\r\nand \u2028more",
    "</title><script>alert(1)</script>",
    "![x](http://example.org/a.png) `code`",
    "\x00",
    "\udcff",
]
ANY = (
    st.sampled_from(HOSTILE) | st.text(max_size=30) | st.text("\\\"'=$[]()#%&<>{}/.\n", max_size=20)
)
UNICODE = ANY.filter(lambda text: not any(unicodedata.category(one) == "Cs" for one in text))
CONTROLS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def has_controls(text):
    return any(unicodedata.category(one) in CONTROLS for one in text)


@given(ANY)
def test_what_is_visible_has_no_controls_and_what_has_none_stays(text):
    shown = visible(text)
    assert not has_controls(shown)
    assert (unprintable({"a": [text]}) is None) == (unprintable([{text: 1}]) is None)
    assert (unprintable(text) is None) == (not has_controls(text)) == (shown == text)


@given(
    st.recursive(
        ANY | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
    )
)
def test_a_literal_is_read_back_and_cannot_be_left(value):
    text = literal(value)
    assert not has_controls(text)
    if "float(" not in re.sub(r'"(\\.|[^"\\])*"', "", text):  # infinity
        assert ast.literal_eval(text) == value


def test_what_has_no_literal_is_refused():
    with pytest.raises(GradbenchError) as error:
        literal(object())
    assert_one_sentence(error, "has no literal")


@given(UNICODE.filter(bool))
def test_a_file_name_maps_back_to_its_label_and_stays_in_its_directory(label):
    folder = Path("/results/figures")
    name = figure_name(label)
    assert len(name) <= 200 and (folder / f"{name}.py").resolve().parent == folder
    if len(name) < 200:
        assert unquote(file_name(label)) == label
        assert (folder / file_name(label)).resolve().parent == folder
        assert not file_name(label).startswith(".") and file_name(label).isascii()


def test_long_names_of_figures_differ_where_their_labels_do():
    names = {figure_name("x" * 300 + end) for end in "ab"}
    assert len(names) == 2 and all(len(name) <= 200 for name in names)


def test_labels_of_estimators_stay_readable():
    label = "concrete(temperature=0.1)"
    assert file_name(label) == figure_name(label) == label


@pytest.mark.parametrize("label", ["", "x" * 201, "\N{SNOWMAN}" * 60, "\udcff"])
def test_a_label_that_fits_into_no_file_name_is_refused(label):
    with pytest.raises(GradbenchError) as error:
        file_name(label)
    assert_one_sentence(error, "the name", "plain letters")


@given(ANY)
def test_latex_takes_no_letter_of_a_name_for_a_command(text):
    known = r"\\text\w+\{\}|\$[<>|]\$|\\[&%$#_{}]"
    assert not re.search(r"[\\~^&%$#_{}<>|]", re.sub(known, "", in_latex(text)))
    lines = FORMATS.find("latex").table([["a", "b"], [text, "1"]], 1, text).splitlines()
    row = lines[-3]
    assert len(lines) == 7 + 2 * bool(text) and not re.match(r"\s*[\[*]", row)


@given(UNICODE)
def test_a_spreadsheet_computes_no_name(text):
    frame = pd.DataFrame({"estimator": [text], "bias": [-1.5], text or "x": [text]})
    rows = list(csv.reader(io.StringIO(FORMATS.find("csv").numbers(frame))))
    assert [len(row) for row in rows] == [3, 3] or text in ("estimator", "bias")
    assert rows[1][1] == "-1.5" and rows[1][0] in (visible(text), f"'{visible(text)}")
    assert not any(
        re.match("[=+@\t\r\uff1d\uff0b\uff0d\uff20-]", cell) for cell in (rows[1][0], *rows[0])
    )
    assert in_csv("psa") == "psa"


@given(ANY)
def test_a_terminal_obeys_no_name(text):
    found = FORMATS.find("terminal").table([["a", "b"], [text, "1"]], 1, text)
    assert found.count("\n") == 2 and not has_controls(found.replace("\n", ""))


@given(ANY)
def test_markdown_has_no_link_code_or_html_of_a_name(text):
    found = FORMATS.find("markdown").table([["a", "b"], [text, "1"]], 1, text)
    bare = re.sub(r"\\[\\`*\[\]|$~_]", "", found.replace("**", "", 2))
    assert found.count("\n") == 4
    assert not re.search(r"[`\[\]<*]", bare)
    assert not has_controls(found.replace("\n", ""))


@pytest.mark.parametrize("text", ["bell \\u0007", "\\u001b[31m", "right \\u202e to left", "a\\nb"])
def test_a_title_that_cannot_be_printed_is_refused_with_its_line(tmp_path, text):
    (tmp_path / "p.toml").write_text(f'\ntitle = "{text}"\n')
    with pytest.raises(GradbenchError) as error:
        load_problem(tmp_path / "p.toml")
    assert_one_sentence(error, "p.toml, line 2: title", "leave out characters")
    assert not has_controls(str(error.value))


def test_a_name_that_cannot_be_printed_is_refused(tmp_path):
    (tmp_path / "a\x1b.toml").write_text("")
    with pytest.raises(GradbenchError) as error:
        load_problem(tmp_path / "a\x1b.toml")
    assert_one_sentence(error, "the name is", "leave out characters")
    assert not has_controls(str(error.value))


@settings(max_examples=5)
@given(st.sampled_from(["\x07", "\u202e"]))
def test_the_texts_of_a_plugins_problem_are_refused_too(text):
    name = f"problem of a test {ord(text)}"
    add_problem(name, {"title": text})
    try:
        with pytest.raises(GradbenchError) as error:
            load_problem(name)
    finally:
        del PROBLEMS[name]
    assert_one_sentence(error, "title", "leave out characters")
