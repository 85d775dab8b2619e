"""``gradbench plot``: the figures of results."""

import argparse
from pathlib import Path

from gradbench.cli.options import say

HELP = "draw the figures: PDF, SVG, PNG, with scripts"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench plot``."""
    command.add_argument("directory", type=Path, metavar="DIR")


def run(options: argparse.Namespace) -> None:
    """Draw the figures and print their paths."""
    from gradbench.cli.options import print_figures
    from gradbench.metrics.directory import read_cells
    from gradbench.plots.suite import plot

    cells = read_cells(options.directory)
    print_figures(plot(cells))
    if line := cells.unfinished():
        say(line)
