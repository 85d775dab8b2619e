"""The how-to page of the command line: its commands print what it says."""

import re
import shlex
from pathlib import Path

import pytest

from gradbench.cli.main import main
from gradbench.suites.budget import MOST_GIGABYTES, MOST_HOURS
from gradbench.suites.variations import MOST_PROBLEMS

PAGE = (Path(__file__).parents[2] / "notebooks" / "guide" / "command_line.md").read_text()
SESSIONS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
FAST = [session for session in SESSIONS if "run psa -e" not in session]


@pytest.mark.parametrize("session", FAST, ids=lambda session: session.splitlines()[0][2:40])
def test_a_session_prints_what_the_page_says(session, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for part in session.removeprefix("$ ").split("\n$ "):
        command, _, expected = part.strip().partition("\n")
        main(shlex.split(command)[1:])
        out, error = capsys.readouterr()
        assert (out + error).strip() == expected or (not expected and out and not error)


@pytest.mark.slow
def test_the_python_of_the_page_runs():
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, {})


def test_the_limits_of_the_page_are_those_of_the_budget():
    assert f"more than {MOST_HOURS:.0f} hours" in PAGE
    assert f"more than {MOST_GIGABYTES:.0f} GB of memory" in PAGE
    assert f"at most {MOST_PROBLEMS:,} problems" in PAGE


def test_the_exit_codes_of_the_page_are_all_there_are():
    from gradbench.cli import options, signals

    codes = {options.FAILED, options.BAD_INPUT, options.OWN_ERROR}
    codes |= {signals.INTERRUPTED, signals.TERMINATED}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == {0, *codes}
