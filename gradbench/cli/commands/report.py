"""``gradbench report``: results as one HTML file."""

from pathlib import Path

import click

from gradbench.cli.options import say


@click.command(short_help="Write one HTML file: what to use, and why.")
@click.argument("directory", type=Path, metavar="DIR")
@click.option("--out", type=Path, metavar="FILE", help="The file to write (DIR/report.html).")
def command(directory: Path, out: Path | None) -> None:
    """Write the report of results and print its path."""
    from gradbench.cli.rows import say_unfinished
    from gradbench.metrics.directory import read_cells
    from gradbench.report.html import write_report

    cells = read_cells(directory)
    path = write_report(cells, out)
    say_unfinished(cells)
    say(f"open {path}")
