"""``gradbench plot``: the figures of results."""

from pathlib import Path

import click

from gradbench.cli.options import say


@click.command(short_help="Draw the figures: PDF, SVG, PNG, with scripts.")
@click.argument("directory", type=Path, metavar="DIR")
def command(directory: Path) -> None:
    """Draw the figures of results and print their paths."""
    from gradbench.cli.options import print_figures
    from gradbench.metrics.directory import read_cells
    from gradbench.plots.suite import plot

    cells = read_cells(directory)
    print_figures(plot(cells))
    if line := cells.unfinished():
        say(line)
