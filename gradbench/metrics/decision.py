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
from collections.abc import Sequence
from itertools import count

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics.budget import Budget, check_cost, price
from gradbench.metrics.decisions import BUDGETS, Case
from gradbench.metrics.directory import Measurements
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.layers import LayerMetrics, scopes_of
from gradbench.metrics.measurement import HIDDEN, NETWORK
from gradbench.metrics.places import Place
from gradbench.metrics.ranking import error_at_budget, rivals_by_place, unbeaten
from gradbench.metrics.verdict import Verdict


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
    readout: dict[Place, tuple[str, ...]] = {}
    for place, cells in rivals_by_place(results):
        priced = [cell for cell in cells if cost == "draws" or cost in cell.cost]
        without |= dict.fromkeys(cell.estimator for cell in cells if cell not in priced)
        if not priced:
            continue
        found = [scopes_of(cell, level) for cell in priced]
        readout[place] = tuple(n for n in priced[0].layer_names if n in priced[0].readout)
        asked = _asked(layers, found[0], priced[0].hidden, readout[place])
        least = min(price(cell, cost) for cell in priced)
        for layer in asked:
            rivals = [own[layer] for own in found if not own[layer].zero_gradient]
            if rivals:
                decisions[place, layer] = tuple(
                    _case(place, layer, rivals, Budget(amount, cost), level)
                    for amount in amounts(cost, least, upto)
                )
        if NETWORK in found[0] and readout[place] and found[0][NETWORK].sample.norm:
            square = sum(found[0][name].sample.norm ** 2 for name in readout[place])
            shares[place] = min(square / found[0][NETWORK].sample.norm ** 2, 1.0)
    return Verdict(cost, decisions, shares, tuple(without), readout)


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


def _asked(
    layers: Sequence[str] | None,
    known: dict[str, LayerMetrics],
    hidden: Sequence[str],
    readout: Sequence[str],
) -> list[str]:
    """Return the layers to decide on.

    Raises:
        GradbenchError: one of them is unknown.
    """
    if layers is None:
        return list(known)
    stands_for = {name: name for name in known}
    if len(known) == 1:
        stands_for[NETWORK] = next(iter(known))
    if len(hidden) == 1 and readout:
        stands_for[HIDDEN] = hidden[0]
    for layer in layers:
        if layer not in stands_for:
            raise GradbenchError(f"there is no layer {layer!r}; {did_you_mean(layer, known)}")
    return list(dict.fromkeys(stands_for[layer] for layer in layers))


def _case(
    place: Place, layer: str, rivals: Sequence[LayerMetrics], allowed: Budget, level: float
) -> Case:
    ranked = [error_at_budget(found, allowed) for found in rivals]
    first = unbeaten(ranked, level)
    names = tuple(one.metrics.cell.estimator for one in first)
    rmse = first[0].found.value if first else math.nan
    able = sum(one.known for one in ranked)
    return Case(*place, layer, allowed.amount, names, rmse, able, len(ranked))
