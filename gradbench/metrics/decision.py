"""The decision rule: which estimator is the best at equal cost, and on what that depends.

The best estimator has the smallest RMSE at equal cost. It is judged at each of ``BUDGETS``, of the
network, of all hidden layers together and of each layer: every estimator averages as many draws as
the budget pays for, and is unbeaten if no other has a significantly smaller error, which is rank 1
of ``gradbench.metrics.rank``. An estimator is the best in several cases if it is unbeaten in all.
A budget that pays for a draw of one estimator alone leaves no choice, and decides nothing.

The report, ``gradbench rank``, ``recommend`` and the circles of figures all follow this rule;
``gradbench.metrics.verdict_text`` has its words.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import count
from typing import NamedTuple

import pandas as pd

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics.budget import Budget, check_cost, price
from gradbench.metrics.directory import Measurements
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import LayerMetrics, scopes_of
from gradbench.metrics.measurement import HIDDEN, NETWORK, OUTPUT
from gradbench.metrics.places import Place
from gradbench.metrics.ranking import at_budget, rivals_by_place, unbeaten

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


class Verdict(NamedTuple):
    """All decisions on some results.

    Attributes:
        cost: what budgets are amounts of: "evaluations", "seconds" or "draws".
        decisions: the cases of each place and layer, by budget.
        shares: the share of the output layer in the squared length of the gradient, by place.
        without_cost: the estimators that were left out, as what a draw costs was not stored.
    """

    cost: str
    decisions: dict[tuple[Place, str], tuple[Case, ...]]
    shares: dict[Place, float]
    without_cost: tuple[str, ...]

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
        return _common(self.choices)

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Those of ``FACTORS`` that change the best estimator while the others stay the same."""
        found = []
        for factor in FACTORS:
            groups: dict[tuple, list[Case]] = {}
            for case in self.choices:
                others = tuple(getattr(case, name) for name in FACTORS if name != factor)
                groups.setdefault(others, []).append(case)
            if any(not _common(group) for group in groups.values()):
                found.append(factor)
        return tuple(found)

    def of(self, layer: str, place: Place | None = None) -> list[Case]:
        """Return the cases of a layer, at one place or at all.

        Where there is just one hidden layer, the hidden layers together are this one.
        """
        found: list[Case] = []
        for one in self.places if place is None else [place]:
            hidden = [name for there, name in self.decisions if there == one and _is_hidden(name)]
            alone = layer == HIDDEN and (one, OUTPUT) in self.decisions and len(hidden) == 1
            found += self.decisions.get((one, hidden[0] if alone else layer), ())
        return found

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
        if any(not _common(here) for _, here in steps):
            return []
        found: list[tuple[float, float, list[Case]]] = []
        for amount, here in steps:
            if found:
                start, _, before = found[-1]
                together = [*before, *here]
                if before[0].is_choice == here[0].is_choice and _common(together):
                    found[-1] = start, amount, together
                    continue
            found.append((amount, amount, here))
        return [
            Range(start, end, best := _common(own), _tied(own, best), own[0].is_choice)
            for start, end, own in found
        ]

    def frame(self) -> pd.DataFrame:
        """Return the cases as a frame with a column for each attribute of ``Case``."""
        return pd.DataFrame(self.cases, columns=Case._fields)


def _is_hidden(layer: str) -> bool:
    return layer not in (NETWORK, HIDDEN, OUTPUT)


def _common(cases: Sequence[Case]) -> tuple[str, ...]:
    """Return the estimators that are unbeaten in all cases, in the order of the first."""
    if not cases:
        return ()
    everywhere = set.intersection(*(set(case.best) for case in cases))
    return tuple(name for name in cases[0].best if name in everywhere)


def _tied(cases: Sequence[Case], best: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(x for case in cases for x in case.best if x not in best))


def decide(
    results: Measurements,
    cost: str = "evaluations",
    layers: Sequence[str] | None = None,
    level: float = LEVEL,
    upto: float = 0.0,
) -> Verdict:
    """Decide which estimators are the best at equal cost, at each of ``BUDGETS``.

    Args:
        results: a directory of results, its path, or measurements.
        cost: "evaluations" of the objective; "seconds", at amounts that begin where a draw of any
            estimator is paid for; or "draws", which is no equal cost.
        layers: names of layers, "network" or "hidden layers"; all by default.
        level: the level of the comparisons.
        upto: where budgets of the same steps end, if they are to go on beyond ``BUDGETS``.

    Returns:
        The verdict. A layer whose gradient is zero has no case. The exact gradient is left out.

    Raises:
        GradbenchError: an unknown cost or layer, or no estimator besides the exact one.
    """
    check_cost(cost)
    decisions: dict[tuple[Place, str], tuple[Case, ...]] = {}
    shares: dict[Place, float] = {}
    without: dict[str, None] = {}
    for place, cells in rivals_by_place(results):
        priced = [cell for cell in cells if cost == "draws" or cost in cell.cost]
        without |= dict.fromkeys(cell.estimator for cell in cells if cell not in priced)
        if not priced:
            continue
        found = [scopes_of(cell, level) for cell in priced]
        asked = _asked(layers, found[0])
        least = min(price(cell, cost) for cell in priced)
        for layer in asked:
            rivals = [own[layer] for own in found if not own[layer].zero_gradient]
            if rivals:
                decisions[place, layer] = tuple(
                    _case(place, layer, rivals, Budget(amount, cost), level)
                    for amount in amounts(cost, least, upto)
                )
        if NETWORK in found[0] and OUTPUT in found[0] and found[0][NETWORK].sample.norm:
            share = found[0][OUTPUT].sample.norm / found[0][NETWORK].sample.norm
            shares[place] = min(share**2, 1.0)
    return Verdict(cost, decisions, shares, tuple(without))


def amounts(cost: str, least: float, upto: float = 0.0) -> list[float]:
    """Return the budgets to judge at, in the unit of the cost.

    Args:
        cost: "evaluations", "seconds" or "draws".
        least: what a draw of the cheapest estimator costs, where it is a time.
        upto: where budgets of the same steps end, if they are to go on beyond ``BUDGETS``.
    """
    first = 1.0
    if cost == "seconds":
        first = 10.0 ** math.floor(math.log10(max(least, 1e-12)))
        first = next(x for k in BUDGETS if (x := k * first) >= least * (1.0 - 1e-9))
    found: list[float] = []
    step = 10.0 ** math.floor(math.log10(first) + 1e-9)
    for power in count():
        for factor in BUDGETS[:3]:
            amount = float(f"{factor * step * 10.0**power:.3g}")
            if amount < first * (1.0 - 1e-9):
                continue
            if len(found) >= len(BUDGETS) and not amount <= upto:
                return found
            found.append(amount)
    return found


def _asked(layers: Sequence[str] | None, known: dict[str, LayerMetrics]) -> list[str]:
    """Return the layers to decide on.

    Raises:
        GradbenchError: one of them is unknown.
    """
    if layers is None:
        return list(known)
    hidden = [name for name in known if _is_hidden(name)]
    stands_for = {name: name for name in known}
    if len(known) == 1:
        stands_for[NETWORK] = next(iter(known))
    if len(hidden) == 1 and OUTPUT in known:
        stands_for[HIDDEN] = hidden[0]
    for layer in layers:
        if layer not in stands_for:
            raise GradbenchError(f"there is no layer {layer!r}; {did_you_mean(layer, known)}")
    return list(dict.fromkeys(stands_for[layer] for layer in layers))


def _case(
    place: Place, layer: str, rivals: Sequence[LayerMetrics], allowed: Budget, level: float
) -> Case:
    ranked = [at_budget(found, "rmse", allowed) for found in rivals]
    first = unbeaten(ranked, level)
    names = tuple(one.metrics.cell.estimator for one in first)
    rmse = first[0].found.value if first else math.nan
    able = sum(one.known for one in ranked)
    return Case(*place, layer, allowed.amount, names, rmse, able, len(ranked))
