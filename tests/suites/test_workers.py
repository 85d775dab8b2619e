"""Runs by several workers end in what a serial run stores, whatever happens to a worker."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
from here import Here
from hypothesis import given
from hypothesis import strategies as st

from gradbench.core import atomic
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.results.store import Results
from gradbench.suites import runner
from gradbench.suites.workers import drive, loop, unit
from gradbench.suites.workers.engine import Done, Failed, File, Lost, Refused, Warned
from gradbench.suites.workers.order import Queue, Unit

KINDS = ("checkpoints", "references", "moments")


def stored(directory):
    """All that is stored of a run but times: files, every bit of the blocks, and evaluations."""
    results = Results.open(directory)
    files = {
        str(path.relative_to(directory)): path.read_bytes()
        for kind in KINDS
        for path in sorted((directory / kind).rglob("*.npz"))
    }
    costs = {
        (*cell.place, cell.estimator): results.load_cost(cell.place, cell.estimator)["evaluations"]
        for cell in results.cells()
    }
    times = {"seconds" in results.load_cost(cell.place, cell.estimator) for cell in results.cells()}
    made = ("created", "provenance")
    manifest = {key: results.manifest[key] for key in results.manifest if key not in made}
    return files, tiny.numbers(directory), costs, times, manifest


@pytest.fixture
def by(monkeypatch):
    """``by(engine)``: runs with workers have these."""
    return lambda engine: monkeypatch.setattr(runner, "engine_of", lambda *_: engine)


def run(suite, out, **options):
    return runner.run(suite, out, progress=False, **options)


def test_jobs_on_files_end_in_the_results_of_a_serial_run_whatever_clocks_say(
    finished_run, tmp_path, by, capsys, monkeypatch
):
    clocks = itertools.cycle([4e9, 0.0, 1e9, -5.0])  # of machines that disagree
    monkeypatch.setattr(time, "time", lambda: next(clocks))
    by(engine := Here())
    runner.run(finished_run / "suite.toml", tmp_path / "results")
    assert stored(tmp_path / "results") == stored(finished_run / "results")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("tiny: training, ") and "100% done" in said[-1]
    assert sum(line.startswith("tiny, epoch") and ", 71 draws, " in line for line in said) == 8
    what = [(job.epoch, job.estimator) for job in engine.jobs]
    assert what[0] == (None, None) and set(what[1:3]) == {(0, None), (10, None)}
    assert len(what) == 3 + 8 and engine.ended
    assert all(job.suite.problems == () for job in engine.jobs)  # a sweep may have many
    by(engine := Here())
    run(finished_run / "suite.toml", tmp_path / "results")
    assert engine.jobs == []


@pytest.mark.slow
@pytest.mark.parametrize("files", [0, 1, 2, 4])
def test_a_worker_that_dies_loses_its_job_alone(finished_run, tmp_path, by, files, monkeypatch):
    monkeypatch.setattr("gradbench.suites.cells._FLUSH_SECONDS", -1.0)
    by(engine := Here(deaths={number: files for number in (2, 4, 6, 9, 11)}))
    run(finished_run / "suite.toml", tmp_path / "results")
    assert stored(tmp_path / "results") == stored(finished_run / "results")
    died = 5 - len(engine.deaths)  # two jobs may begin at once, so that a number is left out
    assert len(engine.jobs) == 3 + 8 + died and died >= 4


def test_a_job_whose_workers_always_die_ends_the_run_in_one_sentence(finished_run, tmp_path, by):
    by(engine := Here(deaths={n: 0 for n in range(1, 9)}))
    with pytest.raises(GradbenchError) as error:
        run(finished_run / "suite.toml", tmp_path / "results")
    assert "died 3 times at tiny: training, the last one by SIGKILL" in str(error.value)
    assert "\n" not in str(error.value) and engine.ended and len(engine.jobs) == 3


class Saying(Here):
    """Workers that say something in the place of their first job."""

    def __init__(self, *events):
        super().__init__()
        self.events = events

    def wait(self):
        worker = next(iter(self.running))
        if self.events:
            events, self.events = self.events, ()
            self.running.pop(worker)
            return [(worker, event) for event in events]
        return super().wait()


@pytest.mark.slow
def test_what_workers_say_is_said_by_the_parent(finished_run, tmp_path, by):
    suite = finished_run / "suite.toml"
    by(Saying(Refused("draws are not finite; correct it")))
    with pytest.raises(GradbenchError, match="draws are not finite"):
        run(suite, tmp_path / "one")
    by(Saying(Failed("Traceback: at line 7")))
    with pytest.raises(RuntimeError, match="at line 7"):
        run(suite, tmp_path / "one")
    for path in ("../evil", "/evil", "figures/a.py", "manifest.json"):
        by(Saying(File(path, b"0")))
        with pytest.raises(GradbenchError, match="none of results"):
            run(suite, tmp_path / "one")
    by(Saying(Warned("not as precise"), Lost("by SIGTERM")))
    with pytest.warns(GradbenchWarning, match="not as precise"):
        run(suite, tmp_path / "one")
    assert stored(tmp_path / "one") == stored(finished_run / "results")


@pytest.mark.parametrize(
    "what", ["gradbench", "jax", "jaxlib", "XLA_FLAGS", "the plugin mine.py", "the plugin numpy"]
)
def test_a_worker_with_another_version_is_told_in_one_sentence(finished_run, tmp_path, by, what):
    def other():
        return honest() | {what: "7.1"}

    honest = loop.versions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "versions", other)
        by(Here())
        with pytest.raises(GradbenchError) as error:
            run(finished_run / "suite.toml", tmp_path / "results")
    assert f"has {what} " in str(error.value) and "the run has 7.1" in str(error.value)
    assert "\n" not in str(error.value)
    assert tiny.numbers(tmp_path / "results") == {}


def test_a_worker_without_memory_is_told_in_one_sentence(finished_run, tmp_path, by, monkeypatch):
    def full(*_):
        raise MemoryError("out of 16 GB")

    by(Here())
    monkeypatch.setattr(unit, "_measure", full)
    with pytest.raises(GradbenchError, match="has not enough memory"):
        run(finished_run / "suite.toml", tmp_path / "results")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nstack"), "has not enough memory"),
        (OSError(28, "No space left on device"), "cannot keep files of its own"),
        (OSError(30, "Read-only file system"), "let TMPDIR name another folder"),
    ],
)
@pytest.mark.slow
def test_a_worker_without_disk_or_memory_is_told_with_its_machine_and_others_go_on(
    finished_run, tmp_path, by, monkeypatch, error, words
):
    honest, jobs = unit._measure, []

    def fail(job, results):
        jobs.append(job)
        if len(jobs) == 5:
            raise error
        honest(job, results)

    suite, out = finished_run / "suite.toml", tmp_path / "results"
    monkeypatch.setattr(unit, "_measure", fail)
    by(Here())
    with pytest.raises(GradbenchError) as caught:
        run(suite, out)
    assert f"a worker on {os.uname().nodename} " in str(caught.value)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    kept = tiny.numbers(out)
    assert kept and kept.items() <= tiny.numbers(finished_run / "results").items()
    by(Here())
    run(suite, out)
    assert stored(out) == stored(finished_run / "results")


def test_a_worker_whose_own_disk_is_full_names_its_machine(finished_run, tmp_path, by, monkeypatch):
    def full(path, data):
        with atomic.guard("write", path):
            raise OSError(28, "No space left on device")

    by(Here())
    monkeypatch.setattr(unit.Results, "write", lambda self, path, data: full(path, data))
    job = SimpleNamespace(
        versions={}, device="cpu", files=(), manifest={}, optimiser=None, epoch=None
    )
    monkeypatch.setattr(unit, "_measure", lambda job, results: results.write(tmp_path, b""))
    with pytest.raises(GradbenchError) as error:
        unit.perform(job, None)
    assert f"a worker on {os.uname().nodename} cannot keep files" in str(error.value)


def test_a_worker_without_the_device_of_the_run_is_told_in_one_sentence(
    finished_run, tmp_path, by, monkeypatch
):
    by(Here())
    monkeypatch.setattr(loop, "kind", lambda: "gpu")
    with pytest.raises(GradbenchError, match="has no gpu, and the run has; give") as error:
        run(finished_run / "suite.toml", tmp_path / "results")
    assert "\n" not in str(error.value) and tiny.numbers(tmp_path / "results") == {}


def test_a_second_run_in_one_directory_is_refused_with_workers_and_without(finished, by):
    by(engine := Here())
    with atomic.locked(finished / "results"):
        for estimators in ([], ["psa"]):
            with pytest.raises(GradbenchError, match="another process is writing to") as error:
                run(finished / "suite.toml", finished / "results", estimators=estimators)
            by(None)
    assert "\n" not in str(error.value) and engine.jobs == []


def test_workers_of_both_kinds_or_none_are_refused_before_anything_is_written(tmp_path):
    suite = tiny.write(tmp_path / "suite")
    for options, words in (
        ({"workers": 0}, "the number of workers is 0"),
        ({"workers": "two"}, "the number of workers is 'two'"),
        ({"workers": 2, "dask": "tcp://here"}, "give one of the two"),
    ):
        with pytest.raises(GradbenchError, match=words):
            run(suite, tmp_path / "results", **options)
    assert not (tmp_path / "results").exists()


# --- the order ---

UNITS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 5), st.floats(0, 1e9)), min_size=1, max_size=40
)


@given(UNITS, st.integers(1, 5), st.data())
def test_every_unit_is_given_once_and_no_worker_waits_while_one_is_left(units, workers, data):
    order = Queue()
    for number, (rank, group, cost) in enumerate(units):
        order.add(Unit(number, (rank, group), rank, cost))
    given_out = []
    while len(order):
        worker = data.draw(st.integers(0, workers - 1))
        if data.draw(st.integers(0, 9)) == 0:
            order.forget(worker)
        given_out.append(order.take(worker))
    assert sorted(unit.what for unit in given_out) == list(range(len(units)))
    assert order.take(0) is None
    ranks = [unit.rank for unit in given_out]
    if workers == 1:
        assert ranks == sorted(ranks)


def test_a_worker_goes_on_with_its_group_and_helps_others_at_the_end():
    order = Queue()
    for group, costs in {"a": (3, 2, 1), "b": (5, 4), "c": (1,)}.items():
        for cost in costs:
            order.add(Unit(f"{group}{cost}", group, 1, cost))
    taken = [order.take(worker).what for worker in (1, 2, 1, 2, 1)]
    assert taken == ["b5", "a3", "b4", "a2", "c1"]
    order.add(Unit("training", "t", 0))
    assert order.take(2).what == "training"
    assert order.take(1).what == "a1"
    assert order.take(1) is None


class Nothing:
    """Workers that do nothing, and count the jobs that are there at a time."""

    def __init__(self, count):
        self.running, self.most, self.done = {}, 0, []
        self.workers = range(count)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def idle(self):
        return [worker for worker in self.workers if worker not in self.running]

    def start(self, worker, job):
        self.running[worker] = job
        self.most = max(self.most, len(self.running))

    def wait(self):
        worker = next(iter(self.running))
        job = self.running.pop(worker)
        self.done.append((job.problem.name, job.estimator))
        return [(worker, Done())]


def sweep(directory, problems, estimators):
    """A run of many cells, of which nothing is there but what the parent reads."""
    manifest = {"schema": 3, "suite_hash": "0", "seed": 0, "draws": 64}
    results = SimpleNamespace(
        manifest=manifest,
        directory=directory,
        load_checkpoint=lambda place: (),
        load_reference=lambda place: (),
        _path=lambda kind, *names: directory / kind,
        cell=lambda *names: SimpleNamespace(shards=list),
    )
    plan = SimpleNamespace(blocks=32, block=2, draws=64)
    built = []
    for number in range(problems):
        problem = SimpleNamespace(
            name=f"p{number}", checkpoints=(0,), checkpoint_name=lambda epoch: "epoch 0"
        )
        instance = SimpleNamespace(
            problem=problem,
            network=number // 10,
            replicate=0,
            seed=0,
            batch=np.zeros((4, 1)),
            shapes=lambda: (),
        )
        place = SimpleNamespace(checkpoint="epoch 0")
        tasks = [
            SimpleNamespace(cell=SimpleNamespace(place=place, estimator=name), plan=plan, done=0)
            for name in estimators
        ]
        built.append((instance, tasks))
    return results, built


@pytest.mark.parametrize(("problems", "workers"), [(20, 8), pytest.param(1000, 8)])
@pytest.mark.first(1)
def test_a_sweep_of_many_cells_holds_as_many_jobs_as_workers(
    tmp_path, monkeypatch, problems, workers
):
    from gradbench.suites.suite import load_suite

    estimators = [f"reinforce(baseline={n})" for n in range(10)]
    sites = lambda network, *_: [SimpleNamespace(size=network + 1)]  # noqa: E731
    monkeypatch.setattr(drive, "sites_of", sites)
    monkeypatch.setattr(drive, "evaluations", lambda *_: 1)
    results, built = sweep(tmp_path, problems, estimators)
    bar = SimpleNamespace(set_description=lambda *_: None, tell=lambda *_: None)
    engine = Nothing(workers)
    begin = time.process_time()
    drive.distribute(engine, results, load_suite("quick"), built, bar, False)
    print(f"{1e3 * (time.process_time() - begin) / problems / len(estimators):.3f} ms a cell")
    assert len(engine.done) == problems * len(estimators) == len(set(engine.done))
    assert engine.most == workers
    assert engine.done[0][0] == f"p{problems - 10}"  # of the largest networks


# --- real processes ---


@pytest.mark.slow
def test_a_run_by_two_processes_is_the_serial_one_also_when_one_of_them_is_killed(
    finished_run, tmp_path
):
    run(finished_run / "suite.toml", tmp_path / "results", workers=2)
    assert stored(tmp_path / "results") == stored(finished_run / "results")
    command = [sys.executable, "-m", "gradbench.cli", "run", finished_run / "suite.toml"]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2", "--out", str(out)], stderr=subprocess.DEVNULL
    )
    killed = set()
    while process.poll() is None and len(killed) < 3:
        for child in set(children(process.pid)) - killed:
            if (out / "references").exists() and len(killed) < 3:
                os.kill(child, signal.SIGKILL)
                killed.add(child)
        time.sleep(0.5)
    assert process.wait() == 0 and len(killed) == 3
    assert stored(out) == stored(finished_run / "results")


def children(parent):
    """The processes that a process has begun and that run Python."""
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(one) for one in found if b"work(" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(finished_run, tmp_path):
    command = [sys.executable, "-m", "gradbench.cli", "run", finished_run / "suite.toml"]
    out = tmp_path / "results"
    process = subprocess.Popen(
        [*map(str, command), "--workers", "2", "--out", str(out)], stderr=subprocess.DEVNULL
    )
    while not (out / "checkpoints").exists():
        assert process.poll() is None
        time.sleep(0.2)
    left = children(process.pid)
    assert len(left) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{one}").exists() for one in left) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(Path(f"/proc/{one}").exists() for one in left)
    run(finished_run / "suite.toml", out)
    assert stored(out) == stored(finished_run / "results")


CLUSTER = """
import json, sys, time
from pathlib import Path
from distributed import Client, LocalCluster
from gradbench.suites import runner
from gradbench.core.errors import GradbenchError

if __name__ == "__main__":
    suite, out = map(Path, sys.argv[1:])
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        runner.run(suite, out / "two", progress=False, dask=cluster.scheduler_address)
        with Client(cluster) as client:
            def other(dask_worker):
                from gradbench.suites.workers import unit
                unit.versions = lambda honest=unit.versions: honest() | {"jax": "0.1"}
            client.run(other)
        try:
            runner.run(suite, out / "other", progress=False, dask=cluster.scheduler_address)
        except GradbenchError as error:
            print(error)
        address = cluster.scheduler_address
    try:
        runner.run(suite, out / "gone", progress=False, dask=address)
    except GradbenchError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_run_by_a_dask_cluster_is_the_serial_one_and_what_is_wrong_is_one_sentence(
    finished_run, tmp_path
):
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    answer = subprocess.run(
        [sys.executable, str(script), str(finished_run / "suite.toml"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert stored(tmp_path / "two") == stored(finished_run / "results")
    other, gone = answer.stdout.splitlines()
    assert "has jax 0.1, and the run has" in other
    assert "no Dask scheduler answers at 'tcp://" in gone and "`dask scheduler`" in gone
    assert json.loads((tmp_path / "gone/manifest.json").read_text())["seed"] == 0
