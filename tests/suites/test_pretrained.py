"""Results that come with the package: who takes them, who does not, and that they are current."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
import trained
from stored import assert_one_sentence

from gradbench.cli.main import main
from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.metrics import compare, summary
from gradbench.metrics.comparable import publish
from gradbench.metrics.directory import opened
from gradbench.metrics.untrained import unfinished_runs
from gradbench.results.manifest import suite_hash
from gradbench.results.published import FILE, FOLDER, beside, located, published_suites
from gradbench.results.shards import CheckpointId
from gradbench.results.store import Results
from gradbench.suites.instance import build
from gradbench.suites.pretrained import published_checkpoints
from gradbench.suites.publish import publish_suite, publish_training
from gradbench.suites.read_problem import load_problem
from gradbench.suites.suite import list_suites, load_suite

pytestmark = pytest.mark.usefixtures("float64")
MOST = 3e6  # bytes of all published results, in the wheel


def numbers(trees):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(list(trees))]


@pytest.mark.parametrize("name", published_suites())
def test_published_results_are_those_of_the_suite_as_it_is_now(name):
    results = Results.open(located(f"gradbench:{name}"))
    assert results.manifest["seed"] == 0
    assert results.manifest["suite_hash"] == suite_hash(load_suite(name).as_dict())
    suite = load_suite(name)
    if suite.plan is not None:  # of training: curves and errors, without networks
        assert not unfinished_runs(results) and not list(results.directory.glob("checkpoints"))
        return
    for problem in suite.problems:
        for replicate in range(suite.replicates):
            known = published_checkpoints(problem, 0, replicate)
            assert known is not None and len(known) == len(problem.checkpoints)
            for checkpoint in map(problem.checkpoint_name, problem.checkpoints):
                place = CheckpointId(problem.name, replicate, checkpoint)
                assert results.load_reference(place) is not None


def test_every_suite_of_the_package_is_published():
    trained = {name for name in list_suites() if load_suite(name).plan is not None}
    assert set(published_suites()) - trained == set(list_suites()) - trained
    assert "train-digits" in published_suites()


@pytest.mark.parametrize("name", published_suites(estimates=True))
def test_published_estimates_are_the_same_as_themselves(name):
    frame = compare(f"gradbench:{name}", f"gradbench:{name}")
    assert set(frame["change"]) <= {"same", "zero gradient"}


def test_networks_without_estimates_are_not_compared():
    with pytest.raises(GradbenchError) as caught:
        compare("gradbench:zoo", "gradbench:psa")
    assert_one_sentence(caught, "no estimates", "gradbench:psa, gradbench:quick")


def test_published_results_are_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert files and sum(path.stat().st_size for path in files) < MOST


@pytest.mark.slow
def test_published_parameters_are_close_to_those_trained_here_and_are_taken():
    built = build(load_problem("quick"), 0)
    taken, trained = numbers(built.checkpoints()), numbers(built.checkpoints(retrain=True))
    published = numbers(published_checkpoints(built.problem, 0, 0))
    assert all((a == b).all() for a, b in zip(taken, published, strict=True))
    # After 100 epochs rounding has grown, see `shared`: a wrong training is farther away.
    first = len(taken) // 2
    for a, b in zip(taken[:first], trained[:first], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_another_seed_replicate_network_data_or_training_is_not_taken_from_the_package():
    problem = load_problem("quick")
    assert published_checkpoints(problem, 0, 0) is not None
    renamed = replace(problem, name="mine", title="Mine", label=3.0)
    assert published_checkpoints(renamed, 0, 0) is not None
    one = replace(problem, training=replace(problem.training, checkpoints=(100,)))
    assert len(published_checkpoints(one, 0, 0)) == 1
    for other in (
        replace(problem, base="mine"),
        replace(problem, network=replace(problem.network, noise="normal")),
        replace(problem, data=replace(problem.data, arguments={"points": 3})),
        replace(problem, training=replace(problem.training, rate=0.1)),
        replace(problem, training=replace(problem.training, checkpoints=(7,))),
        replace(problem, training=None),
    ):
        assert published_checkpoints(other, 0, 0) is None
    assert published_checkpoints(problem, 1, 0) is None
    assert published_checkpoints(problem, 0, 1) is None


def published_from(finished, tmp_path):
    """The finished run as the package would publish it."""
    kept = tmp_path / "kept"
    for name in ("checkpoints", "references"):
        shutil.copytree(finished / "results" / name, kept / name)
    shutil.copyfile(finished / "results" / "manifest.json", kept / "manifest.json")
    publish(kept, finished / "results", ["rmse", "cosine"], 0.95)
    return kept


@pytest.mark.slow
def test_results_are_the_same_as_what_was_published_of_them(finished, tmp_path):
    kept = published_from(finished, tmp_path)
    assert (kept / FILE).stat().st_size < 1e5
    for by, average in (("rmse", 1), ("cosine", 1), ("rmse", 2)):
        frame = compare(kept, finished / "results", by, average)
        assert set(frame["change"]) == {"same"}
        np.testing.assert_array_equal(frame["before"], frame["after"])
    known = summary(finished / "results")
    assert len(known) == len(compare(kept, finished / "results"))


def test_what_was_not_published_is_refused_in_a_sentence(finished, tmp_path):
    kept = published_from(finished, tmp_path)
    for by, average in (("bias", 1), ("rmse", 1_000_003)):
        with pytest.raises(GradbenchError, match=r"the published results of .* have no "):
            compare(kept, finished / "results", by, average)
    (kept / FILE).write_bytes((kept / FILE).read_bytes()[:-40])
    with pytest.raises(CorruptFile, match="is corrupted"):
        compare(kept, finished / "results")


def test_estimates_of_other_results_are_refused(finished, tmp_path):
    kept = published_from(finished, tmp_path)
    (kept / FILE).write_bytes((FOLDER / "quick" / FILE).read_bytes())
    with pytest.raises(CorruptFile, match="belongs to another"):
        compare(kept, finished / "results")


def retrain(directory, factor, parameters=True):
    """Scale every exact gradient and the parameters, as another training does."""
    manifest = Results.open(directory).manifest
    run = manifest["suite"], manifest["seed"], manifest["draws"]
    with Results.open_or_create(directory, *run) as results:
        for place in dict.fromkeys(cell.place for cell in results.cells()):
            known = results.load_reference(place)
            gradient = [factor * layer for layer in known.gradient]
            results.save_reference(place, known.value, gradient, known.info)
            if parameters:
                params = results.load_checkpoint(place)
                results.save_checkpoint(place, jax.tree.map(lambda leaf: factor * leaf, params))


def test_networks_that_were_trained_differently_are_said_to_be(finished, tmp_path, capsys):
    kept = published_from(finished, tmp_path)
    retrain(finished / "results", 1.03)
    frame = compare(kept, finished / "results")
    assert set(frame["change"]) == {"trained differently"}
    np.testing.assert_allclose(frame["gradient_gap"], 0.03 / 1.03, rtol=1e-6)
    assert frame["ratio"].isna().all() and frame["p"].isna().all()
    assert main(["compare", str(kept), str(finished / "results"), "--fail-on", "different"]) == 0
    printed = capsys.readouterr().out
    said = " ".join(printed.split())  # on lines that fit the terminal
    assert "exact gradients differ by up to 0.03" in said
    assert "their metrics are not compared" in said


def test_another_gradient_of_the_same_parameters_is_no_other_training(finished, tmp_path):
    kept = published_from(finished, tmp_path)
    retrain(finished / "results", 1.03, parameters=False)
    with pytest.raises(GradbenchError, match="different problems or seeds"):
        compare(kept, finished / "results")


@pytest.mark.parametrize("name", ["gradbench:quikc", "gradbench:", "gradbench:../quick"])
def test_results_that_the_package_does_not_have_are_refused(name):
    with pytest.raises(GradbenchError) as caught:
        located(name)
    assert_one_sentence(caught, "the package has no results of", "quick")


def test_the_command_compares_with_the_package(capsys):
    assert main(["compare", "gradbench:quick", "gradbench:quick"]) == 0
    assert "64 same" in capsys.readouterr().out
    assert main(["compare", "gradbench:quikc", "gradbench:quick"]) == 2
    assert "did you mean 'quick'" in capsys.readouterr().err


def test_runs_of_training_are_published_as_a_whole_or_refused(tmp_path):
    place = trained.write_runs(tmp_path / "r", estimators=["exact", "psa"], problems=("a",))
    target = publish_training(place, tmp_path / "published")
    assert {path.name for path in target.iterdir()} == {"manifest.json", "runs.npz"}
    before = (target / "runs.npz").read_bytes()
    begun = trained.write_runs(
        tmp_path / "b", estimators=["exact", "psa"], problems=("a",), done=lambda problem: False
    )
    with pytest.raises(GradbenchError) as caught:
        publish_training(begun, tmp_path / "published")
    assert_one_sentence(caught, "is not finished")
    assert (target / "runs.npz").read_bytes() == before
    with pytest.raises(GradbenchError) as caught:
        publish_suite("train-digits", tmp_path / "published")
    assert_one_sentence(caught, "--from DIR")


def test_nothing_is_written_beside_published_results_however_they_are_named(monkeypatch):
    monkeypatch.chdir(FOLDER)
    for name in ("gradbench:train-digits", "train-digits"):
        with pytest.raises(GradbenchError) as caught:
            beside(opened(name))
        assert_one_sentence(caught, "nothing is written beside gradbench:train-digits")
