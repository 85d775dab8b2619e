"""All metrics of one layer of a cell."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from gradbench.core.errors import GradbenchError
from gradbench.measure.blocks import Blocks
from gradbench.metrics import times
from gradbench.metrics.accuracy import EXACT, NO_ACCURACY, Accuracy
from gradbench.metrics.direction import Direction, direction_of, known_direction
from gradbench.metrics.directions import NO_DIRECTIONS, Directions, directions_of
from gradbench.metrics.estimation import accuracy_of
from gradbench.metrics.intervals import LEVEL, UNKNOWN, Estimate
from gradbench.metrics.measurement import (
    HIDDEN,
    NETWORK,
    Measurement,
    Sample,
    hidden_sample,
    samples,
)
from gradbench.metrics.registry import METRICS, all_metrics
from gradbench.metrics.significance import Power, unbiased_p

THEOREMS = ("unbiased", "exact")  # classes that hold for any objective at any depth


class LayerMetrics:
    """All that was measured of one layer of a cell, or of its network; NaN where G is zero.

    ``layers_of`` makes it. ``sample`` holds the draws in units of |G|, and ``level`` is the level
    of all intervals.
    """

    def __init__(self, cell: Measurement, sample: Sample, level: float = LEVEL) -> None:
        self.cell, self.sample, self.level = cell, sample, level
        self._directions: dict[int, Directions] = {}

    @property
    def layer(self) -> str:
        """The name of the layer; "network" for all layers together."""
        return self.sample.name

    @property
    def zero_gradient(self) -> bool:
        """True if the gradient cannot be told from zero: then no metric is known."""
        return self.sample.zero

    @cached_property
    def exact(self) -> bool:
        """True if bias and variance come from exact moments and an exact gradient."""
        sample = self.sample
        return sample.moments is not None and sample.noise is None and not self.zero_gradient

    @cached_property
    def measured(self) -> Accuracy:
        """Bias and variance of one draw, as if no theorem were known."""
        return NO_ACCURACY if self.zero_gradient else accuracy_of(self.sample)

    @cached_property
    def source(self) -> str:
        """Where the bias is known from: "theorem", "enumeration", "test", or "" if it is not.

        A theorem says that the bias is zero: the estimator is certified to be unbiased for any
        objective at any depth. Classes that depend on the problem, such as one layer, are not used.
        An enumeration that finds a bias refutes the theorem, and is used in its place.
        """
        if self.zero_gradient:
            return ""
        enumerated = self.exact or (self.measured.variance == 0.0 and self.sample.noise is None)
        refuted = enumerated and self.measured.bias2 > EXACT**2
        if self.cell.claim in THEOREMS and not refuted:
            return "theorem"
        return "enumeration" if enumerated else "test"

    @cached_property
    def accuracy(self) -> Accuracy:
        """Bias and variance of one draw; the bias is zero where a theorem says so."""
        return self.measured.unbiased() if self.source == "theorem" else self.measured

    @cached_property
    def direction(self) -> Direction:
        """Expected descent, signal-to-noise ratio and scale-free bias of one draw.

        Raises:
            GradbenchError: the draws were let go.
        """
        if self.zero_gradient:
            return Direction(UNKNOWN, UNKNOWN, UNKNOWN)
        if not len(self.sample.means):
            raise GradbenchError(
                "the draws were let go; read the results again for metrics of their direction"
            )
        if self.source == "theorem":
            return known_direction(self.accuracy, self.level)
        return direction_of(self.sample, self.accuracy, self.level)

    @cached_property
    def unbiased_p(self) -> float:
        """The p-value of the hypothesis that the estimator is unbiased."""
        return unbiased_p(self.sample)

    @cached_property
    def power(self) -> Power | None:
        """What tells the bias that a test finds; None where the bias is known without a test."""
        steady = self.accuracy.variance == 0.0 and self.sample.noise is None
        return None if self.zero_gradient or self.exact or steady else Power.of(self.sample)

    def settled(self, cell: Measurement, tests: bool) -> "LayerMetrics":
        """Return what decisions need, bias and variance, without the draws.

        Args:
            cell: the measurement without draws.
            tests: whether to keep what tests of unbiasedness need, too.
        """
        found = copy.copy(self)
        names = (*_SETTLED, *_TESTED) if tests and self.layer != HIDDEN else _SETTLED
        found.__dict__ |= {name: getattr(self, name) for name in names}
        found.cell, found.sample = cell, self.sample.without_draws()
        found._directions = {}
        return found

    def at(self, level: float) -> "LayerMetrics":
        """Return the same with intervals of another level."""
        if level == self.level:
            return self
        found = copy.copy(self)
        found.level, found._directions = level, {}
        found.__dict__.pop("direction", None)
        return found

    def directions(self, average: int) -> Directions:
        """Return cosine, signs and descents of the mean of M = ``average`` draws.

        Raises:
            GradbenchError: the stored blocks do not tell them at this M.
        """
        if self.zero_gradient:
            return NO_DIRECTIONS
        if average not in self._directions:
            steady = self.accuracy.variance == 0.0
            self._directions[average] = directions_of(
                self.cell, self.sample, average, steady, self.level
            )
        return self._directions[average]

    def estimate(self, metric: str, average: int = 1) -> Estimate:
        """Return a metric of the mean of M = ``average`` draws.

        Raises:
            GradbenchError: there is no such metric, or the stored blocks do not tell it at this M.
        """
        return self._estimate(METRICS.canonical(metric), average)

    def _estimate(self, metric: str, average: int) -> Estimate:
        if self.zero_gradient:
            return UNKNOWN
        found = METRICS[metric].function(self, average)
        if isinstance(found, Estimate):
            return found
        try:
            return UNKNOWN._replace(value=float(found))
        except (TypeError, ValueError):
            raise GradbenchError(
                f"the metric {metric!r} returned {found!r}; return an Estimate or a number"
            ) from None

    def row(self, average: int, metrics: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the columns of ``summary`` and ``curves`` at M = ``average``.

        Metrics of groups are NaN where no group of M draws was stored.

        Args:
            average: M.
            metrics: the names of the metrics; all of them, and ``p_unbiased``, by default.

        Raises:
            GradbenchError: a metric returned neither an ``Estimate`` nor a number.
        """
        grouped = average in self.cell.average_sizes()
        row: dict[str, Any] = {
            "M": average,
            "gradient_norm": self.sample.norm,
            "draws": self.sample.draws,
            "zero_gradient": self.zero_gradient,
            "exact": self.exact,
            "bias_source": self.source,
        }
        for name in all_metrics() if metrics is None else metrics:
            here = grouped or not METRICS[name].groups
            found = self._estimate(name, average) if here else UNKNOWN
            row |= {name: found.value, f"{name}_se": found.se}
            row |= {f"{name}_low": found.low, f"{name}_high": found.high}
        directions = self.directions(average) if grouped else NO_DIRECTIONS
        row["groups"] = directions.groups
        row["cosine_q15"], row["cosine_q15_se"] = directions.lower
        row["cosine_q85"], row["cosine_q85_se"] = directions.upper
        if metrics is None:
            row["p_unbiased"] = self.unbiased_p
        return row | times.columns(self.cell.cost)


_SETTLED = ("exact", "measured", "accuracy", "source")
_TESTED = ("unbiased_p", "power")  # of layers alone


def layers_of(cell: Measurement, level: float = LEVEL) -> Iterator[LayerMetrics]:
    """Yield the metrics of each layer of a cell and, if there are several, of the network.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    if cell.known is not None:
        yield from single_layers(cell.known, level)
        return
    for sample in samples(cell):
        yield LayerMetrics(cell, sample, level)


def single_layers(
    scopes: Mapping[str, LayerMetrics], level: float = LEVEL
) -> Iterator[LayerMetrics]:
    """Yield of ``scopes_of`` a cell what ``layers_of`` yields: the layers, and the network."""
    for name, found in scopes.items():
        if name not in (NETWORK, HIDDEN):
            yield found.at(level)
    if NETWORK in scopes:
        yield scopes[NETWORK].at(level)


def scopes_of(cell: Measurement, level: float = LEVEL) -> dict[str, LayerMetrics]:
    """Return the metrics of what a decision is about, by name.

    These are the network and its hidden layers together, where each has several layers, and every
    single layer.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    if cell.known is not None:
        return {name: found.at(level) for name, found in cell.known.items()}
    found = {one.layer: one for one in layers_of(cell, level)}
    first = {NETWORK: found.pop(NETWORK)} if NETWORK in found else {}
    if (joint := hidden_sample(cell)) is not None:
        first[joint.name] = LayerMetrics(cell, joint, level)
    return first | found


def stated(
    cell: Measurement, layer: str, accuracy: Accuracy, source: str, zero: bool
) -> LayerMetrics:
    """Return the metrics of a layer whose bias and variance are known without its draws.

    Args:
        cell: a measurement without draws.
        layer: the name of the layer.
        accuracy: bias and variance.
        source: where the bias is known from, as ``LayerMetrics.source`` has it.
        zero: whether the gradient is zero.
    """
    none = np.zeros(0)
    blocks = Blocks(none, *[np.zeros((0, 0))] * 2)
    found = LayerMetrics(cell, Sample(layer, 0.0 if zero else 1.0, none, blocks, None, None))
    exact = not zero and not accuracy.covariance.any()
    found.__dict__ |= {"exact": exact, "measured": accuracy, "accuracy": accuracy, "source": source}
    return found


def settled(
    cell: Measurement, scopes: Mapping[str, LayerMetrics] | None = None, tests: bool = True
) -> Measurement:
    """Return a measurement without its draws, whose metrics are computed once and kept.

    Bias and variance stay known, and so does all that follows from them, such as decisions; what
    needs the draws themselves, such as directions, is gone. This takes a fraction of the memory.

    Args:
        cell: a measurement.
        scopes: its ``scopes_of``, if they are known already.
        tests: whether to keep what tests of unbiasedness need, too.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    if cell.known is not None:
        return cell
    nothing: dict[str, Any] = {"averages": (), "head_sizes": (), "long_averages": ()}
    light = cell._replace(blocks=(), gradient=(), moments=None, known={}, **nothing)
    own = scopes_of(cell) if scopes is None else scopes
    return light._replace(known={name: one.settled(light, tests) for name, one in own.items()})
