"""The text of ``gradbench show``."""

from collections.abc import Sequence
from pathlib import Path

from gradbench import metrics
from gradbench.cli.rows import left_out, selected_rows
from gradbench.metrics import temperature
from gradbench.metrics.directory import Cells, agreement, read_cells
from gradbench.metrics.tables import DEFAULT, table
from gradbench.metrics.training_tables import training_table
from gradbench.metrics.untrained import is_training
from gradbench.results.store import Results


def show(
    results: str | Path | Results | Cells, layers: Sequence[str] = (), limit: int | None = None
) -> str:
    """Return a table of every checkpoint, with a row for each layer and estimator, as text.

    It ends with how well the exact gradients were confirmed and, if so, what is not finished.

    Args:
        results: what ``run`` returns, or the path of its directory, or some of its cells.
        layers: the names of layers to show; all by default.
        limit: show no more than so many rows, and say how many are left out.

    Raises:
        GradbenchError: no results, damaged files (named), no finished cell, or no such layer.
    """
    cells = read_cells(results)
    if is_training(cells.results.manifest):
        ranked = metrics.trained(cells.results)
        rest = [left_out(len(ranked), limit), cells.unfinished()]
        return "\n".join([training_table(ranked, limit=limit), *filter(None, rest)])
    suite = cells.results.manifest["suite"]
    slopes = suite["figure"] == "temperature"
    needed = [*DEFAULT, *(["bias2", "variance"] if slopes else [])]
    summary = selected_rows(metrics.summary(cells, metrics=needed), "layer", layers)
    parts = [
        table(summary, limit=limit),
        left_out(len(summary), limit),
        temperature.slopes_text(summary) if slopes else "",
        agreement(cells.results),
        cells.unfinished(),
    ]
    return "\n".join(part for part in parts if part)
