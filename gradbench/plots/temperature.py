"""Bias and deviation against the temperature, beside closed forms."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import family
from gradbench.metrics.places import member
from gradbench.metrics.temperature import Unit, unit_of, with_temperatures
from gradbench.plots.grid import grid, is_turned, label_outer
from gradbench.plots.growth import as_bias, growth_lines
from gradbench.plots.layout import finish, limit_entries, limits, zero_line
from gradbench.plots.parts import Part, Suite
from gradbench.plots.registry import figure
from gradbench.plots.replicates import over_replicates
from gradbench.plots.rows import layers_only, only_one
from gradbench.plots.save import owned
from gradbench.plots.style import Style, styles
from gradbench.plots.ticks import logarithmic
from gradbench.plots.view import View


def _with_units(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield one drawing of everything, with the units whose closed forms are known."""
    units = {problem["name"]: unit_of(problem["network"]) for problem in suite["problems"]}
    known = {name: unit for name, unit in units.items() if unit}
    yield Part(summary, {}, {"units": known, "title": suite["title"]})


@figure(
    parts=_with_units,
    caption="Bias and standard deviation of a draw against the temperature. Arrows are upper "
    "limits where no bias was seen; a 0 by theorem is certified.",
    order=75,
    imports=["from gradbench.metrics import Unit"],
)
def temperature(
    summary: pd.DataFrame, units: dict[str, Unit] | None = None, title: str = "", *, view: View
) -> Figure:
    """Draw relative |bias| and standard deviation against the temperature, a column per problem.

    A line per estimator that has a temperature, and a horizontal line for each that has none, at
    the bottom where its bias is zero by theorem. Thin grey lines are the limits of Concrete as the
    temperature goes to 0.

    Args:
        summary: the ``summary`` of one checkpoint.
        units: by problem, the single units whose limits are known in closed form.
        title: printed above.
        view: what to show, and how.

    Raises:
        GradbenchError: no rows, several checkpoints, or no estimator with a temperature.
    """
    only_one(summary, ["checkpoint"], "temperature")
    frame = with_temperatures(layers_only(summary[summary["estimator"].map(family) != "exact"]))
    if frame["temperature"].isna().all():
        raise GradbenchError(
            "temperature() got no estimator with a temperature; add some, such as "
            "'concrete(temperature=0.1)'"
        )
    panels = list(frame.groupby(["problem", "layer"], sort=False))
    several = frame["layer"].nunique() > 1
    everyone = with_temperatures(view.cast[view.cast["estimator"].map(family) != "exact"])
    series = everyone.assign(estimator=everyone["series"]).drop(
        columns="display_name", errors="ignore"
    )
    look = view.dressed(styles(series))
    look = {name: one for name, one in look.items() if name in set(frame["series"])}
    names = [member(problem) + (f"\n{layer}" if several else "") for (problem, layer), _ in panels]
    with rc_context(view.settings):
        turned = is_turned(view, 2, len(names))  # bias and deviation are side by side
        figure, axes = grid(view, ["", ""], names, "none" if turned else "row", height=1.7)
        for column, ((problem, _), rows) in zip(axes.T, panels, strict=True):
            rows = rows[~rows["zero_gradient"]]
            _temperature_lines(as_bias(rows), column[0], look)
            _temperature_lines(rows.assign(square=rows["variance"], se=0.0), column[1], look)
            if unit := (units or {}).get(problem):
                _asymptotes(unit, rows["temperature"], column)
        for row, what in zip(axes, ("|bias|", "std"), strict=True):
            for ax in row:
                ax.set(xscale="log", yscale="log", xlabel="temperature", ylabel=f"relative {what}")
                label_outer(ax, y=not turned)
        for ax in axes.flat:
            logarithmic(ax, "x")
            logarithmic(ax, "y")
        more = [
            Line2D([], [], color="0.6", lw=0.8, label="Concrete as t goes to 0"),
            *limit_entries(figure, "no bias seen (limit)"),
        ]
        finish(figure, title, look, more if units else more[1:])
    return figure


def _temperature_lines(frame: pd.DataFrame, ax: Axes, look: dict[str, Style]) -> Axes:
    flat = frame["temperature"].isna()
    growth_lines(frame[~flat].assign(estimator=frame["series"]), "temperature", ax, look)
    for name, rows in frame[flat].assign(one=0).groupby("series"):
        if "source" in rows and rows["source"].eq("theorem").all():
            zero_line(ax, look[name], str(name), theorem=True)
            continue
        points = over_replicates(rows, "one")
        if points.empty and rows["square"].notna().any():  # rounding
            zero_line(ax, look[name], str(name))
        for point in points.itertuples():
            if point.seen:
                level = ax.axhline(point.value, color=look[name].color, ls=look[name].line, lw=0.8)
                owned(level, str(name))
            else:
                limits(ax, look[name], [frame["temperature"].min()], [point.value], str(name))
    return ax


def _asymptotes(unit: Unit, temperatures: pd.Series, column: Any) -> None:
    """Draw the closed forms for small temperatures, within the limits of what was measured."""
    t = np.array([temperatures.min(), min(temperatures.max(), 1.0)])
    forms = (abs(unit.concrete_bias(t)), np.sqrt(unit.concrete_square(t)))
    for ax, values in zip(column, forms, strict=True):
        ax.plot(t, values / abs(unit.gradient), color="0.6", lw=0.8, zorder=1)
