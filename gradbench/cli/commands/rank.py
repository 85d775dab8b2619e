"""``gradbench rank``: estimators at an equal budget."""

import argparse
import math
from pathlib import Path

from gradbench.cli.options import add_format, say

HELP = "the estimators at an equal budget, best first"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench rank``."""
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--by", metavar="METRIC", help="the metric to compare (rmse)")
    command.add_argument(
        "--at-cost",
        metavar="BUDGET",
        help="of an estimate: 64-draws, 100-evaluations or 1ms (1-draw)",
    )
    command.add_argument(
        "--reach",
        metavar="RMSE",
        help="instead, what each needs for this relative RMSE, such as 10%%",
    )
    command.add_argument(
        "--layer", default="network", metavar="LAYER", help="one layer (the network)"
    )
    add_format(command)


def run(options: argparse.Namespace) -> None:
    """Print a ranking, or what each estimator needs for an accuracy."""
    from gradbench.cli.options import print_unfinished, read_share
    from gradbench.core.errors import GradbenchError
    from gradbench.core.text import FORMATS
    from gradbench.metrics import budget, rank, sample_complexity, tables

    FORMATS.canonical(options.format)
    if options.reach is not None:
        if options.by or options.at_cost:
            raise GradbenchError("--reach says what an RMSE costs; leave out --by and --at-cost")
        eps = read_share(options.reach)
        if not 0.0 < eps < math.inf:
            raise GradbenchError(
                f"--reach is {options.reach!r}; give a relative RMSE as 10% or 0.1"
            )
        found = sample_complexity(options.directory, eps, options.layer)
        say(tables.needed(found, eps, options.format))
    else:
        by, at = options.by or "rmse", budget(options.at_cost or "1-draw")
        frame = rank(options.directory, by, at, options.layer)
        say(tables.ranking(frame, by, str(at), options.format))
    print_unfinished(options.directory)
