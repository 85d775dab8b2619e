"""The drawings that a suite has of a figure: one of all rows, one for each problem, and so on.

The functions here take a suite, as its manifest describes it, and the ``summary`` of its finished
cells. A figure is registered with one of them, or with a function of its own that takes the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from gradbench.core.specs import family
from gradbench.metrics import COSTS
from gradbench.plots.rows import MANY


class Part(NamedTuple):
    """One drawing of a figure.

    Attributes:
        rows: the rows of the summary that it is of.
        selected: the values of columns that select these rows, in any other frame as well.
        arguments: what is passed to the figure's function besides the frame.
        before: what the name of the file begins with, before that of the figure.
        after: what the name of the file ends with.
    """

    rows: pd.DataFrame
    selected: dict[str, Any]
    arguments: dict[str, Any]
    before: str = ""
    after: str = ""


Suite = Mapping[str, Any]
Parts = Callable[[Suite, pd.DataFrame], Iterable[Part]]


def none(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield nothing: the name of the figure stands for others, which are drawn for it."""
    yield from ()


def once(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield one drawing of all rows, under the title of the suite."""
    yield Part(summary, {}, {"title": suite["title"]})


def each_problem(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each problem."""
    titles = _titles(suite)
    for problem, rows in summary.groupby("problem", sort=False):
        before = f"{problem}-" * (len(titles) > 1)
        yield Part(rows, {"problem": problem}, {"title": titles[str(problem)]}, before)


def each_replicate(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each replicate of each problem."""
    titles = _titles(suite)
    several = len(titles) > 1 or suite["replicates"] > 1
    for (problem, replicate), rows in summary.groupby(["problem", "replicate"], sort=False):
        selected = {"problem": problem, "replicate": replicate}
        before = f"{problem}-{replicate}-" * several
        yield Part(rows, selected, {"title": titles[problem]}, before)


def each_variant(suite: Suite, summary: pd.DataFrame) -> Iterator[Part]:
    """Yield a drawing of each checkpoint of each problem, with all variants of the problem."""
    base = {problem["name"]: problem["base"] for problem in suite["problems"]}
    title = {problem["base"]: problem["title"] for problem in suite["problems"]}
    trained = "epoch" in summary
    groups = summary.groupby([summary["problem"].map(base), "checkpoint"], sort=False)
    for (name, checkpoint), rows in groups:
        before = f"{name}-" * (len(title) > 1) + f"{_as_file(checkpoint)}-" * trained
        heading = f"{title[name]}, {checkpoint}" if trained else title[name]
        selected = {"problem": list(rows["problem"].unique()), "checkpoint": checkpoint}
        yield Part(rows, selected, {"title": heading}, before)


def checkpoints_of_many(part: Part) -> Iterator[Part]:
    """Yield the part, or each of its checkpoints if it has many estimators."""
    if part.rows["estimator"].nunique() <= MANY or "epoch" not in part.rows:
        yield part
        return
    for checkpoint, rows in part.rows.groupby("checkpoint", sort=False):
        yield part._replace(
            rows=rows,
            selected=part.selected | {"checkpoint": checkpoint},
            arguments={"title": f"{part.arguments['title']}, {checkpoint}"},
            before=f"{part.before}{_as_file(str(checkpoint))}-",
        )


def has_costs(rows: pd.DataFrame) -> bool:
    """Return whether the costs of draws are known."""
    return bool(rows[list(COSTS[1:])].notna().all(axis=1).any())


def has_estimates(rows: pd.DataFrame) -> bool:
    """Return whether there is an estimator besides the exact one, in a layer with a gradient."""
    return bool((~rows["zero_gradient"] & (rows["estimator"].map(family) != "exact")).any())


def selection(frame: pd.DataFrame, selected: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the values of columns that select these rows of a frame.

    A list stands for any of its values. Columns that would select all rows are left out.
    """
    found = {}
    for column, value in selected.items():
        values = value if isinstance(value, list) else [value]
        if frame[column].nunique() > len(values):
            found[column] = [one.item() if hasattr(one, "item") else one for one in values]
    return found


def chosen(frame: pd.DataFrame, rows: Mapping[str, list[Any]]) -> pd.DataFrame:
    """Return the rows of a frame that have one of the values in each of these columns."""
    for column, values in rows.items():
        frame = frame[frame[column].isin(values)]
    return frame


def _titles(suite: Suite) -> dict[str, str]:
    """Return the title of each problem, which names its variant or its value of a sweep."""
    titles = {}
    for problem in suite["problems"]:
        _, bracket, member = problem["name"].partition("[")
        title = str(problem["title"])
        titles[problem["name"]] = f"{title}: {member[:-1]}" if bracket else title
    return titles


def _as_file(checkpoint: str) -> str:
    return checkpoint.replace(" ", "-")
