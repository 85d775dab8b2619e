"""The table that ``gradbench rank --by training`` prints, and the answer in numbers."""

import math
from typing import Any, NamedTuple

import pandas as pd

from gradbench.core.specs import label
from gradbench.core.text import FORMATS
from gradbench.metrics.intervals import digits
from gradbench.metrics.render import render

_SHARES = {
    "accuracy": "accuracy",
    "ensemble_accuracy": "of 10 samples",
    "mean_field_accuracy": "mean field",
}


class Table(NamedTuple):
    """The methods of one problem and optimiser as text: title, heads of columns, and rows."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def tables_of(frame: pd.DataFrame) -> list[Table]:
    """Return a ``gradbench.metrics.trained`` as tables, one for each problem and optimiser."""
    shares = {column: title for column, title in _SHARES.items() if column in frame}
    heads = ["rank", "estimator", "rate", "loss", "test loss", *shares.values(), "seconds"]
    return [
        Table(
            f"{problem}, {optimiser}",
            heads,
            [_row(row, list(shares)) for row in group.to_dict("records")],
        )
        for (problem, optimiser), group in frame.groupby(["problem", "optimiser"], sort=False)
    ]


def training_table(frame: pd.DataFrame, form: str = "terminal", limit: int | None = None) -> str:
    """Return a ``trained`` as text: the methods of each problem and optimiser, best first.

    Args:
        frame: a frame of ``gradbench.metrics.trained``.
        form: the format: "terminal", "markdown", "latex" or "csv".
        limit: print no more than so many rows.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit))
    parts = [
        render([table.heads, *table.rows], form, table.title, right=2)
        for table in tables_of(frame.head(limit))
    ]
    note = (
        "The loss is that of the training data, with sampled states, the mean over seeds:\n"
        "0.213(4) is 0.213 with a standard error of 0.004. Accuracies are of test examples.\n"
        "A rank is one more than the number of methods with significantly less loss, by seed."
    )
    return "\n\n".join([*parts, FORMATS.find(form).note(note)])


def _row(row: dict[str, Any], shares: list[str]) -> list[str]:
    bad, seeds = row["diverged"], row["seeds"]
    loss = f"diverged, {bad} of {seeds}" if bad else digits(row["loss"], row["loss_se"])
    return [
        str(row["rank"]),
        label(row["estimator"]),
        f"{row['rate']:g}",
        loss,
        _number(row["test_loss"]),
        *(f"{100 * row[name]:.1f} %" if row[name] == row[name] else "" for name in shares),
        f"{row['seconds']:.2g}" if row["seconds"] == row["seconds"] else "",
    ]


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
