"""The figures of a suite, and the script behind each."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.core.atomic import write_file
from gradbench.core.names import figure_name, literal
from gradbench.core.progress import step
from gradbench.metrics.directory import Cells, Directory, read_cells
from gradbench.metrics.frames import Frames
from gradbench.metrics.selection import Selection
from gradbench.metrics.untrained import is_training
from gradbench.plots.parts import chosen, selection
from gradbench.plots.registry import FIGURES, all_figures
from gradbench.plots.save import save
from gradbench.results.drawn import record_figures, state


class Drawing(NamedTuple):
    """One drawing of a figure.

    Attributes:
        name: the name of its files, whatever the names are that it is made of.
        function: the figure, a function of ``gradbench.plots``.
        data: the function of ``gradbench.metrics`` that gives the frame.
        rows: the values, by column, that the rows of the frame to draw have; empty for all rows.
        arguments: the arguments of the figure besides the frame.
    """

    name: str
    function: str
    data: str
    rows: dict[str, list[Any]]
    arguments: dict[str, Any]

    def script(self, folder: Path) -> str:
        """Return a script in ``folder``, below the results, that draws and saves the same.

        Raises:
            GradbenchError: there is no such figure.
        """
        imports = [
            line
            for line in FIGURES[self.function].imports
            if line.split()[-1] in repr(self.arguments)
        ]
        plugin = _plugin_file(self.function, folder)
        lines = [
            '"""Draw a figure anew, as PDF, SVG and PNG, from the results one folder up."""',
            "",
            "from pathlib import Path",
            "",
            "from gradbench import metrics, plots",
            *(["from gradbench.core import plugins"] if plugin else []),
            *imports,
            "",
            "here = Path(__file__).resolve().parent",
            *([f"plugins.load(here / {literal(plugin)})"] if plugin else []),
            f"frame = metrics.{self.data}(here.parent)",
            *(
                f"frame = frame[frame[{literal(column)}].isin({literal(values)})]"
                for column, values in self.rows.items()
            ),
            f"figure = plots.{self.function}(",
            "    frame,",
            *(f"    {key}={literal(value)}," for key, value in self.arguments.items()),
            ")",
            f"plots.save(figure, here / {literal(self.name)})",
            "",
        ]
        return "\n".join(lines)


def _plugin_file(figure: str, folder: Path) -> str:
    """Return the plugin file that a figure comes from, seen from ``folder``; "" if from none."""
    module = FIGURES.facts(figure).module  # of a plugin file its path
    if not os.path.isabs(module):
        return ""
    try:
        return Path(os.path.relpath(module, folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return module


def drawings(suite: Mapping[str, Any], summary: pd.DataFrame) -> Iterator[Drawing]:
    """Yield the drawings of a suite's figures, for the cells that are finished.

    Args:
        suite: the suite, as the manifest of its results describes it.
        summary: the ``summary`` of the results; of runs of training the ``learning``.

    Raises:
        GradbenchError: the suite asks for a figure that does not exist.
    """
    asked = FIGURES.canonical(suite["figure"])
    for kind in all_figures():
        if not kind.is_drawn_for(asked):
            continue
        for part in kind.parts(suite, summary):
            yield Drawing(
                figure_name(f"{part.before}{kind.file}{part.after}"),
                kind.name,
                kind.data,
                selection(summary, part.selected),
                _arguments(kind.name, part.arguments),
            )


def _arguments(figure: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a figure; those of a plugin have no dollar signs of formulas.

    The figures of the package take no text for a formula, see ``PLAIN``.
    """
    if FIGURES.facts(figure).module.startswith("gradbench."):
        return dict(arguments)
    return {
        key: value.replace("$", r"\$") if isinstance(value, str) and key == "title" else value
        for key, value in arguments.items()
    }


def plot(results: Directory | Cells) -> list[Path]:
    """Draw the figures of a suite into the directory ``figures`` of its results.

    Each is a PDF, an SVG and a PNG, with a script beside them that draws it anew. Which figures
    there are follows from the ``figure`` that the suite asks for; ``gradbench list figures`` names
    them. "accuracy" stands for RMSE and cosine against draws and against cost, bias against
    deviation, error against cost, and the bias of each coordinate; "training" for the same along
    training, and the losses. Many estimators also have an overview.

    Args:
        results: a directory of results, its path, or some of its cells.

    Returns:
        The files.

    Raises:
        GradbenchError: there are no results, files are damaged (the sentence names them), no cell
            is finished, the suite asks for a figure that does not exist, or the directory cannot be
            written.
    """
    cells = read_cells(results)
    results = cells.results
    drawn_of = state(results)
    suite = results.manifest["suite"]
    asked = FIGURES.canonical(suite["figure"])
    needed = {kind.data for kind in all_figures() if kind.is_drawn_for(asked)}
    step("reading results")
    if is_training(results.manifest):
        wanted = {"learning", *needed}
        frames: Any = {name: getattr(metrics, name)(results) for name in wanted}
        head = frames["learning"]
    else:
        table = Frames({"summary", *needed})
        for cell in cells:
            table.add(cell)
        frames = table.frames()
        head = frames["summary"]
    paths = []
    for drawing in drawings(suite, head):
        step(f"figure {drawing.name}")
        rows = chosen(frames[drawing.data], drawing.rows)
        if rows.empty:  # such as errors that were not measured
            continue
        figure = FIGURES[drawing.function].draw(rows, **drawing.arguments)
        paths += save(figure, results.figures / drawing.name)
        paths.append(results.figures / f"{drawing.name}.py")
        write_file(paths[-1], drawing.script(results.figures).encode())
    if cells.selection == Selection.of(suite):
        record_figures(results, drawn_of, paths)
    return paths
