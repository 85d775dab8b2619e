"""The text of ``gradbench show``: a summary as a table with uncertain digits."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from gradbench.metrics import KEYS, Accuracy
from gradbench.spec import label


def table(frame: pd.DataFrame) -> str:
    """A ``summary`` as text: rmse, |bias|, std, cosine and its band.

    Digits in brackets are the standard error of the last digits shown. A bias within two standard
    errors of zero reads as the upper limit "< x".
    """
    if frame.empty:
        return "no finished cells"
    lines = []
    width = max(27, *(len(label(name)) + 2 for name in frame["estimator"].unique()))
    header = f"  layer     {'estimator':{width}} " + _HEADER
    for (problem, replicate, checkpoint), group in frame.groupby(KEYS[:3], sort=False):
        loss = f", loss {group['loss'].iloc[0]:.4f}" if "loss" in group else ""
        lines += [f"{problem}, replicate {replicate}, {checkpoint}{loss}", header]
        for layer, rows in group.groupby("layer", sort=False):
            for k, row in enumerate(rows.to_dict("records")):
                lines.append(_line("" if k else str(layer), row, width))
        lines.append("")
    return "\n".join([*lines, _LEGEND])


_HEADER = "       rmse      |bias|         std      cosine  band"
_LEGEND = (
    "Relative to the exact gradient, for one draw. 0.213(4) is 0.213 with standard error 0.004;\n"
    "|bias| < x: none seen, two standard errors; band: 15 % and 85 % quantiles of the cosine.\n"
    "=: rmse, |bias| and std are exact, by enumeration, and have no error."
)


def _line(layer: str, row: Mapping[str, Any], width: int) -> str:
    name = label(row["estimator"]) + " =" * row["exact"]
    start = f"  {layer:<9} {name:<{width}} "
    if row["zero_gradient"]:
        return f"{start}{'zero gradient':>11}"
    std, std_se = Accuracy(0.0, row["variance"], np.diag([0.0, row["variance_se"] ** 2])).rmse(1)
    cells = [
        digits(row["rmse"], row["rmse_se"]),
        _bias(row["bias2"], row["bias2_se"]),
        digits(std, std_se),
        digits(row["cosine"], row["cosine_se"]),
    ]
    band = f"  {row['cosine_low']:5.2f} {row['cosine_high']:5.2f}"
    return start + " ".join(f"{cell:>11}" for cell in cells) + band


def _bias(bias2: float, se: float) -> str:
    if bias2 < 2.0 * se:
        return f"< {math.sqrt(max(bias2, 0.0) + 2.0 * se):.2g}"
    bias = math.sqrt(max(bias2, 0.0))
    return digits(bias, se / (2.0 * bias) if se else se)


def digits(value: float, se: float) -> str:
    """A value with its standard error in brackets, 0.213(4); an error beginning with 1 has two."""
    if math.isnan(value):
        return "-"
    if abs(value) < 1e-10 and not se > 1e-10:
        return "0"
    if not 0.0 < se < math.inf or se < 1e-6 * abs(value):
        return f"{value:.4g}" if se == 0.0 else f"{value:.3g}"
    power = math.floor(math.log10(se))
    if round(se / 10.0**power, 1) < 2.0:
        power -= 1
    if abs(value) < 1e-4 and se < 1e-4:
        exponent = math.floor(math.log10(max(abs(value), se)))
        return f"{digits(value / 10.0**exponent, se / 10.0**exponent)}e{exponent:+03d}"
    if power >= 0:
        return f"{round(value, -power):.0f}({round(se, -power):.0f})"
    return f"{value:.{-power}f}({round(se / 10.0**power)})"
