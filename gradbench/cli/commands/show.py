"""``gradbench show``: the table of results, or what a thing with a name is."""

import argparse
from pathlib import Path

from gradbench.cli.options import say

HELP = "print the table: bias, deviation, cosine per layer; or what an estimator, noise, ... is"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench show``."""
    command.usage = "gradbench show DIR\n       gradbench show KIND NAME"
    command.add_argument("directory", metavar="DIR", help="results")
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="a thing of a kind, as in: show estimator psa"
    )


def run(options: argparse.Namespace) -> None:
    """Print a table of results, or the facts about a thing of some kind."""
    from gradbench.cli import catalogue
    from gradbench.core.errors import GradbenchError
    from gradbench.core.registry import is_kind

    place, name = options.directory, options.name
    if name is not None:
        say(catalogue.shown(place, name))
    elif is_kind(place) and not Path(place).exists():
        raise GradbenchError(f"show {place} got no name; give one, as in show estimator psa")
    else:
        from gradbench.cli.show import show

        say(show(place))
