"""Which rows of results are printed, and how long tables are read on a terminal."""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradbench.cli import complete
from gradbench.cli.options import WHOLE, F, say
from gradbench.core.names import visible_lines

if TYPE_CHECKING:
    import pandas as pd

    from gradbench.metrics.directory import Cells


def with_selection(command: F) -> F:
    """Add the options ``--problem``, ``--estimator`` and ``--limit``."""
    problem = click.option(
        "-p",
        "--problem",
        multiple=True,
        metavar="NAME",
        shell_complete=complete.problems,
        help="This problem alone; repeatable.",
    )
    estimator = click.option(
        "-e",
        "--estimator",
        multiple=True,
        shell_complete=complete.estimators,
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


def selected_published(
    directory: str | Path,
    problem: Sequence[str],
    estimator: Sequence[str],
    limit: int | None,
    average: int = 1,
) -> "pd.DataFrame | None":
    """Return the rows of published results that the options select; None of other results.

    They are those of the mean of ``average`` draws.

    Raises:
        GradbenchError: the package has no such results, or these no such problem or estimator.
    """
    from gradbench.core.arguments import at_least
    from gradbench.results.published import PREFIX, has_estimates, located
    from gradbench.results.runs import KEPT

    found = located(directory)
    if (found / KEPT).is_file() or not (str(directory).startswith(PREFIX) or has_estimates(found)):
        return None
    from gradbench.metrics.published import published_summary

    if limit is not None:
        at_least(1, "--limit", limit)
    frame = selected_rows(published_summary(found, average), "problem", problem)
    return selected_rows(frame, "estimator", estimator)


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
    from gradbench.core.text import FORMATS

    found, missing = FORMATS.find(form), left_out(rows, limit)
    if missing and not found.numbers:
        text = f"{text}\n\n{found.note(missing)}"
    say_paged(wrapped(text) if found is FORMATS["terminal"] else text)
    if missing and found.numbers:
        say(missing, error=True)


def wrapped(text: str) -> str:
    """Break the notes of a table, which begin at the margin, into lines that fit the terminal.

    Neighbouring lines are set anew where one of them is too long. One that ends a sentence stays
    the end of a line.
    """
    width = max(40, shutil.get_terminal_size().columns)
    parts: list[str] = []
    for is_note, group in groupby(text.split("\n"), lambda line: line[:1].strip() != ""):
        lines = list(group)
        if is_note and max(map(len, lines)) > width:
            whole = re.sub(r"(?<!\.)\n", " ", "\n".join(lines))
            lines = [part for line in whole.split("\n") for part in textwrap.wrap(line, width)]
        parts += lines
    return "\n".join(parts)


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
    """Say on the standard error which of some cells, which were read, were not measured."""
    from gradbench.metrics.left_out import in_short

    if line := cells.unfinished():
        say(f"{cells.results.directory}: {line}", error=True)
    for line in in_short(cells.results.manifest.get("left_out", {})):
        say(line, error=True)
