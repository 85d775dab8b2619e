"""Where something was measured, as a reader names it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.core.specs import family
from gradbench.plots.rows import member


class Place(NamedTuple):
    """A problem, replicate and checkpoint; ``name`` says what tells it from the others."""

    problem: str
    replicate: int
    checkpoint: str | int
    name: str
    layers: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int, str | int]:
        """As the frames of ``gradbench.metrics`` have it."""
        return self.problem, self.replicate, self.checkpoint

    @property
    def whole(self) -> str:
        """The layer of all parameters: "network", or the only layer there is."""
        return metrics.NETWORK if metrics.NETWORK in self.layers else self.layers[0]

    def rows(self, frame: pd.DataFrame, layer: str | None = None) -> pd.DataFrame:
        """The rows of a frame here, in one layer or in all."""
        here = (frame[key] == value for key, value in zip(metrics.KEYS[:3], self.key, strict=True))
        chosen = pd.Series(True, frame.index)
        for one in here:
            chosen &= one
        return frame[chosen & (frame["layer"] == layer)] if layer else frame[chosen]


def places_of(summary: pd.DataFrame) -> list[Place]:
    """The places of a summary in their order; the whole network comes first of the layers."""
    found = []
    varying = [key for key in metrics.KEYS[:3] if summary[key].nunique() > 1]
    problems = {name: member(name) for name in summary["problem"].unique()}
    if len(set(problems.values())) < len(problems):
        problems = {name: name for name in problems}
    for key, rows in summary.groupby(metrics.KEYS[:3], sort=False):
        parts = {
            "problem": problems[key[0]],
            "replicate": f"replicate {key[1]}",
            "checkpoint": str(key[2]),
        }
        name = ", ".join(parts[part] for part in varying or ["checkpoint"])
        layers = sorted(rows["layer"].unique(), key=lambda layer: layer != metrics.NETWORK)
        found.append(Place(key[0], key[1], key[2], name, tuple(layers)))
    return found


def rivals(names: Iterable[str]) -> list[str]:
    """The estimators without the exact one, which is no choice of anybody's."""
    return [name for name in names if family(name) != "exact"]


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Parts of a sentence: "a", "a and b", "a, b and c"."""
    return f" {last} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
