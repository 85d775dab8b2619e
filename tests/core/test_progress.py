"""Progress: a line for each step that is done, a bar on a terminal, and never an error."""

import io
import os
import pty
import select
import sys

import pytest

from gradbench.core.progress import Progress, step


def test_a_line_tells_each_step_in_which_something_was_counted(capsys):
    with Progress(total=10, unit="draws", initial=2) as bar:
        bar.set_description("a: training")
        for name, draws in (("psa", 3), ("arm\x1b", 5)):
            bar.set_description(f"a: {name}")
            bar.update(draws)
    out, error = capsys.readouterr()
    lines = error.splitlines()
    assert out == "" and len(lines) == 2
    assert lines[0].startswith("a: psa, 3 draws, ") and lines[0].endswith(" s, 50% done")
    assert lines[1].startswith("a: arm\\x1b, 5 draws, ") and lines[1].endswith(" s, 100% done")


@pytest.mark.parametrize("how", [{"show": False}, {"lines": False}])
def test_nothing_is_printed_where_nothing_is_asked_for(how, capsys):
    with Progress(unit="draws", **how) as bar:
        bar.set_description("a")
        bar.update()
    step("outside of any")
    assert capsys.readouterr() == ("", "")


def test_a_step_of_a_function_is_told_to_the_progress_around_it(capsys):
    with Progress(unit="figures") as bar:
        step("figure rmse")
        bar.update(4)
        with Progress(show=False):
            step("hidden")
        step("figure cosine")
        bar.update(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["figure rmse", "figure cosine"]


class Full(io.StringIO):
    def write(self, text):
        raise OSError("No space left on device")


def test_a_stream_that_nobody_reads_is_no_error(monkeypatch, capsys):
    for stream in (Full(), io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(unit="draws") as bar:
            bar.set_description("a")
            bar.update()
        if type(stream) is io.StringIO:
            assert stream.getvalue().startswith("a, 1 draws")
    assert capsys.readouterr().out == ""


def test_on_a_terminal_a_bar_tells_the_step_that_runs_and_lines_those_that_are_done(monkeypatch):
    owner, terminal = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with os.fdopen(terminal, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with Progress(total=4, unit="draws") as bar:
            bar.set_description("quick, epoch 1: psa [bold]")
            bar.update(2)
            bar.set_description("quick, epoch 1: arm")
            bar.update(2)
            bar._bar.refresh()
        stream.flush()
        said = b""
        while select.select([owner], [], [], 0.1)[0]:  # a terminal is read in pieces
            said += os.read(owner, 1 << 16)
        seen = said.decode()
    os.close(owner)
    assert "quick, epoch 1: psa [bold], 2 draws, 0.0 s, 50% done\r\n" in seen
    assert "100%" in seen and "quick, epoch 1: arm" in seen
