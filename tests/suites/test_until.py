"""Runs until a precision: they end at the first look that is precise, whatever interrupts them.

Draws are normal numbers in the place of a network's gradients, so that runs take milliseconds; one
test measures a real estimator.
"""

import itertools
import json
import math
import shutil
import warnings

import numpy as np
import pytest
import tiny
from pretended import SCALES, normal, pretend
from stored import drawn
from tiny import changed

from gradbench import metrics
from gradbench.cli.main import main
from gradbench.cli.show import show
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.measure import cell as driver
from gradbench.metrics import relative_error, summary
from gradbench.metrics.directory import read_cells, unfinished
from gradbench.metrics.intervals import quantile
from gradbench.metrics.stopping import is_check_due
from gradbench.results.store import Results
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite

# What is not precise in the end is said; which cells that is about is tested below.
pytestmark = pytest.mark.filterwarnings("ignore:.*not as precise.*")

LOOKS = [*range(8, 16), *range(16, 32, 2), *range(32, 64, 4), *range(64, 129, 8)]
UNTRAINED = tiny.PROBLEM.partition("[training]")[0]
SUITE = changed(tiny.SUITE, ("draws = 71", "draws = 256"))  # blocks of eight
UNTIL = {"until": 0.03, "draws": 1024, "progress": False}


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """A suite of four estimators that are no more than normal noise of different size."""
    pretend(monkeypatch)
    return tiny.write(tmp_path / "suite", SUITE, tiny=UNTRAINED)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What it gives without an interruption; to be read, or copied."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, pytest.warns(GradbenchWarning) as caught:
        pretend(patch)
        run(tiny.write(folder, SUITE, tiny=UNTRAINED), folder / "results", **UNTIL)
    (folder / "said").write_text("\n".join(str(warning.message) for warning in caught))
    return folder


@pytest.fixture
def interrupt(suite, monkeypatch):
    """Lets the next run measure so many blocks, then be interrupted; None: never again."""

    def interrupt(blocks):
        left = itertools.count() if blocks is None else iter(range(blocks))

        def measure(*arguments):
            for block in normal(*arguments):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                yield block

        monkeypatch.setattr(driver, "measure", measure)

    return interrupt


def lengths(results):
    return {cell.estimator: len(cell.load()[1]) for cell in Results.open(results).cells()}


# --- when cells end ---


def test_a_cell_is_looked_at_eight_times_while_its_blocks_double():
    assert [n for n in range(129) if is_check_due(n)] == LOOKS
    assert all(sum(n <= look < 2 * n for look in LOOKS) == 8 for n in (8, 16, 32, 64))


@pytest.mark.slow
def test_cells_end_at_the_first_look_at_which_all_metrics_are_precise(whole):
    found = lengths(whole / "results")
    assert found["psa"] == 8 and found["reinforce"] == 128  # without noise; too much of it
    assert 8 < found["straight_through"] < found["arm"] < 128
    for cell in read_cells(whole / "results"):
        for look in (n for n in LOOKS if n <= len(cell.blocks)):
            frame = metrics.summary([cell._replace(blocks=cell.blocks[:look])])
            reach = quantile(0.95, look - 1)  # of an interval, which may be longer than the error
            errors = [
                np.maximum(
                    frame[f"{name}_se"], (frame[f"{name}_high"] - frame[f"{name}_low"]) / 2 / reach
                )
                / frame[name]
                for name in ("rmse", "cosine")
            ]
            precise = cell.estimator == "psa" or max(error.max() for error in errors) <= 0.03
            last = look == found[cell.estimator] and cell.estimator != "reinforce"
            assert precise == last, (cell.estimator, look)
    assert (whole / "said").read_text() == (
        "reinforce at tiny/0/untrained is not as precise as asked for after 1,024 draws; give more "
        "with --draws"
    )


@pytest.mark.slow
def test_the_metrics_that_are_asked_for_decide(whole, suite, tmp_path):
    run(suite, tmp_path / "rmse", **UNTIL, until_metrics=["rmse"])
    one, both = lengths(tmp_path / "rmse"), lengths(whole / "results")
    assert one["reinforce"] < 64 and both["reinforce"] == 128  # its direction is all but random
    assert one["straight_through"] == both["straight_through"]  # whose cosine is near one


@pytest.mark.slow
def test_half_the_error_takes_four_times_the_draws(suite, tmp_path):
    found = []
    for rel_se in (0.03, 0.015):
        out = tmp_path / str(rel_se)
        run(suite, out, **UNTIL | {"until": rel_se, "until_metrics": ["rmse"], "draws": 4096})
        found.append(lengths(out)["arm"])
    assert 2.5 < found[1] / found[0] < 6  # from look to look


@pytest.mark.slow
def test_a_metric_that_may_be_zero_is_never_precise_and_that_is_said(suite, tmp_path):
    with pytest.warns(GradbenchWarning) as caught:
        run(suite, tmp_path / "results", **UNTIL | {"draws": 256}, until_metrics=["bias"])
    # Those of REINFORCE and ARM are zero by theorem.
    assert {str(one.message).split()[0] for one in caught} == {"straight_through"}


def test_the_most_that_a_cell_takes_is_64_times_the_suite_unless_told(suite):
    asked = load_suite(suite).with_until(0.01, ["rmse"])
    assert (asked.draws, asked.until.first) == (64 * 256, 256)
    assert load_suite(suite).with_until(0.01, ["rmse"], 300).draws == 300
    assert asked.averages == load_suite(suite).averages


@pytest.mark.slow
def test_blocks_and_averages_are_those_of_the_suite_without_a_precision(whole, suite, tmp_path):
    run(suite, tmp_path / "plain", progress=False)
    plain, until = (
        {cell.estimator: cell for cell in read_cells(path)}
        for path in (tmp_path / "plain", whole / "results")
    )
    for name in SCALES:
        assert until[name].average_sizes() == plain[name].average_sizes()
        assert until[name].block_size == plain[name].block_size == 8
    longer = tiny.numbers(whole / "results")
    for key, blocks in tiny.numbers(tmp_path / "plain").items():
        n = min(len(blocks), len(longer[key]))
        assert longer[key][:n] == blocks[:n] and n >= 8


# --- interruption ---


# 127: before the last block of the first cell; 128: after it; the others end within the run.
@pytest.mark.parametrize("blocks", [0, 9, 127, 128, 150])
@pytest.mark.first(1)
def test_a_run_interrupted_after_any_block_ends_with_the_same_bits(
    whole, suite, tmp_path, interrupt, blocks
):
    interrupt(blocks)
    with pytest.raises(KeyboardInterrupt):
        run(suite, tmp_path / "results", **UNTIL)
    assert sum(lengths(tmp_path / "results").values()) == blocks
    interrupt(None)
    run(suite, tmp_path / "results", **UNTIL)
    assert tiny.numbers(tmp_path / "results") == tiny.numbers(whole / "results")


@pytest.mark.slow
def test_a_run_interrupted_again_and_again_ends_with_the_same_bits(
    whole, suite, tmp_path, interrupt, monkeypatch
):
    monkeypatch.setattr("gradbench.suites.cells._FLUSH_SECONDS", -1.0)  # every block makes a shard
    total = sum(lengths(whole / "results").values())
    for _ in range(total // 47):
        interrupt(47)
        with pytest.raises(KeyboardInterrupt):
            run(suite, tmp_path / "results", **UNTIL)
    interrupt(total % 47)  # what is left
    run(suite, tmp_path / "results", **UNTIL)
    assert tiny.numbers(tmp_path / "results") == tiny.numbers(whole / "results")


def test_a_finished_run_measures_nothing_and_touches_no_file(whole, suite, tmp_path, interrupt):
    results = shutil.copytree(whole / "results", tmp_path / "results")
    before = tiny.files(results)
    interrupt(0)
    run(suite, results, **UNTIL)
    assert tiny.files(results) == before


# --- what is read of such results ---


def test_cells_that_are_precise_are_finished(whole):
    results = whole / "results"
    assert unfinished(results) == (0, 4)
    rows = summary(results).groupby("estimator")["draws"].first()
    assert rows.to_dict() == {name: 8 * n for name, n in lengths(results).items()}
    assert "not finished" not in show(results)
    until = json.loads((results / "manifest.json").read_text())["suite"]["until"]
    assert until == {"rel_se": 0.03, "metrics": ["rmse", "cosine"], "first": 256}


@pytest.mark.parametrize(("blocks", "left"), [(127, 4), (128, 3), (130, 3)])
@pytest.mark.slow
def test_a_cell_that_was_interrupted_is_not_finished(suite, tmp_path, interrupt, blocks, left):
    interrupt(blocks)
    with pytest.raises(KeyboardInterrupt):
        run(suite, tmp_path / "results", **UNTIL)
    if left == 4:
        with pytest.raises(GradbenchError, match="holds no finished cell yet; continue the run"):
            unfinished(tmp_path / "results")
    else:
        assert unfinished(tmp_path / "results") == (left, 4)


def test_a_precise_cell_that_a_run_would_go_on_with_is_not_finished(whole, tmp_path):
    """Three blocks without noise tell everything, and are three of the eight of the first look."""
    path = shutil.copytree(whole / "results", tmp_path / "results")
    manifest = Results.open(path).manifest
    with Results.open_or_create(path, manifest["suite"], 0, manifest["draws"]) as results:
        cell = results.cell("tiny", 0, "untrained", "psa")
        meta, blocks = cell.load()
        cell.discard()
        cell.append(blocks[:3], meta)
    assert unfinished(path) == (1, 4)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"until": 0.02}, "of another suite (different in until)"),
        ({"until_metrics": ["rmse", "snr"]}, "of another suite (different in until)"),
        ({"draws": 4096}, "with draws = 1024, not 4096"),
        ({"until": None}, "of another suite (different in until)"),
        ({"until": None, "draws": None}, "with draws = 1024, not 256"),
    ],
)
def test_results_of_another_precision_are_left_alone(whole, suite, other, words):
    before = tiny.files(whole / "results")
    with pytest.raises(GradbenchError) as caught:
        run(suite, whole / "results", **UNTIL | other)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert tiny.files(whole / "results") == before


# --- exact moments, and what is measured in earnest ---


@pytest.mark.slow
def test_where_moments_are_exact_draws_are_needed_for_directions_alone(tmp_path):
    text = changed(tiny.SUITE, ('"reinforce", "arm", "straight_through", "psa"', '"reinforce"'))
    suite = tiny.write(tmp_path / "suite", text, tiny=UNTRAINED)
    results = run(suite, tmp_path / "rmse", until=0.001, until_metrics=["rmse"], progress=False)
    (cell,) = read_cells(results)
    assert cell.moments is not None and len(cell.blocks) == 8
    drawn_alone = cell._replace(moments=None)
    assert relative_error(cell, ["rmse", "bias", "snr"]) == 0.0
    assert relative_error(drawn_alone, ["rmse"]) > 0.05
    cosine = metrics.summary([cell])
    expected = (cosine["cosine_se"] / cosine["cosine"].abs()).max()
    assert relative_error(cell, ["rmse", "cosine"]) == pytest.approx(expected, rel=1e-12)
    assert expected > 0.01


def test_what_is_not_known_is_not_precise_and_a_zero_gradient_does_not_count():
    rng = np.random.default_rng(0)
    one = drawn(rng.normal(size=(8, 4)), np.ones(4), 8, (1,))
    assert relative_error(one, ["rmse"]) == math.inf  # of a single block
    zero = drawn(rng.normal(size=(64, 4)), np.zeros(4), 8, (1,))
    assert relative_error(zero, ["rmse", "cosine"]) == 0.0
    with pytest.raises(GradbenchError, match="unknown metric 'rsme'"):
        relative_error(one, ["rsme"])


# --- the command ---


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command elsewhere: exit code, output and error."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


def test_a_dry_run_says_the_precision_and_the_most_draws(suite, call):
    code, out, error = call("run", suite, "--until", "rel_se=2.5%", "--dry-run")
    assert (code, error) == (0, "")
    wanted = "  4 cells until rel_se = 2.5 % of rmse, cosine, of at most 16,384 draws"
    assert wanted in out.splitlines()
    assert describe(suite, until=0.025) + "\n" == out
    asked = ["--until", "rel_se=0.01", "--metrics", "snr", "--draws", "512", "--dry-run"]
    assert "rel_se = 1 % of snr, of at most 512 draws" in call("run", suite, *asked)[1]


@pytest.mark.slow
def test_the_command_measures_until_the_precision_and_warns_in_a_sentence(
    suite, call, tmp_path, monkeypatch
):
    monkeypatch.setattr("gradbench.plots.suite.plot", lambda directory: [])
    asked = ["--until", "rel_se=3%", "--draws", "1024", "--out", tmp_path / "results"]
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, error = call("run", suite, *asked)
    assert code == 0 and out == f"the table: gradbench show {tmp_path / 'results'}\n"
    (said,) = (line for line in error.replace("\r", "\n").splitlines() if "gradbench: " in line)
    assert said.startswith("gradbench: reinforce at tiny/0/untrained is not as precise as asked")
    assert "Traceback" not in error and "Warning" not in error
    assert unfinished(tmp_path / "results") == (0, 4)


BAD = {
    "no name": (["--until", "1%"], "--until is '1%'; give a precision as rel_se=1% or rel_se=0.01"),
    "another name": (["--until", "se=1%"], "--until is 'se=1%'"),
    "no number": (["--until", "rel_se=x"], "--until is 'rel_se=x'"),
    "zero": (["--until", "rel_se=0%"], "--until is 'rel_se=0%'"),
    "nan": (["--until", "rel_se=nan"], "--until is 'rel_se=nan'"),
    "all": (["--until", "rel_se=100%"], "--until is 'rel_se=100%'"),
    "no metric": (["--until", "rel_se=1%", "--metrics", "rsme"], "'rsme'; did you mean 'rmse'?"),
    "metrics alone": (["--metrics", "rmse"], "--metrics is 'rmse' without --until; add rel_se=1%"),
    "few": (
        ["--until", "rel_se=1%", "--draws", "9"],
        "draws is 9, fewer than the 256 of the suite",
    ),
    "none": (["--until", "rel_se=1%", "--draws", "0"], "number of draws is 0"),
    "many": (["--until", "rel_se=1%", "--draws", "9999999999"], "give at most 4294967296"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_precision_that_is_none_is_one_sentence_and_nothing_is_written(
    suite, call, tmp_path, name
):
    arguments, words = BAD[name]
    for more in ([], ["--dry-run"]):
        code, out, error = call("run", suite, *arguments, *more)
        assert (code, out) == (2, "")
        assert words in error and error.count("\n") == 1
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("rel_se", "names", "words"),
    [
        (0.0, ["rmse"], "until rel_se is 0.0; give a share between 0 and 1"),
        (math.nan, ["rmse"], "until rel_se is nan"),
        (0.01, [], "until got no metrics"),
    ],
)
def test_the_library_refuses_it_too(suite, rel_se, names, words):
    with pytest.raises(GradbenchError) as caught:
        describe(suite, until=rel_se, until_metrics=names)
    assert words in str(caught.value) and "\n" not in str(caught.value)
