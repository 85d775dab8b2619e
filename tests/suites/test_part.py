"""A part of a suite: measured into the directory of the whole, which then continues it."""

import pytest
import tiny
from pretended import pretend

from gradbench.core.errors import GradbenchError
from gradbench.metrics.directory import unfinished
from gradbench.results.shards import CheckpointId
from gradbench.suites.asked import asked_suite, finished_results
from gradbench.suites.part import Part
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite


@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_part_continued_to_the_whole_has_the_bits_of_a_run_that_was_never_cut(
    real, tmp_path, monkeypatch
):
    if not real:  # normal numbers in the place of draws
        pretend(monkeypatch)
    path, out = tiny.write(tmp_path), tmp_path / "results"
    run(path, tmp_path / "whole", progress=False)
    whole = tiny.numbers(tmp_path / "whole")
    run(path, out, progress=False, estimators=["psa"], checkpoints=["10"])
    first = tiny.numbers(out)
    assert {(cell[0], cell[1]) for cell in first} == {("tiny/0/epoch%2010", "psa")} or len(
        first
    ) == 1
    assert first.items() <= whole.items()
    assert unfinished(out) == (7, 8)
    assert finished_results(asked_suite(path), out, 0) is None  # a part is not taken for the whole
    run(path, out, progress=False)
    assert tiny.numbers(out) == whole and unfinished(out)[0] == 0


def test_a_part_is_what_the_names_say():
    suite = load_suite("psa")
    part = Part.of(suite, estimators=["concrete"], checkpoints=["epoch 1", "2000"])
    assert part.selection.estimators == {"concrete(temperature=0.1)", "concrete(temperature=1)"}
    assert part.checkpoints == {"epoch 1", "epoch 2000"}
    assert part.has(CheckpointId("psa", 0, "epoch 1"), "concrete(temperature=1)")
    assert not part.has(CheckpointId("psa", 0, "epoch 100"), "concrete(temperature=1)")
    assert not part.has(CheckpointId("psa", 0, "epoch 1"), "psa")
    assert Part.of(suite).has(CheckpointId("psa", 0, "epoch 100"), "psa")


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"estimators": ["paa"]}, "no estimator 'paa' in the suite; did you mean 'psa'?"),
        ({"problems": ["psaa"]}, "no problem 'psaa' in the suite; did you mean 'psa'?"),
        ({"checkpoints": ["epoch 200"]}, "no checkpoint 'epoch 200' in the suite; did you mean"),
        ({"checkpoints": ["7"]}, "no checkpoint '7' in the suite; choose one of epoch 1, "),
    ],
)
def test_names_that_the_suite_has_not_are_refused_before_anything_is_written(
    chosen, words, tmp_path
):
    with pytest.raises(GradbenchError) as caught:
        run("psa", tmp_path / "out", progress=False, **chosen)
    assert words in str(caught.value) and not (tmp_path / "out").exists()


def test_what_a_part_would_take_is_said_of_the_part(finished_run):
    path, out = finished_run / "suite.toml", finished_run / "results"
    whole = describe(path, out=out)
    assert "8 of 8 cells are done" in whole and "straight_through, psa\n" in whole
    part = describe(path, out=out, estimators=["psa"], checkpoints=["10"])
    assert "1 of 1 cells are done" in part and "estimators: psa\n" in part
    assert "epoch 10" in part and "epoch 0" not in part
    with pytest.raises(GradbenchError, match="no estimator 'paa' in the suite"):
        describe(path, out=out, estimators=["paa"])
