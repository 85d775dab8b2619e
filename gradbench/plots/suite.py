"""The figures of a suite, and the script behind each."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
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
from gradbench.plots.registry import FIGURES, FigureKind, all_figures
from gradbench.plots.save import save
from gradbench.plots.view import View
from gradbench.results.drawn import record_figures, state
from gradbench.results.published import beside


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

    def script(self, folder: Path, results: Path | None = None) -> str:
        """Return a script that draws and saves the same.

        Args:
            folder: where the script is to be.
            results: the directory of the results; the one that ``folder`` is in by default.

        Raises:
            GradbenchError: there is no such figure.
        """
        imports = [
            line
            for line in FIGURES[self.function].imports
            if line.split()[-1] in repr(self.arguments)
        ]
        plugin = _plugin_file(self.function, folder)
        place = "here.parent"
        if results is not None and folder.resolve().parent != results.resolve():
            place = f"here / {literal(_relative(results.resolve(), folder))}"
        lines = [
            '"""Draw a figure anew, as PDF, SVG and PNG, from the results that it shows."""',
            "",
            "from pathlib import Path",
            "",
            "from gradbench import metrics, plots",
            *(["from gradbench.core import plugins"] if plugin else []),
            *imports,
            "",
            "here = Path(__file__).resolve().parent",
            *([f"plugins.load(here / {literal(plugin)})"] if plugin else []),
            f"frame = metrics.{self.data}({place})",
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
    return _relative(Path(module), folder)


def _relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder."""
    try:
        return Path(os.path.relpath(path, folder.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return str(path)


def drawings(
    suite: Mapping[str, Any], summary: pd.DataFrame, figures: Sequence[str] = ()
) -> Iterator[Drawing]:
    """Yield the drawings of a suite's figures, for the cells that are finished.

    Args:
        suite: the suite, as the manifest of its results describes it.
        summary: the ``summary`` of the results; of runs of training the ``learning``.
        figures: the names of the figures to draw; by default those that the suite asks for.

    Raises:
        GradbenchError: a figure that does not exist is asked for.
    """
    for kind in _kinds(suite, figures):
        for part in kind.parts(suite, summary):
            yield Drawing(
                figure_name(f"{part.before}{kind.file}{part.after}"),
                kind.name,
                kind.data,
                selection(summary, part.selected),
                _arguments(kind.name, part.arguments),
            )


def _kinds(suite: Mapping[str, Any], figures: Sequence[str]) -> list[FigureKind]:
    """Return the figures with these names, or those that a suite asks for."""
    asked = FIGURES.canonical(suite["figure"])
    names = [FIGURES.canonical(name) for name in figures]
    return [
        kind
        for kind in all_figures()
        if kind.name in names or (not names and kind.is_drawn_for(asked))
    ]


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


def plot(
    results: Directory | Cells,
    *,
    figures: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    estimators: Sequence[str] = (),
    layers: Sequence[str] = (),
    width: str | float | None = None,
    relative: bool = False,
    out: str | Path | None = None,
) -> list[Path]:
    """Draw the figures of a suite into the directory ``figures`` of its results.

    Each is a PDF, an SVG and a PNG, with a script beside them that draws it anew. Which figures
    there are follows from the ``figure`` that the suite asks for; ``gradbench list figures`` names
    them. "accuracy" stands for RMSE and cosine against draws and against cost, bias against
    deviation, error against cost, and the bias of each coordinate; "training" for the same along
    training, and the losses. Many estimators also have an overview.

    With any of the options, the figures are written into the directory ``paper`` of the results
    instead, where no run draws them again.

    Args:
        results: a directory of results, its path, or some of its cells.
        figures: the names of the figures to draw; by default those that the suite asks for.
        labels: what estimators are called, as ``{"psa": "Ours"}``; their display names by default.
        estimators: the estimators to draw, in this order, in the colours that they have among all.
        layers: the layers to draw, in this order.
        width: "single" or "double" for the columns of a paper, or inches.
        relative: whether RMSE is drawn as the ratio to the least at the same cost.
        out: the directory to write into.

    Returns:
        The files.

    Raises:
        GradbenchError: there are no results, files are damaged (the sentence names them), no cell
            is finished, a figure, an estimator or a layer does not exist, an option does not fit,
            or the directory cannot be written.
    """
    options = {"labels": labels, "estimators": estimators, "layers": layers, "width": width}
    options = {name: value for name, value in (options | {"relative": relative}).items() if value}
    cells = read_cells(results)
    results = cells.results
    drawn_of = state(results)
    suite = results.manifest["suite"]
    needed = {kind.data for kind in _kinds(suite, figures)}
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
    view = View.of(head, labels, estimators, layers, width)
    usual = not (options or figures or out)
    if out is None:
        beside(results)  # refuses those in the package
    folder = Path(out) if out else results.folder_of_figures("figures" if usual else "paper")
    paths = []
    for plain in drawings(suite, view.rows(head), figures):
        drawing = _with_options(plain, view, options)
        step(f"figure {drawing.name}")
        rows = chosen(frames[drawing.data], drawing.rows)
        if rows.empty:  # such as errors that were not measured
            continue
        figure = FIGURES[drawing.function].draw(rows, **drawing.arguments)
        paths += save(figure, folder / drawing.name)
        paths.append(folder / f"{drawing.name}.py")
        write_file(paths[-1], drawing.script(folder, results.directory).encode())
    if usual and cells.selection == Selection.of(suite):
        record_figures(results, drawn_of, paths)
    return paths


def _with_options(drawing: Drawing, view: View, options: Mapping[str, Any]) -> Drawing:
    """Return a drawing with the options that its figure takes.

    A figure that takes no choice of estimators or layers, as those of plugins, gets their rows.
    """
    taken = inspect.signature(FIGURES[drawing.function].draw).parameters
    values = dict(options)
    for name, checked in (("estimators", view.estimators), ("layers", view.layers)):
        if name in values:
            values[name] = list(checked)
    if "labels" in values:
        values["labels"] = dict(view.labels)
    rows = {
        column: values[name]
        for name, column in (("estimators", "estimator"), ("layers", "layer"))
        if name in values and name not in taken
    }
    own = {name: value for name, value in values.items() if name in taken}
    return drawing._replace(rows=drawing.rows | rows, arguments=drawing.arguments | own)
