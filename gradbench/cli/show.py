"""The text of ``gradbench show``."""

from pathlib import Path

from gradbench import metrics
from gradbench.metrics import temperature
from gradbench.metrics.directory import agreement, expected, read_cells, unfinished_line
from gradbench.metrics.tables import table
from gradbench.results.store import Results


def show(results: str | Path | Results) -> str:
    """Return a table of every checkpoint, with a row for each layer and estimator, as text.

    It ends with how well the exact gradients were confirmed and, if so, what is not finished.

    Args:
        results: what ``run`` returns, or the path of its directory.

    Raises:
        GradbenchError: no results, damaged files (named), or no finished cell.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    cells = list(read_cells(results))
    total = expected(results)
    missing = unfinished_line(total - len(cells), total)
    summary = metrics.summary(cells)
    parts = [table(summary), agreement(results), missing]
    if results.manifest["suite"]["figure"] == "temperature":
        parts.insert(1, temperature.slopes_text(summary))
    return "\n".join(part for part in parts if part)
