"""A run with nothing to do is told from one that has something left, without computing."""

import json

import pytest
import tiny

from gradbench.results import provenance
from gradbench.results.store import Results
from gradbench.suites import asked
from gradbench.suites.asked import asked_suite, finished_results


@pytest.fixture
def found(finished):
    """What ``finished_results`` finds in the finished run, or in one with other arguments."""

    def find(seed=0, **how):
        suite = asked_suite(str(finished / "suite.toml"), **how)
        return finished_results(suite, finished / "results", seed)

    return find


def test_a_finished_run_has_nothing_to_do(found, finished, compilations):
    before, compiled = tiny.files(finished), len(compilations)
    results = found()
    assert results is not None and results.directory == finished / "results"
    assert tiny.files(finished) == before and len(compilations) == compiled


def test_what_another_run_is_asked_for_is_to_be_done_or_refused(found):
    assert found(seed=1) is None
    assert found(draws=70) is None
    assert found(until=0.5) is None


def path(finished, kind):
    return sorted((finished / "results" / kind).rglob("*.*"))[0]


@pytest.mark.parametrize("kind", ["shards", "references", "costs"])
def test_what_is_missing_or_damaged_is_left_to_the_run(kind, found, finished):
    file = path(finished, kind)
    content = file.read_bytes()
    tiny.damage(file)
    assert found() is None
    file.unlink()
    assert found() is None
    file.write_bytes(content)
    assert found() is not None


def test_a_cell_whose_time_is_not_known_is_left_to_the_run(found, finished):
    suite = asked_suite(str(finished / "suite.toml"))
    facts = suite.as_dict(), 0, suite.draws
    with Results.open_or_create(finished / "results", *facts) as results:
        cell = results.cells()[0]
        results.save_cost(cell.place, cell.estimator, {"evaluations": 1})
    assert found() is None


def test_a_run_by_another_version_is_left_to_the_run_which_notes_it(found, monkeypatch):
    facts = provenance.provenance() | {"gradbench": "another"}
    monkeypatch.setattr(asked, "provenance", lambda: facts)
    assert found() is None


def test_a_manifest_that_is_damaged_is_left_to_the_run(found, finished):
    file = finished / "results" / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"seed": 3}))
    assert found() is None
