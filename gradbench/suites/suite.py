"""Suites: which estimators are measured on which problems, and how often; read from TOML files.

A suite comes with the package or a plugin, by name, or from a user's file, by path. All in it and
in its problems is checked before anything runs; estimators and their hyper-parameters by ``run``.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from gradbench.core.arguments import as_int
from gradbench.core.devices import default_dtype
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.fields import Checked, Count, Distinct, Estimator, Items, Named, Text
from gradbench.suites.config import Document, Faults, shown
from gradbench.suites.library import SUITES, find
from gradbench.suites.plan import Plan
from gradbench.suites.problem import Problem, Sampled, as_json
from gradbench.suites.read_problem import read_problem
from gradbench.suites.variations import override, variations

_PATIENCE = 64  # times the draws of a suite, after which a cell ends though it is not precise
FIGURES = ("accuracy", "growth", "training", "overview", "temperature", "learning")


def _figure(name: str) -> str:
    """Return the name of a figure; matplotlib is only loaded for one that is not usual."""
    return name if name in FIGURES else Named("figures").canonical(name)


@dataclass(frozen=True)
class SuiteTable:
    """The whole file of a suite; [reference] is for problems without a table of that name."""

    title: Text
    problems: Distinct[Text]
    estimators: Distinct[Estimator]
    draws: Count
    averages: Annotated[tuple[Count, ...], Items(0, distinct=True)] = ()
    replicates: Count = 1
    dtype: Literal["float32", "float64"] | None = None  # that of the device
    figure: Annotated[str, Checked(_figure)] = "accuracy"
    reference: Sampled | None = None
    quick: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    variants: dict[str, dict[str, Any]] | None = None
    training: Plan | None = None


@dataclass(frozen=True)
class Until:
    """The precision that ends a cell: a relative standard error of some metrics, at M = 1.

    ``first`` is the number of draws that blocks and averages are made for.
    """

    rel_se: float
    metrics: tuple[str, ...]
    first: int

    def __str__(self) -> str:
        return f"rel_se = {100 * self.rel_se:g} % of {', '.join(self.metrics)}"


@dataclass(frozen=True)
class Suite:
    """Problems, after the sweep if there is one, and the estimators to be measured on each.

    ``name`` and ``title`` are what tables and figures call it. ``problems`` are measured in as many
    ``replicates``, in the precision ``dtype``. ``estimators`` are canonical texts
    (``gradbench.core.specs``), ``averages`` numbers M of draws that are reported besides the powers
    of two, ``figure`` the name of a figure, ``by`` says what a sweep varies: "width", "depth", ...
    With ``until`` a cell ends when it is that precise, and ``draws`` is the most it may take. With
    a ``plan`` problems are trained with each estimator, ``replicates`` times, and ``draws`` are
    those of the errors of gradients on the way.
    """

    name: str
    title: str
    problems: tuple[Problem, ...]
    estimators: tuple[str, ...]
    draws: int
    averages: tuple[int, ...] = ()
    replicates: int = 1
    dtype: str = "float64"
    figure: str = "accuracy"
    by: str | None = None
    until: Until | None = None
    plan: Plan | None = None

    def with_until(
        self, rel_se: float, metrics: Sequence[str], draws: int | None = None
    ) -> "Suite":
        """Return the suite, measured until metrics are precise.

        Args:
            rel_se: the relative standard error that is precise enough.
            metrics: the metrics that have to be.
            draws: the most draws of a cell, by default 64 times those of the suite.

        Raises:
            GradbenchError: not a positive precision, no metric, or fewer draws than the suite has.
        """
        if not 0.0 < rel_se < 1.0:
            raise GradbenchError(f"until rel_se is {rel_se}; give a share between 0 and 1, as 1%")
        if not metrics:
            raise GradbenchError("until got no metrics; name one, such as rmse")
        most = _PATIENCE * self.draws if draws is None else self.with_draws(draws).draws
        if most < self.draws:
            raise GradbenchError(
                f"the number of draws is {most}, fewer than the {self.draws} of the suite, which "
                "a run until a precision begins with; give more"
            )
        until = Until(rel_se, tuple(metrics), self.draws)
        return replace(self, draws=most, until=until)

    def with_draws(self, draws: int) -> "Suite":
        """Return the suite with another number of draws, without averages over more than that.

        Raises:
            GradbenchError: not a whole number of at least 1.
        """
        whole = as_int(draws)
        if whole is None or not 1 <= whole <= 2**53:
            raise GradbenchError(
                f"the number of draws is {draws}; give a whole number of at least 1"
            )
        return replace(self, draws=whole, averages=tuple(m for m in self.averages if m <= whole))

    def as_dict(self) -> dict[str, Any]:
        """Return all that the suite says, problems included, in types that JSON keeps."""
        return as_json(self)


def list_suites() -> list[str]:
    """Return the names of the suites that come with the package, and of those of plugins."""
    return SUITES.names()


def load_suite(name_or_path: str | os.PathLike[str], quick: bool = False) -> Suite:
    """Return a suite by name, or by the path of its ``.toml`` file.

    Args:
        name_or_path: the name of a suite of the package or a plugin, or the path of a file.
        quick: whether to take its quick form, under a name of its own. Plain keys of its table
            [quick] replace those of the suite, dotted keys in quotes those of its problems.

    Raises:
        GradbenchError: there is no such suite, it has no quick form, or something in it or in one
            of its problems is wrong: one line for each fault.
    """
    usual = default_dtype()
    name, document = find("suite", name_or_path)
    document, overrides = _quick_form(document) if quick else (document, {})
    faults = Faults()
    table: SuiteTable | None = None
    found: dict[str, Document] = {}
    with faults.collected():
        table = document.read(SuiteTable)
    with faults.collected():
        found = _find_problems(document)
    # First as they are, so that what is wrong in a file is told of it, then in the quick form.
    _read(faults, list(found.items()))
    where = f"{document.where('quick')}, quick"
    found = {problem: override(own, overrides, where) for problem, own in found.items()}
    _read(faults, list(found.items()))
    assert table is not None  # else faults were told
    by, varied = variations(document, list(found))
    problems = _read(
        faults,
        [
            (one.name, override(found[one.problem], one.changes, one.where), one.label, one.base)
            for one in varied
        ],
    )
    suite = Suite(
        name=f"{name}-quick" if quick else name,
        title=table.title,
        problems=tuple(
            replace(one, reference=one.reference or table.reference) for one in problems
        ),
        estimators=table.estimators,
        draws=table.draws,
        averages=table.averages,
        replicates=table.replicates,
        dtype=table.dtype or usual,
        figure=table.figure,
        by=by,
        plan=table.training,
    )
    for key, problem in _contradictions(suite, len(found)):
        with faults.collected():
            raise document.error((key,), problem)
    faults.tell()
    return suite


def _read(faults: Faults, problems: list[tuple[Any, ...]]) -> list[Problem]:
    """Return problems, given the arguments of ``read_problem``; tell all faults at once."""
    found = []
    for problem in problems:
        with faults.collected():
            found.append(read_problem(*problem))
    faults.tell()
    return found


def _quick_form(document: Document) -> tuple[Document, dict[str, Any]]:
    """Return the quick form of a suite, and the changes to its problems by dotted key."""
    if "quick" not in document.values:
        raise document.error(
            ("title",), "the suite has no quick form; add a table [quick], or use draws"
        )
    dotted, form = {}, document
    for key in document.read(dict[str, Any], "quick"):
        if "." in key:
            dotted[key] = document.values["quick"][key]
        else:
            where = f"{document.where('quick', key)}, quick"
            form = form.moved_to(key, document.values["quick"][key], where)
    return form, dotted


def _find_problems(document: Document) -> dict[str, Document]:
    given = document.values.get("problems")
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return {}  # which is told of the suite
    try:
        found = [find("problem", problem, beside=document.file) for problem in given]
    except GradbenchError as error:
        raise document.error(("problems",), str(error)) from None
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise document.error(
            ("problems",), f"two problems share a name in {shown(names)}; rename a file"
        )
    return dict(found)


def _contradictions(suite: Suite, problems: int) -> Iterator[tuple[str, str]]:
    """Yield what does not go together: a key of the suite, and the sentence about it."""
    if (most := max(suite.averages, default=0)) > suite.draws:
        yield (
            "averages",
            f"averages has {most} but draws is {suite.draws}; average at most all draws",
        )
    if suite.figure == "growth":
        growth = 'figure is "growth"'
        if suite.by is None:
            yield "figure", f"{growth} without a sweep; add a [sweep]"
        elif problems > 1:
            yield "figure", f"{growth} with several problems; give one"
        elif len(suite.problems[0].checkpoints) > 1:
            several = "the problem has several checkpoints; take a problem with one"
            yield "figure", f"{growth} but {several}"
    trained = [problem.name for problem in suite.problems if problem.training is not None]
    if suite.plan is not None and trained:
        yield (
            "training",
            f"the suite has a [training] and so has the problem {trained[0]!r}; take one of them "
            "out",
        )
    if suite.plan is not None and suite.plan.only is not None:
        named = {name for chosen in suite.plan.only.values() for name in chosen}
        if foreign := sorted(named - set(suite.estimators)):
            yield (
                "training",
                f"training.only has {foreign[0]!r}; {did_you_mean(foreign[0], suite.estimators)}",
            )
        used = {
            name
            for one in suite.plan.optimisers
            for name in suite.plan.with_optimiser(one, suite.estimators)
        }
        if idle := [name for name in suite.estimators if name not in used]:
            yield (
                "training",
                f"no optimiser trains with {idle[0]!r}; name it in training.only, or take it out",
            )
    if (suite.figure == "learning") != (suite.plan is not None):
        yield "figure", 'figure is "learning" of suites with [training], and of no others; set both'
    untrained = [problem.name for problem in suite.problems if problem.training is None]
    if suite.figure == "training" and untrained:
        without = f"the problem {untrained[0]!r} has no [training]"
        yield (
            "figure",
            f'figure is "training" but {without}; add it, or take another figure',
        )
