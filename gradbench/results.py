"""What users ask of a directory of results: its table and its figures. Nothing is run again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from gradbench import metrics, plots, temperature
from gradbench.errors import GradbenchError
from gradbench.files import CorruptFile
from gradbench.shards import Cell
from gradbench.store import Results
from gradbench.table import table


def read_cells(results: str | Path | Results) -> Iterator[metrics.Cell]:
    """The finished cells of a directory with their exact gradients, for ``gradbench.metrics``.

    Cells appear in the order of the suite. ``info`` holds the exact loss at the checkpoint and,
    after a sweep, the number that it varied under its own name (width, depth, ...).

    Raises:
        GradbenchError: no results, damaged files (named), or no finished cell.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    suite = results.manifest["suite"]
    labels = {problem["name"]: problem["label"] for problem in suite["problems"]}
    finished = False
    for cell in _in_order(results):
        meta, blocks = cell.load()
        if meta is None or sum(block.layers[0].count for block in blocks) < meta["draws"]:
            continue
        reference = results.load_reference(cell.place)
        if reference is None:
            raise CorruptFile(
                f"the exact gradient at {'/'.join(map(str, cell.place))} is missing from "
                f"{str(results.directory)!r}; run the suite again"
            )
        label = labels[cell.place.problem]
        finished = True
        yield metrics.Cell(
            *cell.place,
            estimator=cell.estimator,
            layer_names=meta["layer_names"],
            blocks=blocks,
            gradient=reference.gradient,
            moments=results.load_moments(cell.place, cell.estimator),
            averages=meta["averages"],
            head_sizes=meta["head_sizes"],
            block_size=meta["block"],
            long_averages=meta["larger"],
            info={"loss": reference.value}
            | ({suite["by"]: label} if suite["by"] else {})
            | ({"epoch": epoch} if (epoch := _epoch(cell.place.checkpoint)) is not None else {}),
        )
    if not finished:
        raise GradbenchError(
            f"{str(results.directory)!r} holds no finished cell yet; continue the run"
        )


def _epoch(checkpoint: str) -> int | None:
    """The number in the name of a checkpoint, see ``Problem.checkpoint_name``."""
    word, _, number = checkpoint.partition(" ")
    return int(number) if word == "epoch" and number.isdigit() else None


def _in_order(results: Results) -> list[Cell]:
    """The cells that have blocks: problems and estimators in the order of the suite."""
    suite = results.manifest["suite"]
    problems = [problem["name"] for problem in suite["problems"]]
    cells = results.cells()
    places = list(dict.fromkeys(cell.place for cell in cells))  # "epoch 2" before "epoch 10"

    def rank(cell: Cell) -> tuple[int, ...]:
        place = cell.place
        estimator = _index(suite["estimators"], cell.estimator)
        return _index(problems, place.problem), places.index(place), estimator

    return sorted(cells, key=rank)


def _index(names: list[str], name: str) -> int:
    """Its place; a cell from elsewhere comes last, and is refused when it is read."""
    return names.index(name) if name in names else len(names)


def summary(results: str | Path | Results) -> pd.DataFrame:
    """One row per cell and layer: see ``gradbench.metrics.summary``."""
    return metrics.summary(read_cells(results))


def curves(results: str | Path | Results) -> pd.DataFrame:
    """One row per cell, layer and M: see ``gradbench.metrics.curves``."""
    return metrics.curves(read_cells(results))


def unfinished(results: str | Path | Results) -> tuple[int, int]:
    """How many cells of the suite are not finished, and how many it has.

    Raises:
        GradbenchError: see ``read_cells``.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    total = _expected(results)
    return total - sum(1 for _ in read_cells(results)), total


def unfinished_line(missing: int, total: int) -> str:
    """What ``unfinished`` returns as a sentence, empty where nothing is missing."""
    if not missing:
        return ""
    verb, them = ("is", "it") if missing == 1 else ("are", "them")
    what = f"{missing} of {total} cells {verb} not finished"
    return f"{what}; the same `gradbench run` continues {them}"


def _expected(results: Results) -> int:
    """The number of cells of a suite: problems x replicates x checkpoints x estimators."""
    suite = results.manifest["suite"]
    trainings = [problem["training"] for problem in suite["problems"]]
    checkpoints = sum(len(training["checkpoints"]) if training else 1 for training in trainings)
    return checkpoints * suite["replicates"] * len(suite["estimators"])


def show(results: str | Path | Results) -> str:
    """The text of ``gradbench show``: a table per checkpoint, layer and estimator.

    It ends with how well the exact gradients were confirmed and, if so, what is not finished.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    cells = list(read_cells(results))
    total = _expected(results)
    missing = unfinished_line(total - len(cells), total)
    summary = metrics.summary(cells)
    parts = [table(summary), _agreement(results), missing]
    if results.manifest["suite"]["figure"] == "temperature":
        parts.insert(1, temperature.slopes_text(summary))
    return "\n".join(part for part in parts if part)


def _agreement(results: Results) -> str:
    """How far the checks of the exact gradients differ from them at worst, as a line."""
    places = dict.fromkeys(cell.place for cell in results.cells())
    references = [results.load_reference(place) for place in places]
    found = [reference.info["agreement"] for reference in references if reference is not None]
    differences = max(one["finite difference"] for one in found)
    line = f"exact gradients: finite differences agree to {differences:.0e}"
    # None where a network is too large for the second route.
    routes = [one["brute force"] for one in found if one["brute force"] is not None]
    if routes:
        where = "" if len(routes) == len(found) else f" (at {len(routes)} of {len(found)} places)"
        line = (
            f"exact gradients: two routes agree to {max(routes):.0e}{where}, "
            f"finite differences to {differences:.0e}"
        )
    return f"{line}, relative"


def _title(problem: dict[str, Any]) -> str:
    """The title of a problem; a variant or a member of a sweep is named."""
    _, bracket, member = problem["name"].partition("[")
    return f"{problem['title']}: {member[:-1]}" if bracket else str(problem["title"])


def plot(results: str | Path | Results) -> list[Path]:
    """Draws the figures of a suite into the directory ``figures`` of its results, PDF and PNG.

    Returns:
        The files: for a suite of kind "accuracy", RMSE and cosine against M for each problem and
        replicate, and with many estimators an overview of each checkpoint; of kind "overview" this
        alone, for each problem with all its variants; of kind "growth", bias and deviation against
        what was swept; of kind "temperature" against the temperature; of kind "training" those of
        "accuracy", bias and deviation of each problem along training, and all losses.

    Raises:
        GradbenchError: see ``read_cells``; also a directory that cannot be written.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    suite = results.manifest["suite"]
    cells = list(read_cells(results))
    if suite["figure"] == "growth":
        figure = plots.growth(metrics.summary(cells), suite["by"], suite["title"])
        return plots.save(figure, results.figures / "growth")
    if suite["figure"] == "temperature":
        units = {p["name"]: temperature.unit_of(p["network"]) for p in suite["problems"]}
        known = {name: unit for name, unit in units.items() if unit}
        figure = plots.temperature(metrics.summary(cells), known, suite["title"])
        return plots.save(figure, results.figures / "temperature")
    if suite["figure"] == "overview":
        return _overviews(results, metrics.summary(cells))
    paths = []
    titles = {problem["name"]: _title(problem) for problem in suite["problems"]}
    frame = metrics.curves(cells)
    for (problem, replicate), rows in frame.groupby(["problem", "replicate"], sort=False):
        several = len(titles) > 1 or suite["replicates"] > 1
        prefix = f"{problem}-{replicate}-" if several else ""
        for kind, figure in plots.accuracy(rows, titles[problem]).items():
            paths += plots.save(figure, results.figures / f"{prefix}{kind}")
    if len(suite["estimators"]) > plots.MANY:
        paths += _overviews(results, metrics.summary(cells))
    if suite["figure"] == "training":
        rows = metrics.summary(cells)
        for problem, part in rows.groupby("problem", sort=False):
            prefix = f"{problem}-" if len(titles) > 1 else ""
            figure = plots.training(part, titles[problem])
            paths += plots.save(figure, results.figures / f"{prefix}training")
        paths += plots.save(plots.losses(rows, suite["title"]), results.figures / "losses")
    return paths


def _overviews(results: Results, rows: pd.DataFrame) -> list[Path]:
    """The overviews: a figure for each problem, with all its variants, and checkpoint."""
    suite = results.manifest["suite"]
    base = {problem["name"]: problem["base"] for problem in suite["problems"]}
    title = {problem["base"]: problem["title"] for problem in suite["problems"]}
    paths = []
    groups = rows.groupby([rows["problem"].map(base), "checkpoint"], sort=False)
    for (name, checkpoint), part in groups:
        trained = "epoch" in rows
        prefix = f"{name}-" * (len(title) > 1) + f"{checkpoint.replace(' ', '-')}-" * trained
        heading = f"{title[name]}, {checkpoint}" if trained else title[name]
        figure = plots.overview(part, heading)
        paths += plots.save(figure, results.figures / f"{prefix}overview")
    return paths
