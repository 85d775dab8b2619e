"""Listings and descriptions of estimators, noises, metrics, figures and all else with a name."""

import re
import textwrap
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gradbench.cli.columns import fitted
from gradbench.core import index, plugins
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.registry import KINDS, Registry, is_kind, kind_of, registry
from gradbench.core.specs import format_spec, parse_spec
from gradbench.core.text import aligned, as_json
from gradbench.core.text import markdown as as_markdown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["available", "estimator", "facts", "json", "kinds", "shown", "text"]
_Rows = list[dict[str, str]]
_ALIASES = "also called"  # by the literature
_PAPER = "paper"  # a link
_NO_ROOM = (_ALIASES, _PAPER, "randomness", "layers", "needs")


def available(kind: str) -> "pd.DataFrame":
    """Return what there is of a kind as a frame: a row each, with its name first.

    Args:
        kind: such as "estimators", "noises" or "data sets".

    Raises:
        GradbenchError: an unknown kind, or a plugin that fails.
    """
    import pandas as pd

    return pd.DataFrame(_rows(kind))


def text(kind: str, width: int | None = None, markdown: bool = False) -> str:
    """Return ``list(kind)`` as text, in columns within a ``width`` or as a table in ``markdown``.

    Raises:
        GradbenchError: an unknown kind, or a plugin that fails.
    """
    table = [_linked(row) if markdown else _short(row) for row in _rows(kind)]
    if not markdown:
        return "\n".join(fitted(table, width))
    columns, rows = [*table[0]], [[*row.values()] for row in table]
    return "\n".join(as_markdown([columns, *([f"`{name}`", *rest] for name, *rest in rows)]))


def json(kind: str | None) -> str:
    """Return ``list(kind)`` as JSON: an object for each thing; the names of the kinds without one.

    Raises:
        GradbenchError: an unknown kind, or a plugin that fails.
    """
    return as_json(kinds().split("\n") if kind is None else _rows(kind))


def _short(row: dict[str, str]) -> dict[str, str]:
    """Return a row without what a terminal has no room for; ``shown`` has it."""
    return {name: cell for name, cell in row.items() if name not in _NO_ROOM}


def _linked(row: dict[str, str]) -> dict[str, str]:
    """Return a row of Markdown: the first of the sources is a link to the paper."""
    cells = {name: cell for name, cell in row.items() if name != _PAPER}
    if link := row.get(_PAPER):
        first, *others = cells["source"].split("; ")
        cells["source"] = "; ".join([f"[{first}]({link})", *others])
    return cells


def kinds() -> str:
    """Return the kinds that ``available`` takes, one a line."""
    return "\n".join(kind.replace("_", "-").replace(" ", "-") for kind in KINDS)


def shown(kind: str, name: str) -> str:
    """Return what ``gradbench show KIND NAME`` prints: the facts about one thing, and its docs.

    Args:
        kind: such as "noise", or "noises".
        name: its name or an alias; of an estimator also with hyper-parameters.

    Raises:
        GradbenchError: an unknown kind or name, or an estimator that cannot be made.
    """
    if not is_kind(kind):
        raise GradbenchError(_no_kind(kind, name))
    if kind_of(kind) == "estimators":
        return estimator(name)
    things = registry(kind)
    name = things.canonical(name)
    known = things.facts(name)
    lines = [("aliases", ", ".join(known.aliases))] * bool(known.aliases)
    lines += [("defined in", known.origin)]
    doc = known.doc if known.doc.startswith(known.summary) else f"{known.summary}\n\n{known.doc}"
    return "\n".join([name, "", textwrap.indent(doc, "    "), "", *aligned(lines)])


def _no_kind(kind: str, name: str) -> str:
    close = did_you_mean(kind, KINDS)
    hint = f" ({close})" if close.startswith("did you mean") else ""
    return (
        f"show got {kind!r} and {name!r}; give one directory, or a kind and a name, as in show "
        f"estimator psa{hint}"
    )


def estimator(spec: str) -> str:
    """Return what ``gradbench show estimator`` prints: formula, exactness, cost and source.

    Args:
        spec: a name such as "psa", with hyper-parameters where others than the defaults are meant.

    Raises:
        GradbenchError: the estimator is unknown, or cannot be made.
    """
    found = _described(spec)
    title = format_spec(found.name, found.hyperparameters)
    about = textwrap.indent(found.doc, "    ")
    return "\n".join([title, "", about, "", *aligned(_facts(found))])


def facts(spec: str) -> list[tuple[str, str]]:
    """Return what the registry knows about an estimator, as pairs of a name and a text.

    Args:
        spec: a name, with hyper-parameters where others than the defaults are meant.

    Raises:
        GradbenchError: the estimator is unknown, or cannot be made.
    """
    return _facts(_described(spec))


def _described(spec: str) -> index.Description:
    """Return what is known about an estimator, from the index where that has it."""
    name, arguments = parse_spec(spec)
    arguments = index.preset(name) | arguments
    known = index.indexed()
    if known is not None and not arguments and (found := known.get(index.registered_name(name))):
        return found
    from gradbench.estimators.registry import describe

    return describe(spec)


def _facts(found: index.Description) -> list[tuple[str, str]]:
    claim = found.exactness
    objective, gradient, layers = found.evaluations

    def called(alias: str) -> str:
        means = found.presets.get(alias)
        return f"{alias} ({format_spec(found.name, means)})" if means else alias

    return [
        *([("full name", found.full_name)] if found.full_name else []),
        *([(_ALIASES, ", ".join(map(called, found.aliases)))] if found.aliases else []),
        ("family", found.family),
        ("exact for", claim if claim == "exact" else f"{found.exact_for} ({claim})"),
        ("value", "unbiased" if found.value_unbiased else "biased"),
        ("randomness", _RANDOMNESS[found.randomness]),
        (
            "cost per draw",
            f"objective: {objective}, its gradient: {gradient}, layers: {layers}"
            " (L layers, D units, n of them in the last layer)",
        ),
        ("layers", found.layers),
        ("taken by", _entry_points(found)),
        ("needs", _needs(found) or "nothing beyond any model"),
        *([("as published", found.as_published)] if found.as_published else []),
        ("source", found.source),
        *([("paper", found.paper)] if found.paper else []),
    ]


_RANDOMNESS = {
    "none": "none: every draw is the same",
    "states": "the sampled states alone",
    "uniforms": "the uniforms themselves",
}


def _entry_points(found: index.Description) -> str:
    if found.needs:
        return "models alone"
    return "binarize, expectation, any model" if found.unitwise else "expectation, any model"


def _needs(found: index.Description) -> str:
    smooth = "a differentiable objective" if found.differentiable else ""
    return ", ".join(filter(None, [smooth, found.needs]))


def _rows(kind: str) -> _Rows:
    kind = kind_of(kind)
    return _ROWS[kind]() if kind in _ROWS else _named(registry(kind))


def _named(things: Registry[Any]) -> _Rows:
    things.load_installed()
    rows = []
    for name in things:
        known = things.facts(name)
        summary = known.summary.replace("``", "`")
        rows.append({things.kind: name, "aliases": ", ".join(known.aliases), "what it is": summary})
    return rows


def _estimators() -> _Rows:
    known = index.indexed()
    if known is None or plugins.has_entry_points("estimators"):
        from gradbench.estimators.registry import ESTIMATORS

        known = {name: ESTIMATORS[name].describe() for name in ESTIMATORS.names()}
    return [
        {
            "estimator": format_spec(found.name, found.hyperparameters),
            "full name": found.full_name,
            _ALIASES: ", ".join(found.aliases),
            "exact for": found.exactness,
            "randomness": found.randomness,
            "cost per draw": found.cost,
            "layers": found.layers,
            "needs": found.needs,
            "as published": found.as_published,
            "source": _authors(found.source),
            _PAPER: found.paper,
        }
        for _, found in sorted(known.items())
    ]


def _authors(source: str) -> str:
    """Return authors and years, without titles."""
    parts = [re.match(r".*?\b\d{4}\b\)?|.*", part) for part in source.split("; ")]
    return "; ".join(part[0] for part in parts if part)


def _titled(kind: str) -> _Rows:
    known = registry(kind)
    return [{known.kind: name, "title": known.facts(name).summary} for name in known.names()]


def _metrics() -> _Rows:
    from gradbench.metrics import METRICS

    return [
        {"metric": name, "what it is": metric.meaning, "better": metric.better}
        for name, metric in METRICS.items()
    ]


# Kinds whose listings have columns of their own.
_ROWS: dict[str, Callable[[], _Rows]] = {
    "estimators": _estimators,
    "problems": partial(_titled, "problems"),
    "suites": partial(_titled, "suites"),
    "metrics": _metrics,
}
