"""``gradbench rank``: estimators at an equal budget."""

import argparse
import math
from pathlib import Path

from gradbench.cli.options import add_format
from gradbench.cli.rows import add_selection

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
    add_selection(command)
    add_format(command)


def run(options: argparse.Namespace) -> None:
    """Print a ranking, or what each estimator needs for an accuracy."""
    from gradbench.cli.options import read_share
    from gradbench.cli.rows import say_rows, say_unfinished, selected_cells
    from gradbench.core.errors import GradbenchError
    from gradbench.core.text import FORMATS
    from gradbench.metrics import budget, rank, sample_complexity, tables

    form = FORMATS.canonical(options.format)
    if options.reach is not None:
        if options.by or options.at_cost:
            raise GradbenchError("--reach says what an RMSE costs; leave out --by and --at-cost")
        eps = read_share(options.reach)
        if not 0.0 < eps < math.inf:
            raise GradbenchError(
                f"--reach is {options.reach!r}; give a relative RMSE as 10% or 0.1"
            )
        cells = selected_cells(options.directory, options)
        frame = sample_complexity(cells, eps, options.layer)
        text = tables.needed(frame, eps, form, options.limit)
    else:
        by, at = options.by or "rmse", budget(options.at_cost or "1-draw")
        cells = selected_cells(options.directory, options)
        frame = rank(cells, by, at, options.layer)
        text = tables.ranking(frame, by, str(at), form, options.limit)
    say_rows(text, len(frame), options.limit, form)
    say_unfinished(cells)
