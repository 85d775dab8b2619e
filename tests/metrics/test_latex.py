"""Tables for a paper: booktabs, units in headers, display names, the best of a column in bold."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored import drawn

from gradbench import metrics
from gradbench.core.text import Best, latex
from gradbench.metrics import METRICS
from gradbench.metrics.best import best_rows
from gradbench.metrics.tables import comparison, ranking, table
from gradbench.metrics.times import table_of_costs

GRADIENT = np.array([1.0, -2.0, 0.5])


def cells(noise=None):
    """Estimators of a gradient with these standard deviations and biases."""
    made = {
        "psa": (0.1, 0.0),
        "concrete(temperature=0.1)": (0.1, 0.0),
        "reinforce": (3.0, 0.0),
        "straight_through": (0.02, 1.0),
        "exact": (0.0, 0.0),
    } | (noise or {})
    found = []
    for k, (name, (std, bias)) in enumerate(made.items()):
        draws = GRADIENT + bias + std * np.random.default_rng(k).standard_normal((4096, 3))
        cost = {"evaluations": 2.0, "seconds": 3e-5, "spread": 0.1, "latency": 2e-3}
        cost |= {"latency_spread": 0.05}
        found.append(drawn(draws, GRADIENT, estimator=name, cost=cost))
    return found


@pytest.fixture(scope="module")
def frame():
    return metrics.summary(cells())


def body(text):
    """The titles and rows of the first table, as cells."""
    lines = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    first = text.split(r"\end{tabular}")[0]
    return [line.removesuffix(r" \\").split(" & ") for line in lines if line in first]


def bold(text, column):
    """The estimators whose number is bold in a column."""
    titles, *rows = body(text)
    k, name = titles.index(column), titles.index("estimator")
    strip = re.compile(r"\\textbf{(.*)}")
    return {strip.sub(r"\1", row[name]) for row in rows if re.search(r"\\(math|text)bf", row[k])}


def test_a_table_is_of_booktabs_with_units_in_its_titles_and_display_names(frame):
    text = table(frame, ["rmse", "bias", "std"], "latex")
    lines = text.splitlines()
    assert lines[0] == r"\begin{tabular}{llrrr}"
    assert [line for line in lines if "rule" in line] == [
        r"\toprule",
        r"\midrule",
        r"\midrule",
        r"\bottomrule",
    ]
    assert r"\hline" not in text
    titles, *rows = body(text)
    assert titles[2:] == [r"$\mathrm{RMSE} / |G|$", "$|b| / |G|$", r"$\sigma / |G|$"]
    names = ["PSA", "Concrete, t = 0.1", "REINFORCE", "ST", "exact"]
    assert [row[1] for row in rows] == names
    assert all(len(row) == 5 for row in rows)


def test_the_best_of_a_column_is_bold_with_all_that_nothing_tells_apart_from_it(frame):
    text = table(frame, ["rmse", "std", "cosine"], "latex")
    # Of the same distribution, so no difference; the exact one does not count.
    assert bold(text, r"$\mathrm{RMSE} / |G|$") == {"PSA", "Concrete, t = 0.1"}
    assert bold(text, r"$\sigma / |G|$") == {"ST"}
    assert bold(text, r"$\cos$") == {"PSA", "Concrete, t = 0.1"}  # where more is better
    assert "% Bold: nothing in the layer is significantly better" in text
    assert "bf" not in table(frame, ["rmse"], "terminal") + table(frame, ["rmse"], "markdown")


def test_where_all_are_alike_or_alone_nothing_is_bold():
    one = metrics.summary(cells()[:1])
    assert "bf" not in table(one, ["rmse"], "latex")
    same = metrics.summary([cell for cell in cells() if cell.estimator in ("psa", "exact")])
    assert "bf" not in table(same, ["rmse"], "latex")


def test_every_metric_has_its_best_and_rounding_makes_none(frame):
    rows = frame.to_dict("records")
    for name in METRICS:
        found = best_rows(rows, name)
        assert "exact" not in found and len(found) < 4
    zero = frame.assign(bias=1e-17, bias_se=0.0, bias_low=1e-17, bias_high=1e-17)
    zero.loc[0, ["bias", "bias_low", "bias_high"]] = 3e-16
    zero = zero.assign(bias_source="enumeration")
    assert best_rows(zero.to_dict("records"), "bias") == set()
    theorem = zero.assign(bias_source=["theorem", *["enumeration"] * 4], bias_high=0.5, bias=0.4)
    assert best_rows(theorem.assign(bias_low=0.3).to_dict("records"), "bias") == {"psa"}


def test_a_planted_difference_is_bold_and_a_planted_tie_is_not_broken():
    made = cells({"concrete(temperature=0.1)": (0.2, 0.0)})
    text = table(metrics.summary(made), ["std"], "latex")
    assert bold(text, r"$\sigma / |G|$") == {"ST"}
    made = [cell for cell in made if cell.estimator != "straight_through"]
    assert bold(table(metrics.summary(made), ["std"], "latex"), r"$\sigma / |G|$") == {"PSA"}


def test_ranks_are_bold_where_they_are_the_first():
    text = ranking(metrics.rank(cells()), "rmse", "1-draws", "latex")
    _, *rows = body(text)
    first = [row for row in rows if row[0].strip("$").startswith("1")]
    assert {row[1] for row in first} == {r"\textbf{PSA}", r"\textbf{Concrete, t = 0.1}"}
    assert sum("bf" in "".join(row) for row in rows) == 2


def test_of_two_results_that_differ_the_better_one_is_bold():
    before, after = cells(), cells({"reinforce": (1.0, 0.0), "psa": (0.5, 0.0)})
    text = comparison(metrics.compare(before, after), "rmse", "latex")
    assert bold(text, "before") == {"PSA"} and bold(text, "after") == {"REINFORCE"}


def test_times_have_their_unit_in_the_title_and_their_spread_in_brackets(frame):
    titles, first, *_ = body(table_of_costs(frame, "latex"))
    assert titles[2:] == ["time of a draw [\N{MICRO SIGN}s]", "single draw [\N{MICRO SIGN}s]"]
    assert first == ["PSA", "$2$", "$30(3)$", "$2000(100)$"]
    slow = frame.assign(seconds=2.0, latency=3.0)
    assert body(table_of_costs(slow, "latex"))[0][2] == "time of a draw [s]"
    assert "30 us ±10 %" in table_of_costs(frame, "terminal")


def test_layers_are_set_apart():
    made = drawn([np.ones((64, 2)) + k for k in (0, 1)], [np.ones(2), np.ones(2)], estimator="psa")
    lines = table(metrics.summary([made]), ["rmse"], "latex").splitlines()
    assert lines.count(r"\addlinespace") == 2  # of three, with the network


@given(st.text(max_size=30))
def test_any_name_of_a_plugin_is_escaped_in_bold_too(text):
    (row,) = latex([["estimator"], [Best(text)]], 1)[4:-2]
    known = r"\\text\w+\{\}|\$[<>|]\$|\\[&%$#_{}]|\$\\mathbf\{[^{}]*\}\$|\\cdot 10\^\{-?\d+\}"
    inside = re.sub(r"\\textbf\{(.*)\}", r"\1", row.removesuffix(r" \\").removeprefix("{}"))
    assert not re.search(r"[\\~^&%$#_{}<>|]", re.sub(known, "", inside)), row


def test_names_that_results_keep_of_plugins_are_in_the_tables():
    made = cells()[:2]
    named = [
        cell._replace(info={"display_name": "Ours_1"}) if k else cell for k, cell in enumerate(made)
    ]
    frame = metrics.summary(named)
    assert [row[1] for row in body(table(frame, ["rmse"], "latex"))[1:]] == ["PSA", r"Ours\_1"]
    ranks = ranking(metrics.rank(named), "rmse", "1-draws", "latex")
    assert r"Ours\_1" in ranks and isinstance(frame, pd.DataFrame)
