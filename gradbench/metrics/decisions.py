"""The decisions on some results, and what they have in common."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from gradbench.metrics.measurement import HIDDEN, NETWORK
from gradbench.metrics.places import Place

BUDGETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # evaluations of the objective, or draws
FACTORS = ("budget", "layer", "checkpoint", "problem", "replicate")  # what a winner may depend on


class Case(NamedTuple):
    """One decision: the estimators at one place, of one layer, at one budget.

    Attributes:
        problem: the name of the problem.
        replicate: the number of the replicate.
        checkpoint: the checkpoint of its training.
        layer: the name of a layer, "network" or "hidden layers".
        budget: of one estimate, in the unit of the cost.
        best: the unbeaten estimators, the smallest RMSE first; several are tied.
        rmse: the smallest relative RMSE.
        affordable: how many estimators the budget pays a draw of.
        measured: how many estimators were measured.
    """

    problem: str
    replicate: int
    checkpoint: str | int
    layer: str
    budget: float
    best: tuple[str, ...]
    rmse: float
    affordable: int
    measured: int

    @property
    def place(self) -> Place:
        """Problem, replicate and checkpoint."""
        return self.problem, self.replicate, self.checkpoint

    @property
    def is_choice(self) -> bool:
        """True if the budget leaves a choice, so that there was something to decide."""
        return self.affordable > 1


class Range(NamedTuple):
    """Neighbouring budgets with the same best estimators.

    Attributes:
        start: the first of these budgets.
        end: the last of them.
        best: the estimators that are unbeaten at all of them; several are tied.
        tied: the others that are unbeaten at some of them.
        is_choice: False if nothing else can be afforded.
    """

    start: float
    end: float
    best: tuple[str, ...]
    tied: tuple[str, ...]
    is_choice: bool


class Decisions(NamedTuple):
    """All decisions on some results, see ``Verdict``."""

    cost: str
    decisions: dict[tuple[Place, str], tuple[Case, ...]]
    shares: dict[Place, float]
    without_cost: tuple[str, ...]
    readout: Mapping[Place, tuple[str, ...]] = {}

    @property
    def cases(self) -> list[Case]:
        """All cases, place by place, layer by layer."""
        return [case for cases in self.decisions.values() for case in cases]

    @property
    def choices(self) -> list[Case]:
        """The cases that leave a choice."""
        return [case for case in self.cases if case.is_choice]

    @property
    def places(self) -> list[Place]:
        """The places, in their order."""
        return list(dict.fromkeys(place for place, _ in self.decisions))

    @property
    def layers(self) -> list[str]:
        """The names of the layers: the network, the hidden layers together, and each layer."""
        return list(dict.fromkeys(layer for _, layer in self.decisions))

    @property
    def best(self) -> tuple[str, ...]:
        """The estimators that are unbeaten wherever there is a choice; often there is none."""
        return common(self.choices)

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Those of ``FACTORS`` that change the best estimator while the others stay the same."""
        found = []
        for factor in FACTORS:
            groups: dict[tuple, list[Case]] = {}
            for case in self.choices:
                others = tuple(getattr(case, name) for name in FACTORS if name != factor)
                groups.setdefault(others, []).append(case)
            if any(not common(group) for group in groups.values()):
                found.append(factor)
        return tuple(found)

    def of(self, layer: str, place: Place | None = None) -> list[Case]:
        """Return the cases of a layer, at one place or at all.

        Where there is just one hidden layer, the hidden layers together are this one.
        """
        found: list[Case] = []
        for one in self.places if place is None else [place]:
            hidden = self.hidden(one)
            alone = layer == HIDDEN and self.readout.get(one) and len(hidden) == 1
            found += self.decisions.get((one, hidden[0] if alone else layer), ())
        return found

    def hidden(self, place: Place) -> list[str]:
        """Return the names of the hidden layers at a place that were decided on."""
        others = (NETWORK, HIDDEN, *self.readout.get(place, ()))
        return [name for there, name in self.decisions if there == place and name not in others]

    def ranges(self, layer: str, place: Place | None = None) -> list[Range]:
        """Return the best estimators of a layer by budget, at one place or at all alike.

        Args:
            layer: the name of a layer, "network" or "hidden layers".
            place: a place; by default all, where only a choice counts.

        Returns:
            The fewest ranges that have an unbeaten estimator each; empty if at some budget none is
            unbeaten at all places.
        """
        cases = self.of(layer, place)
        steps = []
        for amount in sorted({case.budget for case in cases}):
            here = [case for case in cases if case.budget == amount and case.best]
            here = [case for case in here if case.is_choice] or here
            if here:
                steps.append((amount, here))
        if any(not common(here) for _, here in steps):
            return []
        found: list[tuple[float, float, list[Case]]] = []
        for amount, here in steps:
            if found:
                start, _, before = found[-1]
                together = [*before, *here]
                if before[0].is_choice == here[0].is_choice and common(together):
                    found[-1] = start, amount, together
                    continue
            found.append((amount, amount, here))
        return [
            Range(start, end, best := common(own), _tied(own, best), own[0].is_choice)
            for start, end, own in found
        ]

    def frame(self) -> pd.DataFrame:
        """Return the cases as a frame with a column for each attribute of ``Case``."""
        return pd.DataFrame(self.cases, columns=Case._fields)


def common(cases: Iterable[Case]) -> tuple[str, ...]:
    """Return the estimators that are unbeaten in all cases, in the order of the first."""
    cases = list(cases)
    if not cases:
        return ()
    everywhere = set.intersection(*(set(case.best) for case in cases))
    return tuple(name for name in cases[0].best if name in everywhere)


def _tied(cases: Sequence[Case], best: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x for case in cases for x in case.best if x not in best))
