"""What is not the input's fault, and surroundings that are odd: one sentence, the right code."""

import contextlib
import os
import re
import shlex
import subprocess
import sys

import pytest
import tiny

from gradbench.cli.commands import list as list_command
from gradbench.cli.main import main
from gradbench.core import atomic, npy, plugins
from gradbench.core.archives import read_plain_file
from gradbench.core.errors import GradbenchError
from gradbench.results import shards
from gradbench.results.store import Results
from gradbench.suites.suite import load_suite

COMMAND = [sys.executable, "-m", "gradbench.cli"]


@pytest.fixture
def failing(monkeypatch, capsys, tmp_path):
    """Let a command fail with an error: its exit code, and what it says."""
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "cache"))

    def fail(error):
        def raising(**_):
            raise error

        monkeypatch.setattr(list_command.command, "callback", raising)
        code = main(["list", "noises"])
        out, said = capsys.readouterr()
        assert out == "" and said.startswith("gradbench: ") and said.count("\n") == 1
        return code, said

    return fail


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "this machine has not enough memory; ask for less"),
        (MemoryError("Unable to allocate 74 GiB"), "Unable to allocate 74 GiB; ask for less"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nstack"), "Out of memory; ask for"),
        (OverflowError("int too large"), "a number is too large (int too large); give smaller"),
        (OSError(28, "No space left", "here"), "[Errno 28] No space left: 'here'; check the path"),
        (OSError(28, "No space left on device"), "cannot be written (No space left on device); "),
        (GradbenchError(f"unknown {'x' * 10**6!r}; choose"), "...x"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence_and_exit_code_2(error, words, failing, tmp_path):
    code, said = failing(error)
    assert code == 2 and words in said and len(said) < 500
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a\x1bb\nc"), AssertionError(), KeyError("x"), RecursionError("y")]
)
def test_an_error_of_gradbench_names_the_file_of_its_traceback_and_exits_70(error, failing):
    code, said = failing(error)
    assert code == 70 and "this is an error of gradbench, not of its input" in said
    assert type(error).__name__ in said and "\x1b" not in said
    written = re.search(r"report it with the traceback in (\S+)$", said.strip())[1]
    with open(written) as file:
        text = file.read()
    assert "Traceback (most recent call last)" in text and "in raising" in text
    assert text.startswith("gradbench ")


def test_a_traceback_is_written_elsewhere_where_the_cache_cannot_be(failing, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRADBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, said = failing(KeyError("x"))
    assert code == 70 and str(tmp_path / "gradbench-") in said
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    code, said = failing(KeyError("x"))
    assert code == 70 and said.endswith("(KeyError: 'x'); report it\n")


def test_what_cannot_be_said_is_no_error(monkeypatch, failing):
    class Full:
        encoding, errors = "utf-8", "strict"

        def write(self, text):
            raise OSError(28, "No space left on device")

        flush = isatty = reconfigure = write

    for error, code in ((GradbenchError("x"), 2), (KeyError("x"), 70), (KeyboardInterrupt(), 130)):

        def raising(error=error, **_):
            raise error

        monkeypatch.setattr(list_command.command, "callback", raising)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", Full())
            assert main(["list", "noises"]) == code


# --- what is no file ---


@pytest.fixture
def pipe(tmp_path):
    def make(name):
        os.mkfifo(tmp_path / name)
        return tmp_path / name

    return make


def test_a_pipe_a_folder_and_a_file_that_is_too_large_are_not_read(pipe, tmp_path):
    for path in (pipe("p"), tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match=r"not a file|Is a directory"):
            read_plain_file(path)
    (tmp_path / "large").write_bytes(b"12345")
    assert read_plain_file(tmp_path / "large") == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_plain_file(tmp_path / "large", 4)


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_one_sentence(pipe, tmp_path):
    (tmp_path / "folder.toml").mkdir()
    suite = tiny.write(tmp_path / "s")
    (tmp_path / "s/tiny.toml").unlink()
    os.mkfifo(tmp_path / "s/tiny.toml")
    calls = {
        "cannot read": [
            lambda: load_suite(pipe("suite.toml")),
            lambda: load_suite(tmp_path / "folder.toml"),
            lambda: load_suite(suite),
            lambda: plugins.load(pipe("plugin.py")),
            lambda: plugins.load(tmp_path / "folder.toml"),
        ],
        "it is not a file": [lambda: plugins.imported(f"{pipe('mine.py')}:problem", "problem")],
    }
    for words, several in calls.items():
        for call in several:
            with pytest.raises(GradbenchError, match=words) as caught:
                call()
            assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("name", ["manifest.json", "figures.json"])
def test_a_pipe_among_results_is_refused_or_not_read(name, finished, capsys):
    results = finished / "results"
    (results / name).unlink(missing_ok=True)
    os.mkfifo(results / name)
    code = main(["show", str(results)])
    assert code == (2 if name == "manifest.json" else 0)
    from gradbench.results.drawn import current_figures
    from gradbench.results.store import Results

    with contextlib.suppress(GradbenchError):
        assert current_figures(Results.open(results)) is None
    assert "Traceback" not in capsys.readouterr().err


# --- real processes ---

ODD = {
    "C": {"LC_ALL": "C"},
    "no such locale": {"LC_ALL": "xx_YY.nothing"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "no home": {"HOME": None},
    "a home that is not there": {"HOME": "/nonexistent"},
    "narrow": {"COLUMNS": "20"},
    "no width": {"COLUMNS": "x", "LINES": "-1"},
    "no terminal": {"TERM": None},
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.first(1)
def test_odd_surroundings_are_no_error(name):
    environment = {
        key: value for key, value in (os.environ | ODD[name]).items() if value is not None
    }
    for command in (["show", "estimator", "psa"], ["run", "--help"], ["list", "nose"]):
        answer = subprocess.run([*COMMAND, *command], capture_output=True, env=environment)
        assert answer.returncode == (2 if "nose" in command else 0), answer.stderr
        assert answer.stderr.count(b"\n") == (1 if "nose" in command else 0), answer.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&- <&-", "2>/dev/full"])
@pytest.mark.slow
def test_a_run_with_closed_streams_measures(closed, tmp_path):
    suite = tiny.write(tmp_path, tiny.changed(tiny.SUITE, (', "arm", "straight_through"', "")))
    out = tmp_path / "results"
    command = f"{shlex.join(COMMAND)} run {suite} --draws 4 --out {out} {closed}"
    assert subprocess.run(["bash", "-c", command], capture_output=True).returncode == 0
    assert len(tiny.numbers(out)) == 4


def test_a_file_that_there_is_no_memory_to_read_is_not_taken_for_a_damaged_one(
    finished, monkeypatch
):
    def full(*_):
        raise MemoryError("Unable to allocate 2 GiB")

    results = Results.open(finished / "results")
    cell, before = results.cells()[0], tiny.numbers(results.directory)
    for module, name, call in (
        (shards, "open_rows", cell.load),
        (shards, "read_rows", cell.done_blocks),
        (atomic, "read_arrays", lambda: results.load_checkpoint(cell.place)),
        (npy, "read_arrays", lambda: npy.read_npz(next(results.directory.rglob("*.npz")), 2**20)),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(GradbenchError, match="not enough memory to read '") as error:
                call()
        assert not isinstance(error.value, atomic.CorruptFile)
    assert tiny.numbers(results.directory) == before


def test_a_pipe_or_an_endless_device_in_the_place_of_an_npz_is_not_read(pipe):
    for path in (pipe("x.npz"), "/dev/zero"):
        with pytest.raises(GradbenchError, match=r"cannot read .*it is not a file; check the path"):
            npy.read_npz(path, 2**20)
