"""A directory of results keeps what it is given, through interruption, damage and bad luck."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax import tree
from stored import (
    FLOATS,
    META,
    PLACE,
    assert_one_sentence,
    assert_same_blocks,
    block,
    contents,
    suite,
)

from gradbench.core.atomic import SCHEMA, CorruptFile, partial
from gradbench.core.errors import GradbenchError
from gradbench.results.manifest import suite_hash
from gradbench.results.store import Results
from gradbench.suites.suite import load_suite

HASHED = {"name": "psa", "averages": [9000], "problems": [{"name": "psa", "hidden": [5, 5]}]}
SUITE = suite("psa", averages=[9000])


@pytest.fixture(autouse=True)
def no_provenance(monkeypatch):
    """Provenance has its own tests, and imports JAX."""
    monkeypatch.setattr("gradbench.results.manifest.provenance", lambda: {"jax": "0"})


@pytest.fixture
def results(tmp_path):
    with Results.open_or_create(tmp_path / "results", SUITE, seed=1, draws=100) as results:
        yield results


def some_cell(results, estimator="concrete(temperature=0.1)"):
    return results.cell(*PLACE, estimator)


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
ARRAYS = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=0, max_dims=3, max_side=3), elements=FLOATS
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(NAMES, ARRAYS, max_size=3), max_size=3), FLOATS)
@pytest.mark.slow
def test_parameters_and_references_come_back_bit_by_bit(params, value):
    gradient = [np.concatenate([np.ravel(x) for x in [[], *layer.values()]]) for layer in params]
    with tempfile.TemporaryDirectory() as directory:
        with Results.open_or_create(directory, SUITE, 1, 100) as results:
            results.save_checkpoint(PLACE, params)
            gradient = gradient or [np.zeros(0)]
            results.save_reference(PLACE, value, gradient, {"route": "x", "loss": np.float32(0.5)})
        results = Results.open(directory)
        checkpoint, reference = results.load_checkpoint(PLACE), results.load_reference(PLACE)
    assert [list(layer) for layer in checkpoint] == [list(layer) for layer in params]
    for layer, stored in zip(params, checkpoint, strict=True):
        for name, array in layer.items():
            assert stored[name].shape == array.shape
            assert stored[name].tobytes() == array.tobytes()
    assert reference.value == value and reference.info == {"route": "x", "loss": 0.5}
    assert [g.tobytes() for g in reference.gradient] == [g.tobytes() for g in gradient]


def test_nested_parameters_come_back_as_they_were(results):
    def leaf(n):
        return np.full((n, 2), n / 3)

    params = (
        ({"weight": leaf(1), "bias": leaf(2)}, (), {"weight": leaf(3)}),
        {"prior": leaf(4), "decoders": ({"a/b": leaf(5), "a": {"b": leaf(6)}}, ())},
    )
    results.save_checkpoint(PLACE, params)
    found = results.load_checkpoint(PLACE)
    assert tree.structure(found) == tree.structure(params)
    for one, two in zip(tree.leaves(found), tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_a_draw_costs_comes_back_as_it_was(results):
    arm = {"evaluations": 7, "seconds": 1.25e-05}  # as of an older gradbench
    psa = {"evaluations": 2, "seconds": 0.5, "spread": 0.0, "repeats": 9, "latency": 0.75}
    psa |= {"latency_spread": 0.25, "machine": "cpu, 2 cores"}
    results.save_cost(PLACE, "leg", {"evaluations": 3})  # before its time is measured
    results.save_cost(PLACE, "arm(x=1)", arm)
    results.save_cost(PLACE, "psa", psa)
    results.close()
    found = Results.open(results.directory)
    assert found.load_cost(PLACE, "leg") == {"evaluations": 3}
    assert found.load_cost(PLACE, "arm(x=1)") == arm
    assert found.load_cost(PLACE, "psa") == psa
    (path, *_) = sorted(results.directory.glob("costs/psa/0/100/*.npz"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CorruptFile) as error:
        found.load_cost(PLACE, "arm(x=1)")
    assert_one_sentence(error, path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("seconds", "latency") for value in (0.0, -1.0, "1 s", None)),
        *((name, value) for name in ("spread", "latency_spread") for value in (-0.1, 1e301, [])),
        *(("repeats", value) for value in (0, 2.5, True)),
        *(("evaluations", value) for value in (-1, "2")),
        ("machine", 7),
    ],
)
def test_a_cost_that_is_none_is_refused_by_its_name(results, name, value):
    results.save_cost(PLACE, "psa", {"evaluations": 2, "seconds": 0.5} | {name: value})
    with pytest.raises(CorruptFile) as error:
        results.load_cost(PLACE, "psa")
    assert_one_sentence(error, f"has no right {name!r}", "psa.npz")


def test_what_was_not_stored_is_none(results):
    assert results.load_cost(PLACE, "psa") is None
    assert results.load_moments(PLACE, "psa") is None
    assert results.load_checkpoint(PLACE) is None
    assert results.load_reference(PLACE) is None
    assert some_cell(results).load() == (None, []) and some_cell(results).done_blocks() == 0


def test_cells_are_listed_in_natural_order(results):
    names = [("b", 0, "1", "psa"), ("a", 10, "1", "psa"), ("a", 2, "100", "psa")]
    names += [("a", 2, "20", "psa"), ("a", 2, "20", "../arm(x=1)")]
    for name in names:
        results.cell(*name).append([block(0)], META)
    assert [(*cell.place, cell.estimator) for cell in results.cells()] == [
        ("a", 2, "20", "../arm(x=1)"),
        ("a", 2, "20", "psa"),
        ("a", 2, "100", "psa"),
        ("a", 10, "1", "psa"),
        ("b", 0, "1", "psa"),
    ]


def fill(directory):
    with Results.open_or_create(directory, SUITE, 1, 100) as results:
        some_cell(results).append([block(0), block(1)], META)
        some_cell(results).append([block(2)], META)
        results.save_checkpoint(PLACE, [{"weight": np.ones((2, 3))}, {}])
        results.save_reference(PLACE, 0.5, [np.arange(6.0), np.zeros(0)], {"route": "x"})
    return contents(directory)


def test_equal_content_gives_equal_bytes(tmp_path):
    first, second = fill(tmp_path / "a"), fill(tmp_path / "b")
    del first["manifest.json"], second["manifest.json"]  # it has the date
    assert len(first) == 5
    assert first == second


def test_discarding_a_corrupted_cell_leaves_everything_else(results):
    other, cell = some_cell(results, "psa"), some_cell(results)
    other.append([block(0)], META)
    cell.append([block(0)], META)
    (shard,) = cell.directory.iterdir()
    shard.write_bytes(b"")
    before = contents(results.directory)
    del before[str(shard.relative_to(results.directory))]
    cell.discard()
    assert contents(results.directory) == before
    assert cell.done_blocks() == 0 and other.done_blocks() == 1


def test_a_directory_is_opened_again_for_the_same_run(tmp_path):
    first = fill(tmp_path)
    with Results.open_or_create(tmp_path, dict(reversed(SUITE.items())), 1, 100) as results:
        assert results.manifest["suite"] == SUITE
        assert some_cell(results).done_blocks() == 3
    assert contents(tmp_path) == first


def test_the_manifest_says_what_was_run(results):
    manifest = json.loads((results.directory / "manifest.json").read_text())
    assert manifest.pop("digest") and manifest == results.manifest
    assert manifest["schema"] == SCHEMA and manifest["suite"] == SUITE
    assert (manifest["seed"], manifest["draws"]) == (1, 100)
    assert manifest["suite_hash"] == suite_hash(SUITE)
    assert manifest["provenance"] == {"jax": "0"}
    assert manifest["created"].endswith("+00:00")
    assert manifest["continued"] == []


def no_space(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def continue_with(monkeypatch, directory, **provenance):
    """Opens results to write, as on another machine; their manifest, as read back."""
    with monkeypatch.context() as patch:
        patch.setattr("gradbench.results.manifest.provenance", lambda: provenance)
        with Results.open_or_create(directory, SUITE, 1, 100) as results:
            assert results.manifest == Results.open(directory).manifest
            return results.manifest


def test_the_manifest_says_what_continued_a_run_each_time_that_changed(tmp_path, monkeypatch):
    begun = fill(tmp_path)
    first = Results.open(tmp_path).manifest
    for jax in ["0", "1", "1", "0", "0"]:
        manifest = continue_with(monkeypatch, tmp_path, jax=jax)
    assert manifest | {"continued": []} == first  # what began the run stays
    continued = manifest["continued"]
    assert [origin["provenance"] for origin in continued] == [{"jax": "1"}, {"jax": "0"}]
    assert all(origin["created"].endswith("+00:00") for origin in continued)
    after = contents(tmp_path)
    assert after.pop("manifest.json") != begun.pop("manifest.json")
    assert after == begun


def test_a_manifest_from_before_continuations_were_kept_is_continued(tmp_path, monkeypatch):
    fill(tmp_path)
    path = tmp_path / "manifest.json"
    old = json.loads(path.read_text()) | {"schema": 2}
    del old["continued"], old["digest"]
    path.write_text(json.dumps(old))
    assert continue_with(monkeypatch, tmp_path, jax="0") == old
    (origin,) = continue_with(monkeypatch, tmp_path, jax="1")["continued"]
    assert origin["provenance"] == {"jax": "1"}


def test_a_continuation_that_cannot_be_recorded_leaves_the_results_intact(tmp_path, monkeypatch):
    before = fill(tmp_path)

    with monkeypatch.context() as patch, pytest.raises(GradbenchError) as error:
        patch.setattr(os, "fsync", no_space)
        continue_with(monkeypatch, tmp_path, jax="1")
    assert_one_sentence(error, "cannot write", "manifest.json", "free some space")
    assert contents(tmp_path) == before
    continue_with(monkeypatch, tmp_path, jax="1")  # and not left locked


def test_the_hash_is_that_of_the_suite():
    suite = load_suite("psa")
    assert suite_hash(suite.as_dict()) == suite_hash(json.loads(json.dumps(suite.as_dict())))
    assert suite_hash(HASHED) == "7d9c4c3a374fc514"  # another one would orphan all stored results
    assert suite_hash(dict(reversed(HASHED.items()))) == suite_hash(HASHED)
    assert suite_hash(HASHED | {"averages": []}) != suite_hash(HASHED)


@pytest.mark.parametrize(
    ("suite", "seed", "draws", "parts"),
    [
        (SUITE | {"averages": [1], "new": 2}, 1, 100, ["another suite", "averages, new"]),
        (SUITE, 2, 100, ["seed = 1, not 2"]),
        (SUITE, 1, 200, ["draws = 100, not 200"]),
        (SUITE, 2, 200, ["with seed = 1, not 2 and draws = 100, not 200"]),
        # Draws are in the suite as well, with the averages that need so many.
        (SUITE | {"draws": 2, "averages": []}, 1, 2, ["holds results with draws = 100, not 2;"]),
        (SUITE | {"name": "quick"}, 2, 200, ["another suite (different in name)"]),
    ],
)
def test_the_results_of_another_run_are_refused_and_intact(tmp_path, suite, seed, draws, parts):
    before = fill(tmp_path)
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path, suite, seed, draws)
    assert_one_sentence(error, tmp_path, *parts, "--out")
    assert contents(tmp_path) == before
    Results.open_or_create(tmp_path, SUITE, 1, 100).close()  # and not left locked


def rewrite_manifest(directory, **changes):
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_newer_schema_is_refused(tmp_path):
    fill(tmp_path)
    rewrite_manifest(tmp_path, schema=SCHEMA + 1, suite=None)
    for reopen in (Results.open, lambda path: Results.open_or_create(path, SUITE, 1, 100)):
        with pytest.raises(GradbenchError) as error:
            reopen(tmp_path)
        assert_one_sentence(error, "manifest.json", f"schema {SCHEMA + 1}", "update gradbench")
        assert not isinstance(error.value, CorruptFile)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"schema": "x"}', b"[" * 100_000]
)
def test_an_unreadable_manifest_is_named(tmp_path, content):
    fill(tmp_path)
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(CorruptFile) as error:
        Results.open(tmp_path)
    assert_one_sentence(error, tmp_path / "manifest.json", "restore")


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": {}},
        {"suite_hash": "0"},
        {"seed": "1"},
        {"provenance": None},
        {"continued": 1},
        {"continued": [{}]},
        {"created": "2020"},
        {"new": 1},
        {"schema": 2},
        {"provenance": {"jax": "0", "device": 1}},
    ],
)
def test_a_changed_manifest_is_noticed(tmp_path, changes):
    fill(tmp_path)
    rewrite_manifest(tmp_path, **changes)
    with pytest.raises(CorruptFile):
        Results.open(tmp_path)


def test_a_directory_that_is_not_ours_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path, SUITE, 1, 100)
    assert_one_sentence(error, tmp_path, "not empty", "--out")
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(GradbenchError) as error:
        Results.open(tmp_path)
    assert_one_sentence(error, "manifest.json", "gradbench run")


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    path = tmp_path / "results"
    path.write_text("")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(path, SUITE, 1, 100)
    assert_one_sentence(error, path, "is not a directory")
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(path / "below", SUITE, 1, 100)
    assert_one_sentence(error, path / "below", "Not a directory")
    with pytest.raises(GradbenchError):
        Results.open(path)


def test_an_unwritable_directory_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)  # permissions do not stop a test run by root
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(tmp_path / "results", SUITE, 1, 100)
    assert_one_sentence(error, "cannot write", tmp_path / "results", "Permission denied")


def test_a_full_disk_leaves_earlier_results_intact(results, monkeypatch):
    some_cell(results).append([block(0)], META)
    before = contents(results.directory)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        for save in (
            lambda: some_cell(results).append([block(1)], META),
            lambda: results.save_checkpoint(PLACE, []),
            lambda: results.save_reference(PLACE, 0.0, [], {}),
            lambda: results.save_cost(PLACE, "psa", {"evaluations": 1}),
        ):
            with pytest.raises(GradbenchError) as error:
                save()
            assert_one_sentence(error, "cannot write", "No space left", "free some space")
        assert contents(results.directory) == before
    some_cell(results).append([block(1)], META)
    assert some_cell(results).done_blocks() == 2


KILLED = """
import os, signal, sys
from gradbench.results import manifest, store
from test_store import META, SUITE, block, some_cell
manifest.provenance = dict
results = store.Results.open_or_create(sys.argv[1], SUITE, 1, 100)
some_cell(results).append([block(0)], META)
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
some_cell(results).append([block(1)], META)
"""


@pytest.mark.slow
def test_after_a_kill_in_the_middle_of_a_write_the_run_goes_on(tmp_path):
    here = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path],
        cwd=here,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here.parent)])},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    leftovers = list(tmp_path.rglob(".*.parquet.*"))
    assert len(leftovers) == 1
    assert some_cell(Results.open(tmp_path)).done_blocks() == 1  # what is half written is not read
    with Results.open_or_create(tmp_path, SUITE, 1, 100) as results:  # the lock died with it
        assert not leftovers[0].exists()
        some_cell(results).append([block(1)], META)
        assert_same_blocks(some_cell(results).load()[1], [block(0), block(1)])


def test_a_first_run_that_dies_at_once_can_be_repeated(tmp_path):
    (tmp_path / ".lock").touch()
    partial(tmp_path / "manifest.json").write_text("{")
    Results.open_or_create(tmp_path, SUITE, 1, 100).close()
    assert set(contents(tmp_path)) == {".lock", "manifest.json"}


def test_a_second_writer_is_refused_until_the_first_one_ends(results):
    with pytest.raises(GradbenchError) as error:
        Results.open_or_create(results.directory, SUITE, 1, 100)
    assert_one_sentence(error, "another process", results.directory)
    some_cell(results).append([block(0)], META)
    assert some_cell(Results.open(results.directory)).done_blocks() == 1  # readers may
    results.close()
    Results.open_or_create(results.directory, SUITE, 1, 100).close()


def test_results_opened_to_read_are_not_written(results):
    results.close()
    with pytest.raises(GradbenchError) as error:
        some_cell(Results.open(results.directory)).append([block(0)], META)
    assert_one_sentence(error, "read only")


def test_figures_have_a_directory(results):
    assert results.figures.is_dir() and results.figures == results.directory / "figures"
