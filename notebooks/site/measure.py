"""Measure every estimator on the networks of psa, for the pages of estimators: some minutes.

    python notebooks/site/measure.py

Bias and variance of a draw per checkpoint and layer are written into psa.csv. Those of the
estimators of the suite psa come with the package; the others are measured with 2000 draws each,
which are kept in results/every-estimator, so that only what is missing is measured again.
"""

from pathlib import Path

import jax
import numpy as np
import pandas as pd

import gradbench
from gradbench.estimators.registry import evaluations
from gradbench.measure import timing
from gradbench.results.published import load_estimates, located
from gradbench.results.store import Results
from gradbench.suites import cells

HERE = Path(__file__).resolve().parent
_UNITS = (5, 5, 5)
_NUMBERS = ("bias2", "bias2_low", "bias2_high", "variance")
_COLUMNS = ("estimator", "checkpoint", "layer", *_NUMBERS, "bias_source", "evaluations")


def published() -> pd.DataFrame:
    """Return bias and variance of one draw of the suite psa, as they come with the package."""
    found = load_estimates(Results.open(located("gradbench:psa")))
    bias2, variance = (found.metrics.index(name) for name in ("bias2", "variance"))
    rows = []
    for row, values in zip(found.rows, found.values, strict=True):
        if row["M"] == 1:
            square, _, low, high = values[bias2]
            numbers = (square, low, high, values[variance][0])
            facts = row["source"], evaluations(row["estimator"], _UNITS)
            rows.append((row["estimator"], row["checkpoint"], row["layer"], *numbers, *facts))
    return pd.DataFrame(rows, columns=_COLUMNS)


def write(results: str | Path | Results, target: Path) -> None:
    """Write the table of the pages, from results of the estimators that psa does not have."""
    table = pd.concat([published(), gradbench.summary(results)[list(_COLUMNS)]])
    for column in _NUMBERS:
        table[column] = table[column].astype(np.float64).map("{:.4g}".format)
    table.to_csv(target, index=False)


def run(folder: Path) -> Results:
    """Measure what is missing: draws alone, no moments of 2^15 paths and no times."""
    cells._ENUMERATED = 0
    timing.BUDGET = timing.SINGLE = 1e-3
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    return gradbench.run(str(HERE / "every_estimator.toml"), folder)


if __name__ == "__main__":
    write(run(HERE.parents[1] / "results" / "every-estimator"), HERE / "psa.csv")
