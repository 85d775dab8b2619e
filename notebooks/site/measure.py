"""Measure every estimator on the networks of psa, for the pages of estimators: an hour of one core.

    python notebooks/site/measure.py

What is measured is kept in results/every-estimator, so that only what is missing is measured again.
Bias and variance of a draw per checkpoint and layer are written into psa.csv; those of the estimators
of the suite psa are the ones that come with the package.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import gradbench
from gradbench.estimators.registry import evaluations
from gradbench.results.published import load_estimates, located
from gradbench.results.store import Results

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
            spec = row["estimator"]
            facts = row["source"], evaluations(spec, _UNITS)
            rows.append((spec, row["checkpoint"], row["layer"], *numbers, *facts))
    return pd.DataFrame(rows, columns=_COLUMNS)


def write(results: str | Path, target: Path) -> None:
    """Write the table of the pages from results, finished or not."""
    kept = published()
    frame = gradbench.summary(results)
    more = frame[~frame["estimator"].isin(set(kept["estimator"]))][list(_COLUMNS)]
    table = pd.concat([kept, more])
    for column in _NUMBERS:
        table[column] = table[column].astype(np.float64).map("{:.4g}".format)
    table.to_csv(target, index=False)


if __name__ == "__main__":
    folder = HERE.parents[1] / "results" / "every-estimator"
    write(gradbench.run(str(HERE / "every_estimator.toml"), folder), HERE / "psa.csv")
