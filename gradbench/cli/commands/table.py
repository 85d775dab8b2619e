"""``gradbench table``: chosen metrics of results."""

import argparse
from pathlib import Path

from gradbench.cli.options import add_format, say

HELP = "print metrics of your choice, in several formats"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench table``."""
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument(
        "--metrics", metavar="NAMES", help="such as rmse,bias,snr (rmse,bias,std,cosine)"
    )
    command.add_argument("--at", type=int, default=1, metavar="M", help="draws averaged (1)")
    command.add_argument("--layer", metavar="LAYER", help='one layer, such as "network"')
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
    from gradbench.cli.options import print_unfinished
    from gradbench.core.arguments import at_least
    from gradbench.core.errors import GradbenchError, did_you_mean
    from gradbench.core.text import FORMATS
    from gradbench.metrics import orderings, over_replicates, summary, tables, times, unbiasedness

    FORMATS.canonical(options.format)
    view = "--unbiasedness" if options.unbiasedness else "--costs" if options.costs else ""
    if view and (options.metrics or options.at != 1 or options.intervals):
        raise GradbenchError(f"{view} is of one draw and has no metrics; leave out the rest")
    frame = summary(options.directory, at_least(1, "--at", options.at))
    names = None if options.metrics is None else options.metrics.split(",")
    if options.layer:
        known = frame["layer"].unique()
        if options.layer not in known:
            raise GradbenchError(
                f"there is no layer {options.layer!r}; {did_you_mean(options.layer, known)}"
            )
        frame = frame[frame["layer"] == options.layer]
    if options.unbiasedness:
        tested = unbiasedness(options.directory)
        say(tables.unbiased(tested[tested["layer"].isin(frame["layer"])], options.format))
    elif options.costs:
        say(times.table_of_costs(frame, options.format))
    elif options.over_replicates:
        names = names or ["bias", "std", "rmse"]
        means, orders = over_replicates(frame, names), orderings(frame, names[0])
        say(tables.replicates(means, orders, options.format))
    else:
        say(tables.table(frame, names, options.format, options.intervals))
    print_unfinished(options.directory)
