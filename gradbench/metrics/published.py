"""Published results as frames, as ``gradbench.metrics.summary`` makes them of draws."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.metrics.accuracy import Accuracy
from gradbench.metrics.directory import positions
from gradbench.metrics.layers import stated
from gradbench.metrics.measurement import KEYS, NETWORK, Measurement
from gradbench.results.published import PREFIX, has_estimates, load_estimates, published_suites
from gradbench.results.store import Results


def published_cells(
    directory: Path, costs: Callable[[str], Mapping[str, float]]
) -> list[Measurement]:
    """Return published results as measurements without draws, for ``gradbench.metrics.decide``.

    Estimators are compared as if they had not shared random numbers, which errs towards ties.

    Args:
        directory: where they are, see ``gradbench.results.published.located``.
        costs: what a draw of an estimator costs, as ``Measurement.cost`` has it.

    Raises:
        GradbenchError: the directory has networks alone, or files are damaged.
    """
    frame = published_summary(directory)
    found = []
    for (problem, replicate, checkpoint, estimator), rows in frame.groupby(
        [*KEYS[:3], KEYS[4]], sort=False
    ):
        names = list(rows["layer"][rows["layer"] != NETWORK])
        cell = Measurement(
            problem,
            replicate,
            checkpoint,
            estimator,
            layer_names=names,
            blocks=(),
            gradient=(),
            averages=(),
            head_sizes=(),
            block_size=0,
            cost=costs(estimator),
            known={},
        )
        known = {
            str(row["layer"]): stated(
                cell, str(row["layer"]), _accuracy(row), row["bias_source"], row["zero_gradient"]
            )
            for row in rows.to_dict("records")
        }
        whole = {NETWORK: known.pop(NETWORK)} if NETWORK in known else {}
        found.append(cell._replace(known=whole | known))
    places = positions(cell.place for cell in found)
    return sorted(found, key=lambda cell: places[cell.place])


def _accuracy(row: Mapping[str, Any]) -> Accuracy:
    """Return bias and variance of a row of a ``summary`` at M = 1."""
    bias, spread, both = (row[f"{name}_se"] for name in ("bias2", "variance", "mse"))
    together = (both**2 - bias**2 - spread**2) / 2.0
    limit = bias * spread
    together = min(max(together, -limit), limit)
    covariance = np.array([[bias**2, together], [together, spread**2]])
    return Accuracy(row["bias2"], row["variance"], covariance)


def published_summary(directory: Path, average: int = 1) -> pd.DataFrame:
    """Return the published metrics of the mean of M draws, one row per cell and layer.

    Args:
        directory: where they are, see ``gradbench.results.published.located``.
        average: M.

    Raises:
        GradbenchError: the directory has networks alone, or nothing of this M; files are damaged.
    """
    results = Results.open(directory)
    if not has_estimates(directory):
        some = ", ".join(f"{PREFIX}{suite}" for suite in published_suites(estimates=True))
        raise GradbenchError(
            f"the package has the networks of {results.manifest['suite']['name']!r} but no "
            f"estimates; choose one of {some}, or run the suite"
        )
    stored = load_estimates(results)
    rows = []
    for about, values in zip(stored.rows, stored.values.tolist(), strict=True):
        if about["M"] != average:
            continue
        row = {key: about[key] for key in KEYS} | {"M": average}
        row |= {"zero_gradient": about["zero_gradient"], "bias_source": about["source"]}
        for name, numbers in zip(stored.metrics, values, strict=True):
            ends = ("", "_se", "_low", "_high")
            row |= {f"{name}{end}": one for end, one in zip(ends, numbers, strict=True)}
        row["exact"] = row["bias_se"] == 0.0 and row["std_se"] == 0.0
        rows.append(row | {"cosine_q15": math.nan, "cosine_q85": math.nan})
    if not rows:
        known = ", ".join(map(str, sorted({about["M"] for about in stored.rows})))
        raise GradbenchError(f"the published results have no M = {average}; choose one of {known}")
    return pd.DataFrame(rows)
