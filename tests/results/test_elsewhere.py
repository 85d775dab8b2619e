"""Every file of results says what it belongs to, and is refused in any other place."""

import json
import shutil

import pytest
from stored import assert_one_sentence, contents, places_of, write_run

from gradbench.cli.main import main
from gradbench.core import atomic
from gradbench.core.atomic import CorruptFile
from gradbench.core.errors import GradbenchError
from gradbench.results import store
from gradbench.results.store import Results

KINDS = ("checkpoints", "references", "moments", "costs", "shards")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "results")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("other") / "results", seed=1)


def readers(directory, kind):
    """By the path of each file of a kind, the function that reads it."""
    results = Results.open(directory)
    found = {}
    for place in places_of(results):
        if kind in ("checkpoints", "references"):
            load = {"checkpoints": results.load_checkpoint, "references": results.load_reference}
            found[results._path(kind, place)] = lambda place=place, load=load[kind]: load(place)
            continue
        for spec in results.manifest["suite"]["estimators"]:
            cell = results.cell(*place, spec)
            if kind == "shards":
                (path,) = cell.directory.iterdir()
                found[path] = cell.load
                continue
            load = {"moments": results.load_moments, "costs": results.load_cost}[kind]
            path = results._path(kind, place, spec)
            found[path] = lambda place=place, spec=spec, load=load: load(place, spec)
    return found


def refused(read, source, target):
    """Whether a file is refused, by name, in the place of another one, which then comes back."""
    content = target.read_bytes()
    placed = target.with_name(source.name) if target.suffix == ".parquet" else target
    target.unlink()
    placed.write_bytes(source.read_bytes())
    try:
        read()
    except CorruptFile as error:
        return str(placed) in str(error) and "belongs to another" in str(error)
    finally:
        placed.unlink()
        target.write_bytes(content)
    return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.first(1)
def test_a_file_is_refused_in_every_other_place_of_its_kind(run, other, kind):
    before = contents(run)
    here = readers(run, kind)
    elsewhere = readers(other, kind)
    assert len(here) == len(elsewhere) == (8 if kind in ("checkpoints", "references") else 16)
    for target, read in here.items():
        assert read() is not None
        for source in [*(path for path in here if path != target), *elsewhere]:
            assert refused(read, source, target), (source, target)
    assert contents(run) == before


def test_a_file_of_another_kind_is_refused(run):
    before = contents(run)
    files = [next(iter(readers(run, kind).items())) for kind in KINDS[:-1]]
    for target, read in files:
        for source, _ in files:
            assert source == target or refused(read, source, target)
    assert contents(run) == before


def test_the_sentence_says_what_differs_and_what_to_do(run, tmp_path):
    results = shutil.copytree(run, tmp_path / "results")
    source, target = (results / "references" / "a" / "0" / f"epoch%20{n}.npz" for n in (30, 1))
    shutil.copy(source, target)
    with pytest.raises(CorruptFile) as error:
        Results.open(results).load_reference(places_of(Results.open(results))[0])
    assert_one_sentence(error, target, "checkpoint = 'epoch 30'", "delete it and run again")


def test_the_manifest_of_other_results_refuses_their_files(run, other, tmp_path, capsys):
    results = shutil.copytree(run, tmp_path / "results")
    shutil.copy(other / "manifest.json", results / "manifest.json")
    assert main(["show", str(results)]) == 2
    assert "seed = 0" in capsys.readouterr().err


def older(directory, schema, monkeypatch):
    """A run as an older gradbench wrote it: without digest and whose."""
    with monkeypatch.context() as patch:
        honest = atomic.pack
        patch.setattr(
            store, "pack", lambda arrays, layers, info, whose: honest(arrays, layers, info)
        )
        patch.setattr(atomic, "SCHEMA", schema)
        write_run(directory)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text()) | {"schema": schema}
    del manifest["digest"]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("schema", [1, 2])
def test_results_of_older_schemas_are_read_and_continued(tmp_path, monkeypatch, schema):
    older(tmp_path, schema, monkeypatch)
    results = Results.open(tmp_path)
    place = places_of(results)[0]
    assert results.load_reference(place) is not None and results.load_cost(place, "psa")
    with monkeypatch.context() as patch:
        patch.setattr("gradbench.results.manifest.provenance", lambda: {"device": "gpu"})
        manifest = results.manifest
        again = Results.open_or_create(tmp_path, manifest["suite"], 0, manifest["draws"])
    with again:
        assert again.manifest["schema"] == schema
        again.save_cost(place, "psa", {"seconds": 1.0, "evaluations": 2})
    new = Results.open(tmp_path)
    assert new.load_cost(place, "psa") == {"seconds": 1.0, "evaluations": 2}
    assert new.load_cost(place, "reinforce")
    # What was written now is refused elsewhere.
    one, two = new._path("costs", place, "psa"), new._path("costs", place, "reinforce")
    assert refused(lambda: new.load_cost(place, "reinforce"), one, two)


def test_a_file_that_says_nothing_is_refused_among_files_that_do(run, tmp_path, monkeypatch):
    older(tmp_path / "old", 2, monkeypatch)
    results = shutil.copytree(run, tmp_path / "results")
    new = Results.open(results)
    place = places_of(new)[0]
    shutil.copy(
        Results.open(tmp_path / "old")._path("costs", place, "psa"),
        new._path("costs", place, "psa"),
    )
    with pytest.raises(CorruptFile) as error:
        new.load_cost(place, "psa")
    assert_one_sentence(error, "it does not say to which")


def test_any_change_of_the_manifest_is_noticed(run, tmp_path):
    manifest = json.loads((run / "manifest.json").read_text())
    path = tmp_path / "manifest.json"
    for key in manifest:
        for value in ({}, None, "x", 7):
            path.write_text(json.dumps(manifest | {key: value}))
            with pytest.raises(GradbenchError):
                Results.open(tmp_path)
    path.write_text(json.dumps(manifest))
    assert Results.open(tmp_path).manifest == Results.open(run).manifest


@pytest.mark.parametrize("kind", ["costs", "figures"])
def test_nothing_is_written_through_a_link_out_of_the_results(run, tmp_path, kind):
    results = shutil.copytree(run, tmp_path / "results")
    (tmp_path / "outside").mkdir()
    shutil.rmtree(results / kind, ignore_errors=True)
    (results / kind).symlink_to(tmp_path / "outside")
    manifest = Results.open(results).manifest
    with (
        pytest.raises(GradbenchError) as error,
        Results.open_or_create(results, manifest["suite"], 0, manifest["draws"]) as opened,
    ):
        if kind == "costs":
            opened.save_cost(places_of(opened)[0], "psa", {"evaluations": 1})
        else:
            assert opened.figures
    assert_one_sentence(error, "leads out of the results by a link")
    assert not any((tmp_path / "outside").iterdir())
