"""Tables say what frames hold: readable, in every form, with the digits that numbers deserve."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from stored import assert_one_sentence, drawn

from gradbench import metrics
from gradbench.core.errors import GradbenchError
from gradbench.core.names import in_latex
from gradbench.core.text import FORMATS, latex, markdown, records
from gradbench.metrics import KEYS, METRICS, summary
from gradbench.metrics.intervals import digits
from gradbench.metrics.tables import comparison, needed, ranking, replicates, shown, table
from gradbench.metrics.unbiasedness import table_of_biases

GRADIENT = np.array([3.0, 0.0, -4.0, 0.0])  # |G| = 5
ACROSS = np.array([0.0, 1.0, 0.0, 0.0])
HARD = "concrete(relaxation='a|b_50%', temperature=0.1)"  # for Markdown and for LaTeX


def cell(name, bias=0.0, scale=1.0, replicate=0, gradient=GRADIENT, **more):
    noise = np.random.default_rng(len(name) + replicate).normal(size=(640, 4))
    draws = gradient + 5.0 * bias * ACROSS + 2.5 * scale * noise
    cost = {"evaluations": 2, "seconds": 3e-6}
    more = {"info": {"loss": 0.6931}, "cost": cost, "replicate": replicate, **more}
    return drawn(draws, gradient, 32, (1, 4), estimator=name, **more)


def exactly(name, bias, variance):
    moments = [(GRADIENT + 5.0 * bias * ACROSS, 25.0 * np.array([variance, 0, 0, 0]))]
    return cell(name, moments=moments)


@pytest.fixture(scope="module")
def cells():
    """Biased and not, exact and not, tiny numbers, and two layers of which one is zero."""
    return [
        cell("psa"),
        cell(HARD, 2.0),
        cell("arm", 0.36, 1e-6),
        exactly("straight_through", 0.5, 0.25),
    ]


@pytest.fixture(scope="module")
def tables(cells):
    """Every kind of table as a function of its form, with the number of its columns."""
    over = summary([cell(n, b, replicate=r) for n, b in [("psa", 0), (HARD, 1)] for r in range(3)])
    frames = metrics.over_replicates(over), metrics.orderings(over, "bias")
    return {
        "table": lambda form: table(summary(cells), None, form),
        "intervals": lambda form: table(summary(cells), list(METRICS), form, True),
        "ranking": lambda form: ranking(metrics.rank(cells, at="1-draw"), "rmse", "1 draw", form),
        "needed": lambda form: needed(metrics.sample_complexity(cells, 0.4), 0.4, form),
        "unbiased": lambda form: table_of_biases(metrics.unbiasedness(cells), form),
        "comparison": lambda form: comparison(metrics.compare(cells, cells), "rmse", form),
        "replicates": lambda form: replicates(*frames, form),
    }


KINDS = ["table", "intervals", "ranking", "needed", "unbiased", "comparison", "replicates"]


# --- forms ---


@pytest.mark.parametrize("kind", KINDS)
def test_the_csv_form_is_read_by_pandas_and_holds_every_estimator(tables, kind):
    frame = pd.read_csv(io.StringIO(tables[kind]("csv")))
    assert HARD in set(frame["estimator"]) and len(frame.columns) > 5
    assert not frame.columns.duplicated().any()


def test_the_numbers_of_the_csv_form_are_those_of_the_frame(cells):
    names = ["rmse", "snr"]
    frame = summary(cells)
    found = pd.read_csv(io.StringIO(table(frame, names, "csv")))
    numbers = [f"{name}{end}" for name in names for end in ("", "_se", "_low", "_high")]
    facts = ["loss", "M", "draws", "zero_gradient", "exact", "bias_source"]
    assert list(found.columns) == [*KEYS, *facts, *numbers]
    pd.testing.assert_frame_equal(found, frame[list(found.columns)], rtol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_the_markdown_form_have_the_same_number_of_cells(tables, kind):
    blocks = re.findall(r"(?:^\|.*\n?)+", tables[kind]("markdown"), re.MULTILINE)
    assert blocks
    for block in blocks:
        lines = block.splitlines()
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert len(counts) == 1, block
        assert re.fullmatch(r"\|( -{3}:? \|)+", lines[1])
        assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert "<" not in "".join(blocks) and r"relaxation='a\|b_50%'" in "".join(blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_the_latex_form_is_balanced_and_escaped(tables, kind):
    text = tables[kind]("latex")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") > 0
    assert code.replace(r"\{", "").count("{") == code.replace(r"\}", "").count("}")
    assert len(re.findall(r"(?<!\\)\$", code)) % 2 == 0
    outside = re.sub(r"(?<!\\)\$.*?(?<!\\)\$", "", code)  # of formulas
    assert not re.search(r"(?<!\\)[%#_^~<>|]", outside)
    for columns, body in re.findall(r"\\begin{tabular}{([lr]+)}(.*?)\\end", code, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        for row in rows:
            wide = re.match(r"\\multicolumn{(\d+)}", row)
            cells = int(wide[1]) if wide else len(re.findall(r"(?<!\\)&", row)) + 1
            assert cells == len(columns), row
    assert r"b\_50\%" in code


@pytest.mark.parametrize("kind", KINDS)
def test_the_terminal_form_has_straight_columns(tables, kind):
    text = tables[kind]("terminal")
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if line.startswith("  ")]
        first = re.search(r"\bestimator\b|\bless\b", lines[0]) if lines else None
        if first and first.start() > 2:  # the column before it ends where this one begins
            assert {line[first.start() - 1] for line in lines} == {" "}
            assert all(line[first.start()] != " " for line in lines)
    assert not re.search(r"\bnan\b|\bNone\b", text)


@given(st.text(max_size=20))
@pytest.mark.slow
def test_any_text_is_escaped_for_latex(text):
    found = re.sub(r"\\text\w+\{\}|\$[<>|]\$|\\[&%$#_{}]", "", in_latex(text))
    assert not re.search(r"[\\~^&%$#_{}<>|]", found)


def test_numbers_are_set_as_latex_sets_them_and_headers_in_dollars_stay():
    rows = [["name", "95 %", r"$\sigma$"], ["a_b", "-1.5(2)e-07", "< 0.03"]]
    lines = latex(rows, 1)
    assert lines[2] == r"name & 95 \% & $\sigma$ \\"
    assert lines[4] == r"a\_b & $-1.5(2) \cdot 10^{-7}$ & $< 0.03$ \\"


def test_bars_in_markdown_are_escaped_in_headers_too():
    lines = markdown([["|bias|", "x"], ["a|b", "< 1"]], 1)
    assert lines == [r"| \|bias\| | x |", "| --- | ---: |", r"| a\|b | &lt; 1 |"]


def test_an_unknown_form_is_refused_by_every_table(cells):
    frame = summary(cells)
    for call in (
        lambda: table(frame, form="latexx"),
        lambda: ranking(metrics.rank(cells, at="1-draw"), "rmse", "1 draw", "latexx"),
        lambda: comparison(metrics.compare(cells, cells), "rmse", "latexx"),
    ):
        with pytest.raises(GradbenchError) as caught:
            call()
        assert_one_sentence(caught, "unknown format 'latexx'; did you mean 'latex'?")
    assert list(FORMATS) == ["terminal", "markdown", "latex", "csv", "json"]


# --- what a table says ---


def test_every_metric_can_be_asked_for_and_is_explained_beneath(cells):
    text = table(summary(cells), list(METRICS))
    head = text.splitlines()[1]
    assert [title for title in (METRICS[n].title for n in METRICS) if title not in head] == []
    for name in METRICS:
        if name not in ("rmse", "bias", "std", "cosine"):
            assert f"{METRICS[name].title}: {METRICS[name].meaning}." in text
    assert "band" in head and "15 % and 85 % quantiles" in text
    assert "band" not in table(summary(cells), ["rmse"])


def test_what_is_exact_is_marked_and_a_bias_may_be_a_limit(cells):
    lines = table(summary(cells)).splitlines()
    assert lines[0] == "toy, replicate 0, epoch 100, loss 0.6931"
    unbiased, biased, tiny, known = lines[2:6]
    assert unbiased.split()[:3] == ["layer", "1", "psa"] and unbiased.count("<") == 1
    assert "<" not in biased and "2.0" in biased
    assert " = " in known and "0.7071" in known and "(" not in known.partition("=")[2][:40]
    assert " = " not in "".join((unbiased, biased, tiny))


def test_the_network_and_every_layer_have_their_rows():
    rng = np.random.default_rng(0)
    two = drawn([g + rng.normal(size=(64, 4)) for g in (GRADIENT,) * 2], [GRADIENT] * 2, 8, (1,))
    lines = table(summary([two])).splitlines()[2:5]
    assert [line.split("psa")[0].strip() for line in lines] == ["layer 1", "layer 2", "network"]


def test_with_intervals_there_are_limits_with_the_digits_of_the_error(cells):
    frame = summary(cells)
    (row,) = frame[frame["estimator"] == "psa"].to_dict("records")
    line = next(x for x in table(frame, ["rmse"], intervals=True).splitlines() if " psa" in x)
    value, low, high = map(float, re.findall(r"-?\d[\d.]*(?:e[+-]\d+)?", line.split("psa")[1]))
    for number, name in ((value, "rmse"), (low, "rmse_low"), (high, "rmse_high")):
        assert abs(number - row[name]) <= 0.05 * row["rmse_se"]
    (known,) = (x for x in table(frame, ["rmse"], intervals=True).splitlines() if " = " in x)
    assert known.split()[-2:] == ["=", "0.7071"]


@given(
    st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-9),
    st.floats(1e-5, 3),
)
@pytest.mark.slow
def test_an_interval_shows_two_digits_of_the_error_and_no_more(value, relative):
    se = abs(value) * relative
    expected = value, value - 2 * se, value + 2 * se
    assume(expected[1] != 0)  # which is shown as an upper limit
    row = dict(zip(("rmse", "rmse_low", "rmse_high", "rmse_se"), (*expected, se), strict=True))
    numbers = re.findall(r"-?\d[\d.]*(?:e[+-]\d+)?", shown(row, "rmse", intervals=True))
    unit = 10.0 ** (math.floor(math.log10(se)) - 1)  # the second digit of the error
    for number, true in zip(map(float, numbers), expected, strict=True):
        assert abs(number - true) <= 0.51 * unit
        assert abs(number / unit - round(number / unit)) < 1e-3


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.21311, 0.0042, "0.213(4)"),
        (13.84, 0.41, "13.8(4)"),
        (13.84, 0.14, "13.84(14)"),
        (7.0, 0.0996, "7.00(10)"),
        (7.0, 0.96, "7.0(10)"),
        (1253.0, 34.0, "1250(30)"),
        (-0.031, 0.02, "-0.03(2)"),
        (3.14e-6, 2e-8, "3.14(2)e-06"),
        (0.5, 0.0, "0.5"),
        (0.123456, math.nan, "0.123"),
        (0.123456, 1e-9, "0.123"),
        (1.1e-16, 0.0, "0"),
        (math.nan, 0.1, "-"),
        (math.inf, 0.0, "inf"),
    ],
)
def test_a_value_is_shown_with_the_digits_it_deserves(value, error, text):
    assert digits(value, error) == text


def test_a_zero_gradient_is_said_beside_layers_that_have_one_and_alone():
    rng = np.random.default_rng(1)
    zero = np.zeros(4)
    both = drawn([rng.normal(size=(64, 4))] * 2, [zero, GRADIENT], 8, (1,))
    for form in ("terminal", "markdown", "latex"):
        text = table(summary([both]), form=form)
        assert text.count("zero gradient") == 1 and "nan" not in text
        alone = table(summary([drawn(rng.normal(size=(64, 4)), zero, 8, (1,))]), form=form)
        assert alone.count("zero gradient") == 1 and "RMSE" in alone


@pytest.mark.parametrize(
    ("names", "average", "words"),
    [
        (["rsme"], 1, "unknown metric 'rsme'; did you mean 'rmse'?"),
        (["cosine"], 3, "cosine at M = 3 is not in these results; take an M that they have"),
        (["rmse", "signs"], 5, "signs at M = 5 is not"),
    ],
)
def test_what_is_not_in_the_results_is_refused(cells, names, average, words):
    with pytest.raises(GradbenchError) as caught:
        table(summary(cells, average), names)
    assert_one_sentence(caught, words)


def test_without_names_an_m_that_has_no_cosine_shows_the_rest(cells):
    lines = table(summary(cells, 3)).splitlines()
    assert lines[1].split() == ["layer", "estimator", "RMSE", "|bias|", "std"]
    assert "for the mean of 3 draws" in lines[-4]


def test_an_empty_result_is_said():
    assert table(summary([])) == "no finished cells"


def test_a_ranking_says_ties_and_what_is_not_paid_for(cells):
    frame = metrics.rank([*cells, cell("rloo", cost={"evaluations": 50})], at="20-evaluations")
    lines = ranking(frame, "rmse", "20 evaluations").splitlines()
    assert lines[0] == "toy, replicate 0, epoch 100, layer 1: at 20 evaluations"
    assert lines[1].split() == ["rank", "estimator", "bias", "by", "M", "RMSE"]
    assert lines[2].split()[:3] == ["1", "psa", "test"]
    assert [line.split()[0] for line in lines[2:7]] == ["1", "2", "3", "4", "-"]
    assert lines[6].endswith("0  a draw costs more") and " rloo " in lines[6]
    tied = metrics.rank([cell("psa"), cell("arm")], at="1-draw")
    assert ranking(tied, "rmse", "1 draw").count("1 (tie)") == 2


def test_a_comparison_counts_the_changes_and_shows_their_p_values(cells):
    frame = metrics.compare(cells, [cell("psa", 0, 1.5), *cells[1:]])
    lines = comparison(frame, "rmse").splitlines()
    assert lines[0] == "toy, replicate 0, epoch 100: RMSE"
    row = lines[2].split()
    assert (row[2], row[6], row[8]) == ("psa", "1.500", "worse") and float(row[7]) < 1e-7
    assert lines[-1] == "3 same, 1 worse; p adjusted by Holm's method"


def test_the_draws_that_are_needed_are_whole_and_never_is_a_word(cells):
    frame = metrics.sample_complexity(cells, 0.4)
    lines = needed(frame, 0.4).splitlines()
    assert lines[0].endswith("layer 1: a relative RMSE of 0.4 needs")
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}
    assert rows["straight_through"] == ["never", "never", "never", "enumeration"]
    least, low, high, cost = (int(rows["psa"][k]) for k in (0, 1, 3, 4))
    assert low <= least <= high and cost == 2 * least
    # Not less than what it takes, V / eps^2, and less than one draw more.
    assert least - 1 < frame.set_index("estimator")["draws"]["psa"] <= least


def test_a_test_of_the_bias_says_its_verdicts(cells):
    text = table_of_biases(metrics.unbiasedness(cells))
    verdicts = [" ".join(line.split()[-2:]) for line in text.splitlines()[2:6]]
    assert verdicts == ["bias seen", "bias found", "bias found", "0.5 biased"]
    assert "detectable: the bias of one coordinate" in text


def test_rows_as_dictionaries_are_those_of_pandas(cells):
    frame = metrics.summary(cells).assign(some=[None, "a"] * (len(cells) // 2), whole=3)
    found, expected = records(frame), frame.to_dict("records")
    assert [list(row) for row in found] == [list(row) for row in expected]
    assert repr(found) == repr(expected)  # NaN is not equal to itself
    assert records(frame.head(0)) == []
