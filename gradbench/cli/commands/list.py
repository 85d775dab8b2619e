"""``gradbench list``: what there is of a kind."""

import argparse
import shutil

from gradbench.cli.options import say

HELP = "list what there is of a kind: estimators, problems, suites, metrics, ..."


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench list``."""
    command.add_argument("kind", nargs="?", metavar="KIND", help="such as estimators (all kinds)")
    command.add_argument("--markdown", action="store_true", help="a table in Markdown")


def run(options: argparse.Namespace) -> None:
    """Print the things of a kind, or the kinds."""
    from gradbench.cli import catalogue

    # As wide as the terminal, if there is one; whole lines for other programs.
    width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
    if options.kind is None:
        say(catalogue.kinds())
    else:
        say(catalogue.text(options.kind, width, options.markdown))
