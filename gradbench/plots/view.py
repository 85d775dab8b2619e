"""What a figure shows of its rows, and how: estimators, layers, their names, and its width.

Every figure takes these options, as the functions that ``takes_view`` makes do.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.names import visible
from gradbench.metrics import NETWORK
from gradbench.metrics.selection import known_name, meant, spellings
from gradbench.plots.style import NARROW, PLAIN, Style, styles

WIDTHS = {"single": 3.25, "double": 6.75}  # inches: columns of the usual two-column papers
_NARROW = 4.5  # inches: figures up to this width have smaller letters and fewer columns
_LIMITS = (1.5, 20.0)

OPTIONS = """\
    labels: what estimators are called, as {"psa": "Ours"}; their display names by default.
    estimators: the estimators to draw, in this order; a name without arguments stands for all
        of that name. Colours are those of the figure of all.
    layers: the layers to draw, in this order; figures of whole networks draw a single one.
    width: "single" or "double" for the columns of a paper, or inches.
"""


@dataclass(frozen=True)
class View:
    """The options of a figure, checked, and the estimators of its frame before any is left out.

    Attributes:
        cast: a row for each estimator of the whole frame, by which colours are given.
        labels: names of estimators by spec.
        estimators: the estimators to draw, in this order; empty for all.
        layers: the layers to draw, in this order; empty for all.
        width: inches, or None for what the panels need.
    """

    cast: pd.DataFrame
    labels: Mapping[str, str]
    estimators: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    width: float | None = None

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        labels: Mapping[str, str] | None = None,
        estimators: Sequence[str] = (),
        layers: Sequence[str] = (),
        width: str | float | None = None,
    ) -> "View":
        """Return the view of a frame with these options.

        Raises:
            GradbenchError: the frame has no such estimator or layer, or an option is of another
                kind.
        """
        inches = _inches(width)
        if frame.empty or "estimator" not in frame:  # which the figure refuses
            return cls(pd.DataFrame({"estimator": []}), {}, width=inches)
        columns = [name for name in ("estimator", "family", "display_name") if name in frame]
        cast = frame.drop_duplicates("estimator")[columns]
        known = spellings(list(cast["estimator"]))
        chosen = meant("estimator", _texts("estimators", estimators), known) if estimators else ()
        own = [] if "layer" not in frame else list(frame["layer"].unique())
        places = [known_name("layer", name, own) for name in _texts("layers", layers)]
        return cls(
            cast,
            _labels(labels or {}, known),
            tuple(dict.fromkeys(chosen)),
            tuple(dict.fromkeys(places)),
            inches,
        )

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows to draw; those of the whole network stay where several layers are."""
        if self.estimators:
            frame = frame[frame["estimator"].isin(self.estimators)]
        if self.layers:
            kept = [*self.layers, *[NETWORK] * (len(self.layers) > 1)]
            frame = pd.concat([frame[frame["layer"] == name] for name in dict.fromkeys(kept)])
        return frame

    def styles(self, rows: pd.DataFrame) -> dict[str, Style]:
        """Return the styles of the estimators of some rows, in their order, with their names."""
        names = set(rows["estimator"])
        return {
            name: look for name, look in self.dressed(styles(self.cast)).items() if name in names
        }

    def dressed(self, looks: Mapping[str, Style]) -> dict[str, Style]:
        """Return styles in the order asked for, with the names asked for."""
        first = [name for name in self.estimators if name in looks]
        return {
            name: looks[name]._replace(label=self.labels.get(name, looks[name].label))
            for name in (*first, *(other for other in looks if other not in first))
        }

    @property
    def narrow(self) -> bool:
        """Whether it is about one column of two."""
        return self.width is not None and self.width <= _NARROW

    @property
    def settings(self) -> Any:
        """The settings of matplotlib for a figure of this width."""
        return PLAIN | (NARROW if self.narrow else {})

    def inches(self, columns: int = 3) -> float:
        """Return the width of a figure with so many columns of panels."""
        if self.width is not None:
            return self.width
        return WIDTHS["double"] if columns > 2 else (3.5, 5.5)[columns - 1]


def takes_view(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a frame that takes the options of a view besides its own arguments.

    Args:
        draw: a function of a frame, further arguments and ``view``, which it gets instead of the
            options, as the line on ``view`` in its docstring is replaced by theirs. One without
            ``view`` is returned as it is.
    """
    signature = inspect.signature(draw)
    if "view" not in signature.parameters:
        return draw

    @functools.wraps(draw)
    def drawn(
        frame: pd.DataFrame,
        *arguments: Any,
        labels: Mapping[str, str] | None = None,
        estimators: Sequence[str] = (),
        layers: Sequence[str] = (),
        width: str | float | None = None,
        view: View | None = None,
        **more: Any,
    ) -> Any:
        if view is None:
            view = View.of(frame, labels, estimators, layers, width)
            frame = view.rows(frame)
        return draw(frame, *arguments, view=view, **more)

    own = [one for name, one in signature.parameters.items() if name != "view"]
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter("labels", kind, default=None),
        inspect.Parameter("estimators", kind, default=()),
        inspect.Parameter("layers", kind, default=()),
        inspect.Parameter("width", kind, default=None),
    ]
    drawn.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    text = inspect.getdoc(draw) or ""
    drawn.__doc__ = re.sub(r" +view: .*\n", lambda _: OPTIONS, text, count=1)
    return drawn


def _texts(option: str, value: Any) -> list[str]:
    """Return the texts of an option that takes several; one alone will do."""
    several = [value] if isinstance(value, str) else value
    if isinstance(several, Sequence) and all(isinstance(one, str) for one in several):
        return list(several)
    example = "['psa', 'arm']" if option == "estimators" else "['layer 1', 'output']"
    raise GradbenchError(f"{option} is {value!r}; give names, as {option}={example}")


def _labels(labels: Any, known: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return names by spec; a name that stands for several estimators stays as it is."""
    good = isinstance(labels, Mapping) and all(
        isinstance(part, str) for pair in labels.items() for part in pair
    )
    if not good:
        raise GradbenchError(
            f"labels is {labels!r}; give the names of estimators, as labels={{'psa': 'Ours'}}"
        )
    found = {}
    for name, text in labels.items():
        if not visible(text).strip():
            raise GradbenchError(f"the label of {name!r} is empty; give a text")
        spelling = known_name("estimator", name, known)
        specs = known[spelling]
        found[specs[0] if len(specs) == 1 else spelling] = visible(text)
    return found


def _inches(width: Any) -> float | None:
    """Return a width in inches, None where none is given."""
    if width is None:
        return None
    if isinstance(width, str):
        if width in WIDTHS:
            return WIDTHS[width]
        remedy = did_you_mean(width, WIDTHS)
        try:
            width = float(width)
        except ValueError:
            raise GradbenchError(f"unknown width {width!r}; {remedy}; or give inches") from None
    low, high = _LIMITS
    if isinstance(width, bool) or not isinstance(width, int | float) or not low <= width <= high:
        raise GradbenchError(
            f"width is {width!r}; give 'single', 'double' or {low:g} to {high:g} inches"
        )
    return float(width)
