"""Parts of a suite are united into what one run would have stored, or refused by name."""

import itertools
import json
import os
import shutil

import pytest
from stored import assert_one_sentence, contents, drawn, places_of, write_run

from gradbench.cli.main import main
from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.metrics import summary
from gradbench.results import merge as merging
from gradbench.results.manifest import versions
from gradbench.results.merge import merge
from gradbench.results.store import Results

FILES = ("checkpoints", "references", "moments", "costs", "shards")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("whole") / "results")


def part(whole, directory, *problems):
    """A copy of a run without all that belongs to some of its problems."""
    shutil.copytree(whole, directory)
    for kind, problem in itertools.product(FILES, problems):
        shutil.rmtree(directory / kind / problem)
    return directory


@pytest.fixture
def halves(whole, tmp_path):
    return part(whole, tmp_path / "one", "b"), part(whole, tmp_path / "two", "a")


def stored(directory):
    """The files of a run, without those that a writer leaves."""
    return {name: data for name, data in contents(directory).items() if name != ".lock"}


def numbers(directory):
    """All files but the manifest, which names another origin."""
    return {name: data for name, data in stored(directory).items() if name != "manifest.json"}


@pytest.mark.slow
def test_two_halves_are_the_whole_and_are_left_as_they_are(whole, halves, tmp_path):
    before = [contents(half) for half in halves]
    merged = merge(halves, tmp_path / "merged")
    assert stored(merged.directory) == stored(whole)
    assert [contents(half) for half in halves] == before
    assert summary(merged).equals(summary(whole))


def test_parts_may_share_what_is_the_same(whole, halves, tmp_path):
    merged = merge([halves[1], whole, halves[0]], tmp_path / "merged")
    assert numbers(merged.directory) == numbers(whole)


@pytest.mark.slow
def test_the_longer_part_of_a_cell_is_taken_and_shards_may_be_cut_elsewhere(whole, tmp_path):
    place, results = places_of(Results.open(whole))[0], Results.open(whole)
    cell = results.cell(*place, "psa")
    meta, blocks = cell.load()
    short = shutil.copytree(whole, tmp_path / "short")
    manifest = results.manifest
    opened = Results(short, manifest, merging.locked(short))
    with opened:
        own = opened.cell(*place, "psa")
        own.discard()
        own.append(blocks[:1], meta)
        own.append(blocks[1:3], meta)
    for parts in ((short, whole), (whole, short)):
        merged = merge(parts, tmp_path / f"merged of {parts[0].name}")
        assert numbers(merged.directory) == numbers(whole)
    assert len(merged.cell(*place, "psa").shards()) == 1


def test_an_interrupted_merge_leaves_nothing_half_and_is_continued(
    whole, halves, tmp_path, monkeypatch
):
    out = tmp_path / "merged"
    replace = os.replace
    total = len(stored(whole))
    for stop in range(1, total, 20):
        left = iter(range(stop))

        def stopping(*arguments, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            replace(*arguments)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "replace", stopping)
            merge(halves, out)
        assert stored(out).items() <= stored(whole).items() and len(stored(out)) == stop
        if stop % 3 == 0:
            shutil.rmtree(out)  # else the next one goes on from here
            continue
        merge(halves, out)
        assert stored(out) == stored(whole)
        shutil.rmtree(out)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.first(1)
def test_parts_that_differ_are_refused_by_name(whole, halves, tmp_path, kind):
    other = shutil.copytree(whole, tmp_path / "other")
    results = Results.open(other)
    place = places_of(results)[1]
    with Results(other, results.manifest, merging.locked(other)) as opened:
        known = opened.load_reference(place)
        if kind == "checkpoints":
            opened.save_checkpoint(place, [{"weight": [1.0]}, ()])
        elif kind == "references":
            gradient = [g * (1 + 1e-6) for g in known.gradient]
            opened.save_reference(place, known.value, gradient, known.info)
        elif kind == "moments":
            mean, variance = zip(*opened.load_moments(place, "psa"), strict=True)
            opened.save_moments(place, "psa", [m + 1e-12 for m in mean], variance)
        elif kind == "costs":
            opened.save_cost(place, "psa", {"evaluations": 3})
        else:
            cell = opened.cell(*place, "psa")
            meta, blocks = cell.load()
            cell.discard()
            blocks[2] = blocks[2]._replace(layers=blocks[1].layers)
            cell.append(blocks, meta)
    with pytest.raises(GradbenchError) as error:
        merge([whole, other], tmp_path / "merged")
    assert_one_sentence(error, f"the {kind} at 'a/0/epoch 30", other, "leave one of the two out")


@pytest.mark.slow
def test_rounding_of_exact_gradients_and_other_times_are_no_difference(whole, tmp_path):
    other = shutil.copytree(whole, tmp_path / "other")
    results = Results.open(other)
    place = places_of(results)[0]
    with Results(other, results.manifest, merging.locked(other)) as opened:
        known = opened.load_reference(place)
        gradient = [g * (1 + 1e-14) for g in known.gradient]
        opened.save_reference(place, known.value, gradient, known.info)
        opened.save_cost(place, "psa", opened.load_cost(place, "psa") | {"seconds": 9.0})
        opened.save_cost(place, "reinforce", {"evaluations": 2})
    for parts in ((whole, other), (other, whole)):
        merged = merge(parts, tmp_path / f"merged of {parts[0].name}")
        first = Results.open(parts[0])
        for load in ("load_checkpoint", "load_reference"):
            assert repr(getattr(merged, load)(place)) == repr(getattr(first, load)(place))
        assert merged.load_cost(place, "psa") == first.load_cost(place, "psa")
        assert merged.load_cost(place, "reinforce") == results_of(whole, place)


def results_of(directory, place):
    """The cost of REINFORCE with its time, which one part lacks."""
    return Results.open(directory).load_cost(place, "reinforce")


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_refused_by_name(halves, tmp_path, kind):
    path = next(path for path in sorted((halves[1] / kind).rglob("*")) if path.is_file())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorruptFile) as error:
        merge(halves, tmp_path / "merged")
    assert_one_sentence(error, path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("checkpoints", "a/0/epoch%2031.npz"),
        ("checkpoints", "c/0/epoch%2030.npz"),
        ("references", "a/7/epoch%2030.npz"),
        ("moments", "a/0/epoch%2030/arm.npz"),
        ("costs", "a/0/psa.npz"),
        ("costs", "a/x/epoch%2030/psa.npz"),
    ],
)
def test_a_file_that_belongs_nowhere_is_refused_by_name(halves, tmp_path, kind, name):
    source = next((halves[0] / kind).rglob("*.npz"))
    path = halves[0] / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, path)
    with pytest.raises(CorruptFile) as error:
        merge(halves, tmp_path / "merged")
    assert_one_sentence(error, path, "none of its suite")


def test_a_cell_of_another_suite_is_refused(halves, tmp_path):
    source = next(path for path in (halves[0] / "shards").rglob("psa") if path.is_dir())
    shutil.copytree(source, source.with_name("arm"))
    with pytest.raises(CorruptFile) as error:
        merge(halves, tmp_path / "merged")
    assert_one_sentence(error, source.with_name("arm"), "none of its suite")


def test_a_cell_whose_gradient_is_missing_is_refused(halves, tmp_path):
    next((halves[0] / "references").rglob("*.npz")).unlink()
    with pytest.raises(CorruptFile) as error:
        merge(halves, tmp_path / "merged")
    assert_one_sentence(error, halves[0], "exact gradient", "run the suite again")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed = 0 and 1"),
        ({"draws": 48}, "draws = 64 and 48"),
        ({"problems": ("a", "c")}, "differ in problems"),
    ],
)
def test_other_runs_are_refused(whole, tmp_path, changes, words):
    other = write_run(tmp_path / "other", **changes)
    with pytest.raises(GradbenchError) as error:
        merge([whole, other], tmp_path / "merged")
    assert_one_sentence(error, words, whole, other)
    assert not (tmp_path / "merged").exists()


def test_results_of_an_old_schema_are_refused(whole, tmp_path):
    old = shutil.copytree(whole, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text()) | {"schema": 2}
    del manifest["digest"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GradbenchError) as error:
        merge([whole, old], tmp_path / "merged")
    assert_one_sentence(error, old, "schema 2", "run the suite again")


def test_training_runs_are_refused(whole, tmp_path, monkeypatch):
    results = Results.open(whole)
    results.manifest["suite"]["plan"] = {"steps": 1}
    monkeypatch.setattr(merging.Results, "open", lambda directory: results)
    with pytest.raises(GradbenchError) as error:
        merge([whole, whole], tmp_path / "merged")
    assert_one_sentence(error, whole, "holds training runs", "in one directory")


def test_nothing_is_merged_into_a_part_or_into_something_else(whole, halves, tmp_path):
    before = [contents(half) for half in halves]
    for out in (halves[0], halves[1] / "merged", halves[0].parent):
        with pytest.raises(GradbenchError) as error:
            merge(halves, out)
        assert_one_sentence(error, "--out")
    other = write_run(tmp_path / "others" / "other", seed=1)
    with pytest.raises(GradbenchError) as error:
        merge(halves, other)
    assert_one_sentence(error, other, "holds other results")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(GradbenchError) as error:
        merge(halves, tmp_path / "mine")
    assert_one_sentence(error, "mine", "--out")
    for few in ([], halves[:1], halves[0]):
        with pytest.raises(GradbenchError) as error:
            merge(few, tmp_path / "merged")
        assert_one_sentence(error, "fewer than two")
    assert [contents(half) for half in halves] == before


def test_the_manifest_names_all_that_the_parts_were_measured_by(halves, tmp_path):
    path = halves[1] / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digest"]
    manifest["provenance"] = {"device": "gpu", "jax": "0.9", "gradbench": "7"}
    path.write_text(json.dumps(manifest | {"digest": merging._digest(manifest)}))
    merged = merge(halves, tmp_path / "merged")
    assert [one["provenance"]["device"] for one in merged.manifest["continued"]] == ["gpu"]
    assert Results.open(merged.directory).manifest == merged.manifest
    assert versions(merged.manifest) == ["on cpu, None", "gradbench 7, jax 0.9, on gpu, None"]


@pytest.mark.slow
def test_the_command_says_what_was_merged_and_what_is_missing(whole, halves, tmp_path, capsys):
    out = tmp_path / "merged"
    assert main(["merge", *map(str, halves), "--out", str(out)]) == 0
    assert "merged 2 directories: 16 of 16 cells are finished" in capsys.readouterr().out
    shutil.rmtree(out)
    third = part(whole, tmp_path / "third", "b")
    assert main(["merge", str(halves[0]), str(third), "--out", str(out)]) == 0
    assert "8 of 16 cells are not finished" in capsys.readouterr().out
    assert main(["merge", str(halves[0]), str(third)]) == 2
    assert "--out DIR" in capsys.readouterr().err


def test_what_is_merged_is_more_than_a_copy(whole, tmp_path):
    """The comparison of blocks sees the last bit of any number."""
    block = drawn(*_numbers()).blocks[0]
    assert merging._are_equal(block, block)
    mean = block.layers[0].mean.copy()
    mean[0] += 2**-52 * abs(mean[0])
    changed = block._replace(layers=(block.layers[0]._replace(mean=mean), *block.layers[1:]))
    assert not merging._are_equal(block, changed)
    assert not merging._are_equal(block, block._replace(layers=block.layers[:1]))


def _numbers():
    import numpy as np

    generator = np.random.default_rng(0)
    gradient = [generator.standard_normal(size) for size in (3, 2)]
    return [generator.standard_normal((64, len(g))) for g in gradient], gradient
