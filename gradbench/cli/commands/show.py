"""``gradbench show``: the table of results, or what a thing with a name is."""

import argparse
from pathlib import Path

from gradbench.cli.rows import add_layers, add_selection

HELP = "print the table: bias, deviation, cosine per layer; or what an estimator, noise, ... is"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench show``."""
    command.usage = "gradbench show DIR [options]\n       gradbench show KIND NAME"
    command.add_argument("directory", metavar="DIR", help="results")
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="a thing of a kind, as in: show estimator psa"
    )
    add_layers(command)
    add_selection(command)


def run(options: argparse.Namespace) -> None:
    """Print a table of results, or the facts about a thing of some kind."""
    from gradbench.cli import catalogue
    from gradbench.cli.rows import say_paged, selected_cells
    from gradbench.core.errors import GradbenchError
    from gradbench.core.registry import is_kind

    place, name = options.directory, options.name
    if name is not None:
        if options.problem or options.estimator or options.layer or options.limit is not None:
            raise GradbenchError(
                "--problem, --estimator, --layer and --limit choose rows of results; leave them out"
            )
        say_paged(catalogue.shown(place, name))
    elif is_kind(place) and not Path(place).exists():
        raise GradbenchError(f"show {place} got no name; give one, as in show estimator psa")
    else:
        from gradbench.cli.show import show

        say_paged(show(selected_cells(place, options), options.layer, options.limit))
