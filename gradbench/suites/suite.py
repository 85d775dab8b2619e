"""Suites: which estimators are measured on which problems, and how often; read from TOML files.

A suite comes with the package or a plugin, by name, or from a user's file, by path. All in it and
in its problems is checked before anything runs; estimators and their hyper-parameters by ``run``.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from gradbench.core.arguments import as_int
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.fields import (
    Checked,
    Count,
    Distinct,
    Estimator,
    Items,
    OneOrMore,
    Real,
    Text,
)
from gradbench.core.registry import KINDS, registry
from gradbench.core.specs import format_value
from gradbench.suites.config import Document, Faults, dotted, shown
from gradbench.suites.library import SUITES, find
from gradbench.suites.problem import Problem
from gradbench.suites.read_problem import read_problem

_PATIENCE = 64  # times the draws of a suite, after which a cell ends though it is not precise
FIGURES = ("accuracy", "growth", "training", "overview", "temperature")


def _figure(name: str) -> str:
    """Return the name of a figure; figures of plugins are asked for only where it is not ours."""
    if name in FIGURES:
        return name
    known = {*FIGURES, *(registry("figures").names() if "figures" in KINDS else ())}
    if name not in known:
        raise GradbenchError(did_you_mean(name, known))
    return name


@dataclass(frozen=True)
class SuiteTable:
    """The whole file of a suite."""

    title: Text
    problems: Distinct[Text]
    estimators: Distinct[Estimator]
    draws: Count
    averages: Annotated[tuple[Count, ...], Items(0, distinct=True)] = ()
    replicates: Count = 1
    dtype: Literal["float32", "float64"] = "float64"
    figure: Annotated[str, Checked(_figure)] = "accuracy"
    quick: dict[str, Any] | None = None
    sweep: dict[str, Any] | None = None
    variants: dict[str, dict[str, Any]] | None = None


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

    ``estimators`` are canonical texts (``gradbench.core.specs``), ``averages`` numbers M of draws
    that are reported besides the powers of two, ``by`` says what a sweep varies: "width", "depth",
    ... With ``until`` a cell ends when it is that precise, and ``draws`` is the most it may take.
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
        found = dict(json.loads(json.dumps(asdict(self))))
        return found if self.until else {key: found[key] for key in found if key != "until"}


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
    name, document = find("suite", name_or_path)
    document, overrides = _quick_form(document) if quick else (document, {})
    faults = Faults()
    table: SuiteTable | None = None
    with faults.collected():
        table = document.read(SuiteTable)
    found: list[tuple[str, Document]] = []
    with faults.collected():
        found = _find_problems(document)
    for own in found:
        with faults.collected():  # before anything is replaced: what is wrong is told of its file
            read_problem(*own)
    faults.tell()
    assert table is not None
    where = f"{document.where('quick')}, quick"
    found = [(problem, _override(values, overrides, where)) for problem, values in found]
    for own in found:
        with faults.collected():
            read_problem(*own)
    faults.tell()
    with faults.collected():
        by, problems = _vary(document, table, found, faults)
    faults.tell()
    suite = Suite(
        name=f"{name}-quick" if quick else name,
        title=table.title,
        problems=tuple(problems),
        estimators=table.estimators,
        draws=table.draws,
        averages=table.averages,
        replicates=table.replicates,
        dtype=table.dtype,
        figure=table.figure,
        by=by,
    )
    for check in (_check_averages, _check_growth, _check_trained):
        with faults.collected():
            check(document, suite, len(found))
    faults.tell()
    return suite


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


def _find_problems(document: Document) -> list[tuple[str, Document]]:
    given = document.values.get("problems")
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return []  # which is told of the suite
    try:
        found = [find("problem", problem, beside=document.file) for problem in given]
    except GradbenchError as error:
        raise document.error(("problems",), str(error)) from None
    names = [name for name, _ in found]
    if len(set(names)) < len(names):
        raise document.error(
            ("problems",), f"two problems share a name in {shown(names)}; rename a file"
        )
    return found


# ------------------------------------------------------------------------- sweeps and variants


def _vary(
    document: Document, table: SuiteTable, problems: list[tuple[str, Document]], faults: Faults
) -> tuple[str | None, list[Problem]]:
    """Return what a sweep varies, and the problems after it, or after the variants of the suite."""
    if table.sweep is not None and table.variants is not None:
        raise document.error(("variants",), "there are a sweep and variants; take one of them")
    if table.sweep is not None:
        return _sweep(document, table.sweep, problems, faults)
    if table.variants is not None:
        return None, _variants(document, table.variants, problems, faults)
    return None, [read_problem(*problem) for problem in problems]


def _variants(
    document: Document,
    variants: dict[str, dict[str, Any]],
    problems: list[tuple[str, Document]],
    faults: Faults,
) -> list[Problem]:
    """Return each problem with each variant: a table of dotted keys, under its own name.

    A variant with the key ``problem`` is of that problem alone.
    """
    if not variants:
        raise document.error(
            ("variants",), "variants is empty; add a table, such as [variants.other]"
        )
    names = [name for name, _ in problems]
    for variant, changes in variants.items():
        if (one := changes.get("problem", names[0])) not in names:
            with faults.collected():
                raise document.unfit(("variants", variant, "problem"), did_you_mean(one, names))
    found = []
    for name, problem in problems:
        own = [v for v, changes in variants.items() if changes.get("problem", name) == name]
        for variant in own:
            path = ("variants", variant)
            where = f"{document.where(*path)}, {dotted(path)}"
            raw = document.values["variants"][variant]
            changes = {key: value for key, value in raw.items() if key != "problem"}
            with faults.collected():
                changed = _override(problem, changes, where)
                found.append(read_problem(f"{name}[{variant}]", changed, base=name))
        if not own:
            found.append(read_problem(name, problem))
    return found


def _sweep(
    document: Document,
    sweep: dict[str, Any],
    problems: list[tuple[str, Document]],
    faults: Faults,
) -> tuple[str, list[Problem]]:
    """Return what the sweep varies, and each problem with each value of its key."""
    by = document.read(Text, "sweep", "by") if "by" in sweep else None
    if by is None:
        raise document.error(("sweep", "by"), "sweep.by is missing; add it")
    keys = [key for key in sweep if key != "by"]
    if len(keys) != 1:
        raise document.error(
            ("sweep",),
            f'sweep has {len(keys)} keys besides by; give one, such as "network.hidden" = [[2], '
            "[3]]",
        )
    (key,) = keys
    names = ("width", "depth", key.rpartition(".")[2])
    if by not in names:
        raise document.unfit(("sweep", "by"), did_you_mean(by, names))
    kind: Any = LABELS.get(by, Real)
    labels: tuple[float, ...] = document.read(Distinct[kind], "sweep", key)
    where = f"{document.where('sweep', key)}, sweep"
    found = []
    for name, problem in problems:
        for label, value in zip(labels, document.values["sweep"][key], strict=True):
            with faults.collected():
                changed = _override(problem, {key: value}, where)
                found.append(read_problem(f"{name}[{by}={format_value(label)}]", changed, label))
    return by, found


def _width(layers: tuple[int, ...]) -> float:
    if len(set(layers)) > 1:
        raise GradbenchError("give layers of one width in a sweep by width")
    return layers[0]


# The number that stands for a value of a sweep: a width, a depth, or else the value itself.
LABELS: dict[str, Any] = {
    "width": Annotated[OneOrMore[Count], Checked(_width)],
    "depth": Annotated[OneOrMore[Count], Checked(len)],
}


def _override(problem: Document, changes: dict[str, Any], where: str) -> Document:
    """Return a problem with values at dotted keys; its errors then begin with ``where``."""
    if not changes:
        return problem
    values = dict(problem.values)
    for key_path, value in changes.items():
        inner = values
        *above, key = key_path.split(".")
        for name in above:
            inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
            inner = inner[name]
        inner[key] = value
    return Document(where, values)


# -------------------------------------------------------------------------------------- checks


def _check_averages(document: Document, suite: Suite, problems: int) -> None:
    """Refuse averages over more draws than there are."""
    if (most := max(suite.averages, default=0)) > suite.draws:
        raise document.error(
            ("averages",),
            f"averages has {most} but draws is {suite.draws}; average at most all draws",
        )


def _check_growth(document: Document, suite: Suite, problems: int) -> None:
    """Refuse a figure of growth that would mix what does not belong together."""
    if suite.figure != "growth":
        return
    if suite.by is None:
        problem = "without a sweep; add a [sweep]"
    elif problems > 1:
        problem = "with several problems; give one"
    elif len(suite.problems[0].checkpoints) > 1:
        problem = "but the problem has several checkpoints; take a problem with one"
    else:
        return
    raise document.error(("figure",), f'figure is "growth" {problem}')


def _check_trained(document: Document, suite: Suite, problems: int) -> None:
    """Refuse a figure of training where nothing is trained."""
    untrained = [problem.name for problem in suite.problems if problem.training is None]
    if suite.figure == "training" and untrained:
        raise document.error(
            ("figure",),
            f'figure is "training" but the problem {untrained[0]!r} has no [training]; add it, or '
            "take another figure",
        )
