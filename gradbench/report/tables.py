"""The tables of a report: each cell has a text, the value to sort by, and its interval."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from gradbench.metrics import Metric, all_metrics, times
from gradbench.metrics.render import shown
from gradbench.metrics.unbiasedness import AGAINST
from gradbench.plots.style import in_order
from gradbench.report.numbers import about, duration
from gradbench.report.places import Place

_SQUARES = ("mse", "bias2", "variance")  # their roots are shown
_NOTHING = "\u2013"
_MOST = 2000  # rows; if there are more, only those of whole networks are shown


class Value(NamedTuple):
    """A cell: its text, the number that it is sorted by (None if unknown), its interval."""

    text: str
    key: float | None
    interval: str = ""


class Row(NamedTuple):
    """A row of the main table."""

    place: int
    layer: str
    estimator: str
    values: list[Value]


def shown_metrics() -> dict[str, Metric]:
    """Return the metrics that the main table has as columns."""
    return {name: metric for name, metric in all_metrics().items() if name not in _SQUARES}


def rows_of(summary: pd.DataFrame, places: Sequence[Place]) -> tuple[list[Row], bool]:
    """Return the rows of the main table, and whether all layers are among them."""
    everything = len(summary) <= _MOST
    found = []
    for number, place in enumerate(places):
        for layer in place.layers if everything else [place.whole]:
            rows = place.rows(summary, layer)
            records = rows.set_index("estimator")
            for name in in_order(rows):
                record = records.loc[name].to_dict()
                found.append(Row(number, layer, name, _values(record)))
    return found, everything


def _values(row: Mapping[str, Any]) -> list[Value]:
    names = list(shown_metrics())
    values = [_value(row, name, name == names[0]) for name in names]
    values.append(_known(row["evaluations"], about(row["evaluations"])))
    return [*values, _time(row, "seconds"), _time(row, "latency")]


def _time(row: Mapping[str, Any], name: str) -> Value:
    """Return a time, with the spread of its repeats where it was stored."""
    seconds, spread = row[name], row[f"{name}_spread"]
    if math.isnan(seconds):
        return Value(_NOTHING, None)
    said = "" if math.isnan(spread) else f"repeats spread by {times.percent(spread)}"
    return Value(duration(seconds), seconds, said)


def _known(value: float, text: str) -> Value:
    return Value(_NOTHING, None) if math.isnan(value) else Value(text, value)


def _value(row: Mapping[str, Any], metric: str, first: bool) -> Value:
    value, se = row[metric], row[f"{metric}_se"]
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if row["zero_gradient"]:
        return Value("zero gradient" if first else _NOTHING, None)
    if math.isnan(value):
        return Value(_NOTHING, None)
    text = shown(row, metric).replace("-", "\u2212")
    if metric in ("bias", "bias2") and row["bias_source"] == "theorem":
        return Value(text, value, "exact, by theorem")
    if se == 0.0 and low == high:
        return Value(f"= {text}", value, "exact")
    if math.isnan(low) or math.isnan(high):
        return Value(text, value)
    return Value(text, value, f"95 %: {_bound(low)} to {_bound(high)}")


def _bound(value: float) -> str:
    return f"{value:.3g}".replace("-", "\u2212")


class Verdict(NamedTuple):
    """The finding about the bias of an estimator in the layers of one name, at all places.

    Its ``kind`` is "none", "unseen" or "biased".
    """

    text: str
    kind: str


def bias_grid(verdicts: pd.DataFrame) -> tuple[list[str], dict[str, list[Verdict | None]]]:
    """Return the names of layers, and a verdict for each estimator and layer."""
    layers = list(dict.fromkeys(verdicts["layer"]))
    groups = {key: rows for key, rows in verdicts.groupby(["estimator", "layer"], sort=False)}
    return layers, {
        name: [_verdict(groups.get((name, layer))) for layer in layers]
        for name in in_order(verdicts)
    }


def _verdict(rows: pd.DataFrame | None) -> Verdict | None:
    if rows is None:
        return None
    if against := int(rows["verdict"].eq(AGAINST).sum()):
        return Verdict(f"{AGAINST}, at {against} of {len(rows)} places", "biased")
    wrong = rows[rows["verdict"].isin(["biased", "bias found"])]
    if len(wrong):
        exact = "= " if wrong["verdict"].eq("biased").all() else ""
        low, high = about(wrong["bias"].min()), about(wrong["bias"].max())
        size = f"{exact}{low}" if low == high else f"{exact}{low} to {high}"
        part = f", at {len(wrong)} of {len(rows)} places" if len(wrong) < len(rows) else ""
        return Verdict(f"biased: {size}{part}", "biased")
    if rows["verdict"].eq("unbiased by theorem").all():
        return Verdict("unbiased by theorem", "none")
    if not rows["verdict"].eq("no bias seen").any():
        return Verdict("unbiased =", "none")
    limit = about(rows["detectable"].max())
    return Verdict(f"tested: none seen, no proof (detectable: {limit})", "unseen")
