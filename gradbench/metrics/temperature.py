"""Bias and deviation of an estimator against its temperature, and their theory.

For one unit with logistic noise and the objective c_1 x + c_2 x^2, the Concrete relaxation at small
temperatures t has the bias -4 c_2 t F''(a), or c_1 F'''(a) pi^2 t^2 / 3 where c_2 = 0, and the mean
square F'(a) (2 c_1^2 / 3 + 8 c_2^2 / 15) / t. The log-log slope of the bias is 1 or 2, that of the
standard deviation -1/2.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from gradbench.core.specs import format_spec, label, parse_spec
from gradbench.results.shape import Shape, anything, fault, name, number

POINTS = 3  # the smallest temperatures, over which slopes are measured
_SMALL = 0.5  # slopes are measured only if all of these are below
_SEEN = 3.0  # standard errors of the squared bias
_NOTHING = 1e-6  # a smaller bias is rounding


def split(estimator: str) -> tuple[str, float | None]:
    """Return an estimator without its temperature, and the temperature, None if it has none."""
    name, arguments = parse_spec(estimator)
    temperature = arguments.pop("temperature", None)
    if not isinstance(temperature, int | float):
        return estimator, None
    return format_spec(name, arguments), float(temperature)


def with_temperatures(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary with the columns ``series`` and ``temperature`` (NaN for none)."""
    parts = [split(name) for name in summary["estimator"]]
    temperature = [math.nan if t is None else t for _, t in parts]
    return summary.assign(series=[name for name, _ in parts], temperature=temperature)


def seen(summary: pd.DataFrame) -> pd.Series:
    """Return whether each bias is significantly different from zero."""
    square = summary["bias2"]
    return (square > _SEEN * summary["bias2_se"].fillna(math.inf)) & (square > _NOTHING**2)


def slopes(summary: pd.DataFrame) -> pd.DataFrame:
    """Return log-log slopes of |bias| and deviation over the smallest temperatures.

    Returns:
        A frame with a row per series that has at least three temperatures below 1/2: problem,
        replicate, checkpoint, layer, series; the slopes bias (NaN where no bias is seen at one of
        the temperatures) and std; low and high, the range of temperatures.
    """
    frame = with_temperatures(summary[~summary["zero_gradient"]])
    rows = []
    keys = ["problem", "replicate", "checkpoint", "layer", "series"]
    for key, group in frame.dropna(subset=["temperature"]).groupby(keys, sort=False):
        least = group.sort_values("temperature").head(POINTS)
        if len(least) < POINTS or least["temperature"].max() >= _SMALL:
            continue
        t = least["temperature"].to_numpy()
        known = seen(least).all()
        rows.append(
            dict(zip(keys, key, strict=True))
            | {
                "bias": _slope(t, np.sqrt(least["bias2"])) if known else math.nan,
                "std": _slope(t, np.sqrt(least["variance"])),
                "low": t[0],
                "high": t[-1],
            }
        )
    return pd.DataFrame(rows, columns=[*keys, "bias", "std", "low", "high"])


def _slope(t: Any, value: Any) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.polyfit(np.log(t), np.log(value), 1)[0]) if np.all(value > 0) else math.nan


def slopes_text(summary: pd.DataFrame) -> str:
    """Return the slopes as lines of text, empty where there is no series of temperatures."""
    found = slopes(summary)
    if found.empty:
        return ""
    width = max(len(label(name)) for name in found["series"])
    place = found["problem"].map(str) + ", " + found["layer"]
    lines = ["log-log slopes of |bias| and std over the smallest temperatures (-: no bias seen):"]
    for where, rows in found.groupby(place, sort=False):
        lines.append(f"  {where}")
        lines += [
            f"    {label(row.series):<{width}}  {_number(row.bias):>6} {_number(row.std):>6}"
            f"  ({row.low:g} to {row.high:g})"
            for row in rows.itertuples()
        ]
    return "\n".join(lines)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


class Unit(NamedTuple):
    """One unit with logistic noise, whose objective is c_1 x + c_2 x^2.

    Attributes:
        a: the pre-activation.
        linear: c_1.
        quadratic: c_2.
    """

    a: float
    linear: float
    quadratic: float

    @property
    def gradient(self) -> float:
        """The exact gradient, 2 c_1 F'(a)."""
        return 2 * self.linear * self._derivatives[0]

    @property
    def _derivatives(self) -> tuple[float, float, float]:
        """F', F'' and F''' at a."""
        p = 1 / (1 + math.exp(-self.a))
        first = p * (1 - p)
        return first, first * (1 - 2 * p), first * (1 - 6 * first)

    def concrete_bias(self, t: Any) -> Any:
        """Return the bias of the Concrete relaxation at a small temperature t."""
        _, second, third = self._derivatives
        if self.quadratic:
            return -4 * self.quadratic * t * second
        return self.linear * third * math.pi**2 * t**2 / 3

    def concrete_square(self, t: Any) -> Any:
        """Return the mean square E g^2 of the Concrete relaxation at a small temperature t."""
        moment = 2 * self.linear**2 / 3 + 8 * self.quadratic**2 / 15
        return self._derivatives[0] * moment / t


_NETWORK: Shape = {
    "hidden": [anything],
    "objective": anything,
    "noise": name,
    "states": [number],
    ...: anything,
}
_POLYNOMIAL: Shape = {"polynomial": [number], ...: anything}


def unit_of(network: Mapping[str, Any]) -> Unit | None:
    """Return the unit of a network that has one unit and a polynomial of it, else None.

    Args:
        network: the network of a problem, as the manifest of results describes it.
    """
    if fault(network, _NETWORK):  # results of others may hold anything
        return None
    hidden, objective = network["hidden"], network["objective"]
    if len(hidden) != 1 or not isinstance(hidden[0], dict) or hidden[0].get("logits") != 1:
        return None
    if fault(hidden[0], {"value": number, ...: anything}) or fault(objective, _POLYNOMIAL):
        return None
    if not 1 <= len(objective["polynomial"]) <= 2:
        return None
    if network["noise"] != "logistic" or tuple(network["states"]) != (-1, 1):
        return None
    return Unit(hidden[0]["value"], *[*objective["polynomial"], 0.0][:2])
