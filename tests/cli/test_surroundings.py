"""Commands in odd surroundings: one sentence, the right exit code, nothing half-written."""

import io
import os
import shutil
import sys

import pytest
import tiny
from kills import assert_whole
from odd import Surroundings

from gradbench.cli.main import main
from gradbench.core.atomic import write_file
from gradbench.core.errors import GradbenchError

CHEAP = {  # with their exit codes
    "list noises": 0,
    "list metrics --json": 0,
    "list nose": 2,
    "show estimator psa": 0,
    "schema suite": 0,
    "completion bash": 0,
    "data list": 0,
    "data verify": 0,
    "run --help": 0,
    "frob": 2,
    "show nothing": 2,
}


class Full(io.TextIOWrapper):
    """A stream on a full disk."""

    def __init__(self):
        class Raw(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                raise OSError(28, "No space left on device")

        class Buffer(io.BufferedWriter):
            close = Full.close

        super().__init__(Buffer(Raw()), "utf-8")

    def close(self):  # what it could not write is no fault of the test
        pass


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), "ascii", "strict")


@pytest.mark.parametrize("name", ["HOME", "COLUMNS", "TMPDIR", "GRADBENCH_CACHE", "TERM"])
@pytest.mark.parametrize("value", [None, "20", "0", "-1", "x", "/dev/null", "/nonexistent"])
@pytest.mark.first(6)
def test_a_variable_that_is_missing_or_nonsense_is_no_error(name, value, monkeypatch, capsys):
    monkeypatch.setenv("GRADBENCH_CACHE", "/nonexistent/cache")
    monkeypatch.delenv(name, raising=False)
    if value is not None:
        monkeypatch.setenv(name, value)
    for command, code in CHEAP.items():
        assert main(command.split()) == code
        out, said = capsys.readouterr()
        assert (said.count("\n"), bool(out)) == ((0, True) if code == 0 else (1, False)), said


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["closed", "ascii", "full"])
def test_a_stream_that_is_closed_full_or_of_few_letters_gives_the_right_code(
    stream, kind, monkeypatch, capfd
):
    made = {"closed": lambda: None, "ascii": ascii_stream, "full": Full}[kind]
    for command, code in CHEAP.items():
        with monkeypatch.context() as patch:
            patch.setattr(sys, stream, made())
            if kind == "full" and stream == "stdout":
                # What Python writes to the descriptor at its end is not looked at here.
                patch.setattr("gradbench.cli.main._discard_output", lambda: None)
                code = 2
            assert main(command.split()) == code, (command, kind)
            if kind == "closed":
                getattr(sys, stream).close()
        assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a pipe", "socket"])
def test_what_is_no_file_is_never_written_over(kind, tmp_path):
    path, target = tmp_path / "path", tmp_path / "target"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        import socket

        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(path))
    else:
        os.mkfifo(target)
        path.symlink_to(target)
    before = path.lstat()
    with pytest.raises(GradbenchError, match=r"cannot write .*it is there, and is not a file"):
        write_file(path, b"x")
    assert path.lstat() == before
    assert {one.name for one in tmp_path.iterdir()} <= {"path", "target"}


def test_a_template_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(["init", "suite"]) == 2
    assert "cannot write 'my_suite.toml': No space left on device; free some" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
    assert main(["init", "suite"]) == 0
    (tmp_path / "to_nowhere.toml").symlink_to(tmp_path / "nowhere")
    for name in ("my_suite.toml", "to_nowhere.toml"):
        assert main(["init", "suite", name]) == 2
        assert "is there already" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


# --- real processes ---

STREAMS = {
    "closed": {"out": "closed", "err": "closed"},
    "unread": {"out": "unread"},
    "unread errors": {"err": "unread"},
    "full": {"out": "/dev/full"},
    "full errors": {"err": "/dev/full"},
    "ascii": {"encoding": "ascii"},
    "no home": {"environment": {"HOME": None, "GRADBENCH_CACHE": None}},
    "a home that is no folder": {"environment": {"HOME": "/dev/null", "GRADBENCH_CACHE": None}},
    "short files": {"limits": {"RLIMIT_FSIZE": 2000}},
    "no files": {"limits": {"RLIMIT_FSIZE": 0}, "out": "/dev/null", "err": "/dev/null"},
}
COMMANDS = [
    *("list estimators", "show results", "table results", "compare results results"),
    *("plot results --figure accuracy --out figures", "merge results results --out merged"),
    *("init suite new.toml", "run suite.toml --out results", "run suite.toml --dry-run"),
]
MODULES = ("pandas", "pyarrow.parquet", "gradbench.plots.suite", "gradbench.report.html")


@pytest.fixture(scope="module")
def odd(finished_run, tmp_path_factory):
    """Surroundings in a folder with a suite and its results."""
    folder = tmp_path_factory.mktemp("odd") / "folder"
    shutil.copytree(finished_run, folder)
    with Surroundings(folder, *MODULES, "gradbench.suites.runner") as made:
        yield made


def made_by_commands(folder):
    return [folder / name for name in ("figures", "merged", "new.toml")]


def forget(folder):
    for path in made_by_commands(folder):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STREAMS)
def test_commands_give_one_sentence_and_the_right_code_in_odd_surroundings(kind, odd):
    how, folder = STREAMS[kind], odd.folder
    before = tiny.numbers(folder / "results")
    short = {"full", "short files", "no files"}
    for command in COMMANDS:
        forget(folder)
        ended = odd.run(command.split(), **how)
        fault = ended.fault((0, 2) if kind in short else 0, heard="err" not in how)
        assert not fault, (command, fault)
        for path in made_by_commands(folder):
            if path.is_dir():
                assert_whole(path)
        assert tiny.numbers(folder / "results") == before
    forget(folder)


@pytest.mark.slow
def test_a_pipe_in_the_place_of_a_directory_is_one_sentence_and_is_not_waited_for(odd):
    os.mkfifo(odd.folder / "pipe")
    for command in (
        *(f"{name} pipe" for name in ("show", "table", "rank", "plot", "report")),
        *("compare pipe pipe", "compare results pipe", "merge pipe pipe --out merged"),
        *("run pipe", "data add mnist pipe"),
    ):
        ended = odd.run(command.split())
        assert ended.fault(2) == "" and ended.err.count("\n") == 1, (command, ended)
    assert (odd.folder / "pipe").is_fifo()
