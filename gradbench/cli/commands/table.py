"""``gradbench table``: chosen metrics of results."""

import argparse
from pathlib import Path

from gradbench.cli.options import add_format
from gradbench.cli.rows import add_layers, add_selection

HELP = "print metrics of your choice, in several formats"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench table``."""
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument(
        "--metrics", metavar="NAMES", help="such as rmse,bias,snr (rmse,bias,std,cosine)"
    )
    command.add_argument("--at", type=int, default=1, metavar="M", help="draws averaged (1)")
    add_layers(command)
    add_selection(command)
    command.add_argument("--intervals", action="store_true", help="limits at 95 %%")
    views = command.add_mutually_exclusive_group()
    views.add_argument(
        "--over-replicates",
        action="store_true",
        help="means over replicates, and what holds in all",
    )
    views.add_argument(
        "--unbiasedness", action="store_true", help="which biases are zero, known or tested"
    )
    views.add_argument("--costs", action="store_true", help="what a draw costs, and its time")
    add_format(command)


def run(options: argparse.Namespace) -> None:
    """Print a table of metrics."""
    from gradbench.cli.rows import say_rows, say_unfinished, selected_cells, selected_rows
    from gradbench.core.arguments import at_least
    from gradbench.core.errors import GradbenchError
    from gradbench.core.text import FORMATS
    from gradbench.metrics import orderings, over_replicates, summary, tables, times, unbiasedness
    from gradbench.metrics.unbiasedness import table_of_biases

    form = FORMATS.canonical(options.format)
    view = "--unbiasedness" if options.unbiasedness else "--costs" if options.costs else ""
    if view and (options.metrics or options.at != 1 or options.intervals):
        raise GradbenchError(f"{view} is of one draw and has no metrics; leave out the rest")
    if options.over_replicates and options.limit is not None:
        raise GradbenchError(
            "--over-replicates takes no --limit; choose with --problem, --estimator or --layer"
        )
    average = at_least(1, "--at", options.at)
    names = None if options.metrics is None else options.metrics.split(",")
    cells = selected_cells(options.directory, options)
    if options.unbiasedness:
        frame = unbiasedness(cells)
    else:
        needed = names or (["bias", "std", "rmse"] if options.over_replicates else tables.DEFAULT)
        frame = summary(cells, average, metrics=[] if options.costs else needed)
    frame, limit = selected_rows(frame, "layer", options.layer), options.limit
    rows = len(frame)
    if options.unbiasedness:
        text = table_of_biases(frame, form, limit)
    elif options.costs:
        rows = len(times.costs(frame))
        text = times.table_of_costs(frame, form, limit)
    elif options.over_replicates:
        means, orders = over_replicates(frame, needed), orderings(frame, needed[0])
        text = tables.replicates(means, orders, form)
    else:
        text = tables.table(frame, names, form, options.intervals, limit)
    say_rows(text, rows, limit, form)
    say_unfinished(cells)
