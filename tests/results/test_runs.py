"""Files of runs: found by content, refused where they are not what they say."""

import shutil

import numpy as np
import pytest
import trained
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import assert_one_sentence, damaged

from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.results import runs
from gradbench.results.store import Results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "r"
    trained.write_runs(place, estimators=["exact", "psa"], problems=("a",))
    return Results.open(place)


def test_what_is_stored_comes_back_by_its_identity_and_by_no_other(results):
    found = list(runs.stored(results))
    assert len(found) == 4 and all(one.done for one in found)
    one = found[0]
    again = runs.load(results, "runs", one.identity)
    np.testing.assert_array_equal(again.arrays["loss"], one.arrays["loss"])
    for key, value in (("rates", [0.2]), ("seeds", [0, 1]), ("problem_is", {"x": 1})):
        assert runs.load(results, "runs", one.identity | {key: value}) is None


def test_a_checkpoint_of_another_run_is_refused(results, tmp_path):
    shutil.copytree(results.directory, tmp_path / "r")
    own = Results.open(tmp_path / "r")
    first, second = list(runs.stored(own))[:2]
    places = [runs.path_of(own, "runs", one.identity) for one in (first, second)]
    shutil.copy(places[1], places[0])
    with pytest.raises(CorruptFile) as caught:
        runs.load(own, "runs", first.identity)
    assert_one_sentence(caught, places[0], "another run", "delete it and run again")


def test_a_curve_that_is_cut_short_is_refused(results, tmp_path):
    shutil.copytree(results.directory, tmp_path / "r")
    own = Results.open(tmp_path / "r")
    one = next(iter(runs.stored(own)))
    cut = one.arrays | {"loss": one.arrays["loss"][:2]}
    with Results.open_or_create(
        tmp_path / "r", own.manifest["suite"], 0, 16, own.manifest["families"]
    ) as written:
        runs.save(written, "runs", one.identity, cut, one.step, True)
    with pytest.raises(CorruptFile) as caught:
        list(runs.stored(own))
    assert_one_sentence(caught, "is not as gradbench writes it; delete it and run again")


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_damaged_file_is_told_or_read_as_it_was(results, data):
    """In one sentence: nothing else comes out of a file with one byte changed, or cut."""
    one = next(iter(runs.stored(results)))
    path = runs.path_of(results, "runs", one.identity)
    content = path.read_bytes()
    try:
        path.write_bytes(damaged(content, data))
        found = runs.load(results, "runs", one.identity)
        np.testing.assert_array_equal(found.arrays["loss"], one.arrays["loss"])
    except GradbenchError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(content)


def test_runs_kept_for_the_package_are_read_as_those_that_were_stored(results, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    shutil.copy(results.directory / "manifest.json", kept)
    runs.keep(results, kept)
    again = Results.open(kept)
    for kind in runs.KINDS:
        before, after = list(runs.stored(results, kind)), list(runs.stored(again, kind))
        assert [one.identity for one in after] == [one.identity for one in before] and after
        for old, new in zip(before, after, strict=True):
            assert (new.step, new.done) == (old.step, old.done)
            assert {name for name in old.arrays if "/" not in name} == set(new.arrays)
            for name, values in new.arrays.items():
                right = old.arrays[name]
                if kind == "errors" and name != "steps":
                    right = right.sum(-1, keepdims=True)
                np.testing.assert_allclose(values, right, rtol=2**-15)
                assert name != "steps" or np.array_equal(values, right)
    assert {path.name for path in kept.iterdir()} == {"manifest.json", runs.KEPT}


def test_kept_runs_of_other_results_or_cut_short_are_refused(results, tmp_path):
    own = tmp_path / "r"
    own.mkdir()
    manifest = results.directory / "manifest.json"
    shutil.copy(manifest, own)
    runs.keep(results, own)
    other = tmp_path / "other"
    trained.write_runs(other, estimators=["exact", "arm"], problems=("a",))
    shutil.copy(own / runs.KEPT, other)
    with pytest.raises(CorruptFile) as caught:
        list(runs.stored(Results.open(other)))
    assert_one_sentence(caught, runs.KEPT)
    data = (own / runs.KEPT).read_bytes()
    (own / runs.KEPT).write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptFile) as caught:
        list(runs.stored(Results.open(own)))
    assert_one_sentence(caught, runs.KEPT, "corrupted")
