"""The search of the rate: a logarithmic grid, extended while the best rate lies at an edge."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from gradbench.results.runs import Stored

# Trains runs with some rates, of the seeds of the search, and returns what is stored of them.
Try = Callable[[tuple[float, ...]], Stored]


class Found(NamedTuple):
    """The rate that a search has found.

    Attributes:
        rate: the rate of the least loss.
        losses: the mean final loss of each rate that was tried; infinite where a run diverged.
        at_edge: whether the best rate still lies at an edge, as the budget was at its end.
    """

    rate: float
    losses: dict[float, float]
    at_edge: bool


def search(
    attempt: Try,
    rates: Sequence[float],
    extensions: int,
    curve: str = "loss",
    largest: float = math.inf,
) -> Found:
    """Return the rate whose final training loss, by sampling, has the least mean over seeds.

    Args:
        attempt: trains with some rates.
        rates: the grid, ascending at equal ratios.
        extensions: how often as many rates again may follow beyond an edge.
        curve: the name of the loss.
        largest: the largest rate that may be tried.
    """
    losses: dict[float, float] = {}
    grid = tuple(rates)
    for more in range(extensions + 1):
        losses |= final_losses(attempt(grid), curve)
        known = sorted(losses)
        best = min(known, key=lambda rate: (losses[rate], rate))
        at_edge = len(rates) > 1 and best in (known[0], known[-1])
        if not at_edge or more == extensions:
            break
        further = beyond(known, len(rates), up=best == known[-1])
        grid = tuple(rate for rate in further if rate <= largest)
        if not grid:
            break
    return Found(best, losses, at_edge)


def beyond(known: Sequence[float], count: int, up: bool) -> tuple[float, ...]:
    """Return ``count`` rates that continue an ascending grid upwards or downwards, ascending."""
    ratio = (known[-1] / known[0]) ** (1 / (len(known) - 1))
    edge = known[-1] if up else known[0]
    steps = range(1, count + 1) if up else range(-count, 0)
    return tuple(float(f"{edge * ratio**k:.3g}") for k in steps)


def final_losses(stored: Stored, curve: str = "loss") -> dict[float, float]:
    """Return the mean final value of a curve for each rate, infinite where a seed diverged."""
    rates, seeds = stored.identity["rates"], stored.identity["seeds"]
    table = stored.arrays[curve][-1].reshape(len(rates), len(seeds))
    means = np.where(np.isfinite(table).all(1), table.mean(1), math.inf)
    return dict(zip(rates, map(float, means), strict=True))
