"""Results as ``run`` and ``evaluate`` return them: a directory that answers questions."""

import os
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Self

from gradbench.metrics.agreement import agreement
from gradbench.metrics.budget import Budget
from gradbench.metrics.directory import expected, read_cells
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.left_out import reasons
from gradbench.metrics.measurement import NETWORK
from gradbench.metrics.ranking import BUDGET
from gradbench.results import store

if TYPE_CHECKING:
    import pandas as pd

    from gradbench.metrics import Verdict

P = ParamSpec("P")


class Results:
    """A directory of results, to be read: ``Results.open("results/psa")``, or what ``run`` returns.

    Everything that takes the path of a directory of results takes this in its place. Nothing is
    measured by these methods, and each reads the files anew.

    Attributes:
        directory: the path of the directory.
        manifest: what was measured, by what, and on which machine.
        left_out: of ``evaluate``, the estimators that were not measured, each with the reason and
            what can be done about it.
    """

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.left_out: dict[str, str] = dict(manifest.get("left_out", {}))

    @classmethod
    def open(cls, directory: str | Path) -> Self:
        """Open the results in a ``directory``.

        Raises:
            GradbenchError: there are none.
        """
        found = store.Results.open(directory)
        return cls(found.directory, found.manifest)

    def __fspath__(self) -> str:
        return str(self.directory)

    def summary(
        self, average: int = 1, level: float = LEVEL, metrics: Sequence[str] | None = None
    ) -> "pd.DataFrame":
        """Return all metrics of the mean of ``average`` draws: ``gradbench.summary``.

        ``level`` is that of the intervals, ``metrics`` names those that are wanted.

        Raises:
            GradbenchError: as ``gradbench.summary``.
        """
        from gradbench import metrics as functions

        return functions.summary(self, average, level, metrics)

    def curves(self, level: float = LEVEL) -> "pd.DataFrame":
        """Return all metrics at every number of averaged draws: ``gradbench.curves``.

        ``level`` is that of the intervals.

        Raises:
            GradbenchError: as ``gradbench.curves``.
        """
        from gradbench import metrics as functions

        return functions.curves(self, level)

    def rank(
        self,
        by: str = "rmse",
        at: str | Budget = BUDGET,
        layer: str = NETWORK,
        level: float = LEVEL,
    ) -> "pd.DataFrame":
        """Return the estimators at equal cost, the best first: ``gradbench.rank``.

        Args:
            by: the name of a metric.
            at: the budget of one gradient: "100-evaluations", "16-draws" or "1ms".
            layer: the name of a layer, "network", or "hidden layers" (all that feed units).
            level: that of the comparisons.

        Raises:
            GradbenchError: as ``gradbench.rank``.
        """
        from gradbench import metrics as functions

        return functions.rank(self, by, at, layer, level)

    def decide(
        self,
        cost: str = "evaluations",
        layers: Sequence[str] | None = None,
        level: float = LEVEL,
    ) -> "Verdict":
        """Return the best estimators at equal cost, by budget: ``gradbench.metrics.decide``.

        Args:
            cost: "evaluations", "seconds" or "draws".
            layers: names of layers; all by default.
            level: that of the comparisons.

        Raises:
            GradbenchError: as ``gradbench.metrics.decide``.
        """
        from gradbench import metrics as functions

        return functions.decide(self, cost, layers, level)

    def compare(
        self,
        other: "str | os.PathLike[str]",
        by: str = "rmse",
        average: int = 1,
        margin: float = 0.0,
        level: float = LEVEL,
    ) -> "pd.DataFrame":
        """Return what is different in ``other`` results of the same: ``gradbench.compare``.

        Args:
            other: results, the path of a directory, or the name ``gradbench:SUITE``.
            by: the name of a metric.
            average: the number M of draws that are averaged.
            margin: a relative change that is not reported.
            level: that of the intervals.

        Raises:
            GradbenchError: as ``gradbench.compare``.
        """
        from gradbench import metrics as functions

        return functions.compare(self, other, by, average, margin, level)

    def plot(self) -> list[Path]:
        """Draw the figures into ``directory / "figures"``, return their files: ``gradbench.plot``.

        Raises:
            GradbenchError: as ``gradbench.plot``.
        """
        from gradbench.plots.suite import plot

        return plot(self)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the report, an HTML file, and return its path: ``gradbench.write_report``.

        ``out`` is the file, ``report.html`` in the directory by default.

        Raises:
            GradbenchError: as ``gradbench.write_report``.
        """
        from gradbench.report.html import write_report

        return write_report(self, out)

    def __repr__(self) -> str:
        return f"Results.open({str(self.directory)!r})"

    def __str__(self) -> str:
        cells = read_cells(self)
        done, total = sum(1 for _ in cells), expected(cells.results)
        lines = [
            f"{self.manifest['suite']['title']}: {done} of {total} cells, in {self.directory}",
            agreement(cells.results),
            *(f"not measured: {one}" for one in reasons(self.left_out)),
        ]
        return "\n".join(lines)

    def delete_at_exit(self) -> None:
        """Delete the directory when these results are no longer used, or Python ends."""
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)


def readable(measure: Callable[P, store.Results]) -> Callable[P, Results]:
    """Return a function that measures, such as ``run`` of suites, and returns these ``Results``."""

    @wraps(measure)
    def function(*args: P.args, **options: P.kwargs) -> Results:
        found = measure(*args, **options)
        return Results(found.directory, found.manifest)

    function.__annotations__ = {**measure.__annotations__, "return": Results}
    return function
