"""The command line, ``gradbench list | run | show | ...``: a thin layer over functions."""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from gradbench.cli.complete import answer
from gradbench.cli.group import cli
from gradbench.cli.options import BAD_INPUT
from gradbench.cli.signals import code_of, interruptible
from gradbench.cli.usage import sentence
from gradbench.core.compiling import collect_less
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.names import visible_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The code is 0, 1 where a check fails, 2 for bad input, 70 for an error of gradbench itself, 130
    after Ctrl-C and 143 after SIGTERM.
    """
    _make_streams_safe()
    collect_less()
    warnings.showwarning = _print_warning
    try:
        with interruptible():
            code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()  # an error of the output is to be seen here, not at exit
        return code
    except GradbenchError as error:
        return _fail(str(error))
    except click.UsageError as error:
        return _fail(sentence(error))
    except KeyboardInterrupt as stop:
        kept = "interrupted; what was measured is kept, run the same command to continue"
        return _fail(kept, code_of(stop), "\n")
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        _discard_output()
        return 0
    except Exception as error:
        from gradbench.cli.faults import told

        code = _fail(*told(error))
        _discard_output()
        return code


def _fail(sentence: str, code: int = BAD_INPUT, before: str = "") -> int:
    """Print what is wrong on the standard error, if that can be written, and return the code."""
    with contextlib.suppress(OSError):
        print(f"{before}gradbench: {visible_lines(sentence)}", file=sys.stderr, flush=True)
    return code


def _run(arguments: list[str]) -> int:
    """Return the exit code of a command; the errors of ``click`` and of the command are raised."""
    try:
        if answer(cli):
            return 0
        with cli.make_context("gradbench", arguments) as context:
            return cli.invoke(context) or 0
    except click.exceptions.Exit as end:  # after --help
        return end.exit_code


def _print_warning(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """Print a warning of gradbench as a sentence, without the line of code that it comes from."""
    if issubclass(category, GradbenchWarning):
        from tqdm import tqdm

        tqdm.write(
            f"gradbench: {visible_lines(str(message))}", file=sys.stderr
        )  # on a line beside progress bars
    else:
        _print_other_warning(message, category, *where, **more)


_print_other_warning = warnings.showwarning


def _make_streams_safe() -> None:
    """Let printing never fail for the sake of a letter, or of a stream that is closed.

    What is printed goes nowhere where standard output or error is closed, as with ``>&-``: Python
    has None in its place, and the next file that is opened would get its number. Letters that the
    terminal's encoding has not are written as in Python.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - to the end of the process
    if getattr(sys.stdout, "errors", "") in ("strict", "surrogateescape"):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _discard_output() -> None:
    """Send what cannot be written nowhere: Python would fail once more on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
