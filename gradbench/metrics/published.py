"""Published results as frames, as ``gradbench.metrics.summary`` makes them of draws."""

import math
from pathlib import Path

import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.metrics.measurement import KEYS
from gradbench.results.published import PREFIX, has_estimates, load_estimates, published_suites
from gradbench.results.store import Results


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
