"""Metrics as pandas frames, a row per cell and layer."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import LayerMetrics, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement, samples
from gradbench.metrics.significance import _mean_and_variance


def summary(results: Iterable[Measurement], average: int = 1, level: float = LEVEL) -> pd.DataFrame:
    """One row per cell and layer: the accuracy of the M-sample estimate, M = ``average``.

    The layer "network" is all layers together, where there are several. Columns: problem,
    replicate, checkpoint, layer, estimator; what the cells carry as ``info``; M, gradient_norm
    (absolute), draws, zero_gradient; exact (whether bias and variance are, with errors of 0); every
    metric of ``METRICS``, relative to |G|, each with ``_se`` and the limits ``_low`` and ``_high``
    of an interval at ``level``; groups, cosine_q15 and cosine_q85 (quantiles of the cosine, with
    ``_se``), NaN at an M whose groups are not stored; p_unbiased (see ``unbiasedness``);
    evaluations and seconds per draw.
    """
    return pd.DataFrame(row(found, average) for cell in results for found in layers_of(cell, level))


def curves(results: Iterable[Measurement], level: float = LEVEL) -> pd.DataFrame:
    """One row per cell, layer and M that groups are stored of, with the columns of ``summary``."""
    return pd.DataFrame(
        row(found, average)
        for cell in results
        for found in layers_of(cell, level)
        for average in cell.average_sizes()
    )


def row(found: LayerMetrics, average: int) -> dict[str, Any]:
    """A row of these frames."""
    cell = found.cell
    key = [*cell.place, found.layer, cell.estimator]
    return dict(zip(KEYS, key, strict=True)) | dict(cell.info) | found.row(average)


def coordinates(results: Iterable[Measurement]) -> pd.DataFrame:
    """The bias of each coordinate of the gradient, relative to |G| of its layer.

    Returns:
        A row per cell, layer and coordinate: the keys, coordinate (from 0, leaves of the layer in
        the order of JAX, each row by row), gradient, bias, bias_se (0 where moments and reference
        are exact), all in units of |G|; layers whose gradient is zero are left out.

    Raises:
        GradbenchError: blocks are missing or repeated.
    """
    parts = []
    for cell in results:
        for sample in samples(cell):
            if sample.name == NETWORK or sample.zero:
                continue
            mean, variances = _mean_and_variance(sample)
            key = dict(zip(KEYS, [*cell.place, sample.name, cell.estimator], strict=True))
            family = {"family": cell.info["family"]} if "family" in cell.info else {}
            values = {
                "coordinate": np.arange(len(mean)),
                "gradient": sample.direction,
                "bias": mean - sample.direction,
                "bias_se": np.sqrt(variances),
            }
            parts.append(pd.DataFrame(values).assign(**key, **family)[[*KEYS, *family, *values]])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=KEYS)
