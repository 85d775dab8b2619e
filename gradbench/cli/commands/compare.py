"""``gradbench compare``: two results of the same suite."""

import argparse

from gradbench.cli.options import FAILED, add_format, say

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
    add_format(command)


def run(options: argparse.Namespace) -> int:
    """Print what has changed; return 1 where that counts as a failure."""
    from gradbench.cli.options import print_unfinished, read_failures
    from gradbench.core.arguments import at_least
    from gradbench.core.text import FORMATS
    from gradbench.metrics import compare, tables
    from gradbench.results.published import has_estimates, located

    FORMATS.canonical(options.format)
    failing, margin = read_failures(options.fail_on)
    average = at_least(1, "--at", options.at)
    frame = compare(options.before, options.after, options.by, average, margin)
    say(tables.comparison(frame, options.by, options.format))
    for directory in map(located, (options.before, options.after)):
        if not has_estimates(directory):
            print_unfinished(directory)
    return FAILED if frame["change"].isin(failing).any() else 0
