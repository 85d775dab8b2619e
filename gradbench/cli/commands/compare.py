"""``gradbench compare``: two results of the same suite."""

from typing import TYPE_CHECKING

import click

from gradbench.cli import complete
from gradbench.cli.options import FAILED, WHOLE, with_format, with_json
from gradbench.cli.rows import with_layers, with_selection

if TYPE_CHECKING:
    from gradbench.metrics.directory import Cells


@click.command(short_help="Find what has changed between two results.")
@click.argument("before", metavar="BEFORE", shell_complete=complete.directories)
@click.argument("after", metavar="AFTER", shell_complete=complete.directories)
@click.option("--by", default="rmse", metavar="METRIC", help="The metric to compare (rmse).")
@click.option("--at", type=WHOLE, default=1, metavar="M", help="Draws averaged (1).")
@click.option(
    "--fail-on",
    metavar="WHAT",
    help="Exit code 1 if anything is gone, or significantly: worse, different, 5% worse.",
)
@with_layers
@with_selection
@with_format
@with_json
def command(
    before: str,
    after: str,
    by: str,
    at: int,
    fail_on: str | None,
    layer: tuple[str, ...],
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
    form: str,
    as_json: bool,
) -> int:
    """Print what has changed between two results of a suite.

    BEFORE and AFTER are directories of results, or gradbench:SUITE for those that come with the
    package.
    """
    from gradbench.cli.options import read_failures, read_format
    from gradbench.cli.rows import say_rows, say_unfinished, selected_rows
    from gradbench.core.arguments import at_least
    from gradbench.metrics import compare, tables
    from gradbench.metrics.directory import Cells

    form = read_format(form, as_json)
    failing, margin = read_failures(fail_on)
    average = at_least(1, "--at", at)
    if limit is not None:
        at_least(1, "--limit", limit)
    both = _cells(before), _cells(after)
    frame = compare(*both, by, average, margin)
    chosen = {"problem": problem, "estimator": estimator, "layer": layer}
    for column, names in chosen.items():
        frame = selected_rows(frame, column, names)
    text = tables.comparison(frame, by, form, limit)
    say_rows(text, len(frame), limit, form)
    for cells in both:
        if isinstance(cells, Cells):
            say_unfinished(cells)
    return FAILED if frame["change"].isin(failing).any() else 0


def _cells(name: str) -> "Cells | str":
    """Return the cells of a directory; what is published has none, and keeps its name."""
    from gradbench.metrics.directory import read_cells
    from gradbench.results.published import PREFIX, has_estimates, located

    directory = located(name)
    published = name.startswith(PREFIX) or has_estimates(directory)
    return name if published else read_cells(directory)
