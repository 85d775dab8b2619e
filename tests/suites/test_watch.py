"""Workers end with the process that began them, and none is begun and forgotten."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from gradbench.suites.workers import watch
from gradbench.suites.workers.processes import Processes

PARENT = """
import os, subprocess, sys, time
code = "import time; from gradbench.suites.workers import watch; watch.end_with({})"
code += "; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code.format(os.getpid())])
print(child.pid, flush=True)
time.sleep(600)
"""


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_process_ends_with_its_parent_though_that_is_killed_at_once():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert is_there(child)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_there(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_there(child)


@pytest.fixture
def usual(request):
    """The handlers of a terminal, where the tests may run in the background."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, end)):
        before = signal.signal(number, handler)
        request.addfinalizer(lambda number=number, before=before: signal.signal(number, before))


class Ended(BaseException):
    pass


def end(*_):
    raise Ended


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Ended)]
)
def test_a_signal_waits_for_what_must_not_be_interrupted(usual, number, kind):
    done = []
    with pytest.raises(kind), watch.signals_wait():
        signal.raise_signal(number)
        done.append(number)
    assert done == [number]
    assert signal.getsignal(signal.SIGTERM) is end
    with watch.signals_wait():
        pass


def test_ignored_signals_stay_ignored_and_other_threads_do_not_matter(usual):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with watch.signals_wait():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.raise_signal(signal.SIGINT)
    done = []

    def other():
        with watch.signals_wait():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert done == [end]


def test_a_worker_whose_beginning_is_interrupted_is_ended(usual, monkeypatch):
    begun = []

    class Popen(subprocess.Popen):
        def __init__(self, arguments, **how):
            arguments = [sys.executable, "-c", "import time; time.sleep(600)"]
            super().__init__(arguments, **how)
            begun.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with pytest.raises(Ended), Processes(2, False):
        raise AssertionError
    assert [process.poll() for process in begun] == [-signal.SIGKILL]
