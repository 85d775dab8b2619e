"""The figures by name. Each registers itself where it is written.

    from gradbench import plots


    @plots.figure(suites=["accuracy"])
    def ratio(summary, title=""):
        "The ratio of bias and standard deviation, a bar for each estimator."
        figure = matplotlib.figure.Figure()
        ...
        return figure

``gradbench plot`` then draws it for every suite with ``figure = "accuracy"`` or ``figure =
"ratio"``, and writes a script beside it. The report shows it, and ``gradbench.plots.ratio`` is the
function.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import pandas as pd
from matplotlib.axes import Axes

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.origins import modules_of
from gradbench.core.registry import Registry
from gradbench.plots.parts import Parts, once
from gradbench.plots.style import Style
from gradbench.plots.view import takes_view

Data = Literal[
    "summary",
    "curves",
    "coordinates",
    "learning",
    "gradient_errors",
    "error_results",
    "correlation",
]
FRAMES: tuple[Data, ...] = get_args(Data)  # the last four are of runs of training


class Panel(NamedTuple):
    """A figure as the report draws it: one panel of a layer at a checkpoint, picked by the reader.

    Attributes:
        title: the title above it.
        caption: the text below it.
        draw: draws rows of the figure's frame into axes: ``draw(rows, ax, style, cost)``.
        costs: the costs that it can be drawn against; empty if it has no such axis.
    """

    title: str
    caption: str
    draw: Callable[[pd.DataFrame, Axes, Mapping[str, Style], str], object]
    costs: Sequence[str] = ()


@dataclass(frozen=True)
class FigureKind:
    """A figure that can be drawn of results, as ``figure`` registers it.

    Attributes:
        name: its name.
        draw: the function that draws it: a frame and further arguments to a ``Figure``.
        data: the function of ``gradbench.metrics`` that gives the frame.
        parts: which drawings a suite has of it.
        suites: the values of ``figure`` in a suite that it is drawn for, besides its name.
        caption: the text below it in the report.
        panel: how the report draws it for one layer at a time, or None.
        in_report: whether the report shows it.
        order: its position among the figures.
        imports: lines that its script needs to read the arguments.
    """

    name: str
    draw: Callable[..., Any]
    data: Data
    parts: Parts
    suites: tuple[str, ...]
    caption: str
    panel: Panel | None
    in_report: bool
    order: int
    imports: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of its files."""
        return self.name.replace("_", "-")

    def is_drawn_for(self, figure: str) -> bool:
        """Return whether it is drawn for a suite that asks for ``figure``."""
        return figure == self.name or figure in self.suites


# A new file in this folder needs no entry anywhere.
FIGURES: Registry[FigureKind] = Registry(
    "figure",
    modules=modules_of("gradbench.plots"),
)


def figure(
    name: str | None = None,
    *,
    data: Data = "summary",
    parts: Parts = once,
    suites: Sequence[str] = (),
    caption: str = "",
    panel: Panel | None = None,
    in_report: bool = True,
    order: int = 100,
    imports: Sequence[str] = (),
    aliases: Sequence[str] = (),
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a function as a figure.

    The function takes a frame, ``title`` and further arguments, and returns a matplotlib
    ``Figure``. The first line of its docstring is what lists say of it. If one of the arguments is
    ``view``, the registered function has the options ``labels``, ``estimators``, ``layers`` and
    ``width`` in its place, see ``gradbench.plots.view``.

    Args:
        name: the name, that of the function by default. A suite asks for it by ``figure = NAME``.
        data: the function of ``gradbench.metrics`` that gives the frame: "summary", "curves" or
            "coordinates"; of runs of training "learning", "gradient_errors", "error_results" or
            "correlation".
        parts: which drawings a suite has of it, see ``gradbench.plots.parts``; one by default.
        suites: other values of ``figure`` in a suite that it is drawn for, such as "accuracy".
        caption: the text below it in the report; the first line of the docstring by default.
        panel: how the report draws it for one layer at a time, in place of the whole figure.
        in_report: whether the report shows it.
        order: its position among the figures; smaller numbers come first.
        imports: lines that its script needs to read the arguments.
        aliases: other names that it is found by.

    Raises:
        GradbenchError: the name is taken, there is no such frame, or there is no docstring.
    """
    if data not in FRAMES:
        raise GradbenchError(
            f"the figure {name!r} is drawn from {data!r}, which is not a frame; "
            f"{did_you_mean(data, FRAMES)}"
        )

    def register(draw: Callable[..., Any]) -> Callable[..., Any]:
        draw = takes_view(draw)
        own = name or draw.__name__
        below = caption or (draw.__doc__ or "").strip().partition("\n")[0]
        kind = FigureKind(
            name=own,
            draw=draw,
            data=data,
            parts=parts,
            suites=tuple(suites),
            caption=below,
            panel=panel,
            in_report=in_report,
            order=order,
            imports=tuple(imports),
        )
        FIGURES.add(own, kind, aliases=aliases, source=draw)
        return draw

    return register


def all_figures() -> list[FigureKind]:
    """Return all figures in their order, those of installed packages included."""
    return sorted((FIGURES[name] for name in FIGURES.names()), key=lambda kind: kind.order)
