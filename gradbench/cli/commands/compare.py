"""``gradbench compare``: two results of the same suite."""

import argparse
from typing import TYPE_CHECKING

from gradbench.cli.options import FAILED, add_format
from gradbench.cli.rows import add_layers, add_selection

if TYPE_CHECKING:
    from gradbench.metrics.directory import Cells

HELP = "what has changed between two results"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench compare``."""
    where = "a directory of results, or gradbench:SUITE for those that come with the package"
    command.add_argument("before", metavar="BEFORE", help=where)
    command.add_argument("after", metavar="AFTER", help="the same")
    command.add_argument("--by", default="rmse", metavar="METRIC", help="what is compared (rmse)")
    command.add_argument("--at", type=int, default=1, metavar="M", help="draws averaged (1)")
    command.add_argument(
        "--fail-on",
        metavar="WHAT",
        help="exit code 1 if anything is gone, or significantly: worse, different, 5%% worse",
    )
    add_layers(command)
    add_selection(command)
    add_format(command)


def run(options: argparse.Namespace) -> int:
    """Print what has changed; return 1 where that counts as a failure."""
    from gradbench.cli.options import read_failures
    from gradbench.cli.rows import say_rows, say_unfinished, selected_rows
    from gradbench.core.arguments import at_least
    from gradbench.core.text import FORMATS
    from gradbench.metrics import compare, tables
    from gradbench.metrics.directory import Cells

    form = FORMATS.canonical(options.format)
    failing, margin = read_failures(options.fail_on)
    average = at_least(1, "--at", options.at)
    if options.limit is not None:
        at_least(1, "--limit", options.limit)
    both = before, after = _cells(options.before), _cells(options.after)
    frame = compare(before, after, options.by, average, margin)
    for column in ("problem", "estimator", "layer"):
        frame = selected_rows(frame, column, getattr(options, column))
    text = tables.comparison(frame, options.by, form, options.limit)
    say_rows(text, len(frame), options.limit, form)
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
