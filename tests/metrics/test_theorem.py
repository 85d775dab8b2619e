"""What is known by theorem, by enumeration and by test, and what a theorem changes."""

import math

import numpy as np
import pytest
from stored import drawn

from gradbench.metrics import (
    compare,
    coordinates,
    crossovers,
    layers_of,
    rank,
    sample_complexity,
    summary,
    unbiasedness,
)
from gradbench.metrics.tables import table
from gradbench.metrics.unbiasedness import AGAINST, table_of_biases

G = np.array([0.6, 0.0, -0.8])


def cell(claim="", bias=0.0, name="arm", moments=None, spread=2.0, draws=2048):
    noise = np.random.default_rng(3).normal(size=(draws, 3))
    return drawn(
        G * (1.0 + bias) + spread * noise, G, 64, estimator=name, claim=claim, moments=moments
    )


def only(found):
    (layer,) = layers_of(found)
    return layer


def test_a_theorem_leaves_the_variance_alone_uncertain():
    known, tested = only(cell("unbiased")), only(cell())
    assert (known.source, tested.source) == ("theorem", "test")
    assert known.estimate("bias") == (0.0, 0.0, 0.0, 0.0) != tested.estimate("bias")
    variance = known.estimate("variance")
    assert variance == tested.estimate("variance")
    for average in (1, 100, 10**9):
        rmse = known.estimate("rmse", average)
        expected = [math.sqrt(x / average) for x in (variance.value, variance.low, variance.high)]
        assert (rmse.value, rmse.low, rmse.high) == pytest.approx(expected, rel=1e-9)
    assert known.estimate("descent")[:2] == (1.0, 0.0)
    assert known.estimate("scale_free_bias")[:2] == (0.0, 0.0)
    assert known.estimate("snr").value == pytest.approx(variance.value**-0.5)


def test_the_draws_of_an_unbiased_estimator_are_its_variance_over_the_square_of_the_error():
    found = cell("unbiased")
    variance = only(found).estimate("variance")
    (row,) = sample_complexity([found], 0.01).to_dict("records")
    for name, limit in (("draws", variance.value), ("draws_low", variance.low)):
        assert row[name] == pytest.approx(limit / 0.01**2, rel=1e-6)
    assert row["draws_high"] == pytest.approx(variance.high / 0.01**2, rel=1e-6)


@pytest.mark.parametrize("claim", ["", "biased", "one layer", "quadratic", "multilinear", "linear"])
def test_a_class_that_depends_on_the_problem_is_no_theorem(claim):
    assert only(cell(claim)).source == "test"


def test_moments_are_an_enumeration_and_refute_a_wrong_theorem():
    right, wrong = ([(G * (1.0 + b), np.ones(3))] for b in (0.0, 0.1))
    assert only(cell("", moments=right)).source == "enumeration"
    assert only(cell("unbiased", moments=right)).source == "theorem"
    found = only(cell("unbiased", moments=wrong))
    assert found.source == "enumeration" and found.estimate("bias").value == pytest.approx(0.1)
    assert unbiasedness([cell("unbiased", moments=wrong)])["verdict"].tolist() == [AGAINST]


def test_a_test_that_contradicts_a_theorem_is_said_loudly():
    cells = [cell("unbiased", 0.5, "arm"), cell("unbiased", 0.0, "leg"), cell("", 0.5, "psa")]
    frame = unbiasedness(cells)
    assert frame["verdict"].tolist() == [AGAINST, "unbiased by theorem", "bias found"]
    assert frame["source"].tolist() == ["theorem", "theorem", "test"]
    assert f"{AGAINST}: 1 of 3 rows" in table_of_biases(frame)
    assert AGAINST not in table_of_biases(unbiasedness(cells[1:]))


def test_frames_and_tables_say_where_a_bias_is_known_from():
    cells = [cell("unbiased", 0.0, "arm"), cell("", 0.5, "psa")]
    sources = {"arm": "theorem", "psa": "test"}
    frames = [summary(cells), rank(cells, at="1-draw"), compare(cells, cells), coordinates(cells)]
    for frame in (*frames, sample_complexity(cells, 0.1)):
        assert dict(zip(frame["estimator"], frame["bias_source"], strict=True)) == sources
    rows = {line.split()[-1] for line in table(summary(cells), ["bias"]).splitlines()[2:4]}
    assert "theorem" in rows
    crossing = crossovers([cell("", 0.5, "psa"), cell("unbiased", 0.0, "arm", spread=4.0)])
    assert crossing[["first_source", "then_source"]].to_numpy().tolist() == [["test", "theorem"]]


@pytest.mark.parametrize("by", ["rmse", "bias", "std"])
def test_differences_of_the_size_of_rounding_are_no_change(by):
    def steady(error):
        return drawn(np.tile(G * (1.0 + error), (512, 1)), G, 64, estimator="leg")

    def still(spread):
        noise = np.random.default_rng(1).normal(size=(512, 3))
        return drawn(G + spread * noise, G, 64, estimator="leg")

    pairs = [(steady(7e-10), steady(0.0))] if by != "std" else []
    for before, after in [*pairs, (still(4e-10), still(1e-13))]:
        assert compare([before], [after], by)["change"].tolist() == ["same"]
    assert compare([still(1e-2)], [still(1e-3)], "rmse")["change"].tolist() == ["better"]


def test_few_groups_have_a_cosine_without_an_interval_and_the_table_says_so():
    noise = np.random.default_rng(5).normal(size=(512, 3))
    found = drawn(G + noise, G, 64, averages=(1, 32, 64))
    assert [only(found).directions(m).groups for m in (32, 64)] == [16, 8]
    enough, few = (only(found).estimate("cosine", m) for m in (32, 64))
    assert not math.isnan(enough.low) and math.isnan(few.low) and few.value > 0.0
    assert "(too few)" in table(summary([found], 64), ["cosine"])
    assert "(too few)" not in table(summary([found], 32), ["cosine"])
