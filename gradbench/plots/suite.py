"""Which figures a suite has, and the script behind each."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradbench import metrics, plots
from gradbench.core.atomic import guard
from gradbench.core.specs import family
from gradbench.metrics.directory import read_cells
from gradbench.metrics.temperature import unit_of
from gradbench.plots.accuracy import groups_to_draw
from gradbench.plots.layout import MANY
from gradbench.results.store import Results


class Drawing(NamedTuple):
    """A figure: its ``name``, the function of ``gradbench.plots`` that draws it, and of what.

    ``data`` is the function of ``gradbench.results`` that gives the frame, ``where`` which rows of
    it are drawn, as ``DataFrame.query`` takes them; empty for all, ``arguments`` those of the
    function besides the frame.
    """

    name: str
    function: str
    data: str
    where: str
    arguments: dict[str, Any]

    def script(self) -> str:
        """A script that draws and saves the same, in a directory below the results."""
        arguments = [f"    {key}={_literal(value)}," for key, value in self.arguments.items()]
        lines = [
            f'"""Draws {self.name} anew, as PDF, SVG and PNG, from the results one folder up."""',
            "",
            "from pathlib import Path",
            "",
            "from gradbench import plots, results",
            *(["from gradbench.temperature import Unit"] if self.function == "temperature" else []),
            "",
            "here = Path(__file__).resolve().parent",
            f"frame = results.{self.data}(here.parent)",
            *([f"frame = frame.query({_literal(self.where)})"] if self.where else []),
            f"figure = plots.{self.function}(",
            "    frame,",
            *arguments,
            ")",
            f"plots.save(figure, here / {_literal(self.name)})",
            "",
        ]
        return "\n".join(lines)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def drawings(suite: Mapping[str, Any], summary: pd.DataFrame) -> Iterator[Drawing]:
    """The figures of a suite, of what is finished: see ``gradbench.plot``.

    Args:
        suite: as ``Suite.as_dict`` gives it.
        summary: that of the results.
    """
    kind, title = suite["figure"], suite["title"]
    if kind == "growth":
        yield Drawing("growth", "growth", "summary", "", {"by": suite["by"], "title": title})
    elif kind == "temperature":
        units = {problem["name"]: unit_of(problem["network"]) for problem in suite["problems"]}
        known = {name: unit for name, unit in units.items() if unit}
        arguments = {"units": known, "title": title}
        yield Drawing("temperature", "temperature", "summary", "", arguments)
    elif kind == "overview":
        yield from _overviews(suite, summary)
    else:
        yield from _accuracy(suite, summary)
        if kind == "training":
            yield from _training(suite, summary)


def _accuracy(suite: Mapping[str, Any], summary: pd.DataFrame) -> Iterator[Drawing]:
    """RMSE, cosine, cost and the map of biases of each replicate; the points of each problem."""
    titles = {problem["name"]: _title(problem) for problem in suite["problems"]}
    several = len(titles) > 1 or suite["replicates"] > 1
    for (problem, replicate), rows in summary.groupby(["problem", "replicate"], sort=False):
        title, prefix = titles[problem], f"{problem}-{replicate}-" * several
        where = _query(summary, problem=problem, replicate=replicate)
        for group in groups_to_draw(rows):
            arguments = {"title": title} | ({"group": group} if group else {})
            for kind in ("rmse", "cosine"):
                name = f"{prefix}{kind}-{group}" if group else f"{prefix}{kind}"
                yield Drawing(name, kind, "curves", where, arguments)
        for start, at, heading in _parts(rows, prefix, title):
            where = _query(summary, problem=problem, replicate=replicate, **at)
            if _priced(rows):
                yield Drawing(f"{start}cost", "cost", "curves", where, heading)
            if _approximate(rows):
                yield Drawing(f"{start}bias-map", "bias_map", "coordinates", where, heading)
    for problem, rows in summary.groupby("problem", sort=False):
        title, prefix = titles[problem], f"{problem}-" * (len(titles) > 1)
        for start, at, heading in _parts(rows, prefix, title):
            if _approximate(rows):
                where = _query(summary, problem=problem, **at)
                yield Drawing(f"{start}plane", "plane", "summary", where, heading)
        if _priced(rows):
            where = _query(summary, problem=problem)
            yield Drawing(f"{prefix}pareto", "pareto", "summary", where, {"title": title})
    if summary["estimator"].nunique() > MANY:
        yield from _overviews(suite, summary)


def _parts(
    rows: pd.DataFrame, prefix: str, title: str
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """What has a figure of its own: everything, or of many estimators each checkpoint.

    Given are how its name begins, what to select, and its title.
    """
    if rows["estimator"].nunique() <= MANY or "epoch" not in rows:
        yield prefix, {}, {"title": title}
        return
    for checkpoint in rows["checkpoint"].unique():
        start = f"{prefix}{checkpoint.replace(' ', '-')}-"
        yield start, {"checkpoint": checkpoint}, {"title": f"{title}, {checkpoint}"}


def _priced(rows: pd.DataFrame) -> bool:
    """Whether it is known what draws cost."""
    return bool(rows[["evaluations", "seconds"]].notna().all(axis=1).any())


def _approximate(rows: pd.DataFrame) -> bool:
    """Whether there is an estimator besides the exact one, in a layer that has a gradient."""
    return bool((~rows["zero_gradient"] & (rows["estimator"].map(family) != "exact")).any())


def _overviews(suite: Mapping[str, Any], summary: pd.DataFrame) -> Iterator[Drawing]:
    """A figure for each problem, with all its variants, and checkpoint."""
    base = {problem["name"]: problem["base"] for problem in suite["problems"]}
    title = {problem["base"]: problem["title"] for problem in suite["problems"]}
    groups = summary.groupby([summary["problem"].map(base), "checkpoint"], sort=False)
    for (name, checkpoint), rows in groups:
        trained = "epoch" in summary
        prefix = f"{name}-" * (len(title) > 1) + f"{checkpoint.replace(' ', '-')}-" * trained
        heading = f"{title[name]}, {checkpoint}" if trained else title[name]
        where = _query(summary, problem=list(rows["problem"].unique()), checkpoint=checkpoint)
        yield Drawing(f"{prefix}overview", "overview", "summary", where, {"title": heading})


def _training(suite: Mapping[str, Any], summary: pd.DataFrame) -> Iterator[Drawing]:
    """Bias and deviation of each problem along training, and all losses."""
    titles = {problem["name"]: _title(problem) for problem in suite["problems"]}
    for problem in summary["problem"].unique():
        name = f"{problem}-" * (len(titles) > 1) + "training"
        where = _query(summary, problem=problem)
        yield Drawing(name, "training", "summary", where, {"title": titles[problem]})
    yield Drawing("losses", "losses", "summary", "", {"title": suite["title"]})


def _query(summary: pd.DataFrame, **selected: Any) -> str:
    """The rows with these values (one of several, in a list), without what selects all."""
    terms = []
    for column, value in selected.items():
        values = value if isinstance(value, list) else [value]
        if summary[column].nunique() > len(values):
            plain = [one.item() if hasattr(one, "item") else one for one in values]
            terms.append(
                f"{column} in {plain!r}" if len(plain) > 1 else f"{column} == {plain[0]!r}"
            )
    return " and ".join(terms)


def _title(problem: Mapping[str, Any]) -> str:
    """The title of a problem; a variant or a member of a sweep is named."""
    _, bracket, member = problem["name"].partition("[")
    return f"{problem['title']}: {member[:-1]}" if bracket else str(problem["title"])


def plot(results: str | Path | Results) -> list[Path]:
    """Draws the figures of a suite into the directory ``figures`` of its results.

    Each is a PDF, an SVG and a PNG, with a script beside them that draws it anew.

    Returns:
        The files: for a suite of kind "accuracy", for each problem and replicate RMSE and cosine
        against M and against cost, and the bias of each coordinate; for each problem bias against
        deviation, and error against cost; with many estimators an overview of each checkpoint. Of
        kind "overview" this alone, for each problem with all its variants; of kind "growth", bias
        and deviation against what was swept; of kind "temperature" against the temperature; of kind
        "training" those of "accuracy", bias and deviation of each problem along training, and all
        losses.

    Raises:
        GradbenchError: see ``read_cells``; also a directory that cannot be written.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    cells = list(read_cells(results))
    frames = {"summary": metrics.summary(cells)}
    paths = []
    for drawing in plots.drawings(results.manifest["suite"], frames["summary"]):
        if drawing.data not in frames:
            frames[drawing.data] = getattr(metrics, drawing.data)(cells)
        frame = frames[drawing.data]
        rows = frame.query(drawing.where) if drawing.where else frame
        figure = getattr(plots, drawing.function)(rows, **drawing.arguments)
        paths += plots.save(figure, results.figures / drawing.name)
        paths.append(results.figures / f"{drawing.name}.py")
        with guard("write", paths[-1]):
            paths[-1].write_text(drawing.script())
    return paths
