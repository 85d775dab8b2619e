"""A run gives the same numbers whatever happens to it, and loses nothing that was finished."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny
from tiny import changed

import gradbench
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.estimators.registry import evaluations
from gradbench.measure import cell as driver
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites import cells
from gradbench.suites.runner import describe, run
from gradbench.suites.suite import load_suite


def quietly(suite, out, **options):
    return run(suite, out, progress=False, **options)


def refusal(suite, out, **options):
    with pytest.raises(GradbenchError) as caught:
        quietly(suite, out, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture
def interrupt(monkeypatch):
    """Lets the next run measure so many blocks, then be interrupted; None: never again."""
    honest = driver.measure

    def interrupt(blocks):
        left = itertools.count() if blocks is None else iter(range(blocks))

        def measure(*arguments):
            for block in honest(*arguments):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                yield block

        monkeypatch.setattr(driver, "measure", measure)

    return interrupt


@pytest.mark.slow
def test_draws_that_are_not_finite_are_refused_and_the_other_cells_are_kept(finished, monkeypatch):
    results = finished / "results"
    kept = tiny.numbers(results)
    (shard,) = (results / "shards").glob("*/*/epoch*10/psa/*.parquet")
    shard.unlink()
    honest = driver.measure

    def measure(*arguments):
        for block in honest(*arguments):
            layer = block.layers[1]
            wrong = layer._replace(mean=layer.mean * np.where(block.index == 3, np.nan, 1.0))
            yield block._replace(layers=(block.layers[0], wrong, *block.layers[2:]))

    monkeypatch.setattr(driver, "measure", measure)
    sentence = refusal(finished / "suite.toml", results)
    assert "draws of 'psa' at 'tiny/0/epoch 10' are not finite" in sentence
    found = tiny.numbers(results)
    assert len(found.pop(("tiny", 0, "epoch 10", "psa"))) == 3  # the blocks before it
    assert found.items() <= kept.items() and len(found) == len(kept) - 1


# --- interruption ---


# 0: before anything; 36: after the last block of the first cell; 200: in the second checkpoint
@pytest.mark.parametrize("blocks", [0, 1, 36, 37, 200])
@pytest.mark.slow
def test_a_run_interrupted_after_any_block_ends_with_the_same_bits(
    finished_run, tmp_path, interrupt, blocks
):
    interrupt(blocks)
    with pytest.raises(KeyboardInterrupt):
        quietly(finished_run / "suite.toml", tmp_path)
    assert sum(map(len, tiny.numbers(tmp_path).values())) == blocks
    interrupt(None)
    quietly(finished_run / "suite.toml", tmp_path)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


@pytest.mark.slow
def test_a_run_interrupted_again_and_again_ends_with_the_same_bits(
    finished_run, tmp_path, interrupt, monkeypatch
):
    monkeypatch.setattr(cells, "_FLUSH_SECONDS", -1.0)  # every block makes a shard
    for stored in (61, 122, 183, 244):
        interrupt(61)
        with pytest.raises(KeyboardInterrupt):
            quietly(finished_run / "suite.toml", tmp_path)
        assert sum(map(len, tiny.numbers(tmp_path).values())) == stored
    interrupt(8 * 36 - 244)  # what is left
    quietly(finished_run / "suite.toml", tmp_path)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


KILLED = """
import os, signal, sys
from gradbench.suites import cells, runner

cells._FLUSH_SECONDS = -1.0
replace, shards = os.replace, []

def replace_or_die(source, target):
    if str(target).endswith(".parquet"):
        shards.append(target)
    if len(shards) == 20:  # in the middle of the first cell, between writing and renaming
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

os.replace = replace_or_die
runner.run(sys.argv[1], sys.argv[2], progress=False)
"""


@pytest.mark.slow
def test_a_killed_process_loses_one_shard_and_the_run_ends_with_the_same_bits(
    finished_run, tmp_path
):
    suite = str(finished_run / "suite.toml")
    process = subprocess.run([sys.executable, "-c", KILLED, suite, str(tmp_path)])
    assert process.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.rglob("*partial*")]
    assert sum(map(len, tiny.numbers(tmp_path).values())) == 19
    quietly(suite, tmp_path)
    assert not [p.name for p in tmp_path.rglob("*partial*")]
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


@pytest.mark.slow
def test_an_interrupted_training_is_begun_again(finished_run, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Results, "save_checkpoint", interrupted)
        quietly(finished_run / "suite.toml", tmp_path)
    quietly(finished_run / "suite.toml", tmp_path)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


def test_a_finished_run_measures_nothing_and_touches_no_file(finished, interrupt):
    before = tiny.files(finished)
    interrupt(0)
    quietly(finished / "suite.toml", finished / "results")
    assert tiny.files(finished) == before


# --- costs ---


def test_a_finished_run_knows_what_a_draw_of_every_cell_costs(finished_run):
    """On one layer of two units; how many seconds is not asserted."""
    results = Results.open(finished_run / "results")
    expected = {"reinforce": 1, "arm": 2, "straight_through": 2, "psa": 3}
    keys = [(cell.place, cell.estimator) for cell in results.cells()]
    costs = {key: results.load_cost(*key) for key in keys}
    assert len(costs) == 8
    for (_, estimator), cost in costs.items():
        assert cost["evaluations"] == expected[estimator]
        assert 0.0 < cost["seconds"] < np.inf and 0.0 < cost["latency"] < np.inf
        assert 5 <= cost["repeats"] <= 9 and cost["spread"] >= 0.0 and cost["machine"]
    for row in gradbench.summary(finished_run / "results").to_dict("records"):
        place = CheckpointId(row["problem"], row["replicate"], row["checkpoint"])
        cost = costs[place, row["estimator"]]
        for name in ("evaluations", "seconds", "latency", "latency_spread"):
            assert row[name] == cost[name]
        assert row["seconds_spread"] == cost["spread"]


@pytest.mark.parametrize(
    ("spec", "units", "expected"),
    [
        ("reinforce", [5, 5, 5], 1),
        ("straight_through", [5, 5, 5], 2),  # the objective and its gradient
        ("arm", [5, 5, 5], 4),  # L + 1
        ("psa", [5, 4, 3], 4),  # the last units + 1
        ("leg", [5, 4, 3], 13),  # all units + 1
        ("rloo(samples=4)", [2], 4),
        ("exact", [2, 3], 32),
        ("mean_of(draws=3, estimator='arm')", [5, 5], 9),
    ],
)
def test_evaluations_are_those_of_the_registry_at_the_sizes_of_a_network(spec, units, expected):
    assert evaluations(spec, units) == expected


# --- damage ---


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [tiny.damage, cut, empty])
@pytest.mark.first(1)
def test_a_corrupted_shard_is_named_and_only_its_cell_is_run_again(
    finished_run, finished, capsys, interrupt, harm
):
    results = finished / "results"
    (shard,) = results.glob("shards/tiny/0/*10/psa/*.parquet")
    before = tiny.files(results)
    harm(shard)
    interrupt(36)  # the blocks of one cell: more would interrupt
    quietly(finished / "suite.toml", results)
    error = capsys.readouterr().err
    assert str(shard) in error and error.count("\n") == 1
    after = tiny.files(results)
    name = str(shard.relative_to(results))
    assert before.keys() == after.keys()
    assert {path for path in before if before[path] != after[path]} <= {name}
    assert before[name][0] == after[name][0]
    assert tiny.numbers(results) == tiny.numbers(finished_run / "results")


@pytest.mark.slow
def test_a_lost_shard_is_measured_again(finished_run, finished):
    results = finished / "results"
    for shard in results.glob("shards/*/*/*/arm/*.parquet"):
        shard.unlink()
    quietly(finished / "suite.toml", results)
    assert tiny.numbers(results) == tiny.numbers(finished_run / "results")


def test_a_corrupted_reference_is_named_and_comes_back_the_same(finished):
    results = finished / "results"
    before = tiny.files(results)
    (reference,) = results.glob("references/tiny/0/*10.npz")
    tiny.damage(reference)
    sentence = refusal(finished / "suite.toml", results)
    assert str(reference) in sentence and "delete it and run again" in sentence
    reference.unlink()
    quietly(finished / "suite.toml", results)
    after = tiny.files(results)
    assert {path for path in before if before[path][0] != after[path][0]} == set()
    assert {path for path in before if before[path] != after[path]} == {
        str(reference.relative_to(results))
    }


@pytest.mark.slow
def test_a_corrupted_checkpoint_is_named_and_is_trained_again_the_same(
    finished_run, tmp_path, interrupt
):
    interrupt(50)
    with pytest.raises(KeyboardInterrupt):
        quietly(finished_run / "suite.toml", tmp_path)
    before = tiny.numbers(tmp_path)
    (checkpoint,) = tmp_path.glob("checkpoints/tiny/0/*10.npz")
    tiny.damage(checkpoint)
    assert str(checkpoint) in refusal(finished_run / "suite.toml", tmp_path)
    assert tiny.numbers(tmp_path) == before
    checkpoint.unlink()
    interrupt(None)
    quietly(finished_run / "suite.toml", tmp_path)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


@pytest.mark.slow
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("writes", [0, 1, 4, 7])  # the manifest; checkpoints; a shard; a later one
def test_a_full_disk_is_one_sentence_and_the_run_continues_afterwards(
    finished_run, tmp_path, monkeypatch, function, writes
):
    out = tmp_path / "results"
    honest, calls = getattr(os, function), itertools.count()

    def full(*arguments):
        if next(calls) >= writes * (2 if function == "fsync" else 1):  # a file and its directory
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return honest(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        sentence = refusal(finished_run / "suite.toml", out)
    assert "No space left" in sentence and "free some space" in sentence
    before = tiny.files(out)
    assert len(before) == writes
    quietly(finished_run / "suite.toml", out)
    after = tiny.files(out)
    kept = {path: stamp for path, stamp in before.items() if not path.startswith("costs")}
    assert len(kept) >= writes - 1  # times are added to a cost at the end
    assert {path: after[path] for path in kept} == kept
    assert tiny.numbers(out) == tiny.numbers(finished_run / "results")


# --- what is refused ---


def test_results_of_another_suite_seed_or_number_of_draws_are_left_alone(finished):
    results, suite = finished / "results", finished / "suite.toml"
    before = tiny.files(results)
    other = tiny.write(finished / "other", changed(tiny.SUITE, (', "psa"', "")))
    assert "another suite (different in estimators)" in refusal(other, results)
    assert "seed = 0, not 1" in refusal(suite, results, seed=1)
    assert "draws" in refusal(suite, results, draws=72)
    assert tiny.files(results) == before


def test_a_newer_schema_is_left_alone(finished):
    manifest = finished / "results" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema": 99}))
    before = tiny.files(finished)
    sentence = refusal(finished / "suite.toml", finished / "results")
    assert "schema 99" in sentence and "update gradbench" in sentence
    assert tiny.files(finished) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws is 0"),
        ({"draws": -3}, "draws is -3"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_a_bad_seed_or_number_of_draws_is_refused_before_anything_is_written(
    tmp_path, options, words
):
    suite = tiny.write(tmp_path / "suite")
    assert words in refusal(suite, tmp_path / "results", **options)
    with pytest.raises(GradbenchError, match=words):
        describe(suite, **({"seed": 0} | options))
    assert not (tmp_path / "results").exists()


DIGITS = (("overlapping_classes", "digits"), ("points = 8", "examples = 20"))
BAD_PROBLEMS = {
    "noise": ([('"logistic"', '"logistik"')], "did you mean 'logistic'?"),
    "objective": ([('"logistic_loss"', '"logistic_los"')], "did you mean 'logistic_loss'?"),
    "initialisation": ([('"normalised"', '"normalized"')], "did you mean 'normalised'?"),
    "optimiser": ([("batch = 4", 'batch = 4\noptimiser = "sdg"')], "did you mean 'sgd'?"),
    "training": ([('estimator = "reinforce"', 'estimator = "renforce"')], "mean 'reinforce'?"),
    "width": ([("[2]", "[30]")], "30 units for 8 examples needs"),
    "huge": ([("[2]", "[2000, 2000]")], "use narrower layers"),
    "batch": ([("batch = 4", "batch = 9")], "batch of 9 is larger than the 8 examples"),
    "targets": ([*DIGITS], "logistic_loss got the target"),
    "classes": (
        [*DIGITS, ('"logistic_loss"', '"softmax_cross_entropy"\noutputs = 3')],
        "integer classes from 0 to 2",
    ),
    "real classes": ([('"logistic_loss"', '"softmax_cross_entropy"')], "give integer classes"),
    "outputs": ([('"logistic_loss"', '"squared_error"\noutputs = 2')], "one number per output"),
    "inputs": ([("[2]", "[2]\ninputs = [2, 2]")], "network.inputs is (2, 2) but an input has 2"),
    "elbo": (
        [("logistic_loss", "elbo"), ("states = [0, 1]\n", "")],
        "got 2 outputs and a target of shape (1,)",
    ),
    "coded elbo": (
        [("logistic_loss", "elbo")],
        "network.states is (0.0, 1.0), which the obj",
    ),
    "binary weights": (
        [("[2]", "[40]\nweights = {}"), ('"normalised"', '"fan_in"')],
        "use narrower layers",
    ),
    "moments": ([("[2]", "[2]\nweights = {}")], "got BinaryWeights, which has no known moments"),
    "one point": ([("points = 8", "points = 1"), ("batch = 4", "batch = 1")], "give more examples"),
}


@pytest.mark.parametrize("name", BAD_PROBLEMS)
def test_a_problem_that_cannot_be_run_is_refused_before_anything_is_written(tmp_path, name):
    replacements, words = BAD_PROBLEMS[name]
    suite = tiny.write(tmp_path / "suite", tiny=changed(tiny.PROBLEM, *replacements))
    sentence = refusal(suite, tmp_path / "results")
    assert "tiny.toml, line " in sentence or "problem 'tiny'" in sentence
    assert words in sentence
    with pytest.raises(GradbenchError) as caught:
        describe(suite)
    assert str(caught.value) == sentence
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("disram", "suite.toml, line 3: estimators[3] is \"disram\"; did you mean 'disarm'?"),
        ("reinforse", "did you mean 'reinforce'?"),
        ("concrete(temprature=1)", "did you mean 'temperature'?"),
        ("concrete(temperature=0)", "temperature is 0; give a positive number"),
        ("zgr(temperature=1)", "it has none"),
    ],
)
def test_an_unknown_estimator_is_refused_before_anything_is_written(tmp_path, spec, words):
    suite = tiny.write(tmp_path / "suite", changed(tiny.SUITE, ('"psa"', f'"{spec}"')))
    assert words in refusal(suite, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("spec", ["nested", "nested(weights='arm', activations='psa')"])
def test_an_estimator_that_does_not_fit_a_problem_is_refused_before_anything_is_written(
    tmp_path, spec
):
    suite = tiny.write(tmp_path / "suite", changed(tiny.SUITE, ('"psa"', f'"{spec}"')))
    sentence = refusal(suite, tmp_path / "results")
    assert sentence.startswith("problem 'tiny': nested() got a model without binary weights under")
    with pytest.raises(GradbenchError) as caught:
        describe(suite)
    assert str(caught.value) == sentence
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "said"), [("1e30", "diverged"), ("1e12", "not finite")])
def test_training_that_diverges_is_told_and_all_else_is_measured(tmp_path, rate, said):
    """Its earlier checkpoint, and the problem after it."""
    loss = "squared_error" if rate == "1e12" else "logistic_loss"
    problem = changed(tiny.PROBLEM, ("logistic_loss", loss), ("0.05", rate), ("10]", "100]"))
    two = changed(tiny.SUITE, ('["tiny.toml"]', '["bad.toml", "tiny.toml"]'))
    suite = tiny.write(tmp_path / "suite", two, bad=problem, tiny=tiny.PROBLEM)
    with pytest.warns(GradbenchWarning) as caught:
        run(suite, tmp_path / "results", progress=False)
    (sentence,) = {str(one.message) for one in caught}
    assert sentence.startswith("problem 'bad': training ") and said in sentence
    assert "by epoch 100" in sentence and sentence.endswith("the others go on")
    assert len(list(tmp_path.glob("results/checkpoints/bad/0/*.npz"))) == 1
    cells = {
        (cell.place.problem, cell.place.checkpoint)
        for cell in Results.open(tmp_path / "results").cells()
    }
    assert cells == {("bad", "epoch 0"), ("tiny", "epoch 0"), ("tiny", "epoch 10")}


# --- what numbers depend on ---


def of(directory, *names):
    """The numbers of the cells with all of these names in their keys."""
    cells = tiny.numbers(directory).items()
    return {key: blocks for key, blocks in cells if all(name in key for name in names)}


@pytest.mark.slow
def test_another_seed_gives_other_numbers_and_parameters(finished_run, tmp_path):
    quietly(finished_run / "suite.toml", tmp_path, seed=1)
    mine, others = tiny.numbers(tmp_path), tiny.numbers(finished_run / "results")
    assert mine.keys() == others.keys()
    assert all(mine[cell] != others[cell] for cell in mine)


@pytest.mark.slow
def test_a_cell_does_not_depend_on_what_else_is_in_the_suite(finished_run, tmp_path):
    text = changed(
        tiny.SUITE,
        ('["tiny.toml"]', '["second.toml", "tiny.toml"]'),
        ('["reinforce", "arm", "straight_through", "psa"]', '["psa", "reinforce"]'),
    )
    suite = tiny.write(tmp_path / "suite", text, tiny=tiny.PROBLEM, second=tiny.PROBLEM)
    quietly(suite, tmp_path / "results")
    both = of(tmp_path / "results", "tiny", "psa") | of(tmp_path / "results", "tiny", "reinforce")
    assert both == of(finished_run / "results", "psa") | of(finished_run / "results", "reinforce")
    assert len(both) == 4
    for (_, *rest), blocks in both.items():
        assert blocks != tiny.numbers(tmp_path / "results")["second", *rest]


@pytest.mark.slow
def test_more_draws_begin_with_the_same_draws(finished_run, tmp_path):
    """71 and 100 draws are both cut into blocks of two."""
    quietly(finished_run / "suite.toml", tmp_path, draws=100)
    for key, blocks in tiny.numbers(finished_run / "results").items():
        longer = tiny.numbers(tmp_path)[key]
        assert [block[:4] for block in longer[:35]] == [block[:4] for block in blocks[:35]]
        assert len(longer) == 50


def test_reinforce_arm_and_straight_through_draw_the_same_paths(finished_run):
    """Their gradients of the output layer are then the same, draw by draw (ORACLES)."""
    results = Results.open(finished_run / "results")
    for epoch in ("epoch 0", "epoch 10"):
        blocks = [
            results.cell("tiny", 0, epoch, estimator).load()[1]
            for estimator in ("reinforce", "arm", "straight_through")
        ]
        for one, *others in zip(*blocks, strict=True):
            for other in others:
                np.testing.assert_allclose(one.layers[-1].mean, other.layers[-1].mean, rtol=1e-12)
                np.testing.assert_allclose(one.layers[-1].m2, other.layers[-1].m2, rtol=1e-9)
                assert not np.allclose(one.layers[0].mean, other.layers[0].mean)


@pytest.mark.slow
def test_replicates_differ_in_data_parameters_and_draws_and_the_first_is_that_of_one(
    finished_run, tmp_path
):
    suite = tiny.write(tmp_path / "suite", tiny.SUITE + "replicates = 2\n")
    quietly(suite, tmp_path / "results")
    first, second = (of(tmp_path / "results", replicate) for replicate in (0, 1))
    assert first == tiny.numbers(finished_run / "results")
    assert all(first[(p, 0, c, e)] != second[(p, 1, c, e)] for p, _, c, e in first)
    results = Results.open(tmp_path / "results")
    params = [
        results.load_checkpoint(cell.place)[0]["weight"]
        for cell in results.cells()
        if cell.estimator == "psa"
    ]
    assert len(params) == 4
    assert all((a != b).all() for a, b in itertools.combinations(params, 2))


@pytest.mark.slow
def test_float32_draws_are_those_of_float64_to_single_precision(tmp_path):
    """The states are the same unless a uniform lies within rounding of a probability."""
    means = {}
    for dtype in ("float32", "float64"):
        text = changed(tiny.SUITE, ('"reinforce", "arm", "straight_through", ', ""))
        text += f'dtype = "{dtype}"\n'
        results = quietly(tiny.write(tmp_path / dtype, text), tmp_path / dtype / "results")
        cell = results.cell("tiny", 0, "epoch 10", "psa")
        means[dtype] = np.array([block.layers[0].mean for block in cell.load()[1]])
    assert means["float32"].dtype == np.float64
    difference = np.abs(means["float32"] - means["float64"]).max(axis=1)
    assert 0 < np.median(difference) < 1e-6


@pytest.mark.slow
def test_a_sweep_measures_every_value(tmp_path):
    text = 'figure = "growth"\n[sweep]\nby = "width"\n"network.hidden" = [[1], [2]]\n'
    suite = tiny.write(
        tmp_path / "suite",
        changed(tiny.SUITE, (', "arm", "straight_through"', "")) + text,
        tiny=tiny.PROBLEM.partition("[training]")[0],
    )
    quietly(suite, tmp_path / "results")
    assert set(tiny.numbers(tmp_path / "results")) == {
        (f"tiny[width={width}]", 0, "untrained", estimator)
        for width in (1, 2)
        for estimator in ("psa", "reinforce")
    }


@pytest.mark.slow
def test_a_suite_can_be_given_as_an_object(finished_run, tmp_path):
    quietly(load_suite(finished_run / "suite.toml"), tmp_path)
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


# --- progress ---


@pytest.mark.slow
def test_the_progress_bar_counts_all_draws_and_can_be_switched_off(
    finished_run, tmp_path, capsys, interrupt
):
    interrupt(100)
    with pytest.raises(KeyboardInterrupt):
        quietly(finished_run / "suite.toml", tmp_path)
    assert capsys.readouterr().err == ""
    interrupt(None)
    run(finished_run / "suite.toml", tmp_path)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if " draws, " in line]
    made = sum(int(line.split(", ")[-3].removesuffix(" draws")) for line in lines)
    before = 71 + 71 + 28 * 2  # draws
    assert made == 568 - before
    assert lines[0].endswith(f"{(before + 15) / 568:.0%} done")
    assert lines[-1].endswith(", 100% done")
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


def test_a_description_of_a_quick_form_is_that_of_the_suite_with_it(tmp_path):
    quick = '[quick]\ndraws = 20\n"network.hidden" = [3, 1]\n"training.checkpoints" = [7]\n'
    suite = tiny.write(tmp_path, tiny.SUITE + quick)
    assert "problem tiny: 2 hidden units, epoch 0, epoch 10\n" in describe(suite)
    text = describe(suite, quick=True)
    assert text.startswith("suite 'suite-quick', seed 0: A tiny suite\n")
    assert "problem tiny: 3-1 hidden units, epoch 7\n" in text
    assert "4 cells of 20 draws, 80 draws in all" in text
    assert "4 cells of 30 draws" in describe(suite, draws=30, quick=True)


def test_a_description_tells_the_size_of_the_run_and_writes_nothing(
    finished_run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = describe(finished_run / "suite.toml", seed=3, draws=1000)
    assert "seed 3" in text and "epoch 0, epoch 10" in text
    assert "8 cells of 1,000 draws, 8,000 draws in all" in text
    assert list(tmp_path.iterdir()) == []
