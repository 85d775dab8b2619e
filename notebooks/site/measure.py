"""Measure every estimator on the networks of psa, for the pages of estimators: some minutes.

    python notebooks/site/measure.py [SPEC ...]  # by default what the table does not have

Bias and variance of a draw per checkpoint and layer are written into psa.csv. Those of the
estimators of the suite psa come with the package. The others are measured with the draws of
every_estimator.toml: the settings that are listed there, and the defaults of each estimator of
which none is, unless these networks are not for it. Draws are kept in results/every-estimator.
"""

import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pandas as pd

import gradbench
from gradbench.advise.preselect import misfit
from gradbench.core.precision import float64
from gradbench.core.specs import canonical, parse_spec
from gradbench.estimators import ESTIMATORS
from gradbench.estimators.registry import evaluations
from gradbench.metrics import Measurement
from gradbench.metrics import published as metrics
from gradbench.results.published import load_estimates, located
from gradbench.results.store import Results
from gradbench.suites import cells, runner
from gradbench.suites.instance import build
from gradbench.suites.suite import load_suite

HERE = Path(__file__).resolve().parent
TABLE = HERE / "psa.csv"
SUITE = HERE / "every_estimator.toml"
RESULTS = HERE.parents[1] / "results" / "every-estimator"
_UNITS = (5, 5, 5)
_NUMBERS = ("bias2", "bias2_low", "bias2_high", "variance")
_COLUMNS = ("estimator", "checkpoint", "layer", *_NUMBERS, "bias_source", "evaluations")


@cache
def why_not(name: str) -> str:
    """Return why the networks of psa are not for an estimator, "" where they are."""
    with float64():
        return misfit(build(load_suite("psa").problems[0]), name)


def wanted() -> list[str]:
    """Return the estimators of the table: of psa, of every_estimator.toml, and defaults."""
    listed = [*published()["estimator"].unique(), *load_suite(str(SUITE)).estimators]
    named = {parse_spec(spec)[0] for spec in listed}
    others = (name for name in sorted(ESTIMATORS) if name not in named and not why_not(name))
    return [*listed, *map(canonical, others)]


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


def published_cells() -> list[Measurement]:
    """Return the same as measurements, for the decision rule."""
    return metrics.published_cells(
        located("gradbench:psa"), lambda spec: {"evaluations": evaluations(spec, _UNITS)}
    )


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table as they are kept."""
    table = table[list(_COLUMNS)].copy()
    for column in _NUMBERS:
        table[column] = table[column].astype(np.float64).map("{:.4g}".format)
    return table


def measured(several: list[str]) -> pd.DataFrame:
    """Measure estimators: draws alone, no moments of 2^15 paths and no times."""
    cells.measure_cell = partial(cells.measure_cell, work=0)
    runner.lack_times = lambda *_: False
    jax.config.update("jax_disable_most_optimizations", True)  # compiles in half the time
    suite = replace(load_suite(str(SUITE)), estimators=tuple(several))
    return gradbench.summary(gradbench.run(suite, RESULTS))


def write(several: list[str]) -> None:
    """Measure estimators, and write the table with them in the place of their older rows."""
    order = wanted()
    old = pd.read_csv(TABLE, dtype=dict.fromkeys(_NUMBERS, str))
    stored = old.groupby("estimator")["checkpoint"].nunique()
    asked = len(load_suite(str(SUITE)).problems[0].checkpoints)
    drawn = several or [spec for spec in order if stored.get(spec, 0) < asked]
    kept = old[~old["estimator"].isin(drawn) & old["estimator"].isin(order)]
    table = pd.concat([kept, rounded(measured(drawn))] if drawn else [kept])
    at = {spec: place for place, spec in enumerate(order)}
    table.sort_values("estimator", key=lambda specs: specs.map(at), kind="stable").to_csv(
        TABLE, index=False
    )


if __name__ == "__main__":
    write([canonical(spec) for spec in sys.argv[1:]])
