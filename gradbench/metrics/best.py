"""Which rows of a table are the best in a column: those that nothing is significantly better than.

``gradbench rank`` compares squared errors draw by draw, and so tells more apart. Here estimates
count as independent, which errs to the side of a tie.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradbench.core.display import display_name
from gradbench.core.specs import family, label
from gradbench.core.text import FORMATS, Best
from gradbench.metrics.intervals import Estimate, least_difference
from gradbench.metrics.registry import METRICS

BOLD = (
    "Bold: nothing in the layer is significantly better, at 95 % as of independent estimates; the\n"
    "exact estimator does not count."
)
_ROUNDING = 1e-9  # relative, and relative to |G|


def best_rows(rows: Sequence[Mapping[str, Any]], name: str) -> set[str]:
    """Return the estimators that no other is significantly better than in a metric.

    There are none where all are alike. The exact estimator does not count.

    Args:
        rows: the rows of one layer of a ``summary``, as dictionaries.
        name: the metric.
    """
    found = {row["estimator"]: _estimate(row, name) for row in rows if not row["zero_gradient"]}
    known = {
        spec: one
        for spec, one in found.items()
        if family(spec) != "exact" and not math.isnan(one.value)
    }
    if len(known) < 2:
        return set()
    sign = 1.0 if METRICS[name].better == "low" else -1.0
    first = min(known.values(), key=lambda one: sign * one.value)
    ties = {spec for spec, one in known.items() if _alike(one, first)}
    return ties if len(ties) < len(known) else set()


def best_by_layer(
    group: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[tuple[str, str], set[str]]:
    """Return the metrics in which an estimator is among the best of a layer.

    Args:
        group: the rows of one place of a ``summary``, as dictionaries.
        names: metrics.

    Returns:
        The metrics by layer and estimator.
    """
    found: dict[tuple[str, str], set[str]] = {}
    layers: dict[str, list[Mapping[str, Any]]] = {}
    for row in group:
        layers.setdefault(row["layer"], []).append(row)
    for layer, rows in layers.items():
        for name in names:
            for spec in best_rows(rows, name):
                found.setdefault((layer, spec), set()).add(name)
    return found


def _estimate(row: Mapping[str, Any], name: str) -> Estimate:
    if row.get("bias_source") == "theorem" and name in ("bias", "bias2"):
        return Estimate(0.0, 0.0, 0.0, 0.0)
    return Estimate(*(row[f"{name}{end}"] for end in ("", "_se", "_low", "_high")))


def _alike(one: Estimate, best: Estimate) -> bool:
    if one.value == best.value:
        return True
    gap = abs(one.value - best.value)
    rounding = _ROUNDING * max(abs(one.value), abs(best.value), 1.0)
    return gap <= max(least_difference(one, best), rounding)


def marked(cell: str, best: bool) -> str:
    """Return the text of a cell, in bold for papers if it is the best of its column."""
    return Best(cell) if best else cell


def named(spec: str, form: str, known: Mapping[str, str] = {}) -> str:
    """Return what a table calls an estimator: for papers its display name, else its spec.

    Args:
        spec: the estimator.
        form: the format of the table.
        known: as of ``gradbench.core.display.display_name``.
    """
    return display_name(spec, known) if FORMATS.find(form).formulas else label(spec)
