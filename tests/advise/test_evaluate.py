"""Evaluation of a model of one's own: what is measured, continued and refused, and what is told."""

import gc
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from conftest import threshold
from stored import assert_one_sentence

import gradbench
from gradbench import metrics
from gradbench.advise import evaluate as evaluation
from gradbench.advise import measuring, preselect
from gradbench.advise.evaluate import evaluate
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.measure import cell as driver
from gradbench.measure import reference as references
from gradbench.measure import sampled_reference
from gradbench.measure.timing import DrawTime
from gradbench.metrics.left_out import LATE
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites import cells, times
from gradbench.suites.given import GivenInstance

pytestmark = pytest.mark.usefixtures("quick_compilation")

TESTS = Path(__file__).parents[1]
PARAMS = (np.array([[0.5, -1.0], [1.0, 0.3]]), np.array([0.7, -0.4]))
BATCH = (np.array([[1.0, 0.5], [-0.3, 0.8], [0.2, -1.0]]), np.array([0.0, 1.0, 2.0]))
NAMES = ["reinforce", "straight_through", "vimco"]
GIVEN = CheckpointId("model", 0, "given")
HOW = {"estimators": NAMES, "draws": 71, "progress": False}


def model(params, example, binary):
    x, target = example
    x = binary(params[0] @ x, noise="logistic")
    return (params[1] @ x - target) ** 2


def other(params, example, binary):
    return 2.0 * model(params, example, binary)


@pytest.fixture(autouse=True, scope="module")
def no_timing():
    """The time of a draw is always a millisecond."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(times, "time_draws", lambda cells, **_: [DrawTime(1e-3, 0, 9)] * len(cells))
        yield


@pytest.fixture(scope="module")
def measured(quick_compilation, no_timing, tmp_path_factory):
    """The results of two estimators at two checkpoints, to be read."""
    points = {"epoch 0": tuple(0.5 * leaf for leaf in PARAMS), "epoch 3": PARAMS}
    out = tmp_path_factory.mktemp("measured") / "results"
    return evaluate(model, None, BATCH, checkpoints=points, out=out, **HOW)


# --- what is measured ---


def test_the_results_are_a_directory_that_answers_what_gradbench_answers(measured):
    found = gradbench.Results.open(measured.directory)
    for name in ("summary", "curves"):
        frame = getattr(gradbench, name)(measured.directory)
        assert getattr(found, name)().equals(frame) and getattr(measured, name)().equals(frame)
    assert measured.rank(at="16-draws").equals(gradbench.rank(measured.directory, at="16-draws"))
    assert measured.compare(found)["change"].eq("same").all()
    frame = measured.summary()
    assert set(frame["problem"]) == {"model"} and list(frame["epoch"].unique()) == [0, 3]
    assert set(frame["layer"]) == {"layer 1", "output", "network"}
    assert measured.manifest["suite"]["figure"] == "training"
    assert f"Results.open({str(measured.directory)!r})" == repr(measured)


def test_it_says_in_words_what_there_is_and_what_is_left_out(measured):
    first, truth, left_out = str(measured).splitlines()
    assert first.startswith("model: 2 binary units, 3 examples: 4 of 4 cells, in ")
    assert truth.startswith("exact gradients: finite differences agree to ")
    assert left_out.startswith("not measured: vimco: vimco got a model that is no MultiSample")
    assert list(measured.left_out) == ["vimco"]
    assert gradbench.Results.open(measured.directory).left_out == measured.left_out
    assert measured.manifest["readout"] == {"model": ["output"]}


def test_bias_and_variance_are_exact_where_they_can_be_enumerated(measured):
    frame = measured.summary().set_index(["checkpoint", "layer", "estimator"])
    row = frame.loc["epoch 3", "network", "reinforce"]
    truth = gradbench.reference(model, PARAMS, BATCH).gradient
    with gradbench.float64():
        found = gradbench.moments(gradbench.estimators.reinforce(model), PARAMS, BATCH)
        variance = sum(float(np.sum(np.asarray(layer))) for layer in found.variance)
    norm = sum(np.sum(layer**2) for layer in truth)
    assert row["exact"] and row["variance"] == pytest.approx(variance / norm, rel=1e-9)
    assert row["bias_source"] == "theorem" and row["evaluations"] == 1


@pytest.mark.slow
def test_figures_and_a_report_are_made_of_it(measured, tmp_path):
    assert any(path.suffix == ".svg" for path in measured.plot())
    page = measured.report(tmp_path / "report.html").read_text()
    assert "model: 2 binary units, 3 examples" in page


@pytest.mark.slow
def test_without_a_directory_the_results_go_with_the_object(monkeypatch, tmp_path):
    monkeypatch.setattr(evaluation.tempfile, "tempdir", str(tmp_path))
    results = evaluate(model, PARAMS, BATCH, **HOW | {"estimators": ["reinforce"]})
    directory = results.directory
    assert directory.parent == tmp_path and set(results.summary()["checkpoint"]) == {"given"}
    del results
    gc.collect()
    assert not directory.exists()
    with pytest.raises(GradbenchError):
        evaluate(model, PARAMS, BATCH, **HOW | {"estimators": ["vimco"]})
    assert not list(tmp_path.iterdir())


# --- what is continued ---


@pytest.mark.parametrize("stored", [50, 0, 1])
@pytest.mark.slow
def test_an_interrupted_evaluation_ends_in_the_same_bits(measured, tmp_path, monkeypatch, stored):
    honest, left = driver.measure, iter(range(stored))

    def measure(*arguments):
        for block in honest(*arguments):
            if next(left, None) is None:
                raise KeyboardInterrupt
            yield block

    points = {"epoch 0": tuple(0.5 * leaf for leaf in PARAMS), "epoch 3": PARAMS}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(driver, "measure", measure)
        evaluate(model, None, BATCH, checkpoints=points, out=tmp_path, **HOW)
    assert sum(map(len, tiny.numbers(tmp_path).values())) == stored
    again = evaluate(model, None, BATCH, checkpoints=points, out=tmp_path, **HOW)
    assert tiny.numbers(tmp_path) == tiny.numbers(measured.directory)
    assert again.summary().equals(measured.summary())
    before = tiny.files(tmp_path)
    evaluate(model, None, BATCH, checkpoints=points, out=tmp_path, **HOW)
    assert tiny.files(tmp_path) == before


KILLED = """
import os, signal, sys
sys.path.insert(0, "{tests}")
from advise import test_evaluate as tests
from gradbench.suites import cells

cells._FLUSH_SECONDS = -1.0
replace, shards = os.replace, []

def replace_or_die(source, target):
    if str(target).endswith(".parquet"):
        shards.append(target)
    if len(shards) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace_or_die
tests.evaluate(tests.model, tests.PARAMS, tests.BATCH, out=sys.argv[1], **tests.HOW)
"""


@pytest.mark.slow
def test_a_killed_evaluation_loses_one_shard_and_ends_in_the_same_bits(tmp_path):
    code = [sys.executable, "-c", KILLED.format(tests=TESTS), str(tmp_path / "killed")]
    environment = {"PYTHONPATH": f"{TESTS}:{TESTS.parent}", "PATH": "/usr/bin:/bin"}
    # As `quick_compilation` here: programs that are compiled otherwise differ in the last bits.
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    assert subprocess.run(code, env=environment).returncode == -signal.SIGKILL
    assert sum(map(len, tiny.numbers(tmp_path / "killed").values())) == 19
    for out in ("killed", "whole"):
        evaluate(model, PARAMS, BATCH, out=tmp_path / out, **HOW)
    assert tiny.numbers(tmp_path / "killed") == tiny.numbers(tmp_path / "whole")


def test_a_time_limit_ends_it_and_the_same_call_continues(tmp_path, monkeypatch):
    how = {"estimators": NAMES[:2], "draws": 71, "progress": False, "out": tmp_path}
    with pytest.raises(GradbenchError) as caught:
        evaluate(model, PARAMS, BATCH, time_limit=1e-9, **how)
    assert_one_sentence(caught, "no estimator was measured within the time limit; give a larger")
    begun = []  # late once the second estimator would begin

    def is_late(run):
        begun.append(run)
        return len(begun) > 2

    with monkeypatch.context() as patch:
        patch.setattr(measuring.Run, "_is_late", is_late)
        with pytest.warns(GradbenchWarning, match=r"1 of 2 .* \(straight_through\); the same call"):
            part = evaluate(model, PARAMS, BATCH, **how)
    assert part.left_out == {"straight_through": LATE}
    read = gradbench.Results.open(tmp_path)
    assert read.left_out == part.left_out and f"straight_through: {LATE}" in str(read)
    page = part.report().read_text()
    assert re.search(f"<p>Not measured: <b .*>ST</b>: {LATE}.</p>", page)
    assert "the same call of <code>evaluate</code>" in page
    assert set(part.summary()["estimator"]) == {"reinforce"}
    whole = evaluate(model, PARAMS, BATCH, **how)
    assert not whole.left_out and not gradbench.Results.open(tmp_path).left_out
    assert len(set(whole.summary()["estimator"])) == 2


def test_a_cell_is_left_in_the_middle_when_its_time_is_over(tmp_path, monkeypatch):
    how = {"estimators": ["reinforce"], "draws": 71, "progress": False, "out": tmp_path}
    clock = iter(range(10**6))
    monkeypatch.setattr(cells.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(GradbenchError, match="within the time limit"):
        evaluate(model, PARAMS, BATCH, time_limit=25.0, **how)
    stored = sum(map(len, tiny.numbers(tmp_path).values()))
    assert 0 < stored < 36
    evaluate(model, PARAMS, BATCH, time_limit=None, **how)
    assert sum(map(len, tiny.numbers(tmp_path).values())) == 36


def test_what_fails_while_it_is_drawn_is_left_out_with_the_reason(tmp_path, monkeypatch):
    def measure_cell(results, suite, built, task, *more):
        if task.cell.estimator == "straight_through":
            raise ZeroDivisionError("by zero")
        return cells.measure_cell(results, suite, built, task, *more)

    monkeypatch.setattr(measuring, "measure_cell", measure_cell)
    found = evaluate(model, PARAMS, BATCH, out=tmp_path, **HOW)
    assert "ZeroDivisionError: by zero" in found.left_out["straight_through"]
    assert set(found.summary()["estimator"]) == {"reinforce"}


def test_estimators_that_are_named_are_added_to_those_that_are_there(no_timing, tmp_path):
    evaluate(model, PARAMS, BATCH, out=tmp_path, **HOW | {"estimators": ["reinforce"]})
    before = tiny.numbers(tmp_path)
    both = evaluate(model, PARAMS, BATCH, out=tmp_path, **HOW | {"estimators": ["zgr"]})
    assert list(both.summary()["estimator"].unique()) == ["reinforce", "zgr"]
    after = tiny.numbers(tmp_path)
    assert before == {name: after[name] for name in before} != after
    again = evaluate(model, PARAMS, BATCH, out=tmp_path, **HOW | {"estimators": None})
    assert list(again.summary()["estimator"].unique()) == ["reinforce", "zgr"]
    apart = evaluate(model, PARAMS, BATCH, **HOW | {"estimators": ["zgr"]})
    rows = both.summary()[both.summary()["estimator"] == "zgr"].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, apart.summary().reset_index(drop=True))


# --- what is refused ---

REFUSED = {
    "another model": (other, PARAMS, BATCH, {}),
    "other parameters": (model, (PARAMS[0], PARAMS[1] + 1e-12), BATCH, {}),
    "another batch": (model, PARAMS, (BATCH[0], BATCH[1] + 1e-12), {}),
    "with draws = 71, not 72": (model, PARAMS, BATCH, {"draws": 72}),
    "with seed = 0, not 1": (model, PARAMS, BATCH, {"seed": 1}),
}


@pytest.fixture(scope="module")
def one(no_timing, tmp_path_factory):
    """A directory with one estimator at one checkpoint."""
    out = tmp_path_factory.mktemp("one")
    evaluate(model, PARAMS, BATCH, out=out, **HOW | {"estimators": ["reinforce"]})
    return out


@pytest.mark.parametrize("words", REFUSED)
def test_a_directory_of_something_else_is_refused_in_one_sentence(one, words):
    *problem, how = REFUSED[words]
    with pytest.raises(GradbenchError) as caught:
        evaluate(*problem, out=one, **HOW | {"estimators": ["reinforce"], "name": "model"} | how)
    assert_one_sentence(caught, "holds results", words, "choose another directory")


@pytest.mark.parametrize(
    ("problem", "how", "words"),
    [
        ((model, None, BATCH), {}, "there are no parameters; give params, or checkpoints by name"),
        ((model, PARAMS, BATCH), {"checkpoints": {"given": PARAMS}}, "is called 'given'"),
        ((model, PARAMS, BATCH), {"checkpoints": {"": PARAMS}}, "the name '' does not fit"),
        ((model, PARAMS, BATCH), {"checkpoints": {"a": PARAMS[0]}}, "of different form"),
        ((model, PARAMS, BATCH), {"budget": "9-evals"}, "'9-evals' is not a budget"),
        ((model, PARAMS, BATCH), {"estimators": ["psb"]}, "unknown estimator 'psb'"),
        ((model, PARAMS, BATCH), {"estimators": "psa"}, "give a list of names"),
        ((model, PARAMS, BATCH), {"estimators": ["exact"]}, "name one besides the exact gradient"),
        ((model, PARAMS, BATCH), {"draws": 1}, "draws is 1; give a whole number of at least 2"),
        ((model, PARAMS, BATCH), {"rel_se": 0}, "rel_se is 0; give a positive"),
        ((model, PARAMS, BATCH), {"time_limit": -1}, "time_limit is -1"),
        ((model, (0 * PARAMS[0], 0 * PARAMS[1]), BATCH), {}, "the exact gradient is zero"),
        ((model, PARAMS, (BATCH[0] * np.nan, BATCH[1])), {}, "the data hold nan"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(problem, how, words):
    with pytest.raises(GradbenchError) as caught:
        evaluate(*problem, **HOW | {"estimators": ["reinforce"]} | how)
    assert_one_sentence(caught, words)


# --- which estimators ---


def test_unasked_come_first_the_best_known_and_one_of_each_family_the_cheapest_first():
    def costs(name):
        return gradbench.estimators.registry.evaluations(name, [4, 4], False)

    order = preselect._in_rounds(costs)
    families = [gradbench.estimators.get_estimator(spec)[0].family for spec in order]
    first = families[: len(set(families))]
    assert len(set(first)) == len(first)
    known = {"straight_through", "reinforce", "concrete", "zgr", "arm", "psa"}
    assert {*order[: len(known)]} == known
    rest = order[len(known) : len(first)]
    assert [costs(name) for name in rest] == sorted(map(costs, rest))
    assert order.index("arm") < order.index("ar") and "mean_of" not in order


def wide(params, example, binary):
    x = binary(params[0] @ example, noise="logistic")
    return jax.numpy.sum(jax.numpy.sin(params[1] @ x))


def test_what_costs_too_much_is_left_out_unless_it_is_named(monkeypatch):
    monkeypatch.setattr(preselect, "misfit", lambda *_: "")  # which traces all of them
    params = (np.full((600, 4), 0.1), np.full((3, 600), 0.1))
    with gradbench.float64():
        built = GivenInstance("wide", wide, np.ones((2, 4)), {"given": params}, None, 0)
        found = preselect.choose(built, None, 128, None)
        assert "ram" in found.estimators and "measure_valued" not in found.estimators
        assert found.left_out["measure_valued"].startswith("a draw costs 1201 evaluations of the")
        cheap = preselect.choose(built, None, 128, metrics.budget("3-evaluations"))
        assert "ram" in cheap.left_out and "arm" not in cheap.left_out
        named = preselect.choose(built, ["measure_valued"], 128, None)
        assert named.estimators == ["measure_valued"]
        long = preselect.choose(built, None, 1 << 28, None)
        assert "take too long; measured only if named" in long.left_out["ram"]
        assert 64 <= preselect.default_draws(built) <= 2048


def test_an_estimator_that_flips_each_unit_says_what_it_takes_and_that_layers_make_it_cheaper(
    monkeypatch,
):
    """PSA of a plain function of two wide layers, which runs the function once for each flip."""

    def two(params, example, binary):
        x = binary(params[0] @ example)
        return jax.numpy.sum(jax.numpy.sin(params[2] @ binary(params[1] @ x)))

    monkeypatch.setattr(preselect, "misfit", lambda *_: "")
    params = (np.full((300, 4), 0.1), np.full((300, 300), 0.1), np.full((3, 300), 0.1))
    with gradbench.float64():
        built = GivenInstance("two", two, np.ones((100, 4)), {"given": params}, None, 0)
        found = preselect.choose(built, None, 1 << 16, None)
    assert "psa" not in found.estimators
    assert found.left_out["psa"] == (
        "65536 draws of 601 evaluations take too long (a plain function is run again for each unit "
        "that is flipped; an SBN of such layers takes 301); measured only if named"
    )


# --- a sampled gradient ---


@pytest.fixture(scope="module")
def sampled(no_timing, tmp_path_factory):
    """The same as `measured` at one checkpoint, against a gradient that is sampled to 2 %."""
    out = tmp_path_factory.mktemp("sampled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "fits", lambda *_: False)
        patch.setattr(sampled_reference, "CANDIDATES", ("disarm",))  # no pilot, which takes long
        return evaluate(model, PARAMS, BATCH, out=out, **HOW | {"draws": 400})


def test_a_sampled_gradient_gives_what_the_exact_one_gives_within_its_errors(sampled, tmp_path):
    """A false alarm once in 1e6: Sidak over the metrics, layers and estimators."""
    exact = evaluate(model, PARAMS, BATCH, out=tmp_path, **HOW | {"draws": 400})
    keys = ["layer", "estimator"]
    one, two = (results.summary().set_index(keys).sort_index() for results in (sampled, exact))
    assert two["exact"].all() and not one["exact"].any()
    names = ["variance", "rmse", "gradient_norm"]
    z = []
    reference = Results.open(sampled.directory).load_reference(GIVEN)
    errors = reference.info["samples"]["rel_se"]
    for key, row in one.iterrows():
        truth = two.loc[key]
        z += [abs(row[name] - truth[name]) / row[f"{name}_se"] for name in names[:2]]
        if key[0] in errors:
            gap = abs(row["gradient_norm"] / truth["gradient_norm"] - 1.0)
            z.append(gap / errors[key[0]])
            assert 0 < errors[key[0]] <= 0.02
    assert max(z) < threshold(1e-6, len(z))
    assert (one["variance_se"] > 0).all()


def test_a_sampled_gradient_is_told_with_its_precision(sampled):
    said = str(sampled).splitlines()[1]
    assert said.startswith("sampled gradients: known to ") and "% or better in every layer" in said
    assert said.endswith("; every interval includes their noise")
    assert not (sampled.directory / "unfinished").exists()


def test_a_sampled_gradient_is_read_back_to_the_bit_and_refused_where_it_is_impossible(sampled):
    found = Results.open(sampled.directory).load_reference(GIVEN)
    for blocks, gradient in zip(found.blocks, found.gradient, strict=True):
        np.testing.assert_allclose(blocks.mean(), gradient, rtol=1e-12)
        assert blocks.draws == found.info["samples"]["draws"]
