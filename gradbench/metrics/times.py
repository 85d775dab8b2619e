"""Measured times: how uncertain they are, in numbers and in words.

A time is the median of several repeats, and its uncertainty is their spread, relative and as large
as one standard deviation of a repeat (``gradbench.measure.timing``). Results of an older gradbench
have no spread; then ``ASSUMED`` is taken, and said.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from gradbench.core.specs import label
from gradbench.core.text import FORMATS, records_by
from gradbench.metrics.accuracy import Accuracy, Gap
from gradbench.metrics.best import named
from gradbench.metrics.budget import Budget
from gradbench.metrics.intervals import digits
from gradbench.metrics.measurement import KEYS
from gradbench.metrics.render import comment, render

ASSUMED = 0.1  # the spread of times that were stored without one
UNSTABLE = 0.1  # repeats that spread by more disagree
_CELL = [key for key in KEYS if key != "layer"]
COLUMNS = ("seconds", "seconds_spread", "latency", "latency_spread")  # of frames


class Unit(NamedTuple):
    """A unit of time, and how many seconds it has."""

    name: str
    seconds: float


_UNITS = (Unit("s", 1.0), Unit("ms", 1e-3), Unit("\N{MICRO SIGN}s", 1e-6))


def columns(cost: Mapping[str, Any]) -> dict[str, float]:
    """Return the evaluations and the times of a draw as columns of a frame, NaN if not stored."""
    stored = ("evaluations", "seconds", "spread", "latency", "latency_spread")
    values = (float(cost.get(name, math.nan)) for name in stored)
    return dict(zip(("evaluations", *COLUMNS), values, strict=True))


def with_timing(
    gap: Gap,
    pair: tuple[Accuracy, Accuracy],
    averages: tuple[float, float],
    costs: Sequence[Mapping[str, Any]],
) -> Gap:
    """Return a difference of two MSE at equal times, with the errors of these times added.

    M is the time over that of a draw, which is known to a factor, so that it is the logarithm of
    V/M that has the error of the time, and the logarithm of an MSE as much of it as V/M has of the
    MSE. The difference of two numbers is their logarithmic mean times that of their logarithms.

    Args:
        gap: the difference of ``mse_gap``.
        pair: the two estimators.
        averages: M of each.
        costs: what a draw of each costs, with the spread of its time.
    """
    scatter = [x.variance / m for x, m in zip(pair, averages, strict=True)]
    squares = [max(x.bias2, 0.0) + v for x, v in zip(pair, scatter, strict=True)]
    if min(squares) == 0.0:
        return gap
    one, two = squares
    mean = one if one == two else (one - two) / math.log(one / two)
    spreads = (float(cost.get("spread", ASSUMED)) for cost in costs)
    errors = (mean * s * v / x for s, v, x in zip(spreads, scatter, squares, strict=True))
    return gap._replace(se=math.hypot(gap.se, *errors))


def disagreeing(frame: pd.DataFrame) -> dict[str, float]:
    """Return the estimators whose repeats disagree, with their largest spread, worst first."""
    spread = frame["seconds_spread"].groupby(frame["estimator"]).max()
    spread = spread[spread > UNSTABLE].sort_values(ascending=False, kind="stable")
    return {str(name): float(value) for name, value in spread.items()}


def is_assumed(frame: pd.DataFrame) -> bool:
    """Return whether a frame has times whose spread was not stored."""
    return bool((frame["seconds"].notna() & frame["seconds_spread"].isna()).any())


def notes(frame: pd.DataFrame) -> str:
    """Return what is to be said of the times of a frame, in lines; empty if there is nothing."""
    lines = []
    if found := disagreeing(frame):
        names = [f"{label(name)} by {percent(spread)}" for name, spread in found.items()]
        lines.append("Repeats of the time of a draw disagree; so uncertain are the times of:")
        lines += [
            ", ".join(names[k : k + 3]) + "," * (k + 3 < len(names))
            for k in range(0, len(names), 3)
        ]
        lines[-1] += "."
    if is_assumed(frame):
        lines.append(
            f"An older gradbench did not store how far repeats spread: {percent(ASSUMED)} is "
            "assumed for its times."
        )
    return "\n".join(lines)


def percent(share: float) -> str:
    """Return a share as a percentage of two digits: "3.1 %"."""
    return f"{float(f'{100.0 * share:.2g}'):g} %"


def time_text(seconds: float, spread: float = math.nan) -> str:
    """Return a time with its spread: "12 us ±3.1 %"; "-" if it is not known."""
    if math.isnan(seconds):
        return "-"
    if math.isinf(seconds):
        return "never"
    text = str(Budget(float(f"{seconds:.2g}"), "seconds"))
    return text if math.isnan(spread) else f"{text} ±{percent(spread)}"


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a row of a ``summary`` for each cell, whose layers cost the same."""
    return frame.drop_duplicates(_CELL)


def table_of_costs(frame: pd.DataFrame, form: str = "terminal", limit: int | None = None) -> str:
    """Return what a draw of each estimator costs as text, place by place.

    Args:
        frame: a frame of ``gradbench.summary``.
        form: the format: "terminal", "markdown", "latex" or "csv"; in the last, numbers are
            written in full.
        limit: print no more than so many rows.

    Raises:
        GradbenchError: an unknown format.
    """
    frame = costs(frame)
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit).reindex(columns=[*_CELL, "evaluations", *COLUMNS]))
    if frame.empty:
        return "no finished cells"
    parts = []
    for (problem, replicate, checkpoint), group in records_by(frame.head(limit), KEYS[:3]):
        unit = common_unit(group) if FORMATS.find(form).formulas else None
        rows = [["estimator", "evaluations", *titles(unit)]]
        rows += [[named(row["estimator"], form), *_costs(row, unit)] for row in group]
        parts.append(render(rows, form, f"{problem}, replicate {replicate}, {checkpoint}", right=1))
    note = (
        "evaluations: of the objective, per draw and example; time of a draw: of one among many\n"
        "that are made together, for the whole batch; single draw: its latency when it is made\n"
        "alone; ±: how far repeats spread (one standard deviation)."
    )
    return "\n\n".join([*parts, comment("\n".join(filter(None, [note, notes(frame)])), form)])


def _costs(row: Mapping[str, Any], unit: Unit | None) -> Sequence[str]:
    count = row["evaluations"]
    return ["-" if math.isnan(count) else f"{count:,.0f}", *time_cells(row, unit)]


def titles(unit: Unit | None = None) -> list[str]:
    """Return the titles of the columns of both times, with their unit if they have one."""
    where = f" [{unit.name}]" if unit else ""
    return [f"time of a draw{where}", f"single draw{where}"]


def time_cells(row: Mapping[str, Any], unit: Unit | None = None) -> list[str]:
    """Return the time of a draw among many, and of a single one, as ``time_text`` does.

    In a ``unit`` they are numbers, with the spread of repeats in brackets.
    """
    times = [(row[name], row[f"{name}_spread"]) for name in ("seconds", "latency")]
    if unit is None:
        return [time_text(*one) for one in times]
    scaled = [(value / unit.seconds, spread * value / unit.seconds) for value, spread in times]
    return ["-" if math.isnan(value) else digits(value, spread) for value, spread in scaled]


def common_unit(group: Sequence[Mapping[str, Any]]) -> Unit:
    """Return the unit in which all times of some rows are written."""
    known = (row[name] for row in group for name in ("seconds", "latency"))
    least = min((time for time in known if not math.isnan(time)), default=math.nan)
    return next((one for one in _UNITS if least >= one.seconds), _UNITS[-1])
