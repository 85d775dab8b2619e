"""What there is to choose from: estimators, problems, suites, noises and metrics."""

import builtins
import inspect
import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import pandas as pd

from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import format_spec
from gradbench.core.text import aligned
from gradbench.core.text import markdown as as_markdown
from gradbench.suites.library import PROBLEMS, SUITES

__all__ = ["estimator", "facts", "list", "text"]


def list(kind: str) -> pd.DataFrame:
    """What there is of a kind, one row each, with its name first.

    Args:
        kind: "estimators", "problems", "suites", "noises" or "metrics".

    Raises:
        GradbenchError: an unknown kind.
    """
    if not isinstance(kind, str) or kind not in KINDS:  # type: ignore[redundant-expr]
        raise GradbenchError(f"unknown kind {kind!r}; {did_you_mean(kind, KINDS)}")
    return pd.DataFrame(KINDS[kind]())


def text(kind: str, width: int | None = None, markdown: bool = False) -> str:
    """``list(kind)`` as text, in columns within a ``width`` or as a table in ``markdown``.

    Raises:
        GradbenchError: as ``list``.
    """
    table = list(kind)
    rows: builtins.list[builtins.list[str]] = table.to_numpy().tolist()
    columns = builtins.list(table.columns)
    if not markdown:
        return "\n".join(aligned(_wrapped([columns, *rows], width)))
    return "\n".join(as_markdown([columns, *([f"`{name}`", *rest] for name, *rest in rows)]))


def _wrapped(rows: Sequence[Sequence[str]], width: int | None) -> Sequence[Sequence[str]]:
    """The rows with cells broken into further rows where lines would exceed a width.

    No word is broken: below some 110 characters, lines are wider.
    """
    columns = builtins.list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    least = [
        max(len(line) for cell in column for line in _broken(cell, 0, k == 0))
        for k, column in enumerate(columns)
    ]
    while width is not None and sum(widths) + 2 * (len(widths) - 1) > width:
        free = [k for k, most in enumerate(widths) if most > least[k]]
        if not free:
            break
        widths[max(free, key=widths.__getitem__)] -= 1
    return [
        line
        for row in rows
        for line in zip_longest(
            *(
                _broken(cell, most, k == 0)
                for k, (cell, most) in enumerate(zip(row, widths, strict=True))
            ),
            fillvalue="",
        )
    ]


def _broken(cell: str, width: int, indent: bool) -> builtins.list[str]:
    """The lines of a cell, which may end after words and after the name before arguments."""
    first, *parts = re.findall(r"[^\s(]*(?:\(|\s+|$)", cell)
    lines = [first]
    for part in parts:
        if len(lines[-1] + part.rstrip()) > width and part:
            lines.append("  " * indent)
        lines[-1] += part
    return [line.rstrip() for line in lines]


def estimator(spec: str) -> str:
    """What ``gradbench show estimator`` prints: the formula, what it is exact for, cost, source.

    Args:
        spec: a name such as "psa", with hyper-parameters where others than the defaults are meant.

    Raises:
        GradbenchError: the estimator is unknown, or cannot be made.
    """
    from gradbench.estimators.registry import get_estimator

    entry, arguments = get_estimator(spec)
    title = format_spec(entry.name, entry.hyperparameters | arguments)
    about = textwrap.indent(inspect.getdoc(entry.make) or "", "    ")
    return "\n".join([title, "", about, "", *aligned(facts(spec))])


def facts(spec: str) -> builtins.list[tuple[str, str]]:
    """What the registry says of an estimator, as pairs of a name and a text.

    Args:
        spec: as for ``estimator``.

    Raises:
        GradbenchError: the estimator is unknown, or cannot be made.
    """
    from gradbench.estimators.registry import (
        EXACTNESS,
        any_model,
        check_spec,
        get_estimator,
        price_of,
    )

    entry, arguments = get_estimator(spec)
    check_spec(spec)
    claim = entry.claim(**arguments)
    cost = price_of(spec) if arguments else entry.price()
    randomness = getattr(entry.make(any_model, **arguments), "randomness", "uniforms")
    return [
        ("family", entry.family),
        ("exact for", claim if claim == "exact" else f"{EXACTNESS[claim]} ({claim})"),
        ("value", "unbiased" if entry.estimates_value(**arguments) else "biased"),
        ("randomness", _RANDOMNESS[randomness]),
        (
            "cost per draw",
            f"objective: {cost.objective}, its gradient: {cost.gradient}, layers: {cost.layers}"
            " (L layers, D units, n of them in the last layer)",
        ),
        ("layers", entry.layers),
        ("taken by", _entry_points(entry)),
        ("needs", _needs(entry) or "nothing beyond any model"),
        ("source", entry.source),
    ]


_RANDOMNESS = {
    "none": "none: every draw is the same",
    "states": "the sampled states alone",
    "uniforms": "the uniforms themselves",
}


def _entry_points(entry: Any) -> str:
    if entry.needs:
        return "models alone"
    return "binarize, expectation, any model" if entry.unitwise else "expectation, any model"


def _needs(entry: Any) -> str:
    smooth = "a differentiable objective" if entry.needs_derivative() else ""
    return ", ".join(filter(None, [smooth, entry.needs]))


def _estimators() -> builtins.list[dict[str, Any]]:
    from gradbench.estimators import ESTIMATORS

    plugins.load_installed("estimators")
    return [
        {
            "estimator": format_spec(entry.name, entry.hyperparameters),
            "exact for": entry.claim(),
            "randomness": entry.randomness,
            "cost per draw": str(entry.price()),
            "layers": entry.layers,
            "needs": entry.needs,
            "source": _short(entry.source),
        }
        for _, entry in sorted(ESTIMATORS.items())
    ]


def _short(source: str) -> str:
    """Authors and years, without titles."""
    parts = [re.match(r".*?\b\d{4}\b\)?|.*", part) for part in source.split("; ")]
    return "; ".join(part[0] for part in parts if part)


def _problems() -> builtins.list[dict[str, Any]]:
    return [{"problem": name, "title": PROBLEMS.facts(name).summary} for name in PROBLEMS.names()]


def _suites() -> builtins.list[dict[str, Any]]:
    return [{"suite": name, "title": SUITES.facts(name).summary} for name in SUITES.names()]


def _noises() -> builtins.list[dict[str, Any]]:
    from gradbench.core.noise import NOISES

    return [{"noise": name} for name in NOISES]


def _metrics() -> builtins.list[dict[str, Any]]:
    from gradbench.metrics import METRICS

    return [
        {"metric": name, "what it is": metric.meaning, "better": metric.better}
        for name, metric in METRICS.items()
    ]


KINDS = {
    "estimators": _estimators,
    "problems": _problems,
    "suites": _suites,
    "noises": _noises,
    "metrics": _metrics,
}
