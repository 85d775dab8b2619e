"""Tests of which biases are zero, where exact moments do not tell."""

import math

import pandas as pd

from gradbench.core.text import FORMATS, records_by
from gradbench.metrics.accuracy import EXACT
from gradbench.metrics.best import named
from gradbench.metrics.directory import Measurements, measurements
from gradbench.metrics.intervals import digits
from gradbench.metrics.layers import THEOREMS, layers_of
from gradbench.metrics.measurement import KEYS, NETWORK
from gradbench.metrics.render import by_layer, comment, render
from gradbench.metrics.significance import holm

AGAINST = "AGAINST THE THEOREM"  # a verdict
FALSE_ALARMS = 0.01  # of all tests of unbiasedness of a set of results together


def unbiasedness(results: Measurements, alpha: float = FALSE_ALARMS) -> pd.DataFrame:
    """Return whether each estimator is unbiased in each layer.

    A theorem, the certified class of an estimator, may say that it is; exact moments tell it too.
    Both are checked as if nothing were known: by the moments, or else by a test. There the p-value
    is that of the largest |t| over the coordinates of the layer (Sidak), adjusted over all rows by
    Holm's method: the chance of any false alarm is at most ``alpha``, given that means of draws are
    normal. Coordinates dominated by rare events, whose means are not normal, are not tested.

    Args:
        results: a directory of results, its path, or measurements.
        alpha: the chance of any false alarm.

    Returns:
        A frame with a row per cell and layer: the keys; bias (relative, exact or estimated); p and
        p_adjusted, NaN where the answer is known; detectable, the relative bias of any single
        coordinate that would have been found with probability 0.9; source of the knowledge of the
        bias, "theorem", "enumeration" or "test"; verdict: "unbiased by theorem"; "unbiased" or
        "biased" where it is enumerated; "bias found" or "no bias seen" in a test; "AGAINST THE
        THEOREM" where the bias of an estimator that is certified to have none was enumerated, or
        found at the rate ``alpha``; or "zero gradient".

    Raises:
        GradbenchError: as ``summary``.
    """
    rows, alone, claims = [], [], []
    for cell in measurements(results):
        for found in layers_of(cell):
            if found.layer == NETWORK:
                continue
            key = dict(zip(KEYS, [*cell.place, found.layer, cell.estimator], strict=True))
            bias = found.measured.squared_bias().root().value
            zero = found.zero_gradient
            known = found.power is None and not zero
            p = math.nan if known else found.unbiased_p
            rows.append(key | {"bias": bias, "p": p})
            alone.append((found.power, zero, known))
            rows[-1]["source"] = found.source
            claims.append(found.cell.claim in THEOREMS)
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["p_adjusted"] = holm(frame["p"].to_numpy())
    tests = int(frame["p"].notna().sum())
    frame["detectable"] = [
        math.nan if power is None else power.detectable(alpha / max(tests, 1))
        for power, _, _ in alone
    ]
    frame["source"] = frame.pop("source")
    facts = zip(alone, claims, frame["bias"], frame["p_adjusted"], strict=True)
    frame["verdict"] = [
        "zero gradient" if zero else _verdict(claim, known, bias, p < alpha)
        for (_, zero, known), claim, bias, p in facts
    ]
    return frame


def _verdict(claim: bool, known: bool, bias: float, found: bool) -> str:
    seen = bias > EXACT if known else found
    if claim:
        return AGAINST if seen else "unbiased by theorem"
    if known:
        return "biased" if seen else "unbiased"
    return "bias found" if seen else "no bias seen"


def table_of_biases(frame: pd.DataFrame, form: str = "terminal", limit: int | None = None) -> str:
    """Return an ``unbiasedness`` as text.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit))
    parts = []
    for (problem, replicate, checkpoint), group in records_by(frame.head(limit), KEYS[:3]):
        rows = [["layer", "estimator", "bias by", "|bias|", "p", "detectable", "verdict"]]
        for layer, row in by_layer(group):
            bias = digits(row["bias"], math.nan if row["p"] >= 0.0 else 0.0)
            numbers = [
                "" if math.isnan(row[name]) else f"{row[name]:.2g}"
                for name in ("p_adjusted", "detectable")
            ]
            known = named(row["estimator"], form), row["source"]
            rows.append([layer, *known, bias, *numbers, row["verdict"]])
        parts.append(render(rows, form, f"{problem}, replicate {replicate}, {checkpoint}", right=3))
    note = (
        "p: the probability of such a bias by chance, adjusted for all tests here (Sidak, Holm);\n"
        "detectable: the bias of one coordinate that would have been found with probability 0.9.\n"
        "No p: the answer is known, from exact moments or because draws do not vary."
    )
    if against := int(frame["verdict"].eq(AGAINST).sum()):
        note += (
            f"\n\n{AGAINST}: {against} of {len(frame)} rows have a bias where the estimator is\n"
            "certified to have none. The estimator, its certificate or the machine is wrong: do\n"
            f"not use these results. By chance this happens at a rate of {FALSE_ALARMS:g} at most."
        )
    return "\n\n".join([*parts, comment(note, form)])
