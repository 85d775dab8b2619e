"""SIGKILL, SIGTERM and Ctrl-C at any moment: nothing is lost, halved or changed by them."""

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tiny
import trained
from kills import SIGNALS, Server, killed_until_done, seeds_until
from small_data import grey_files
from stored import contents, write_run

from gradbench.cli import signals
from gradbench.cli.commands import list as list_command
from gradbench.cli.main import main
from gradbench.results.store import Results

JAX = ("jax", "gradbench.suites.runner", "gradbench.plots.suite", "gradbench.report.html")
# How many signals come before each command has ended: 200 in all, and so many at most in one run.
KILLS = {"run": 36, "until": 20, "workers": 20, "train": 40, "plot": 24, "report": 20}
KILLS |= {"data get": 20, "merge": 20}
IN_A_RUN = 10


def left(kills, got):
    """How many of so many kills are left for a run, after those that a command has ``got``."""
    return min(IN_A_RUN, kills - len(got))


def survived(name, got, runs):
    """Say how many kills a command has survived in some runs, by signals of all kinds."""
    print(f"\n{name}: {len(got)} kills before its end in {runs} runs, all survived")
    assert set(got) == set(SIGNALS) and len(got) == KILLS[name]


def numbers(directory):
    """All that is stored but times and the figures."""
    results = Results.open(directory)
    files = {
        name: data
        for name, data in contents(directory).items()
        if name.split("/")[0] in ("checkpoints", "references", "moments")
    }
    costs = [
        (*cell.place, cell.estimator, results.load_cost(cell.place, cell.estimator)["evaluations"])
        for cell in results.cells()
    ]
    return files, tiny.numbers(directory), costs


def shown(directory):
    """What was drawn and written for readers."""
    names = ("figures", "report.html")
    return {name: data for name, data in contents(directory).items() if name.split("/")[0] in names}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("server"), *JAX) as server:
        yield server


RUNS = {
    "run": [],
    "until": ["--until", "rel_se=20%", "--draws", "600"],
    "workers": ["--workers", "2"],
}
# Without the figures, which are drawn of a whole suite; one estimator of the two is left out.
PART = ["--checkpoint", "10", "-e", "reinforce", "--out"]


def killed(server, name, command, tmp_path, same, share):
    """Kill a command under several seeds; what is left is the ``same`` as of an uninterrupted one.

    Args:
        server: where it runs.
        name: that of its ``KILLS``.
        command: the command without its last word, the directory.
        tmp_path: where directories are made.
        same: a function of a directory.
        share: the share of its time within which it is killed.
    """
    whole = tmp_path / "whole"
    server.run([*command, whole])  # which compiles
    shutil.rmtree(whole)
    code, seconds = server.run([*command, whole])
    assert code == 0, server.log.read_text()
    got, seed = [], 0
    for seed in seeds_until(got, KILLS[name]):
        out = tmp_path / f"{name} {seed}"
        most = share * seconds
        got += killed_until_done(server, [*command, out], out, seed, most, left(KILLS[name], got))
        assert same(out) == same(whole)
    survived(name, got, seed + 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_is_killed_at_any_moment_ends_in_the_uninterrupted_result(
    tmp_path, server, name
):
    suite = tiny.changed(tiny.SUITE, ('"arm", "straight_through", ', ""))
    command = ["run", tiny.write(tmp_path / "suite", suite), *RUNS[name], *PART]
    killed(server, name, command, tmp_path, numbers, 0.6)


@pytest.mark.slow
def test_training_that_is_killed_at_any_moment_ends_in_the_uninterrupted_result(tmp_path, server):
    suite = trained.write(tmp_path / "suite", ("replicates = 2", "replicates = 1"))

    def same(directory):
        return trained.files(directory), sorted(shown(directory))

    killed(server, "train", ["run", suite, "--out"], tmp_path, same, 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plot", "report"])
def test_what_is_drawn_and_written_is_whole_at_any_moment(tmp_path, server, name):
    write_run(tmp_path / "results")
    shutil.copytree(tmp_path / "results", tmp_path / "whole")
    code, seconds = server.run([name, tmp_path / "whole"])
    assert code == 0, server.log.read_text()
    got, seed = [], 0
    for seed in seeds_until(got, KILLS[name]):
        out = tmp_path / f"{name} {seed}"
        shutil.copytree(tmp_path / "results", out)
        got += killed_until_done(server, [name, out], out, seed, seconds, left(KILLS[name], got))
        assert shown(out) == shown(tmp_path / "whole")
    survived(name, got, seed + 1)


@pytest.fixture
def host():
    """The address of a server of the files of a small MNIST, which takes its time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content = grey_files()[self.path.lstrip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked has been killed
                for start in range(0, len(content), 100):
                    self.wfile.write(content[start : start + 100])
                    time.sleep(0.02)

        def log_message(self, *_):
            pass

        def handle(self):
            with contextlib.suppress(OSError):
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def downloaded_under_fire(tmp_path, host, kills):
    """The signals that downloads got, each of which has ended in the data set; and their number."""
    got, seed = [], 0
    variables = {"GRADBENCH_CACHE": str(tmp_path / "cache"), "KILLS_HOST": host}
    modules = ("published_here", "pooch", "requests", "gradbench.suites.datasets")
    with Server(tmp_path, *modules, **variables) as server:
        folder, command = tmp_path / "cache" / "data", ["data", "get", "mnist"]
        code, seconds = server.run(command)
        assert code == 0, server.log.read_text()
        whole = (folder / "mnist.npz").read_bytes()
        for seed in seeds_until(got, kills):
            shutil.rmtree(folder)
            most = 0.9 * seconds
            got += killed_until_done(server, command, folder, seed, most, left(kills, got))
            assert (folder / "mnist.npz").read_bytes() == whole
            assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == [
                "mnist.npz"
            ]
    return got, seed + 1


def test_a_download_that_is_killed_is_continued(tmp_path, host):
    assert len(downloaded_under_fire(tmp_path, host, 1)[0]) == 1


@pytest.mark.slow
def test_many_downloads_that_are_killed_are_continued(tmp_path, host):
    survived("data get", *downloaded_under_fire(tmp_path, host, KILLS["data get"]))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two parts of a run that is stored, beside the whole."""
    folder = tmp_path_factory.mktemp("parts")
    whole = write_run(folder / "whole")
    for name, missing in (("one", "b"), ("two", "a")):
        shutil.copytree(whole, folder / name)
        for kind in ("checkpoints", "references", "moments", "costs", "shards"):
            shutil.rmtree(folder / name / kind / missing)
    return folder


def merged_under_fire(parts, tmp_path, kills):
    """The signals that merges got, each of which has ended in the whole; and their number."""
    got, seed = [], 0
    modules = ("gradbench.results.merge", "gradbench.metrics.directory")
    with Server(tmp_path, *modules) as server:
        command = ["merge", parts / "one", parts / "two", "--out"]
        code, seconds = server.run([*command, tmp_path / "merged"])
        assert code == 0, server.log.read_text()
        for seed in seeds_until(got, kills):
            out, most = tmp_path / f"merge {seed}", 0.8 * seconds
            got += killed_until_done(server, [*command, out], out, seed, most, left(kills, got))
            found, whole = contents(out), contents(parts / "whole")
            assert found == whole | {name: found[name] for name in ("manifest.json", ".lock")}
    return got, seed + 1


def test_merges_that_are_killed_end_in_the_whole(parts, tmp_path):
    assert len(merged_under_fire(parts, tmp_path, 2)[0]) == 2


@pytest.mark.slow
def test_many_merges_that_are_killed_end_in_the_whole(parts, tmp_path):
    survived("merge", *merged_under_fire(parts, tmp_path, KILLS["merge"]))


def test_as_many_kills_are_tried_as_is_said():
    assert sum(KILLS.values()) == 200


# --- the two signals that ask ---


@pytest.fixture
def interrupted(monkeypatch, capsys, request):
    """``interrupted(what)``: the exit code of a command that does this, and what it says."""

    # Where the tests run in the background, the process has inherited that it ignores Ctrl-C.
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    for number, handler in usual.items():
        before = signal.signal(number, handler)
        request.addfinalizer(partial(signal.signal, number, before))

    def interrupted(what):
        monkeypatch.setattr(list_command.command, "callback", lambda **_: what())
        return main(["list"]), capsys.readouterr().err

    return interrupted


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(5)  # the signal is seen before that
    raise AssertionError


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_both_signals_end_a_command_with_their_code_and_leave_no_handler(interrupted, number, code):
    before = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook
    found, said = interrupted(lambda: send(number))
    assert found == code and "interrupted; what was measured is kept" in said
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == before
    assert sys.unraisablehook is hook


class Swallowing:
    """What is interrupted while Python ends it, where errors are only printed."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        send(self.number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_comes_in_a_callback_is_not_lost(interrupted, number, code):
    def swallow():
        Swallowing(number)
        time.sleep(5)

    found, said = interrupted(swallow)
    assert found == code and "Exception ignored" not in said


def test_an_error_that_a_library_makes_of_a_signal_is_an_interruption(interrupted):
    def convert():
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("INTERNAL: callback failed") from None

    assert interrupted(convert)[0] == 143


def test_signals_that_are_ignored_stay_ignored_and_other_threads_leave_them_alone(interrupted):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        code, _ = interrupted(lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert code == 0 and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(interrupted(lambda: None)[0]))
    thread.start()
    thread.join()
    assert codes == [0]


def test_errors_that_only_python_sees_are_still_printed(interrupted):
    class Failing:
        def __del__(self):
            raise ValueError("of a user")

    seen = []
    before, sys.unraisablehook = sys.unraisablehook, lambda lost: seen.append(lost.exc_type)
    try:
        with signals.interruptible():
            Failing()
    finally:
        sys.unraisablehook = before
    assert seen == [ValueError]
