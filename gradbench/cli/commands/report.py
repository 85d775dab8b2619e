"""``gradbench report``: results as one HTML file."""

from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import say, with_quiet


@click.command(short_help="Write one HTML file: what to use, and why.")
@click.argument("directory", type=Path, metavar="DIR", shell_complete=complete.directories)
@click.option("--out", type=Path, metavar="FILE", help="The file to write (DIR/report.html).")
@with_quiet
def command(directory: Path, out: Path | None, quiet: bool) -> None:
    """Write the report of results and print its path."""
    from gradbench.cli.rows import say_unfinished
    from gradbench.core.progress import Progress
    from gradbench.metrics.directory import read_cells
    from gradbench.report.html import write_report

    cells = read_cells(directory)
    with Progress(lines=False, show=not quiet):
        path = write_report(cells, out)
    if quiet:
        return
    say_unfinished(cells)
    say(f"open {path}")
