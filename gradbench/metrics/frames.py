"""Metrics as pandas frames, a row per cell and layer."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradbench.metrics.changes import changes
from gradbench.metrics.directory import Measurements, measurements
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import (
    LayerMetrics,
    layers_of,
    scopes_of,
    settled,
    single_layers,
)
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement
from gradbench.metrics.registry import check_metrics

MOST = 4096  # coordinates of a layer in a figure


def summary(
    results: Measurements,
    average: int = 1,
    level: float = LEVEL,
    metrics: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return all metrics of the mean of M draws, one row per cell and layer.

    Cells are read one after the other, and only their rows are kept.

    Args:
        results: a directory of results, its path, or measurements.
        average: M.
        level: the level of the intervals.
        metrics: the names of the metrics, which take time; all of them by default. With a choice,
            there is no column p_unbiased.

    Returns:
        A frame with these columns: problem, replicate, checkpoint, layer, estimator; what the cells
        carry as ``info``; M, gradient_norm (absolute), draws, zero_gradient; exact (whether bias
        and variance are exact, with errors of 0); bias_source (where the bias is known from:
        "theorem", "enumeration" or "test"); every metric of ``METRICS``, relative to |G|,
        each with its standard error ``_se`` and the limits ``_low`` and ``_high`` of an interval;
        groups, cosine_q15 and cosine_q85 (quantiles of the cosine, with ``_se``), NaN at an M whose
        groups were not stored; p_unbiased (see ``unbiasedness``); what a draw costs, NaN where it
        was not stored: evaluations of the objective per example, seconds (of a draw among many, the
        median of repeats), seconds_spread (of the repeats, relative, one standard deviation),
        latency (seconds of a single draw) and latency_spread.
        The layer "network" is all layers together, where there are several.

    Raises:
        GradbenchError: there are no results, files are damaged (the sentence names them), or no
            cell is finished; or there is no such metric.
    """
    names = None if metrics is None else check_metrics(metrics)
    table = _Columns()
    for cell in measurements(results):
        for found in layers_of(cell, level):
            table.add(row(found, average, names))
    return table.frame()


def curves(results: Measurements, level: float = LEVEL) -> pd.DataFrame:
    """Return all metrics, one row per cell, layer and M whose groups were stored.

    Args:
        results: a directory of results, its path, or measurements.
        level: the level of the intervals.

    Returns:
        A frame with the columns of ``summary``, and changes: where another estimator becomes the
        best of the layer at equal cost, a tuple of ``gradbench.metrics.changes.Change``.

    Raises:
        GradbenchError: as ``summary``.
    """
    table = Frames(["curves"], level)
    for cell in measurements(results):
        table.add(cell)
    return table.frames()["curves"]


def row(found: LayerMetrics, average: int, metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Return one row of these frames, at M = ``average``, with some metrics or all."""
    cell = found.cell
    key = [*cell.place, found.layer, cell.estimator]
    return dict(zip(KEYS, key, strict=True)) | dict(cell.info) | found.row(average, metrics)


def coordinates(results: Measurements) -> pd.DataFrame:
    """Return the bias of each coordinate of the gradient, relative to |G| of its layer.

    Args:
        results: a directory of results, its path, or measurements.

    Returns:
        A frame with a row per cell, layer and coordinate: the keys; coordinate (from 0; the leaves
        of a layer in the order of JAX, each row by row); gradient, bias and bias_se (0 where
        moments and reference are exact), in units of |G|; bias_source (see ``summary``). Layers
        whose gradient is zero are left out.

    Raises:
        GradbenchError: as ``summary``.
    """
    parts = _Coordinates(math.inf)
    for cell in measurements(results):
        parts.add(layers_of(cell))
    return parts.frame()


def names_in(frame: pd.DataFrame) -> dict[str, str]:
    """Return the display names of estimators that a frame has, by spec.

    Frames have them, as the column ``display_name``, of the estimators of plugins. They are the
    argument ``known`` of ``gradbench.core.display.display_name``.

    Args:
        frame: any frame of ``gradbench.metrics``.
    """
    if "display_name" not in frame:
        return {}
    once = frame.drop_duplicates("estimator").dropna(subset=["display_name"])
    return dict(zip(once["estimator"], once["display_name"].astype(str), strict=True))


class Frames:
    """Several of these frames, of cells that are read just once: "summary", "curves", ...

    They are made for figures: layers of more than ``MOST`` coordinates, of which none could be told
    from the next one, are left out of "coordinates". ``cells`` are the measurements without their
    draws: all that decisions need.
    """

    def __init__(self, names: Collection[str], level: float = LEVEL) -> None:
        tables = {"summary": _Columns, "curves": _Columns, "coordinates": _Coordinates}
        self._tables: dict[str, Any] = {name: tables[name]() for name in names}
        self._level = level
        self.cells: list[Measurement] = []

    def add(self, cell: Measurement) -> None:
        """Add the rows of a cell."""
        scopes = scopes_of(cell, self._level)
        self.cells.append(settled(cell, scopes))
        layers = list(single_layers(scopes, self._level))
        for name, table in self._tables.items():
            if name == "coordinates":
                table.add(layers)
                continue
            for found in layers:
                for average in [1] if name == "summary" else cell.average_sizes():
                    table.add(row(found, average))

    @property
    def wide(self) -> bool:
        """True if a layer is left out of "coordinates"."""
        return "coordinates" in self._tables and self._tables["coordinates"].wide

    def frames(self) -> dict[str, pd.DataFrame]:
        """Return the frames by name."""
        found = {name: table.frame() for name, table in self._tables.items()}
        if "curves" in found:
            found["curves"] = self._with_changes(found["curves"])
        return found

    def _with_changes(self, curves: pd.DataFrame) -> pd.DataFrame:
        """Return ``curves`` with the column ``changes``."""
        known = changes(self.cells, self._level)
        keys = zip(*(curves[name] for name in KEYS[:4]), strict=True) if len(curves) else ()
        return curves.assign(changes=[known.get((key[:3], key[3]), ()) for key in keys])


_LOOKS = ("family", "display_name")


class _Columns:
    """Rows as columns, which take a fraction of the memory of as many dictionaries."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {}
        self._count = 0

    def add(self, one: Mapping[str, Any]) -> None:
        for name, value in one.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = [math.nan] * self._count
            column.append(value)
        if len(one) < len(self._columns):
            for name in self._columns.keys() - one.keys():
                self._columns[name].append(math.nan)
        self._count += 1

    def frame(self) -> pd.DataFrame:
        """Return the rows as a frame; columns that just some of them have are NaN elsewhere."""
        return pd.DataFrame(self._columns)


class _Coordinates:
    """The rows of ``coordinates``, layer by layer."""

    def __init__(self, most: float = MOST) -> None:
        self._most, self.wide = most, False
        self._sizes: list[int] = []
        self._names = _Columns()  # a row for each layer
        self._numbers: dict[str, list[Any]] = {}

    def add(self, layers: Iterable[LayerMetrics]) -> None:
        for found in layers:
            cell, sample = found.cell, found.sample
            if sample.name == NETWORK or sample.zero:
                continue
            if len(sample.direction) > self._most:
                self.wide = True
                continue
            mean, variances = sample.mean_and_variance()
            key = dict(zip(KEYS, [*cell.place, sample.name, cell.estimator], strict=True))
            looks = {name: cell.info[name] for name in _LOOKS if name in cell.info}
            self._names.add({**key, **looks, "bias_source": found.source})
            self._sizes.append(len(mean))
            values = {
                "coordinate": np.arange(len(mean)),
                "gradient": sample.direction,
                "bias": mean - sample.direction,
                "bias_se": np.sqrt(variances),
            }
            for name, value in values.items():
                self._numbers.setdefault(name, []).append(value)

    def frame(self) -> pd.DataFrame:
        if not self._sizes:
            return pd.DataFrame(columns=KEYS)
        names = self._names.frame()
        frame = names.loc[names.index.repeat(self._sizes)].reset_index(drop=True)
        sources = frame.pop("bias_source")
        for name, parts in self._numbers.items():
            frame[name] = np.concatenate(parts)
        return frame.assign(bias_source=sources)
