"""What users ask of a directory of results: its table and its figures. Nothing is run again."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from gradbench import metrics, plots
from gradbench.errors import GradbenchError
from gradbench.files import CorruptFile
from gradbench.shards import Cell, CorruptShard
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
    problems = {problem["name"]: problem for problem in suite["problems"]}
    order = list(problems), list(suite["estimators"])
    finished = False
    for cell in sorted(results.cells(), key=lambda cell: _rank(cell, order)):
        meta, blocks = _read(cell)
        if meta is None or sum(block.layers[0].count for block in blocks) < meta["draws"]:
            continue
        reference = results.load_reference(cell.place)
        if reference is None:
            raise CorruptFile(
                f"the exact gradient at {'/'.join(map(str, cell.place))} is missing from "
                f"{str(results.directory)!r}; run the suite again"
            )
        label = problems[cell.place.problem]["label"]
        finished = True
        yield metrics.Cell(
            *cell.place,
            estimator=cell.estimator,
            layer_names=meta["layer_names"],
            blocks=blocks,
            gradient=reference.gradient,
            averages=meta["averages"],
            head_sizes=meta["head_sizes"],
            block_size=meta["block"],
            long_averages=meta["larger"],
            info={"loss": reference.value} | ({suite["by"]: label} if suite["by"] else {}),
        )
    if not finished:
        raise GradbenchError(
            f"{str(results.directory)!r} holds no finished cell yet; continue the run"
        )


def _rank(cell: Cell, order: tuple[list[str], list[str]]) -> tuple[int, ...]:
    problem, replicate, checkpoint = cell.place
    epoch = checkpoint.rpartition(" ")[2]
    number = int(epoch) if epoch.isdecimal() else -1
    problems, estimators = order
    return _index(problems, problem), replicate, number, _index(estimators, cell.estimator)


def _index(names: list[str], name: str) -> int:
    """Its place; a cell from elsewhere comes last, and is refused when it is read."""
    return names.index(name) if name in names else len(names)


def _read(cell: Cell) -> tuple:
    try:
        return cell.meta(), cell.blocks()
    except CorruptShard as error:
        raise GradbenchError(
            f"{str(error).partition(';')[0]}; run the suite again, only its cell is measured anew"
        ) from error


def summary(results: str | Path | Results) -> pd.DataFrame:
    """One row per cell and layer: see ``gradbench.metrics.summary``."""
    return metrics.summary(read_cells(results))


def curves(results: str | Path | Results) -> pd.DataFrame:
    """One row per cell, layer and M: see ``gradbench.metrics.curves``."""
    return metrics.curves(read_cells(results))


def show(results: str | Path | Results) -> str:
    """The table of ``gradbench show``: per checkpoint, layer and estimator."""
    return table(summary(results))


def plot(results: str | Path | Results) -> list[Path]:
    """Draws the figures of a suite into the directory ``figures`` of its results, PDF and PNG.

    Returns:
        The files: for a suite of kind "accuracy", RMSE and cosine against M for each problem and
        replicate; of kind "growth", bias and deviation against what was swept.

    Raises:
        GradbenchError: see ``read_cells``; also a directory that cannot be written.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    suite = results.manifest["suite"]
    cells = list(read_cells(results))
    if suite["figure"] == "growth":
        figure = plots.growth(metrics.summary(cells), suite["by"], suite["title"])
        return plots.save(figure, results.figures / "growth")
    paths = []
    titles = {problem["name"]: problem["title"] for problem in suite["problems"]}
    frame = metrics.curves(cells)
    for (problem, replicate), rows in frame.groupby(["problem", "replicate"], sort=False):
        several = len(titles) > 1 or suite["replicates"] > 1
        prefix = f"{problem}-{replicate}-" if several else ""
        for kind, figure in plots.accuracy(rows, titles[problem]).items():
            paths += plots.save(figure, results.figures / f"{prefix}{kind}")
    return paths
