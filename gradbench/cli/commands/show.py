"""``gradbench show``: the table of results, or what a thing with a name is."""

from pathlib import Path

import click

from gradbench.cli.rows import with_layers, with_selection


@click.command(
    short_help="Print the table of results, or what a thing with a name is.",
    epilog="\b\ngradbench show results/psa\ngradbench show estimator psa",
)
@click.argument("directory", metavar="DIR")
@click.argument("name", required=False, metavar="[NAME]")
@with_layers
@with_selection
def command(
    directory: str,
    name: str | None,
    layer: tuple[str, ...],
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
) -> None:
    """Print the table of the results in DIR.

    With a NAME, print the facts about the thing of that name; the first argument is then its kind,
    such as estimator, noise or metric.
    """
    from gradbench.cli import catalogue
    from gradbench.cli.rows import say_paged, selected_cells
    from gradbench.core.errors import GradbenchError
    from gradbench.core.registry import is_kind

    if name is not None:
        if problem or estimator or layer or limit is not None:
            raise GradbenchError(
                "--problem, --estimator, --layer and --limit choose rows of results; leave them out"
            )
        say_paged(catalogue.shown(directory, name))
    elif is_kind(directory) and not Path(directory).exists():
        raise GradbenchError(f"show {directory} got no name; give one, as in show estimator psa")
    else:
        from gradbench.cli.show import show

        say_paged(show(selected_cells(directory, problem, estimator, limit), layer, limit))
