"""``gradbench list``: what there is of a kind."""

import shutil

import click

from gradbench.cli import complete
from gradbench.cli.options import say, with_json


@click.command(short_help="List what there is of a kind: estimators, suites, metrics, ...")
@click.argument("kind", required=False, metavar="[KIND]", shell_complete=complete.kinds)
@click.option("--markdown", is_flag=True, help="Print a table in Markdown.")
@with_json
def command(kind: str | None, markdown: bool, as_json: bool) -> None:
    """Print the things of a kind, such as estimators, or the kinds."""
    from gradbench.cli import catalogue
    from gradbench.core.errors import GradbenchError

    # As wide as the terminal, if there is one; whole lines for other programs.
    width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
    if markdown and as_json:
        raise GradbenchError("list got --markdown and --json; choose one of them")
    if as_json:
        say(catalogue.json(kind))
    elif kind is None:
        say(catalogue.kinds())
    else:
        say(catalogue.text(kind, width, markdown))
