"""The table that ``gradbench rank --by training`` prints, and the answer in numbers."""

import math
from typing import Any, NamedTuple

import pandas as pd

from gradbench.core.specs import label
from gradbench.core.text import FORMATS
from gradbench.metrics.intervals import digits
from gradbench.metrics.render import render
from gradbench.metrics.training import quantity_of
from gradbench.results.quantities import LOSS, Quantity

_SHARES = {
    "accuracy": "accuracy",
    "ensemble_accuracy": "of 10 samples",
    "mean_field_accuracy": "mean field",
    "mode_accuracy": "mode of weights",
}


class Table(NamedTuple):
    """Methods that are ranked together as text: title, heads of columns, and rows."""

    title: str
    heads: list[str]
    rows: list[list[str]]


def tables_of(frame: pd.DataFrame) -> list[Table]:
    """Return a ``gradbench.metrics.trained`` as tables, one for methods that are ranked together.

    They are those of a problem and optimiser, or all methods of a problem.
    """
    quantity = quantity_of(frame)
    shares = {column: title for column, title in _SHARES.items() if column in frame}
    judged = [] if quantity == LOSS else [quantity]
    then = [one for one in (*judged, LOSS) if f"continued_{one.column}" in frame]
    paired = "method" in frame
    heads = [
        "rank",
        *["optimiser"] * paired,
        "estimator",
        "rate",
        *(one.title for one in judged),
        "loss",
        "test loss",
    ]
    heads += [*shares.values(), *(f"{one.name}, continued" for one in then), "seconds"]
    return [
        Table(
            ", ".join(place),
            heads,
            [_row(row, judged, list(shares), then, paired) for row in group.to_dict("records")],
        )
        for place, group in frame.groupby(together(frame), sort=False)
    ]


def together(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a frame whose values are the same in methods ranked together."""
    return ["problem"] if "method" in frame else ["problem", "optimiser"]


def training_table(frame: pd.DataFrame, form: str = "terminal", limit: int | None = None) -> str:
    """Return a ``trained`` as text: methods that are ranked together, best first.

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
        render(
            [table.heads, *table.rows], form, table.title, right=2 + ("optimiser" in table.heads)
        )
        for table in tables_of(frame.head(limit))
    ]
    quantity = quantity_of(frame)
    better = "significantly less loss"
    lines = [
        "The loss is that of the training data, with sampled states, the mean over seeds:",
        "0.213(4) is 0.213 with a standard error of 0.004. Accuracies are of test examples.",
    ]
    if quantity != LOSS:
        better = f"a significantly {quantity.better} {quantity.title}"
        lines[1] = "0.213(4) is 0.213 with a standard error of 0.004."
    if "continued_loss" in frame:
        lines.append("Continued: after a second phase, with one unbiased estimator for all.")
    lines.append(f"A rank is one more than the number of methods with {better}, by seed.")
    note = "\n".join(lines)
    return "\n\n".join([*parts, FORMATS.find(form).note(note)])


def _row(
    row: dict[str, Any],
    judged: list[Quantity],
    shares: list[str],
    then: list[Quantity],
    paired: bool,
) -> list[str]:
    bad, seeds = row["diverged"], row["seeds"]
    diverged = f"diverged, {bad} of {seeds}"
    return [
        str(row["rank"]),
        *[row["optimiser"]] * paired,
        label(row["estimator"]),
        f"{row['rate']:g}",
        *(diverged if bad else _value(one, row) for one in judged),
        diverged if bad and not judged else _value(LOSS, row),
        _number(row["test_loss"]),
        *(f"{100 * row[name]:.1f} %" if row[name] == row[name] else "" for name in shares),
        *(one.text(row[f"continued_{one.column}"]) for one in then),
        f"{row['seconds']:.2g}" if row["seconds"] == row["seconds"] else "",
    ]


def _value(quantity: Quantity, row: dict[str, Any]) -> str:
    """Return the mean over seeds of a quantity with its standard error."""
    unit = 100 if quantity.share else 1
    text = digits(unit * row[quantity.column], unit * row[f"{quantity.column}_se"])
    return f"{text} %" if quantity.share else text


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
