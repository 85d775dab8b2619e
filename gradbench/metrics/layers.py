"""All metrics of one layer of a cell: their names, meanings and values."""

import math
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics.accuracy import NO_ACCURACY, Accuracy, accuracy_of
from gradbench.metrics.direction import Direction, direction_of
from gradbench.metrics.directions import NOTHING, Directions, directions_of
from gradbench.metrics.intervals import LEVEL, UNKNOWN, Estimate
from gradbench.metrics.measurement import Measurement, Sample, samples
from gradbench.metrics.significance import unbiased_p


class Metric(NamedTuple):
    """A metric: its ``title``, a ``symbol`` of LaTeX, ``meaning``, and which values are ``better``.

    ``groups``: whether it needs groups of M draws, so that it is known at stored M alone.
    """

    title: str
    symbol: str
    better: Literal["low", "high"]
    groups: bool
    meaning: str


METRICS = {
    "rmse": Metric("RMSE", r"\mathrm{RMSE}", "low", False, "sqrt(E |g_M - G|^2) / |G|"),
    "mse": Metric("MSE", r"\mathrm{MSE}", "low", False, "E |g_M - G|^2 / |G|^2"),
    "bias": Metric("|bias|", r"|b|", "low", False, "|E g - G| / |G|"),
    "bias2": Metric("bias^2", r"|b|^2", "low", False, "|E g - G|^2 / |G|^2, de-biased"),
    "std": Metric("std", r"\sigma", "low", False, "sqrt(tr Cov g / M) / |G|"),
    "variance": Metric("variance", r"V", "low", False, "tr Cov g / |G|^2 of one draw"),
    "cosine": Metric("cosine", r"\cos", "high", True, "E cos(g_M, G)"),
    "signs": Metric(
        "signs", r"\mathrm{signs}", "high", True, "share of coordinates with the sign of G"
    ),
    "descent": Metric("descent", r"g \cdot G", "high", False, "E g.G / |G|^2"),
    "descent_probability": Metric(
        "P(descent)", r"P(g \cdot G > 0)", "high", True, "probability that g_M.G > 0"
    ),
    "snr": Metric("SNR", r"\mathrm{SNR}", "high", False, "|E g| / sqrt(tr Cov g / M)"),
    "scale_free_bias": Metric(
        "scale-free bias", r"\sin", "low", False, "min over c of |c E g - G| / |G|"
    ),
}


def check_metrics(names: Iterable[str]) -> list[str]:
    """The names, all of them those of metrics.

    Raises:
        GradbenchError: one is not.
    """
    names = list(names)
    for name in names:
        if name not in METRICS:
            raise GradbenchError(f"unknown metric {name!r}; {did_you_mean(name, METRICS)}")
    return names


class LayerMetrics:
    """All that was measured about one layer of a cell, or its network; NaN where G is zero.

    ``sample`` are its draws, in units of |G|: what ``layers_of`` goes through.
    """

    def __init__(self, cell: Measurement, sample: Sample, level: float = LEVEL) -> None:
        self.cell, self.sample, self.level = cell, sample, level

    @property
    def layer(self) -> str:
        """Its name; "network" for all layers together."""
        return self.sample.name

    @property
    def zero_gradient(self) -> bool:
        """Whether the gradient is zero, or not told from it: nothing relative to it is known."""
        return self.sample.zero

    @property
    def exact(self) -> bool:
        """Whether bias and variance come from exact moments and an exact gradient."""
        sample = self.sample
        return sample.moments is not None and sample.noise is None and not self.zero_gradient

    @cached_property
    def accuracy(self) -> Accuracy:
        """Bias and variance."""
        return NO_ACCURACY if self.zero_gradient else accuracy_of(self.sample)

    @cached_property
    def direction(self) -> Direction:
        """Of the mean of a draw."""
        if self.zero_gradient:
            return Direction(UNKNOWN, UNKNOWN, UNKNOWN)
        return direction_of(self.sample, self.accuracy, self.level)

    @cached_property
    def unbiased_p(self) -> float:
        """The p-value of being unbiased."""
        return unbiased_p(self.sample)

    def directions(self, average: int) -> Directions:
        """Of the M-sample estimate.

        Raises:
            GradbenchError: an M that the stored blocks cannot give.
        """
        if self.zero_gradient:
            return NOTHING
        return directions_of(
            self.cell, self.sample, average, self.accuracy.variance == 0.0, self.level
        )

    def estimate(self, metric: str, average: int = 1) -> Estimate:
        """A metric of the M-sample estimate.

        Raises:
            GradbenchError: an unknown metric, or an M that the stored blocks cannot give.
        """
        check_metrics([metric])
        if METRICS[metric].groups:
            found: Estimate = getattr(self.directions(average), metric)
            return found
        accuracy, level = self.accuracy, self.level
        squared = {"rmse": "mse", "bias": "bias2", "std": "variance"}
        if metric in squared:
            square = self.estimate(squared[metric], average)
            return square.times(1.0 / average).root() if metric == "std" else square.root()
        if metric == "mse":
            return accuracy.mse(average, level)
        if metric == "bias2":
            return accuracy.squared_bias(level)
        if metric == "variance":
            return accuracy.variance_of_draw(level)
        found = getattr(self.direction, metric)
        return found.times(math.sqrt(average)) if metric == "snr" else found

    def row(self, average: int) -> dict[str, Any]:
        """The columns of ``summary`` and ``curves``; metrics of groups are NaN without a group."""
        grouped = average in self.cell.average_sizes()
        row: dict[str, Any] = {
            "M": average,
            "gradient_norm": self.sample.norm,
            "draws": self.sample.draws,
            "zero_gradient": self.zero_gradient,
            "exact": self.exact,
        }
        for name, metric in METRICS.items():
            here = grouped or not metric.groups
            found = self.estimate(name, average) if here else UNKNOWN
            row |= {name: found.value, f"{name}_se": found.se}
            row |= {f"{name}_low": found.low, f"{name}_high": found.high}
        directions = self.directions(average) if grouped else NOTHING
        row["groups"] = directions.groups
        row["cosine_q15"], row["cosine_q15_se"] = directions.lower
        row["cosine_q85"], row["cosine_q85_se"] = directions.upper
        row["p_unbiased"] = self.unbiased_p
        row["evaluations"] = self.cell.cost.get("evaluations", np.nan)
        row["seconds"] = self.cell.cost.get("seconds", np.nan)
        return row


def layers_of(cell: Measurement, level: float = LEVEL) -> Iterator[LayerMetrics]:
    """The metrics of the layers of a cell and, if there are several, of the network.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    for sample in samples(cell):
        yield LayerMetrics(cell, sample, level)
