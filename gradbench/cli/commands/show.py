"""``gradbench show``: the table of results, or what a thing with a name is."""

from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import with_json
from gradbench.cli.rows import with_layers, with_selection


@click.command(
    short_help="Print the table of results, or what a thing with a name is.",
    epilog="\b\nExamples:\n  gradbench show results/psa\n  gradbench show estimator psa",
)
@click.argument("directory", metavar="DIR", shell_complete=complete.directories)
@click.argument("name", required=False, metavar="[NAME]")
@with_layers
@with_selection
@with_json
def command(
    directory: str,
    name: str | None,
    layer: tuple[str, ...],
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
    as_json: bool,
) -> None:
    """Print the table of the results in DIR, or of gradbench:SUITE, which comes with the package.

    With a NAME, print the facts about the thing of that name; the first argument is then its kind,
    such as estimator, noise or metric.
    """
    from gradbench.cli import catalogue
    from gradbench.cli.rows import say_paged, say_rows, selected_cells, selected_published, wrapped
    from gradbench.core.errors import GradbenchError
    from gradbench.core.registry import is_kind

    if name is not None:
        if problem or estimator or layer or limit is not None or as_json:
            raise GradbenchError(
                "--problem, --estimator, --layer, --limit and --json choose rows of results; "
                "leave them out"
            )
        say_paged(catalogue.shown(directory, name))
        return
    if is_kind(directory) and not Path(directory).exists():
        raise GradbenchError(f"show {directory} got no name; give one, as in show estimator psa")
    published = selected_published(directory, problem, estimator, limit)
    cells = selected_cells(directory, problem, estimator, limit) if published is None else published
    if as_json:
        from gradbench.cli.show import rows_of
        from gradbench.metrics.tables import table

        rows = rows_of(cells, layer)
        say_rows(table(rows, form="json", limit=limit), len(rows), limit, "json")
    else:
        from gradbench.cli.show import show

        say_paged(wrapped(show(cells, layer, limit)))
