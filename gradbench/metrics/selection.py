"""Which of the cells of a directory are meant: some problems, some estimators, or all."""

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from gradbench.core.atomic import Json
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import canonical, family, label

_MANY = 20  # names that a sentence can still list


class Selection(NamedTuple):
    """The names of the problems and estimators of a suite that are meant."""

    problems: frozenset[str]
    estimators: frozenset[str]

    @classmethod
    def of(
        cls, suite: Json, problems: Sequence[str] = (), estimators: Sequence[str] = ()
    ) -> "Selection":
        """Return what is meant by names; all of a kind where none is given.

        Args:
            suite: the suite, as the manifest of its results describes it.
            problems: names of problems, or of what several variants of a problem have in common.
            estimators: estimators as ``gradbench run`` takes them; a name without arguments stands
                for all estimators of that name.

        Raises:
            GradbenchError: the suite has no such problem or estimator.
        """
        variants: dict[str, list[str]] = {}
        for problem in suite["problems"]:
            variants.setdefault(problem.get("base", ""), []).append(problem["name"])
        variants |= {problem["name"]: [problem["name"]] for problem in suite["problems"]}
        variants.pop("", None)
        return cls(
            frozenset(meant("problem", problems, variants)),
            frozenset(meant("estimator", estimators, spellings(suite["estimators"]))),
        )

    def has(self, problem: str, estimator: str) -> bool:
        """Return whether a cell is meant."""
        return problem in self.problems and estimator in self.estimators


def spellings(estimators: Sequence[str]) -> dict[str, list[str]]:
    """Return the estimators that a name stands for: all of that name, a label, a whole text."""
    found: dict[str, list[str]] = {}
    for spec in estimators:
        found.setdefault(family(spec), []).append(spec)
    for spelling in (label, str):
        found = {spelling(spec): [spec] for spec in estimators} | found
    return found


def meant(kind: str, asked: Sequence[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what some names stand for, all there is if none is asked for.

    Raises:
        GradbenchError: one of them stands for nothing.
    """
    return [one for name in asked or known for one in known[known_name(kind, name, known)]]


def known_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the name of a problem, estimator or layer as results spell it.

    Raises:
        GradbenchError: there is none; the sentence names the one that may be meant.
    """
    names = list(known)
    if name in names:
        return name
    if kind == "estimator":
        with contextlib.suppress(GradbenchError):
            if (spelled := canonical(name)) in names:
                return spelled
    remedy = did_you_mean(name, names)
    if len(names) > _MANY and not remedy.startswith("did you mean"):
        remedy = f"choose one of the {len(names)} that there are, such as {', '.join(names[:3])}"
    raise GradbenchError(f"there is no {kind} {name!r} in these results; {remedy}")
