"""The index of estimators: what the registry says of each one, readable without JAX.

Importing all estimators takes seconds. ``gradbench/estimators/index.json`` has what listings,
suites and figures need to know about the estimators of the package. It is written by ``python -m
gradbench.estimators`` and carries a digest of the sources it was made from: where these have
changed since, or other packages offer estimators, the registry itself is asked.
"""

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gradbench.core import plugins
from gradbench.core.registry import Registry, registry, spelled

FOLDER = Path(__file__).parents[1] / "estimators"
FILE = FOLDER / "index.json"


class Description(NamedTuple):
    """An estimator in words, for given hyper-parameters; see ``gradbench.estimators.Entry``.

    ``aliases`` has all other names, ``presets`` the hyper-parameters of those that mean some.
    ``doc`` is the docstring and ``exact_for`` says in words what ``exactness`` is. ``cost`` has the
    evaluations of a draw in short, ``evaluations`` those of the objective, of its gradient and of
    the layers. ``paper`` is a link, ``formula`` is TeX. ``unitwise`` says whether the estimator is
    a rule for single units. ``display_name`` is the text that ``gradbench.core.display`` makes
    short names of.
    """

    name: str
    aliases: tuple[str, ...]
    presets: dict[str, dict[str, Any]]
    hyperparameters: dict[str, Any]
    doc: str
    family: str
    exactness: str
    exact_for: str
    value_unbiased: bool
    randomness: str
    cost: str
    evaluations: tuple[str, str, str]
    layers: str
    unitwise: bool
    differentiable: bool
    needs: str
    source: str
    full_name: str
    display_name: str
    paper: str
    as_published: str
    formula: str


def registered_name(name: str) -> str:
    """Return the name that an estimator is registered by; a name that is unknown stays.

    Args:
        name: that name or an alias, with hyphens or underscores.
    """
    if indexed() is not None:
        if known := _spellings().get(spelled(name)):
            return known
        if not plugins.has_entry_points("estimators"):
            return name
    estimators: Registry[Any] = registry("estimators")
    return estimators.resolve(name) or name


def preset(name: str) -> dict[str, Any]:
    """Return the hyper-parameters that an alias of an estimator means, none of other names."""
    if (known := indexed()) is not None:
        if found := _spellings().get(spelled(name)):
            return known[found].presets.get(spelled(name), {})
        if not plugins.has_entry_points("estimators"):
            return {}
    estimators: Registry[Any] = registry("estimators")
    resolved = estimators.resolve(name)
    return {} if resolved is None else dict(estimators[resolved].presets.get(spelled(name), {}))


def remedy(name: str) -> str | None:
    """Return the remedy for the name of an unknown estimator, None for one that is known."""
    if name in (indexed() or {}):
        return None
    estimators: Registry[Any] = registry("estimators")
    return None if estimators.resolve(name) else estimators.suggestion(name)


def indexed() -> dict[str, Description] | None:
    """Return the descriptions of all estimators of the package with their defaults, by name.

    None where the registry has to be asked: it is loaded already, so that it may have estimators of
    plugins, or the sources are not those of the index.
    """
    return None if "gradbench.estimators" in sys.modules else _read()


@cache
def families() -> dict[str, str]:
    """Return the family of each estimator of the package by name.

    An index of older sources will do: families of estimators hardly ever change.
    """
    return {name: facts["family"] for name, facts in _content()["estimators"].items()}


@cache
def claims() -> dict[str, str]:
    """Return what each estimator of the package claims with its defaults, by name.

    As that of ``families``, an index of older sources will do.
    """
    return {name: facts["exactness"] for name, facts in _content()["estimators"].items()}


@cache
def displays() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the text of the display name and the defaults of each estimator of the package.

    As that of ``families``, an index of older sources will do.
    """
    return {
        name: (facts["display_name"], facts["hyperparameters"])
        for name, facts in _content()["estimators"].items()
    }


@cache
def descriptions() -> dict[str, Description]:
    """Return the description of each estimator of the package with its defaults, by name.

    As that of ``families``, an index of older sources will do.
    """
    return {name: Description(**facts) for name, facts in _content()["estimators"].items()}


def sources_digest() -> str:
    """Return a digest of the sources of all estimators of the package."""
    found = hashlib.blake2b(digest_size=8)
    for path in sorted(FOLDER.glob("*.py")):
        found.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


@cache
def _read() -> dict[str, Description] | None:
    content = _content()
    if content["digest"] != sources_digest():
        return None
    return descriptions()


def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_bytes())
    return content


@cache
def _spellings() -> dict[str, str]:
    found = _read() or {}
    return {
        spelled(spelling): name
        for name, facts in found.items()
        for spelling in (name, *facts.aliases)
    }
