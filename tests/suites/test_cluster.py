"""A scheduler of Dask that is restarted, is not there, or loses workers, as the run sees it."""

import sys
from types import SimpleNamespace

import distributed
import pytest
from stored import assert_one_sentence

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.suites.workers import cluster
from gradbench.suites.workers.cluster import Cluster
from gradbench.suites.workers.engine import Done, Failed, Lost, Refused, Warned

JOB = SimpleNamespace(problem=SimpleNamespace(name="tiny"), epoch=10, estimator="psa")


class Future:
    """A job at a scheduler, which ends when the test says so."""

    def __init__(self):
        self.status, self.callbacks, self.found = "pending", [], None

    def add_done_callback(self, function):
        self.callbacks.append(function)

    def end(self, status, found=None):
        self.status, self.found = status, found
        for function in self.callbacks:
            function(self)

    def result(self):
        return self.found

    exception = result


@pytest.fixture
def scheduler(monkeypatch):
    """What stands for a scheduler: its workers, its jobs, its clients, and whether it is there."""
    held = SimpleNamespace(workers=["one", "two"], jobs=[], clients=[], there=True, loaded=[])

    class Client:
        def __init__(self, address, timeout, set_as_default):
            if not held.there:
                raise OSError(f"Timed out trying to connect to {address} after {timeout} s")
            self.status = "running"
            held.clients.append(self)

        def scheduler_info(self, n_workers):
            return {"workers": dict.fromkeys(held.workers)}

        def submit(self, function, *arguments, **how):
            held.jobs.append((function, arguments, how, future := Future()))
            return future

        def register_plugin(self, plugin, name):
            held.loaded.append(plugin)

        def cancel(self, futures):
            if self.status != "running":
                raise RuntimeError("IOLoop is closed")
            for future in futures:
                future.end("cancelled")

        def close(self):
            self.status = "closed"

    monkeypatch.setattr(distributed, "Client", Client)
    return held


def test_a_job_goes_to_its_worker_and_its_events_come_back(scheduler):
    with Cluster("tcp://here:1", keep=True) as engine:
        assert engine.idle() == ["one", "two"]
        engine.start("one", JOB)
        function, arguments, how, future = scheduler.jobs[0]
        assert (function, arguments) == (cluster.collect, (JOB, True))
        assert how["workers"] == ["one"] and how["allow_other_workers"] and not how["pure"]
        assert how["key"] == "gradbench-0-tiny-10-psa"  # as the dashboard shows it
        assert engine.idle() == ["two"]
        future.end("finished", [Warned("x"), Done()])
        assert engine.wait() == [("one", Warned("x")), ("one", Done())]
        assert engine.idle() == ["one", "two"]
    assert scheduler.clients[0].status == "closed"


def test_a_scheduler_that_is_restarted_is_found_again_and_its_jobs_are_lost(scheduler):
    with Cluster("tcp://here:1", keep=False) as engine:
        for worker in engine.idle():
            engine.start(worker, JOB)
        old = [job[-1] for job in scheduler.jobs]
        scheduler.clients[0].status = "closed"
        events = engine.wait()
        assert [worker for worker, _ in events] == ["one", "two"]
        assert all(event == Lost("with its scheduler") for _, event in events)
        assert len(scheduler.clients) == 2 and engine.idle() == ["one", "two"]
        engine.start("one", JOB)
        old[0].end("finished", [Done()])  # of the scheduler that is no more
        assert engine.wait() == []
        scheduler.jobs[-1][-1].end("finished", [Done()])
        assert engine.wait() == [("one", Done())]


def test_a_run_that_ends_early_cancels_its_jobs(scheduler):
    with pytest.raises(KeyError), Cluster("tcp://here:1", keep=False) as engine:
        engine.start("one", JOB)
        raise KeyError
    assert scheduler.jobs[0][-1].status == "cancelled"


def test_a_client_that_finds_its_scheduler_again_by_itself_has_lost_its_jobs(scheduler):
    with Cluster("tcp://here:1", keep=False) as engine:
        engine.start("one", JOB)
        scheduler.jobs[0][-1].end("cancelled")
        assert engine.wait() == [("one", Lost("with its scheduler"))]


def test_a_scheduler_that_is_not_there_any_more_is_one_sentence(scheduler):
    with pytest.raises(GradbenchError) as error, Cluster("tcp://here:1", keep=False) as engine:
        engine.start("one", JOB)
        scheduler.there = False
        scheduler.clients[0].status = "closed"
        engine.wait()
    assert_one_sentence(error, "no Dask scheduler answers at 'tcp://here:1'", "is kept")
    with pytest.raises(GradbenchError) as error, Cluster("nowhere", keep=False):
        raise AssertionError
    assert_one_sentence(error, "'nowhere'", "`dask scheduler`")


def test_a_cluster_without_dask_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GradbenchError) as error, Cluster("tcp://here:1", keep=False):
        raise AssertionError
    assert_one_sentence(error, "pip install", "--workers")


@pytest.mark.parametrize(
    ("kind", "why"), [("KilledWorker", "again and again"), ("CommClosedError", "CommClosedError")]
)
def test_a_job_whose_worker_dies_is_lost(scheduler, kind, why):
    with Cluster("tcp://here:1", keep=False) as engine:
        engine.start("one", JOB)
        scheduler.jobs[0][-1].end("error", type(kind, (Exception,), {})("gone"))
        ((worker, event),) = engine.wait()
        assert worker == "one" and isinstance(event, Lost) and why in event.why


def test_a_cluster_without_workers_is_told_once(scheduler, monkeypatch):
    monkeypatch.setattr(cluster, "_LONELY", -1.0)
    scheduler.workers.clear()
    with Cluster("tcp://here:1", keep=False) as engine:
        with pytest.warns(GradbenchWarning, match="has no workers yet; the run waits"):
            assert engine.idle() == []
        assert engine.idle() == []
        scheduler.workers.append("late")
        assert engine.idle() == ["late"]


def test_workers_load_the_plugins_of_the_run(scheduler, monkeypatch):
    files = ["/there/plugin.py"]
    monkeypatch.setattr(plugins, "files", lambda: files)
    seen = []
    monkeypatch.setattr(plugins, "load", seen.append)
    with Cluster("tcp://here:1", keep=False):
        scheduler.loaded[0].setup(worker=None)
    assert seen == files


def test_what_a_worker_of_a_cluster_meets_comes_back_as_events(monkeypatch):
    def refuse(*_):
        raise GradbenchError("draws are not finite")

    def fail(*_):
        raise KeyError("x")

    monkeypatch.setattr(cluster, "perform", refuse)
    assert cluster.collect(JOB, False) == [Refused("draws are not finite")]
    monkeypatch.setattr(cluster, "perform", fail)
    (event,) = cluster.collect(JOB, False)
    assert isinstance(event, Failed) and "KeyError" in event.trace
