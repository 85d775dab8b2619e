"""The places where estimators were measured: a problem, a replicate and a checkpoint."""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.core.specs import family
from gradbench.metrics.places import Place as PlaceKey
from gradbench.metrics.places import place_names


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
    groups: dict[PlaceKey, pd.DataFrame] = {
        key: rows for key, rows in summary.groupby(metrics.KEYS[:3], sort=False)
    }
    named = place_names(groups)
    found = []
    for key, rows in groups.items():
        layers = sorted(rows["layer"].unique(), key=lambda layer: layer != metrics.NETWORK)
        found.append(Place(*key, named[key], tuple(layers)))
    return found


def rivals(names: Iterable[str]) -> list[str]:
    """Return the estimators without the exact one, which nobody has to choose."""
    return [name for name in names if family(name) != "exact"]
