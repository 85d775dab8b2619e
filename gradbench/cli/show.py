"""The text of ``gradbench show``."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gradbench import metrics
from gradbench.cli.rows import left_out, selected_rows
from gradbench.metrics import temperature
from gradbench.metrics.agreement import agreement
from gradbench.metrics.directory import Cells, read_cells
from gradbench.metrics.tables import DEFAULT, table
from gradbench.metrics.training_tables import training_table
from gradbench.metrics.untrained import is_training
from gradbench.results.store import Results


def rows_of(
    results: str | Path | Results | Cells | pd.DataFrame, layers: Sequence[str] = ()
) -> pd.DataFrame:
    """Return the rows that ``show`` prints, as a frame; the arguments are those of ``show``."""
    if isinstance(results, pd.DataFrame):
        summary = results
    else:
        cells = read_cells(results)
        needed = [*DEFAULT, *(["bias2", "variance"] if _has_slopes(cells) else [])]
        summary = metrics.summary(cells, metrics=needed)
    return selected_rows(summary, "layer", layers)


def show(
    results: str | Path | Results | Cells | pd.DataFrame,
    layers: Sequence[str] = (),
    limit: int | None = None,
) -> str:
    """Return a table of every checkpoint, with a row for each layer and estimator, as text.

    It ends with how well the exact gradients were confirmed and, if so, what is not finished.

    Args:
        results: what ``run`` returns, or the path of its directory, or some of its cells; or a
            frame of published results.
        layers: the names of layers to show; all by default.
        limit: show no more than so many rows, and say how many are left out.

    Raises:
        GradbenchError: no results, damaged files (named), no finished cell, or no such layer.
    """
    given = results if isinstance(results, pd.DataFrame) else read_cells(results)
    if isinstance(given, Cells) and is_training(given.results.manifest):
        ranked = metrics.trained(given.results)
        rest = [left_out(len(ranked), limit), given.unfinished()]
        return "\n".join([training_table(ranked, limit=limit), *filter(None, rest)])
    summary = rows_of(given, layers)
    parts = [table(summary, limit=limit), left_out(len(summary), limit)]
    if isinstance(given, Cells):
        parts += [
            temperature.slopes_text(summary) if _has_slopes(given) else "",
            agreement(given.results),
            given.unfinished(),
        ]
    return "\n".join(part for part in parts if part)


def _has_slopes(cells: Cells) -> bool:
    return bool(cells.results.manifest["suite"]["figure"] == "temperature")
