"""What a command says when something other than its input is wrong, and its exit code."""

import contextlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from gradbench.cli.options import BAD_INPUT, OWN_ERROR
from gradbench.core.errors import lacks_memory, shortened
from gradbench.core.names import visible

_SMALLER = "ask for less, such as narrower networks or fewer examples"


def told(error: Exception) -> tuple[str, int]:
    """Return what is said of an error that is not of the input, in a sentence, and the exit code.

    Too little memory, numbers that are too large, and what the operating system refuses can be
    mended by the user. Everything else is an error of gradbench, whose traceback is written to a
    file.
    """
    reason = _first_line(error)
    if lacks_memory(error):
        what = reason.removeprefix("RESOURCE_EXHAUSTED: ")
        return f"{what or 'this machine has not enough memory'}; {_SMALLER}", BAD_INPUT
    if isinstance(error, OverflowError):
        return f"a number is too large ({reason}); give smaller ones", BAD_INPUT
    if isinstance(error, OSError) and error.filename is None and error.strerror:
        what = f"the output cannot be written ({error.strerror})"
        return f"{what}; check where it goes, and the space left there", BAD_INPUT
    if isinstance(error, OSError):
        return f"{reason}; check the path and the space left there", BAD_INPUT
    kind = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    where = _written(error)
    remedy = f"report it with the traceback in {where}" if where else "report it"
    return f"this is an error of gradbench, not of its input ({kind}); {remedy}", OWN_ERROR


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shortened(visible(lines[0]), 300) if lines else ""


def _written(error: Exception) -> Path | None:
    """Write the traceback of an error to a file of its own; None where no file can be written."""
    from gradbench import __version__

    lines = traceback.format_exception(error)
    text = f"gradbench {__version__}, Python {sys.version}\n{sys.argv}\n\n{''.join(lines)}"
    name = f"traceback-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    with contextlib.suppress(Exception):
        return _kept(name, text)
    with contextlib.suppress(OSError):
        path = Path(tempfile.mkdtemp(prefix="gradbench-")) / name
        path.write_text(text, errors="backslashreplace")
        return path
    return None


def _kept(name: str, text: str) -> Path:
    from gradbench.core.compiling import user_cache

    folder = user_cache() / "tracebacks"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
