"""Whatever the files of results hold, commands print a table or one sentence, never a traceback."""

import contextlib
import io
import os
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutate import crafted
from stored import write_run

from gradbench.cli.main import main
from gradbench.core.atomic import digest

COMMANDS = (["show"], ["table", "--format", "csv"], ["rank"])
TIMES = (["table", "--costs"], ["rank", "--at-cost", "1ms"], ["rank", "--reach", "10%"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crafted") / "results"
    return write_run(folder, problems=("a",), replicates=1, checkpoints=(1,))


def answers(directory, command):
    """What a command prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", RuntimeWarning)  # of numbers beyond those of float64
        code = main([command[0], str(directory), *command[1:]])
    return code, out.getvalue(), err.getvalue()


def craft_and_read(run, kind, rng):
    path = run / "manifest.json"
    if kind != "manifest":
        path = rng.choice(sorted(p for p in (run / kind).rglob("*") if p.is_file()))
    content, made = path.read_bytes(), crafted(rng, path)
    name = f"{path.name.split('.')[0]}.{digest(made)}.parquet" if kind == "shards" else path.name
    path.unlink()
    path.with_name(name).write_bytes(made)
    try:
        for command in [*COMMANDS, *(TIMES if kind == "costs" else ())]:
            code, out, err = answers(run, command)
            assert code in (0, 2) and (out or code)
            assert "\x1b" not in out + err
            if code:
                assert err.count("\n") == 1 and err.startswith("gradbench: ") and len(err) < 900
    finally:
        path.with_name(name).unlink()
        path.write_bytes(content)


KINDS = ("manifest", "references", "moments", "costs", "shards")


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.randoms())
@pytest.mark.slow
def test_a_crafted_file_is_shown_or_refused_in_one_sentence(run, kind, rng):
    craft_and_read(run, kind, rng)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(st.randoms())
def test_many_crafted_files_are_shown_or_refused_in_one_sentence(run, kind, rng):
    craft_and_read(run, kind, rng)


def test_the_run_itself_is_shown(run):
    for command in COMMANDS:
        code, out, err = answers(run, command)
        assert (code, err) == (0, "") and "psa" in out


def test_a_pipe_in_the_place_of_a_file_is_refused(run):
    path = next((run / "costs").rglob("*.npz"))
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    try:
        code, _, err = answers(run, ["show"])
    finally:
        path.unlink()
        path.write_bytes(content)
    assert code == 2 and "is not a file" in err


def test_an_archive_of_more_than_any_results_is_refused(run, monkeypatch):
    monkeypatch.setattr("gradbench.core.archives._SMALL", 10_000)
    path = next((run / "moments").rglob("*.npz"))
    content = path.read_bytes()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(10_000))  # 40 bytes in the file
    path.write_bytes(buffer.getvalue())
    try:
        code, _, err = answers(run, ["rank"])
    finally:
        path.write_bytes(content)
    assert code == 2 and "delete it and run again" in err
