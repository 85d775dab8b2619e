"""The times of draws in a run: a pass of its own after all draws, on which nothing depends."""

import gc
import itertools
import json
import weakref

import pytest
import tiny

import gradbench
from gradbench.cli.main import main
from gradbench.core import compiling
from gradbench.core.errors import GradbenchError
from gradbench.estimators import make_estimator
from gradbench.measure import cell as driver
from gradbench.measure.timing import DrawTime
from gradbench.results.store import Results
from gradbench.suites import instance, times
from gradbench.suites.runner import run
from gradbench.suites.suite import load_suite

CELLS = 8  # of the tiny suite


@pytest.fixture
def passes(monkeypatch):
    """The cells of every pass, which takes no time: the n-th cell takes n seconds a draw."""
    passes = Passes()

    def time_draws(cells):
        passes.found.append(cells)
        passes.seen.append(passes.look())
        if passes.interrupted:
            raise KeyboardInterrupt
        return [DrawTime(n + 1.0, 0.25, 9, n + 2.0, 0.5) for n in range(len(cells))]

    monkeypatch.setattr(times, "time_draws", time_draws)
    return passes


class Passes:
    """The cells of every pass of this test, and whether the next is interrupted."""

    def __init__(self):
        self.found, self.interrupted = [], False
        self.look, self.seen = lambda: None, []  # what was stored when it began

    def names(self):
        return [[one.cell.name for one in cells] for cells in self.found]


def go_on(folder, out=None):
    return run(folder / "suite.toml", out or folder / "results", progress=False)


def costs(directory):
    results = Results.open(directory)
    cells = results.cells()
    return {
        (c.place.checkpoint, c.estimator): results.load_cost(c.place, c.estimator) for c in cells
    }


def change(directory, checkpoint, estimator, cost):
    """Stores another cost of a cell; None takes it away."""
    manifest = json.loads((directory / "manifest.json").read_text())
    args = manifest["suite"], manifest["seed"], manifest["draws"]
    with Results.open_or_create(directory, *args) as results:
        (cell,) = (
            c
            for c in results.cells()
            if (c.place.checkpoint, c.estimator) == (checkpoint, estimator)
        )
        if cost is None:
            results._path("costs", cell.place, estimator).unlink()
        else:
            results.save_cost(cell.place, estimator, cost)


@pytest.mark.slow
def test_all_cells_are_timed_together_after_all_draws_and_no_number_depends_on_it(
    finished_run, tmp_path, passes
):
    passes.look = lambda: tiny.numbers(tmp_path)
    go_on(finished_run, tmp_path)
    assert passes.seen == [tiny.numbers(finished_run / "results")]
    (names,) = passes.names()
    estimators = load_suite(finished_run / "suite.toml").estimators
    cells = itertools.product((0, 10), estimators)
    assert names == [f"{spec!r} at 'tiny/0/epoch {epoch}'" for epoch, spec in cells]
    found = costs(tmp_path)
    assert sorted(cost["seconds"] for cost in found.values()) == [n + 1.0 for n in range(CELLS)]
    assert all((cost["spread"], cost["latency_spread"]) == (0.25, 0.5) for cost in found.values())
    assert tiny.numbers(tmp_path) == tiny.numbers(finished_run / "results")


TWO = tiny.changed(
    tiny.SUITE,
    ('"tiny.toml"', '"tiny.toml", "wide.toml"'),
    (', "arm", "straight_through", "psa"', ""),
)
WIDE = tiny.changed(tiny.PROBLEM, ("hidden = [2]", "hidden = [3]"))


@pytest.mark.slow
def test_the_cells_of_each_network_are_timed_when_they_are_drawn_and_then_let_go(
    tmp_path, passes, monkeypatch
):
    losses, alive = [], []

    def make(spec, network):
        losses.append(weakref.ref(loss := make_estimator(spec, network)))
        return loss

    def living():
        del passes.found[:-1]
        gc.collect()
        return [loss() is not None for loss in losses]

    monkeypatch.setattr(instance, "make_estimator", make)
    monkeypatch.setattr(compiling, "_MOST_HELD", 1)
    instance.estimator.cache_clear()
    passes.look = lambda: alive.append(living())
    suite = tiny.write(tmp_path, TWO, tiny=tiny.PROBLEM, wide=WIDE)
    run(suite, tmp_path / "results", draws=2, progress=False)
    # Both were made to be checked, and that of the second network once more.
    assert alive == [[True, True], [False, False, True]]
    passes.found.clear()
    assert not any(living())


def test_a_finished_run_times_nothing_wherever_it_is_continued(finished, passes, monkeypatch):
    monkeypatch.setattr(times, "machine_of", lambda results: "another machine")
    before = tiny.files(finished / "results")
    go_on(finished)
    assert passes.found == [] and tiny.files(finished / "results") == before


@pytest.mark.slow
def test_an_interrupted_pass_is_made_again_without_any_draw(
    finished_run, tmp_path, passes, monkeypatch
):
    passes.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        go_on(finished_run, tmp_path)
    first = costs(tmp_path)
    assert len(first) == CELLS and all(set(cost) == {"evaluations"} for cost in first.values())
    # Evaluations are known before times are.
    assert main(["rank", str(tmp_path), "--at-cost", "20-evaluations"]) == 0
    passes.interrupted = False
    monkeypatch.setattr(driver, "measure", None)
    go_on(finished_run, tmp_path)
    assert [len(cells) for cells in passes.found] == [CELLS, CELLS]
    assert all("seconds" in cost for cost in costs(tmp_path).values())


def test_a_time_that_is_missing_is_measured_and_the_others_of_this_machine_are_kept(
    finished, passes
):
    results = finished / "results"
    before = costs(results)
    change(results, "epoch 10", "arm", None)
    change(results, "epoch 0", "psa", {"evaluations": 3})
    go_on(finished)
    (names,) = passes.names()
    assert [name.split(" at ")[0] for name in names] == ["'psa'", "'arm'"]
    after = costs(results)
    new = {("epoch 0", "psa"): 1.0, ("epoch 10", "arm"): 2.0}
    for key, cost in after.items():
        assert cost["evaluations"] == before[key]["evaluations"]
        assert cost["machine"] == before[key]["machine"]
        if key in new:
            assert cost["seconds"] == new[key]
        else:
            assert cost == before[key]


def test_times_of_another_machine_or_of_an_older_protocol_are_measured_again_with_a_missing_one(
    finished, passes
):
    results = finished / "results"
    stored = costs(results)
    change(results, "epoch 0", "reinforce", stored["epoch 0", "reinforce"] | {"machine": "other"})
    change(results, "epoch 0", "arm", {"evaluations": 2, "seconds": 1e-5})
    go_on(finished)
    assert passes.found == []  # none is missing
    change(results, "epoch 0", "psa", None)
    go_on(finished)
    assert [name.split(" at ")[0] for name in passes.names()[0]] == [
        "'reinforce'",
        "'arm'",
        "'psa'",
    ]
    assert len({cost["machine"] for cost in costs(results).values()}) == 1


def test_times_that_were_not_measured_yet_are_missed_in_one_sentence(finished, capsys):
    results = finished / "results"
    change(results, "epoch 0", "psa", {"evaluations": 3})
    with pytest.raises(GradbenchError, match="the run is not finished"):
        gradbench.metrics.rank(results, at="1ms")
    assert main(["table", str(results), "--costs"]) == 0
    out = capsys.readouterr().out
    assert any("psa" in line and line.split()[-2:] == ["-", "-"] for line in out.splitlines())
