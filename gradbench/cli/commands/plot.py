"""``gradbench plot``: the figures of results."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import say, with_quiet
from gradbench.cli.rows import with_layers


@click.command(short_help="Draw the figures: PDF, SVG, PNG, with scripts.")
@click.argument("directory", type=Path, metavar="DIR", shell_complete=complete.directories)
@click.option(
    "--figure", multiple=True, metavar="NAME", help="This figure alone, as rmse; repeatable."
)
@click.option(
    "--estimator",
    multiple=True,
    metavar="NAME",
    help="This estimator, with arguments or all of that name; repeatable, in this order.",
)
@with_layers
@click.option(
    "--label",
    multiple=True,
    metavar="NAME=TEXT",
    help="What an estimator is called, as psa=Ours; repeatable.",
)
@click.option(
    "--width", metavar="WIDTH", help="For a paper: single or double (a column), or inches."
)
@click.option("--relative", is_flag=True, help="Draw RMSE as the ratio to the least.")
@click.option(
    "--out", type=Path, metavar="FOLDER", help="Where to write (DIR/paper with any option)."
)
@with_quiet
def command(
    directory: Path,
    figure: Sequence[str],
    estimator: Sequence[str],
    layer: Sequence[str],
    label: Sequence[str],
    width: str | None,
    relative: bool,
    out: Path | None,
    quiet: bool,
) -> None:
    """Draw the figures of results and print where they are."""
    from gradbench.cli.options import print_figures
    from gradbench.core.progress import Progress
    from gradbench.metrics.directory import read_cells
    from gradbench.plots.suite import plot

    labels = read_labels(label)
    cells = read_cells(directory)
    with Progress(lines=False, show=not quiet):
        paths = plot(
            cells,
            figures=figure,
            labels=labels,
            estimators=estimator,
            layers=layer,
            width=width,
            relative=relative,
            out=out,
        )
    if quiet:
        return
    print_figures(paths)
    if line := cells.unfinished():
        say(line)


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Return the names of estimators from texts such as "psa=Ours".

    Raises:
        GradbenchError: one of them has another form.
    """
    from gradbench.core.errors import GradbenchError

    found = {}
    for text in texts:
        parts = re.fullmatch(r"\s*([\w.-]+(?:\(.*?\))?)\s*=(.+)", text, re.DOTALL)
        if not parts:
            raise GradbenchError(f"--label is {text!r}; give an estimator and its name, psa=Ours")
        found[parts[1]] = parts[2]
    return found
