"""Figures are drawn again exactly where something that they are drawn from has changed."""

import pytest
from tiny import damage

from gradbench.core import plugins
from gradbench.results import drawn
from gradbench.results.drawn import current_figures, record_figures, state
from gradbench.results.store import Results


@pytest.fixture
def results(finished):
    """Finished results with two figures that were recorded."""
    results = Results.open(finished / "results")
    paths = [results.figures / name for name in ("rmse.pdf", "rmse.py")]
    for path in paths:
        path.write_text("drawn")
    record_figures(results, state(results), paths)
    assert current_figures(results) == paths
    return results


def path_of(kind, suffix):
    return lambda results: next((results.directory / kind).rglob(f"*.{suffix}"))


STORED = [path_of("references", "npz"), path_of("costs", "npz"), path_of("shards", "parquet")]


@pytest.mark.parametrize("find", STORED, ids=["reference", "cost", "shard"])
def test_figures_are_no_longer_current_where_a_stored_file_is_missing(find, results):
    find(results).unlink()
    assert current_figures(results) is None


@pytest.mark.parametrize("find", STORED[:2], ids=["reference", "cost"])
def test_figures_are_no_longer_current_where_a_stored_file_has_other_content(find, results):
    damage(find(results))
    assert current_figures(results) is None


@pytest.mark.parametrize("name", ["rmse.pdf", "rmse.py"])
def test_a_figure_that_was_deleted_is_drawn_again(name, results):
    (results.figures / name).unlink()
    assert current_figures(results) is None


def test_figures_by_another_version_or_plugin_are_drawn_again(results, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(drawn, "version", lambda package: "0")
        assert current_figures(results) is None
    with monkeypatch.context() as patch:
        patch.setattr(plugins, "loaded", lambda: ["mine.py 0123"])
        assert current_figures(results) is None
    changed = tmp_path / "changed.py"
    changed.write_text("# another gradbench")
    sources = drawn._sources()
    assert len(sources) > 100
    with monkeypatch.context() as patch:
        patch.setattr(drawn, "_sources", lambda: [changed, *sources[1:]])
        assert current_figures(results) is None
    assert current_figures(results)


def test_figures_of_another_suite_are_drawn_again(results):
    results.manifest["suite"]["figure"] = "overview"
    assert current_figures(results) is None


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"state": 1, "files": 2}', None])
def test_a_record_that_is_damaged_or_missing_counts_as_none(record, results):
    path = results.directory / "figures.json"
    if record is None:
        path.unlink()
    else:
        path.write_text(record)
    assert current_figures(results) is None


def test_a_copy_of_results_keeps_its_figures(results, tmp_path):
    copy = tmp_path / "copy"
    results.directory.rename(copy)
    found = current_figures(Results.open(copy))
    assert found and all(path.parent == copy / "figures" for path in found)
