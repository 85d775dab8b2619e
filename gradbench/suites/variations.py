"""Sweeps and variants of a suite: its problems with values in the place of their own."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.fields import Checked, Count, Distinct, OneOrMore, Real, Text
from gradbench.core.specs import format_value
from gradbench.suites.config import Document, dotted

MOST_PROBLEMS = 10_000  # of a suite, each of which takes a millisecond to read


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


class Variation(NamedTuple):
    """A problem with values at dotted keys, under a name of its own.

    ``where`` is the place that its errors begin with; ``label`` and ``base`` are as in ``Problem``.
    """

    problem: str
    name: str
    changes: Mapping[str, Any]
    where: str
    label: float | None = None
    base: str | None = None


def variations(suite: Document, problems: list[str]) -> tuple[str | None, list[Variation]]:
    """Return what a sweep varies, and the problems after it, or after the variants of the suite.

    Args:
        suite: the suite, whose tables are of the right types.
        problems: the names of its problems.

    Raises:
        GradbenchError: there are a sweep and variants, or something is wrong in them.
    """
    if "sweep" in suite.values and "variants" in suite.values:
        raise suite.error(("variants",), "there are a sweep and variants; take one of them")
    for table in ("sweep", "variants"):
        sizes = map(_length, (suite.values.get(table) or {}).values())
        many = max(sizes, default=0) if table == "sweep" else len(suite.values.get(table) or {})
        if many * len(problems) > MOST_PROBLEMS:
            raise suite.error(
                (table,),
                f"{table} makes {many * len(problems):,} problems; give at most {MOST_PROBLEMS:,}",
            )
    if "sweep" in suite.values:
        return _sweep(suite, problems)
    if "variants" in suite.values:
        return None, list(_variants(suite, problems))
    return None, [Variation(name, name, {}, "") for name in problems]


def _variants(suite: Document, problems: list[str]) -> Iterator[Variation]:
    """Yield each problem with each variant; one with the key ``problem`` is of that problem."""
    tables: dict[str, dict[str, Any]] = suite.values["variants"]
    if not tables:
        raise suite.error(("variants",), "variants is empty; add a table, such as [variants.other]")
    for variant, table in tables.items():
        if (only := table.get("problem", problems[0])) not in problems:
            raise suite.unfit(("variants", variant, "problem"), did_you_mean(only, problems))
    for name in problems:
        own = {v: table for v, table in tables.items() if table.get("problem", name) == name}
        for variant, table in own.items():
            path = ("variants", variant)
            changes = {key: value for key, value in table.items() if key != "problem"}
            where = f"{suite.where(*path)}, {dotted(path)}"
            yield Variation(name, f"{name}[{variant}]", changes, where, base=name)
        if not own:
            yield Variation(name, name, {}, "")


def _sweep(suite: Document, problems: list[str]) -> tuple[str, list[Variation]]:
    """Return what the sweep varies, and each problem with each value of its key."""
    table = suite.values["sweep"]
    if "by" not in table:
        raise suite.error(("sweep", "by"), "sweep.by is missing; add it")
    by = suite.read(Text, "sweep", "by")
    keys = [key for key in table if key != "by"]
    if len(keys) != 1:
        example = '"network.hidden" = [[2], [3]]'
        raise suite.error(
            ("sweep",), f"sweep has {len(keys)} keys besides by; give one, such as {example}"
        )
    (key,) = keys
    names = ("width", "depth", key.rpartition(".")[2])
    if by not in names:
        raise suite.unfit(("sweep", "by"), did_you_mean(by, names))
    kind: Any = LABELS.get(by, Real)
    labels: tuple[float, ...] = suite.read(Distinct[kind], "sweep", key)
    where = f"{suite.where('sweep', key)}, sweep"
    return by, [
        Variation(name, f"{name}[{by}={format_value(label)}]", {key: value}, where, label)
        for name in problems
        for label, value in zip(labels, table[key], strict=True)
    ]


def _width(layers: tuple[int, ...]) -> float:
    if len(set(layers)) > 1:
        raise GradbenchError("give layers of one width in a sweep by width")
    return layers[0]


# The number that stands for a value of a sweep: a width, a depth, or else the value itself.
LABELS: dict[str, Any] = {
    "width": Annotated[OneOrMore[Count], Checked(_width)],
    "depth": Annotated[OneOrMore[Count], Checked(len)],
}


def override(problem: Document, changes: Mapping[str, Any], where: str) -> Document:
    """Return a problem with values at dotted keys; its errors then begin with ``where``."""
    if not changes:
        return problem
    values = dict(problem.values)
    for path, value in changes.items():
        inner = values
        *above, key = path.split(".")
        for name in above:
            inner[name] = dict(inner[name]) if isinstance(inner.get(name), dict) else {}
            inner = inner[name]
        inner[key] = value
    return Document(where, values, folder=problem.folder)
