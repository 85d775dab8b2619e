"""``gradbench list``: what there is of a kind."""

import shutil

import click

from gradbench.cli.options import say


@click.command(short_help="List what there is of a kind: estimators, suites, metrics, ...")
@click.argument("kind", required=False, metavar="[KIND]")
@click.option("--markdown", is_flag=True, help="Print a table in Markdown.")
def command(kind: str | None, markdown: bool) -> None:
    """Print the things of a kind, such as estimators, or the kinds."""
    from gradbench.cli import catalogue

    # As wide as the terminal, if there is one; whole lines for other programs.
    width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
    if kind is None:
        say(catalogue.kinds())
    else:
        say(catalogue.text(kind, width, markdown))
