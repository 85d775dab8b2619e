"""Options that several commands share."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from gradbench.core.errors import GradbenchError

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130  # as shells report Ctrl-C


def _add_form(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format", default="terminal", metavar="FORM", help="terminal, markdown, latex or csv"
    )


def _read_until(text: str | None) -> float | None:
    if text is None:
        return None
    name, _, value = text.partition("=")
    found = _share(value) if name == "rel_se" else math.nan
    if not 0.0 < found < 1.0:
        raise GradbenchError(f"--until is {text!r}; give a precision as rel_se=1% or rel_se=0.01")
    return found


def _share(text: str) -> float:
    """A number, or a percentage; NaN where it is neither."""
    try:
        return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        return math.nan


def _read_failure(text: str | None) -> tuple[list[str], float]:
    """The changes that are failures, and how large (relative) a change must be to count."""
    if text is None:
        return [], 0.0
    if text == "worse":
        return ["worse", "gone"], 0.0
    if text == "different":
        return ["worse", "better", "gone", "new"], 0.0
    margin = _share(text) if text.endswith("%") else math.nan
    if not 0.0 <= margin < math.inf:
        raise GradbenchError(f"--fail-on is {text!r}; give worse, different or a share as 5%")
    return ["worse", "gone"], margin


def _positive(name: str, number: int) -> int:
    if number < 1:
        raise GradbenchError(f"{name} is {number}; give a whole number of at least 1")
    return number


def _say_unfinished(directory: Path) -> None:
    from gradbench.metrics.directory import unfinished, unfinished_line

    if line := unfinished_line(*unfinished(directory)):
        print(f"{directory}: {line}", file=sys.stderr)


def _say_figures(paths: Sequence[Path]) -> None:
    for path in paths:
        print(f"figure: {path}")
