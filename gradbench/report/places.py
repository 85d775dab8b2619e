"""The places where estimators were measured: a problem, a replicate and a checkpoint."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.core.specs import family
from gradbench.plots.rows import member


class Place(NamedTuple):
    """A problem, replicate and checkpoint; its ``name`` has what distinguishes it from others."""

    problem: str
    replicate: int
    checkpoint: str | int
    name: str
    layers: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int, str | int]:
        """Problem, replicate and checkpoint, the first columns of the frames."""
        return self.problem, self.replicate, self.checkpoint

    @property
    def whole(self) -> str:
        """The layer of all parameters: "network", or the only layer."""
        return metrics.NETWORK if metrics.NETWORK in self.layers else self.layers[0]

    def rows(self, frame: pd.DataFrame, layer: str | None = None) -> pd.DataFrame:
        """Return the rows of a frame at this place, in one layer or in all."""
        here = (frame[key] == value for key, value in zip(metrics.KEYS[:3], self.key, strict=True))
        chosen = pd.Series(True, frame.index)
        for one in here:
            chosen &= one
        return frame[chosen & (frame["layer"] == layer)] if layer else frame[chosen]


def places_of(summary: pd.DataFrame) -> list[Place]:
    """Return the places of a summary in their order, with the whole network as first layer."""
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
    """Return the estimators without the exact one, which nobody has to choose."""
    return [name for name in names if family(name) != "exact"]


def joined(parts: Sequence[str], last: str = "and") -> str:
    """Return an enumeration: "a", "a and b", "a, b and c"."""
    return f" {last} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
