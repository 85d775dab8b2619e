"""The report of a suite of training: its sentences say what was found, whichever way it falls."""

import re

import pytest
import trained
from stored import assert_one_sentence

import gradbench
from gradbench.cli.main import main
from gradbench.core.errors import GradbenchError
from gradbench.report.answer import _verdict
from gradbench.report.html import html

SIZES = {"reinforce": 3.0, "arm": 1.0, "straight_through": 0.2, "psa": 0.1, "zgr": 0.4}
EIGHT = ["exact", *(f"straight_through(slope={k})" for k in range(2, 10))]


def slope(name):
    return float(name.partition("=")[2].rstrip(")") or 1)


def page(tmp_path, sign, estimators=EIGHT, **more):
    place = tmp_path / "r"
    trained.write_runs(
        place,
        deviation=slope,
        bias=lambda name: 0.0,
        loss=lambda name, seed: 20 + sign * slope(name) if name != "exact" else 0.1,
        estimators=estimators,
        **more,
    )
    return html(place)


@pytest.mark.slow
def test_where_larger_errors_go_with_larger_losses_the_answer_is_yes(tmp_path):
    text = page(tmp_path, 1)
    assert "Yes: a larger error of the gradient goes with a larger final loss, in all of 4" in text
    assert "1.00 [1.00, 1.00]" in text and "(M = 19)" in text
    assert "over 8 estimators and 3 seeds" in text


@pytest.mark.slow
def test_where_it_is_the_other_way_round_the_answer_is_no(tmp_path):
    text = page(tmp_path, -1)
    assert "No, on the contrary: a larger error goes with a smaller final loss" in text


@pytest.mark.slow
def test_where_losses_know_nothing_of_errors_it_cannot_be_told(tmp_path):
    text = page(tmp_path, 0)
    assert "This cannot be told: it takes at least four estimators with measured errors" in text


def test_where_networks_differ_the_answer_says_in_how_many():
    assert _verdict(3, 0, 4).startswith("Not everywhere: in 3 of 4 cases")
    assert "in 1 the interval contains zero" in _verdict(3, 0, 4)
    assert "in 1 it is the other way round" in _verdict(2, 1, 3)
    assert _verdict(1, 0, 1) == "Yes: a larger error of the gradient goes with a larger final loss."


@pytest.mark.slow
def test_the_best_methods_and_those_that_diverged_are_named(tmp_path):
    trained.write_runs(
        tmp_path / "r",
        loss=lambda name, seed: SIZES.get(name, 0.4) + 0.001 * seed,
        diverged=[("zgr", 1)],
    )
    text = re.sub(r" title=\"[^\"]*\"", "", html(tmp_path / "r"))
    first = "a[width=4], <code>adam</code>: the least training loss has"
    assert f'{first} <b class="estimator">PSA</b> (0.101; the exact gradient 0.401)' in text
    assert 'diverged with some seed: <b class="estimator">ZGR</b>.' in text
    assert "diverged, 1 of 3" in text
    assert "not trained yet" not in text


@pytest.mark.slow
def test_the_page_speaks_of_the_result_and_of_the_second_phase(tmp_path):
    """Without errors of gradients there is no question of whether they say who trains best."""
    losses = {"arm": 4.0}
    trained.write_runs(
        tmp_path / "r",
        loss=lambda name, seed: 3.0,
        result=lambda name, seed: 0.9 if name == "psa" else 0.5 + 0.001 * len(name) * seed,
        continued=lambda name, seed: 1.0 if name == "zgr" else losses.get(name, 2.5),
        optimisers=["adam"],
        problems=("a",),
        measured=0,
    )
    text = re.sub(r" title=\"[^\"]*\"", "", html(tmp_path / "r"))
    assert "Which estimator trains best?</h2>" in text and "a smaller error of the" not in text
    first = "a, <code>adam</code>: the greatest precision at 100 has"
    assert f'{first} <b class="estimator">PSA</b> (90.0 %; the exact gradient' in text
    assert 'the loss of <b class="estimator">ZGR</b> falls most, from 3.000 to 1.000' in text
    assert "judged by the precision at 100, of which larger is better" in text
    assert "7 estimators, 1 optimiser, 3 seeds" in text
    assert "precision at 100, %" in text


@pytest.mark.slow
def test_runs_that_are_not_finished_are_told(tmp_path):
    names = ["exact", "psa"]
    trained.write_runs(tmp_path / "r", estimators=names, optimisers=["adam"])
    for path in (tmp_path / "r" / "runs").rglob("psa/adam/*.npz"):
        path.unlink()
    said = "2 of 4 methods are not trained yet; run again to go on"
    assert said in html(tmp_path / "r") and said in gradbench.show(tmp_path / "r")


@pytest.mark.slow
def test_the_command_line_ranks_shows_plots_and_reports_runs_of_training(tmp_path, capsys):
    place = trained.write_runs(tmp_path / "r", loss=lambda n, s: SIZES.get(n, 0.4) + s)
    assert main(["rank", str(place), "--by", "training", "--estimator", "psa"]) == 0
    out = capsys.readouterr().out
    assert "a[width=4], adam" in out and "psa" in out and "reinforce" not in out
    assert main(["rank", str(place), "--by", "training", "--format", "csv"]) == 0
    assert capsys.readouterr().out.startswith("problem,optimiser,rank,estimator")
    assert main(["report", str(place), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_text().count("<svg") >= 11
    for wrong, said in (
        (["rank", str(place)], "rank --by training"),
        (["table", str(place)], "runs of training, not measurements"),
        (["rank", str(place), "--by", "training", "--at-cost", "1ms"], "leave the budget out"),
    ):
        capsys.readouterr()
        assert main(wrong) == 2
        assert said in capsys.readouterr().err


def test_measurements_have_no_ranking_by_training(tmp_path):
    from stored import write_run

    with pytest.raises(GradbenchError) as caught:
        gradbench.metrics.trained(write_run(tmp_path / "r"))
    assert_one_sentence(caught, "measurements, not runs of training")
