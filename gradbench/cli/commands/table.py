"""``gradbench table``: chosen metrics of results."""

from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import WHOLE, with_format, with_json
from gradbench.cli.rows import with_layers, with_selection


@click.command(short_help="Print metrics of your choice, in several formats.")
@click.argument("directory", type=Path, metavar="DIR", shell_complete=complete.directories)
@click.option("--metrics", metavar="NAMES", help="Such as rmse,bias,snr (rmse,bias,std,cosine).")
@click.option("--at", type=WHOLE, default=1, metavar="M", help="Draws averaged (1).")
@with_layers
@with_selection
@click.option("--intervals", is_flag=True, help="Print limits at 95 %.")
@click.option(
    "--over-replicates", is_flag=True, help="Print means over replicates, and what holds in all."
)
@click.option("--unbiasedness", is_flag=True, help="Print which biases are zero, known or tested.")
@click.option("--costs", is_flag=True, help="Print what a draw costs, and its time.")
@with_format
@with_json
def command(
    directory: Path,
    metrics: str | None,
    at: int,
    layer: tuple[str, ...],
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
    intervals: bool,
    over_replicates: bool,
    unbiasedness: bool,
    costs: bool,
    form: str,
    as_json: bool,
) -> None:
    """Print a table of metrics, or one of three other views of results.

    DIR is a directory of results, or gradbench:SUITE, which comes with the package.
    """
    from gradbench import metrics as library
    from gradbench.cli.options import read_format
    from gradbench.cli.rows import (
        say_rows,
        say_unfinished,
        selected_cells,
        selected_published,
        selected_rows,
    )
    from gradbench.core.arguments import at_least
    from gradbench.core.errors import GradbenchError
    from gradbench.metrics import tables, times
    from gradbench.metrics.unbiasedness import table_of_biases

    form = read_format(form, as_json)
    views = {
        "--over-replicates": over_replicates,
        "--unbiasedness": unbiasedness,
        "--costs": costs,
    }
    asked = [view for view, chosen in views.items() if chosen]
    if len(asked) > 1:
        raise GradbenchError(f"table got {' and '.join(asked)}; choose one of them")
    if (unbiasedness or costs) and (metrics or at != 1 or intervals):
        raise GradbenchError(f"{asked[0]} is of one draw and has no metrics; leave out the rest")
    if over_replicates and limit is not None:
        raise GradbenchError(
            "--over-replicates takes no --limit; choose with --problem, --estimator or --layer"
        )
    average = at_least(1, "--at", at)
    names = None if metrics is None else metrics.split(",")
    needed = names or (["bias", "std", "rmse"] if over_replicates else tables.DEFAULT)
    cells, frame = None, None
    if not (unbiasedness or costs):
        frame = selected_published(directory, problem, estimator, limit, average)
    if frame is None:
        cells = selected_cells(directory, problem, estimator, limit)
        if unbiasedness:
            frame = library.unbiasedness(cells)
        else:
            frame = library.summary(cells, average, metrics=[] if costs else needed)
    frame = selected_rows(frame, "layer", layer)
    rows = len(frame)
    if unbiasedness:
        text = table_of_biases(frame, form, limit)
    elif costs:
        rows = len(times.costs(frame))
        text = times.table_of_costs(frame, form, limit)
    elif over_replicates:
        means, orders = library.over_replicates(frame, needed), library.orderings(frame, needed[0])
        text = tables.replicates(means, orders, form)
    else:
        text = tables.table(frame, names, form, intervals, limit)
    say_rows(text, rows, limit, form)
    if cells is not None:
        say_unfinished(cells)
