"""The metrics by name. Each registers itself where it is written.

    from gradbench.metrics import metric


    @metric(title="largest bias", better="low")
    def largest_bias(found, average):
        "max over coordinates of |E g - G|, relative to |G|."
        mean, _ = found.sample.mean_and_variance()
        return abs(mean - found.sample.direction).max()

A metric takes what was measured of one layer (``LayerMetrics``) and the number M of draws that are
averaged. It returns an ``Estimate``, or a plain number where it has no interval. It is not asked
where the exact gradient is zero: there no metric is known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry
from gradbench.metrics.intervals import Estimate

if TYPE_CHECKING:
    from gradbench.metrics.layers import LayerMetrics

Function = Callable[["LayerMetrics", int], Estimate | float]


@dataclass(frozen=True)
class Metric:
    """A metric of the mean of M draws.

    Attributes:
        title: what tables and the report call it.
        symbol: its symbol in LaTeX, for a formula.
        better: which values are better, "low" or "high".
        groups: whether it needs groups of M draws, so that it is known only at the M that a run has
            stored.
        meaning: one line that defines it.
        formula: the same in LaTeX, empty where words say it better.
        function: computes it from a layer and M.
    """

    title: str
    symbol: str
    better: Literal["low", "high"]
    groups: bool
    meaning: str
    function: Function
    formula: str = ""


METRICS: Registry[Metric] = Registry("metric", modules=["gradbench.metrics.definitions"])


def metric(
    name: str | None = None,
    *,
    title: str = "",
    symbol: str = "",
    formula: str = "",
    better: Literal["low", "high"] = "low",
    groups: bool = False,
    aliases: Sequence[str] = (),
) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as a metric.

    Args:
        name: the name, that of the function by default. It is a column of every frame.
        title: what tables call it, the name by default.
        symbol: LaTeX for a formula, the title in upright letters by default.
        formula: LaTeX of its definition, none by default.
        better: which values are better, "low" or "high".
        groups: whether it is known only at the M that a run has stored, as ``found.directions`` is.
        aliases: other names that it is found by.

    The first line of the function's docstring is the meaning of the metric.

    Raises:
        GradbenchError: the name is taken, ``better`` is neither of the two, or there is no
            docstring.
    """
    if better not in ("low", "high"):
        raise GradbenchError(
            f"the metric {name or title!r} has better={better!r}; give 'low' or 'high'"
        )

    def register(function: Function) -> Function:
        own = name or function.__name__
        shown = title or own.replace("_", " ")
        upright = symbol or rf"\mathrm{{{shown.replace(' ', '~')}}}"
        meaning = (function.__doc__ or "").strip().partition("\n")[0].removesuffix(".")
        entry = Metric(shown, upright, better, groups, meaning, function, formula)
        METRICS.add(own, entry, aliases=aliases, summary=meaning)
        return function

    return register


def all_metrics() -> dict[str, Metric]:
    """Return every metric by name, in the order of frames: gradbench's own, then those of plugins.

    Metrics of installed packages are loaded.
    """
    METRICS.names()
    return dict(METRICS)


def check_metrics(names: Iterable[str]) -> list[str]:
    """Return the registered names of the metrics that are called ``names``.

    Raises:
        GradbenchError: there is no metric of one of these names.
    """
    return [METRICS.canonical(name) for name in names]
