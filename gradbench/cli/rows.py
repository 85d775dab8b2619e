"""Which rows of results are printed, and how long tables are read on a terminal."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradbench.cli.options import WHOLE, F, say
from gradbench.core.names import visible_lines
from gradbench.core.text import FORMATS

if TYPE_CHECKING:
    import pandas as pd

    from gradbench.metrics.directory import Cells


def with_selection(command: F) -> F:
    """Add the options ``--problem``, ``--estimator`` and ``--limit``."""
    problem = click.option(
        "--problem", multiple=True, metavar="NAME", help="This problem alone; repeatable."
    )
    estimator = click.option(
        "--estimator",
        multiple=True,
        metavar="NAME",
        help="This estimator alone, with arguments or all of that name; repeatable.",
    )
    limit = click.option("--limit", type=WHOLE, metavar="N", help="Print no more than N rows.")
    return problem(estimator(limit(command)))


with_layers = click.option(
    "--layer",
    multiple=True,
    metavar="LAYER",
    help='This layer alone, or "network"; repeatable.',
)


def selected_cells(
    directory: str | Path, problem: Sequence[str], estimator: Sequence[str], limit: int | None
) -> "Cells":
    """Return the cells of a directory that the options select; no others are read.

    Raises:
        GradbenchError: there are no results, or no such problem or estimator in them; or the limit
            is no number of rows.
    """
    from gradbench.core.arguments import at_least
    from gradbench.metrics.directory import read_cells

    if limit is not None:
        at_least(1, "--limit", limit)
    return read_cells(directory, problem, estimator)


def selected_rows(frame: "pd.DataFrame", column: str, names: Sequence[str]) -> "pd.DataFrame":
    """Return the rows with one of these names in a column, all rows if no name is given.

    Raises:
        GradbenchError: the column does not have such a name.
    """
    from gradbench.metrics.selection import meant, spellings

    if not names:
        return frame
    known = list(frame[column].unique())
    stands_for = spellings(known) if column == "estimator" else {name: [name] for name in known}
    return frame[frame[column].isin(meant(column, names, stands_for))]


def left_out(rows: int, limit: int | None) -> str:
    """Return how many of so many rows a limit leaves out, as a sentence; "" if none."""
    if limit is None or limit >= rows:
        return ""
    more = "choose with --problem, --estimator or --layer, or raise --limit"
    return f"{rows - limit} of {rows} rows are left out; {more}"


def say_rows(text: str, rows: int, limit: int | None, form: str = "terminal") -> None:
    """Print a table of so many rows, and what a limit left out: below numbers on standard error."""
    found, missing = FORMATS.find(form), left_out(rows, limit)
    if missing and not found.numbers:
        text = f"{text}\n\n{found.note(missing)}"
    say_paged(text)
    if missing and found.numbers:
        say(missing, error=True)


def say_paged(text: str) -> None:
    """Print a text; on a terminal that it does not fit, in the user's pager.

    The pager is that of ``PAGER``, ``less`` by default, and nothing where it is ``cat`` or empty.
    """
    lines = visible_lines(text).split("\n")
    width, height = shutil.get_terminal_size()
    fits = len(lines) < height and max(map(len, lines)) <= width
    if fits or os.environ.get("PAGER") in ("", "cat") or not _is_terminal():
        say(text)
        return
    import pydoc

    os.environ.setdefault("LESS", "FRX")  # as git does: what fits the screen is left on it
    sys.stdout.flush()
    pydoc.pager("\n".join(lines) + "\n")


def _is_terminal() -> bool:
    return all(one is not None and one.isatty() for one in (sys.stdin, sys.stdout))


def say_unfinished(cells: "Cells") -> None:
    """Say on the standard error how many of some cells, which were read, are not finished."""
    if line := cells.unfinished():
        say(f"{cells.results.directory}: {line}", error=True)
