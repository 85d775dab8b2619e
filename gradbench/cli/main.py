"""The command line, ``gradbench list | run | show | ...``: a thin layer over functions."""

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click

from gradbench.cli.group import cli
from gradbench.cli.options import BAD_INPUT, say
from gradbench.cli.signals import code_of, interruptible
from gradbench.cli.usage import sentence
from gradbench.core.errors import GradbenchError, GradbenchWarning
from gradbench.core.names import visible_lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    The code is 0, 1 where a check fails, 2 for bad input, 130 after Ctrl-C and 143 after SIGTERM.
    """
    _open_closed_streams()
    warnings.showwarning = _print_warning
    try:
        with interruptible():
            code = _run(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()  # an error of the output is to be seen here, not at exit
    except GradbenchError as error:
        say(f"gradbench: {error}", error=True)
        return BAD_INPUT
    except click.UsageError as error:
        say(f"gradbench: {sentence(error)}", error=True)
        return BAD_INPUT
    except MemoryError as error:
        reason = str(error) or "this machine has not enough memory"
        say(f"gradbench: {reason}; ask for less, such as narrower networks", error=True)
        return BAD_INPUT
    except RuntimeError as error:  # JAX has no class of its own for this
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")
        say(f"gradbench: {reason}; ask for less, such as narrower networks", error=True)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        print(
            "\ngradbench: interrupted; what was measured is kept, run the same command to continue",
            file=sys.stderr,
        )
        return code_of(stop)
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        _discard_output()
        return 0
    except OSError as error:  # such as a full disk behind the output
        say(f"gradbench: {error}; check the path and the space left there", error=True)
        _discard_output()
        return BAD_INPUT
    return code


def _run(arguments: list[str]) -> int:
    """Return the exit code of a command; the errors of ``click`` and of the command are raised."""
    try:
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


def _open_closed_streams() -> None:
    """Send what is printed nowhere where standard output or error is closed, as with ``>&-``.

    Else Python has None in its place, and the next file that is opened gets its number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - to the end of the process


def _discard_output() -> None:
    """Send what cannot be written nowhere: Python would fail once more on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
