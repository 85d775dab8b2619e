"""``gradbench plot``: the figures of results."""

from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import say, with_quiet


@click.command(short_help="Draw the figures: PDF, SVG, PNG, with scripts.")
@click.argument("directory", type=Path, metavar="DIR", shell_complete=complete.directories)
@with_quiet
def command(directory: Path, quiet: bool) -> None:
    """Draw the figures of results and print where they are."""
    from gradbench.cli.options import print_figures
    from gradbench.core.progress import Progress
    from gradbench.metrics.directory import read_cells
    from gradbench.plots.suite import plot

    cells = read_cells(directory)
    with Progress(lines=False, show=not quiet):
        paths = plot(cells)
    if quiet:
        return
    print_figures(paths)
    if line := cells.unfinished():
        say(line)
