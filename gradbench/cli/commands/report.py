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
    from gradbench.cli.options import print_unfinished
    from gradbench.report.html import write_report

    path = write_report(options.directory, options.out)
    print_unfinished(options.directory)
    say(f"open {path}")
