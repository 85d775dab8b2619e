"""Metrics as pandas frames, a row per cell and layer."""

from typing import Any

import numpy as np
import pandas as pd

from gradbench.metrics.directory import Measurements, measurements
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import LayerMetrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK, samples


def summary(results: Measurements, average: int = 1, level: float = LEVEL) -> pd.DataFrame:
    """Return all metrics of the mean of M draws, one row per cell and layer.

    Args:
        results: a directory of results, its path, or measurements.
        average: M.
        level: the level of the intervals.

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
            cell is finished.
    """
    return pd.DataFrame(
        row(found, average) for cell in measurements(results) for found in layers_of(cell, level)
    )


def curves(results: Measurements, level: float = LEVEL) -> pd.DataFrame:
    """Return all metrics, one row per cell, layer and M whose groups were stored.

    Args:
        results: a directory of results, its path, or measurements.
        level: the level of the intervals.

    Returns:
        A frame with the columns of ``summary``.

    Raises:
        GradbenchError: as ``summary``.
    """
    return pd.DataFrame(
        row(found, average)
        for cell in measurements(results)
        for found in layers_of(cell, level)
        for average in cell.average_sizes()
    )


def row(found: LayerMetrics, average: int) -> dict[str, Any]:
    """Return one row of these frames, at M = ``average``."""
    cell = found.cell
    key = [*cell.place, found.layer, cell.estimator]
    return dict(zip(KEYS, key, strict=True)) | dict(cell.info) | found.row(average)


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
    parts = []
    for cell in measurements(results):
        for sample in samples(cell):
            if sample.name == NETWORK or sample.zero:
                continue
            mean, variances = sample.mean_and_variance()
            key = dict(zip(KEYS, [*cell.place, sample.name, cell.estimator], strict=True))
            family = {"family": cell.info["family"]} if "family" in cell.info else {}
            values = {
                "coordinate": np.arange(len(mean)),
                "gradient": sample.direction,
                "bias": mean - sample.direction,
                "bias_se": np.sqrt(variances),
                "bias_source": LayerMetrics(cell, sample).source,
            }
            parts.append(pd.DataFrame(values).assign(**key, **family)[[*KEYS, *family, *values]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=KEYS)
