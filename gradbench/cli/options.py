"""Exit codes, and options and output that several commands share."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from gradbench.core.errors import GradbenchError, shortened
from gradbench.core.names import visible_lines

FAILED = 1
BAD_INPUT = 2
OWN_ERROR = 70  # as sysexits.h calls an error of the software itself
F = TypeVar("F", bound=Callable[..., Any])


class Whole(click.ParamType):
    """A whole number. Whether it is too small is told by what takes it."""

    name = "integer"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        """Return the number that a text says."""
        try:
            return int(value)
        except ValueError:
            what = param.opts[-1] if param else "the value"
            given = shortened(repr(value))
            raise GradbenchError(f"{what} is {given}; give a whole number") from None


WHOLE = Whole()

with_format = click.option(
    "--format",
    "form",
    default="terminal",
    metavar="FORM",
    help="Of the table: terminal, markdown, latex, csv or json.",
)
# For gradbench.core.compiling.kept_programs.
with_cache = click.option(
    "--no-cache",
    is_flag=True,
    help="Compile everything anew, and keep no compiled programs in the folder that the "
    "environment variable GRADBENCH_CACHE names (that of the user for caches).",
)

# For compute_on.
with_device = click.option(
    "--device",
    metavar="cpu|gpu|tpu",
    help="Compute on this kind of device (an accelerator, where JAX sees one).",
)

with_quiet = click.option(
    "--quiet", "-q", is_flag=True, help="Print nothing but warnings and what is wrong."
)


def compute_on(device: str | None) -> None:
    """Let the rest of a command compute on a kind of device, that of JAX if none is given.

    Raises:
        GradbenchError: there is no such device.
    """
    if device is not None:
        from gradbench.core.devices import computing_on

        click.get_current_context().with_resource(computing_on(device))


def with_json(command: F) -> F:
    """Add the option ``--json``, a short form of ``--format json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON: a list of rows, for other programs."
    )(command)


def read_format(form: str, as_json: bool) -> str:
    """Return the name of the format that ``--format`` and ``--json`` ask for.

    Raises:
        GradbenchError: they contradict, or there is no such format.
    """
    from gradbench.core.text import FORMATS

    if as_json and form not in ("terminal", "json"):
        raise GradbenchError(f"--json is there beside --format {form}; give one of them")
    return "json" if as_json else FORMATS.canonical(form)


with_time_limit = click.option(
    "--time-limit",
    type=float,
    metavar="SECONDS",
    help="Of a problem of your own: begin no draws after so many seconds; inf for no limit (300).",
)


def read_precision(text: str | None) -> float | None:
    """Return the relative standard error that ``--until`` gives.

    Raises:
        GradbenchError: it is no precision between 0 and 1.
    """
    if text is None:
        return None
    name, _, value = text.partition("=")
    found = read_share(value) if name == "rel_se" else math.nan
    if not 0.0 < found < 1.0:
        raise GradbenchError(f"--until is {text!r}; give a precision as rel_se=1% or rel_se=0.01")
    return found


def read_share(text: str) -> float:
    """Return a number or a percentage as a number, NaN where the text is neither."""
    try:
        return float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        return math.nan


def read_failures(text: str | None) -> tuple[list[str], float]:
    """Return the changes that ``--fail-on`` calls failures, and how large they must be to count.

    The size of a change is relative.

    Raises:
        GradbenchError: the text is none of those that the option takes.
    """
    if text is None:
        return [], 0.0
    if text == "worse":
        return ["worse", "gone"], 0.0
    if text == "different":
        return ["worse", "better", "gone", "new"], 0.0
    margin = read_share(text) if text.endswith("%") else math.nan
    if not 0.0 <= margin < math.inf:
        raise GradbenchError(f"--fail-on is {text!r}; give worse, different or a share as 5%")
    return ["worse", "gone"], margin


def say(text: object, error: bool = False) -> None:
    """Print lines of text, on the standard output or error, without what a terminal would obey."""
    print(visible_lines(str(text)), file=sys.stderr if error else sys.stdout)


def print_figures(paths: Sequence[Path]) -> None:
    """Print how many figures there are, and where."""
    for folder in dict.fromkeys(path.parent for path in paths):
        names = {path.stem for path in paths if path.parent == folder}
        say(f"{len(names)} figure{'s' * (len(names) > 1)} in {folder}")
