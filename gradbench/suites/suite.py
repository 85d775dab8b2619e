"""Suites: which estimators are measured on which problems, and how often; read from TOML files.

A suite comes with the package, by name, or from a user's file, by path. Everything in it and in its
problems is checked before anything runs, except names that only JAX code knows.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import format_value
from gradbench.suites.config import (
    Kind,
    Table,
    Unfit,
    estimator,
    list_of,
    number,
    one_of,
    several,
    string,
    whole,
)
from gradbench.suites.library import find, known
from gradbench.suites.problem import Problem
from gradbench.suites.read_problem import read_problem

_PATIENCE = 64  # times the draws of a suite, after which a cell ends though it is not precise
FIGURES = ("accuracy", "growth", "training", "overview", "temperature")


@dataclass(frozen=True)
class Until:
    """When a cell has enough draws: the relative standard error of some metrics, at M = 1.

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

    ``estimators`` are canonical texts (``gradbench.spec``), ``averages`` numbers M of draws that
    are reported besides the powers of two, ``by`` says what a sweep varies: "width", "depth", ...
    With ``until`` a cell ends when it is that precise, and ``draws`` is the most it may take.
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

    def with_until(
        self, rel_se: float, metrics: Sequence[str], draws: int | None = None
    ) -> "Suite":
        """The same suite, measured until metrics are precise, in at most so many draws a cell.

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
        """The same suite with another number of draws; averages over more draws than that go.

        Raises:
            GradbenchError: not a whole number of at least 1.
        """
        try:
            draws = whole(at_least=1)(draws)
        except Unfit as unfit:
            raise GradbenchError(f"the number of draws is {draws}; {unfit.remedy}") from None
        return replace(self, draws=draws, averages=tuple(m for m in self.averages if m <= draws))

    def as_dict(self) -> dict[str, Any]:
        """All that the suite says, problems included, in types that JSON keeps as they are."""
        found = dict(json.loads(json.dumps(asdict(self))))
        return found if self.until else {key: found[key] for key in found if key != "until"}


def list_suites() -> list[str]:
    """The names of the suites that come with the package, and of those of plugins."""
    return known("suite")


def load_suite(name_or_path: str | os.PathLike[str], quick: bool = False) -> Suite:
    """A suite of the package or a plugin by name, or a user's by the path of its ``.toml`` file.

    ``quick`` takes its quick form, under a name of its own: what its table [quick] says goes before
    what the suite says, and dotted keys in quotes before what its problems say.

    Raises:
        GradbenchError: there is none, something in it or in one of its problems is wrong, or it has
            no quick form.
    """
    name, table = find("suite", name_or_path)
    overrides = _read_quick(table, quick)
    found = _find_problems(table)
    for own in found:
        read_problem(*own)  # first: so that what is wrong in a problem's own file is told of it
    where = f"{table.where('quick')}, quick"
    problems = [(problem, _override(values, overrides, where)) for problem, values in found]
    by, variants = _read_variations(table, problems)
    suite = Suite(
        name=f"{name}-quick" if quick else name,
        title=table.take("title", string),
        problems=tuple(variants),
        estimators=table.take("estimators", several(estimator)),
        draws=table.take("draws", whole(at_least=1)),
        averages=table.take("averages", several(whole(at_least=1), at_least=0), Suite.averages),
        replicates=table.take("replicates", whole(at_least=1), Suite.replicates),
        dtype=table.take("dtype", one_of("float32", "float64"), Suite.dtype),
        figure=table.take("figure", one_of(*FIGURES), Suite.figure),
        by=by,
    )
    table.finish()
    if suite.averages and max(suite.averages) > suite.draws:
        problem = f"averages has {max(suite.averages)} but draws is {suite.draws}"
        raise table.error("averages", f"{problem}; average at most all draws")
    if suite.figure == "growth":
        _check_growth(table, suite, len(problems))
    if suite.figure == "training":
        _check_trained(table, suite)
    return suite


def _check_growth(table: Table, suite: Suite, problems: int) -> None:
    """Refuses a figure of growth that would mix what does not belong together."""
    if suite.by is None:
        raise table.error("figure", 'figure is "growth" without a sweep; add a [sweep]')
    if problems > 1:
        raise table.error("figure", 'figure is "growth" with several problems; give one')
    if len(suite.problems[0].checkpoints) > 1:
        problem = 'figure is "growth" but the problem has several checkpoints'
        raise table.error("figure", f"{problem}; take a problem with one")


def _check_trained(table: Table, suite: Suite) -> None:
    """Refuses a figure of training where nothing is trained."""
    untrained = [problem.name for problem in suite.problems if problem.training is None]
    if untrained:
        problem = f'figure is "training" but the problem {untrained[0]!r} has no [training]'
        raise table.error("figure", f"{problem}; add it, or take another figure")


def _find_problems(suite: Table) -> list[tuple[str, Table]]:
    given = suite.take("problems", several(string))
    try:
        found = [find("problem", problem, beside=suite.file) for problem in given]
    except GradbenchError as error:
        raise suite.error("problems", str(error)) from None
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise suite.error("problems", f"two problems share a name in {names}; rename a file")
    return found


def _read_quick(suite: Table, quick: bool) -> dict[str, Any]:
    """Takes the table [quick]: its plain keys into the suite's, the dotted ones are returned."""
    table = suite.optional_table("quick")
    if not quick:
        return {}
    if table is None:
        raise suite.error("title", "the suite has no quick form; add a table [quick], or use draws")
    dotted = {}
    for key, value in table.values.items():
        if "." in key:
            dotted[key] = value
        else:
            suite.replace(key, value, f"{table.where(key)}, quick")
    return dotted


def _read_variations(
    suite: Table, problems: list[tuple[str, Table]]
) -> tuple[str | None, list[Problem]]:
    """What a sweep varies, and the problems after it, or after the variants of the suite."""
    unvaried = [read_problem(*problem) for problem in problems]  # first: so that [quick] is told
    sweep, variants = suite.optional_table("sweep"), suite.optional_table("variants")
    if sweep is not None and variants is not None:
        raise suite.error("variants", "there are a sweep and variants; take one of them")
    if sweep is not None:
        return _read_sweep(suite, sweep, problems)
    if variants is not None:
        return None, _read_variants(variants, problems)
    return None, unvaried


def _read_variants(variants: Table, problems: list[tuple[str, Table]]) -> list[Problem]:
    """Each problem with each variant: a table of dotted keys, under its own name.

    A variant with the key ``problem`` is of that problem alone.
    """
    if not variants.values:
        raise variants.error("variants", "variants is empty; add a table, as [variants.other]")
    names = [name for name, _ in problems]
    changes, owners = {}, {}
    for variant in variants.values:
        table = variants.table(variant)
        one = table.take("problem", one_of(*names), "")
        owners[variant] = [one] if one else names
        changes[variant] = {key: table.values[key] for key in table.rest()}
    found = []
    for name, problem in problems:
        own = [variant for variant in changes if name in owners[variant]]
        for variant in own:
            where = f"{variants.where(variant)}, {variants.dotted(variant)}"
            varied = _override(problem, changes[variant], where)
            found.append(read_problem(f"{name}[{variant}]", varied, base=name))
        if not own:
            found.append(read_problem(name, problem))
    return found


def _read_sweep(
    suite: Table, table: Table, problems: list[tuple[str, Table]]
) -> tuple[str, list[Problem]]:
    """What the sweep varies, and the problems after it: each problem with each value of the key."""
    by = table.take("by", string)
    if len(table.rest()) != 1:
        keys = f"{len(table.rest())} keys besides by"
        raise suite.error("sweep", f'sweep has {keys}; give one, as "network.hidden" = [[2], [3]]')
    (key,) = table.rest()
    names = ("width", "depth", key.rpartition(".")[2])
    if by not in names:
        raise table.error("by", f"sweep.by is {by!r}; {did_you_mean(by, names)}")
    labels = table.take(key, several(_label(by)))
    where = f"{table.where(key)}, sweep"
    return by, [
        read_problem(
            f"{name}[{by}={format_value(label)}]", _override(problem, {key: value}, where), label
        )
        for name, problem in problems
        for label, value in zip(labels, table.values[key], strict=True)
    ]


def _label(by: str) -> Kind[float]:
    """The number that stands for a value of a sweep: a width, a depth, or the value itself."""
    layers = list_of(whole(at_least=1))

    def width(value: Any) -> float:
        widths = set(layers(value))
        if len(widths) > 1:
            raise Unfit("give layers of one width in a sweep by width", value)
        return widths.pop()

    def depth(value: Any) -> float:
        return len(layers(value))

    return {"width": width, "depth": depth}.get(by, number())


def _override(problem: Table, changes: dict[str, Any], where: str) -> Table:
    """The problem's table with values at dotted keys; its errors then begin with ``where``."""
    if not changes:
        return problem
    values = dict(problem.values)
    for dotted, value in changes.items():
        inner = values
        *tables, key = dotted.split(".")
        for name in tables:
            inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
            inner = inner[name]
        inner[key] = value
    return Table(where, values)
