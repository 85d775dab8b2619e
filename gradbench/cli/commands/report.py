"""``gradbench report``: results as one HTML file."""

import argparse
from pathlib import Path

from gradbench.cli.options import say

HELP = "write one HTML file: what to use, and why"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench report``."""
    command.add_argument("directory", type=Path, metavar="DIR", help="results")
    command.add_argument("--out", type=Path, metavar="FILE", help="the file (DIR/report.html)")


def run(options: argparse.Namespace) -> None:
    """Write the report and print its path."""
    from gradbench.cli.rows import say_unfinished
    from gradbench.metrics.directory import read_cells
    from gradbench.report.html import write_report

    cells = read_cells(options.directory)
    path = write_report(cells, options.out)
    say_unfinished(cells)
    say(f"open {path}")
