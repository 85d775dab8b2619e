"""The glossary: the estimators with their full names, formulas and papers, and the terms."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from gradbench.core import index
from gradbench.core.specs import family, label
from gradbench.report.formulas import lines

TERMS = {
    "exact gradient G": "the true gradient of the expected loss: by enumeration of all states "
    "where the network is small enough, else by a long run of an unbiased estimator",
    "draw g": "one value of an estimator, for the whole batch",
    "estimate": "the mean of M draws",
    "evaluation": "one evaluation of the objective on one example; a gradient of the objective "
    "counts as one more",
    "equal cost": "the same number of evaluations, or the same measured time; each estimator "
    "averages as many draws as that pays for",
    "tie": "errors that do not differ significantly at 95 %, draw by draw on the same random "
    "numbers; exact errors tie only if they are equal",
    "hidden layers together": "all layers but the output layer as one vector; in the whole network "
    "the output layer often outweighs them",
    "theorem, enumeration, test": "how a bias is known: a certified class says that it is zero, "
    "exact moments tell it, or draws do, with an error",
    "checkpoint": "a moment of training, at which all estimators are measured on the same network",
}


class Entry(NamedTuple):
    """An estimator of the glossary.

    Attributes:
        number: its number on the page.
        spec: how suites and functions name it.
        full_name: its name in words.
        exact_for: what its gradient is exact for.
        source: who has published it.
        paper: a link, or nothing.
        formula: its formula, or nothing.
    """

    number: int
    spec: str
    full_name: str
    exact_for: str
    source: str
    paper: str
    formula: Markup


def entries(names: Sequence[str], numbers: Mapping[str, int]) -> list[Entry]:
    """Return an entry for each estimator; of those of plugins only what they are called is known.

    Args:
        names: the estimators.
        numbers: the number of each on the page.
    """
    known = index.descriptions()
    found = []
    for name in names:
        if one := known.get(family(name)):
            formula = lines(one.formula) if one.formula else Markup("")
            paper = one.paper if re.match("https://", one.paper) else ""
            facts = (one.full_name, one.exact_for, one.source, paper, formula)
        else:
            facts = ("", "", "", "", Markup(""))
        found.append(Entry(numbers[name], label(name), *facts))
    return found


def full_name(name: str) -> str:
    """Return the full name of an estimator with its spec, for a tooltip."""
    one = index.descriptions().get(family(name))
    return f"{one.full_name}: {label(name)}" if one and one.full_name else label(name)
