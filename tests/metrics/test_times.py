"""Measured times in decisions: the spread of repeats is their uncertainty, and what is said of it.

Bias and variance are exact here, so that nothing else is uncertain.
"""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from stored import drawn

from gradbench.cli.main import main
from gradbench.metrics import crossovers, difference_p, rank, sample_complexity, summary, tables
from gradbench.metrics.times import ASSUMED, UNSTABLE, notes, table_of_costs, time_text
from gradbench.report.certainty import how_times_vary

GRADIENT = np.array([3.0, 0.0, -4.0])
ACROSS = np.array([0.8, 0.0, 0.6])  # a unit vector across it
Z = 1.959963984540054  # of a level of 95 %


def exactly(name, bias, variance, spread=None, seconds=1e-3, **more):
    """A cell with these exact moments, relative; without a spread as of an older gradbench."""
    moments = [(GRADIENT + 5.0 * bias * ACROSS, 25.0 * np.array([0.0, 0.0, variance]))]
    cost = {"evaluations": 2, "seconds": seconds}
    if spread is not None:
        cost |= {"spread": spread, "repeats": 9, "latency": 0.5, "latency_spread": 0.02}
    draws = np.stack([GRADIENT, GRADIENT + 1.0])
    return drawn(draws, GRADIENT, 2, (1,), estimator=name, moments=moments, cost=cost, **more)


def pair(spread):
    return [exactly("psa", 0.0, 1.0, spread), exactly("arm", 0.0, 1.1, spread)]


# --- the uncertainty ---


# The logarithms of V/M differ by log 1.1, and each has the error of its time.
LIMIT = math.log(1.1) / (Z * math.hypot(1.0, 1.0))


@pytest.mark.parametrize(
    ("spread", "ranks"),
    [(0.0, [1, 2]), (0.99 * LIMIT, [1, 2]), (1.01 * LIMIT, [1, 1]), (0.5, [1, 1]), (None, [1, 1])],
)
def test_estimators_at_equal_time_differ_if_it_is_more_than_the_spread_of_repeats(spread, ranks):
    assert rank(pair(spread), at="1s")["rank"].tolist() == ranks
    assert rank(pair(spread), at="2-evaluations")["rank"].tolist() == [1, 2]


def test_each_estimator_has_the_uncertainty_of_its_own_time():
    for spreads in [(0.0, 0.2), (0.2, 0.0)]:
        cells = [pair(one)[n] for n, one in enumerate(spreads)]
        assert rank(cells, at="1s")["rank"].tolist() == [1, 1]


def test_what_is_far_worse_is_not_as_good_however_uncertain_the_times_are():
    """A time that is known to a factor of two or so does not make up for one of a hundred."""
    far = [exactly("psa", 0.0, 1.0, 0.6), exactly("arm", 0.0, 100.0, 0.6)]
    assert rank(far, at="1s")["rank"].tolist() == [1, 2]
    near = [exactly("psa", 0.0, 1.0, 0.6), exactly("arm", 0.0, 4.0, 0.6)]
    assert rank(near, at="1s")["rank"].tolist() == [1, 1]


def test_times_without_a_spread_are_taken_to_be_known_to_ten_percent():
    assert ASSUMED == 0.1
    sizes = []
    for spread in (None, 0.1, 0.05):
        cells = pair(spread)
        frame = rank(cells, at="1s")
        sizes.append(difference_p(cells, (frame.iloc[0], frame.iloc[1]), "1s"))
    assert sizes[0] == sizes[1] > sizes[2]


@pytest.mark.parametrize("spreads", [(0.0, 0.0), (0.03, 0.1), (0.2, 0.0), (None, None)])
def test_the_limits_of_a_crossover_in_time_are_those_of_the_closed_form(spreads):
    """There the logarithms of the squared errors differ by z times the error of the times."""
    arm, psa = ("arm", 0.5, 1.0, spreads[0], 1e-3), ("psa", 0.1, 9.0, spreads[1], 2e-3)
    cells = [exactly(*arm), exactly(*psa)]
    (row,) = crossovers(cells, "seconds").to_dict("records")
    assert row["low"] <= row["at"] * (1 + 1e-9) and row["at"] <= row["high"] * (1 + 1e-9)
    known = [ASSUMED if one is None else one for one in spreads]
    for side, limit in ((1, row["low"]), (-1, row["high"])):
        scatter = np.array([1e-3, 18e-3]) / limit
        squares = np.array([0.5, 0.1]) ** 2 + scatter
        error = Z * math.hypot(*(known * scatter / squares))
        assert math.log(squares[1] / squares[0]) == pytest.approx(side * error, abs=1e-6)
    (row,) = crossovers(cells, "evaluations").to_dict("records")
    assert row["low"] == pytest.approx(row["high"], rel=1e-6)  # which have no error


# --- frames ---


def test_frames_have_the_times_of_a_draw_and_of_a_single_one():
    cells = [exactly("psa", 0.0, 1.0, 0.25), exactly("arm", 0.0, 1.0)]
    cells = [*cells, exactly("leg", 0.0, 1.0)._replace(cost={"evaluations": 2})]
    names = ["evaluations", "seconds", "seconds_spread", "latency", "latency_spread"]
    expected = [[2, 1e-3, 0.25, 0.5, 0.02], [2, 1e-3, *[math.nan] * 3], [2, *[math.nan] * 4]]
    for frame in (summary(cells), rank(cells, at="2-evaluations")):
        rows = frame.set_index("estimator").loc[["psa", "arm", "leg"], names]
        np.testing.assert_array_equal(rows, expected)
    spread = sample_complexity(cells, 0.1)["seconds_spread"]
    np.testing.assert_array_equal(spread, [0.25, math.nan, math.nan])


# --- what is said ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1.23e-5, 0.031), "12 us ±3.1 %"),
        ((2.0, 0.0), "2 s ±0 %"),
        ((4.5e-4,), "450 us"),
        ((1e-3, 1.5), "1 ms ±150 %"),
        ((math.nan, math.nan), "-"),
        ((math.inf, 0.1), "never"),
    ],
)
def test_a_time_is_shown_with_its_spread(arguments, text):
    assert time_text(*arguments) == text


def test_repeats_that_disagree_are_said_by_the_name_of_the_estimator_the_worst_first():
    spreads = {
        "psa": UNSTABLE,
        "arm": 0.2,
        "leg": 0.3,
        "concrete(temperature=0.1)": 0.11,
        "ram": 1.5,
    }
    frame = summary([exactly(name, 0.0, 1.0, spread) for name, spread in spreads.items()])
    assert notes(frame).splitlines() == [
        "Repeats of the time of a draw disagree; so uncertain are the times of:",
        "ram by 150 %, leg by 30 %, arm by 20 %,",
        "concrete(temperature=0.1) by 11 %.",
    ]
    assert notes(frame[frame["estimator"] == "psa"]) == ""


def test_the_worst_place_of_an_estimator_counts():
    cells = [exactly("psa", 0.0, 1.0, 0.01), exactly("psa", 0.0, 1.0, 0.4, replicate=1)]
    assert "psa by 40 %." in notes(summary(cells))


def test_a_spread_that_was_not_stored_is_said():
    text = notes(summary(pair(None)))
    assert text == (
        "An older gradbench did not store how far repeats spread: 10 % is assumed for its times."
    )
    assert notes(summary(pair(None)).assign(seconds=np.nan)) == ""


def test_a_ranking_at_equal_time_shows_times_and_latencies_and_says_what_disagrees():
    cells = [exactly("psa", 0.0, 1.0, 0.25), exactly("arm", 0.0, 1.0, 0.04)]
    text = tables.ranking(rank(cells, at="1s"), "rmse", "1 s")
    lines = text.splitlines()
    assert lines[1].endswith("time of a draw  single draw")
    assert sum(line.endswith("1 ms ±25 %  500 ms ±2 %") for line in lines) == 1
    assert text.endswith("so uncertain are the times of:\npsa by 25 %.")
    cells = [cell._replace(cost={"seconds": 1e-3, "spread": 0.0}) for cell in cells]
    assert "single draw" not in tables.ranking(rank(cells, at="1s"), "rmse", "1 s")
    by_draws = tables.ranking(rank(cells, at="1-draw"), "rmse", "1 draw")
    assert "single draw" not in by_draws and "disagree" not in by_draws


def test_what_an_rmse_needs_in_time_has_its_spread():
    cells = [exactly("psa", 0.0, 1.0, 0.25), exactly("arm", 0.9, 1.0, 0.04)]
    text = tables.needed(sample_complexity(cells, 0.1), 0.1)
    assert "100 ms ±25 %" in text and text.endswith("psa by 25 %.")
    assert " never" in text


def test_the_table_of_costs_has_a_row_per_estimator_and_place():
    cells = [exactly("psa", 0.0, 1.0, 0.25), exactly("arm", 0.0, 1.0)]
    cells += [exactly("psa", 0.0, 1.0, 0.01, replicate=1)]
    cells += [exactly("leg", 0.0, 1.0, replicate=1)._replace(cost={})]
    frame = summary(cells)
    rows = [line.split("  ") for line in table_of_costs(frame).splitlines()]
    rows = [[cell.strip() for cell in row if cell] for row in rows]
    assert rows[1] == ["estimator", "evaluations", "time of a draw", "single draw"]
    assert rows[2:4] == [["psa", "2", "1 ms ±25 %", "500 ms ±2 %"], ["arm", "2", "1 ms", "-"]]
    assert rows[7:9] == [["psa", "2", "1 ms ±1 %", "500 ms ±2 %"], ["leg", "-", "-", "-"]]
    numbers = pd.read_csv(io.StringIO(table_of_costs(frame, "csv")))
    assert numbers["seconds_spread"].tolist()[:3:2] == [0.25, 0.01] and len(numbers) == 4
    assert table_of_costs(frame[:0]) == "no finished cells"


def test_the_command_shows_costs_and_refuses_metrics_of_them(finished_run, capsys):
    results = str(finished_run / "results")
    assert main(["table", results, "--costs"]) == 0
    out = capsys.readouterr().out
    assert sum(line.split()[:1] == ["estimator"] for line in out.splitlines()) == 2  # places
    assert "straight_through" in out
    assert main(["table", results, "--costs", "--metrics", "bias"]) == 2
    error = capsys.readouterr().err
    assert error == "gradbench: --costs is of one draw and has no metrics; leave out the rest\n"


def sentences(cells):
    return " ".join(map(str, how_times_vary(summary(cells), "cpu")))


def test_the_report_says_how_times_were_measured_and_which_repeats_disagree():
    quiet = sentences(pair(0.03))
    assert "on one machine (cpu)" in quiet and "took turns; they spread by 3 %" in quiet
    assert "disagree" not in quiet
    noisy = sentences([*pair(0.03), exactly("leg", 0.0, 1.0, 0.4)])
    noisy = re.sub("<[^>]*>", "", noisy)
    assert "disagree for LEG (by up to 40 %): so uncertain is it." in noisy
    many = sentences([exactly(f"psa(k={k})", 0.0, 1.0, 0.2 + k / 10) for k in range(6)])
    many = re.sub("<[^>]*>", "", many)
    assert "(by up to 70 %)" in many and "and 2 more" in many


def test_the_report_says_what_was_not_stored():
    assert "did not store how far repeats of a time spread: 10 % is assumed" in sentences(
        pair(None)
    )
    untimed = [one._replace(cost={"evaluations": 2}) for one in pair(None)]
    assert "measured at the end of a run" in sentences(untimed)
    assert "costs of draws were not stored" in sentences([o._replace(cost={}) for o in untimed])
