"""``gradbench rank``: estimators at an equal budget."""

import math
from pathlib import Path

import click

from gradbench.cli import complete
from gradbench.cli.options import with_format, with_json
from gradbench.cli.rows import with_selection


@click.command(short_help="Say which estimators are the best at equal cost, by budget.")
@click.argument("directory", type=Path, metavar="DIR", shell_complete=complete.directories)
@click.option(
    "--by", metavar="METRIC", help="The metric to compare (rmse); training: final results."
)
@click.option(
    "--at-cost",
    metavar="BUDGET",
    help="Only at this budget: 100-evaluations, 1ms or, which is no equal cost, 1-draw.",
)
@click.option(
    "--reach",
    metavar="RMSE",
    help="Print, instead, what each needs for this relative RMSE, such as 10%.",
)
@click.option(
    "--layer",
    default="network",
    metavar="LAYER",
    help='One layer, or "hidden layers" together (the network).',
)
@with_selection
@with_format
@with_json
def command(
    directory: Path,
    by: str | None,
    at_cost: str | None,
    reach: str | None,
    layer: str,
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
    form: str,
    as_json: bool,
) -> None:
    """Print which estimators have the smallest RMSE at equal cost, and all at 100 evaluations.

    With --at-cost only a ranking at that budget; with --reach, what each needs for an accuracy.
    """
    from gradbench.cli.options import read_format, read_share
    from gradbench.cli.rows import say_rows, say_unfinished, selected_cells
    from gradbench.core.errors import GradbenchError
    from gradbench.metrics import budget, decide, rank, sample_complexity, tables
    from gradbench.metrics.directory import Measurements
    from gradbench.metrics.layers import settled
    from gradbench.metrics.measurement import NETWORK
    from gradbench.metrics.ranking import BUDGET

    form = read_format(form, as_json)
    if by == "training":
        if at_cost or reach is not None:
            raise GradbenchError("--by training compares final results; leave the budget out")
        _rank_training(directory, problem, estimator, limit, form)
        return
    if reach is not None:
        if by or at_cost:
            raise GradbenchError("--reach says what an RMSE costs; leave out --by and --at-cost")
        eps = read_share(reach)
        if not 0.0 < eps < math.inf:
            raise GradbenchError(f"--reach is {reach!r}; give a relative RMSE as 10% or 0.1")
        cells = selected_cells(directory, problem, estimator, limit)
        frame = sample_complexity(cells, eps, layer)
        text = tables.needed(frame, eps, form, limit)
    else:
        by, at = by or "rmse", budget(at_cost or BUDGET)
        cells = selected_cells(directory, problem, estimator, limit)
        # Squared errors need no draws: what is read once is ranked and decided on.
        read: Measurements = cells
        if by == "rmse":
            read = [settled(cell, tests=False) for cell in cells]
        frame = rank(read, by, at, layer)
        text = tables.ranking(frame, by, str(at), form, limit)
        if form == "terminal" and by == "rmse" and at_cost is None:
            layers = None if layer == NETWORK else [layer]
            text = f"{decide(read, layers=layers)}\n\n{text}"
    say_rows(text, len(frame), limit, form)
    say_unfinished(cells)


def _rank_training(
    directory: Path,
    problem: tuple[str, ...],
    estimator: tuple[str, ...],
    limit: int | None,
    form: str,
) -> None:
    from gradbench.cli.rows import say_rows, say_unfinished, selected_cells, selected_rows
    from gradbench.metrics import trained
    from gradbench.metrics.training_tables import training_table

    cells = selected_cells(directory, problem, estimator, limit)
    frame = selected_rows(trained(cells.results), "problem", problem)
    frame = selected_rows(frame, "estimator", estimator)
    say_rows(training_table(frame, form, limit), len(frame), limit, form)
    say_unfinished(cells)
