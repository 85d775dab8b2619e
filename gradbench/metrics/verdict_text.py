"""The words of a verdict, shared by the report, ``gradbench rank`` and ``recommend``."""

import textwrap
from collections import Counter
from collections.abc import Iterable

from gradbench.core.text import aligned
from gradbench.metrics.budget import Budget
from gradbench.metrics.decisions import BUDGETS, FACTORS, Decisions, Range, common
from gradbench.metrics.intervals import LEVEL
from gradbench.metrics.measurement import HIDDEN, NETWORK, OUTPUT
from gradbench.metrics.places import place_names
from gradbench.metrics.sentences import Name, Sentence, enumeration, names, plain

_PLACES = 4  # that are told one by one
_WIDTH = 80  # columns of a terminal


def headline(verdict: Decisions) -> Sentence:
    """Return the answer in a few words, without a full stop."""
    if best := verdict.best:
        return names(best)
    if verdict.choices:
        factors = verdict.depends_on or _varying(verdict)
        return ("It depends on ", enumeration([f"the {factor}" for factor in factors]))
    decided = [case for case in verdict.cases if case.best]
    if not decided:
        if verdict.without_cost:
            return ("Not known at equal cost",)
        return ("Nothing to choose",)
    alone = (Name(decided[0].best[0]),)
    if decided[0].measured == 1:
        return ("Only ", *alone, " was measured")
    return ("Only ", *alone, " can be afforded")


def explanation(verdict: Decisions) -> list[Sentence]:
    """Return what the headline means, and what it is based on, in sentences."""
    found: list[Sentence] = []
    if best := verdict.best:
        has = " have" if len(best) > 1 else " has"
        tie = ", without a significant difference between them" if len(best) > 1 else ""
        where = [f" at each of {len(verdict.places)} places"] * (len(verdict.places) > 1)
        where += [" in every layer"] * (len(verdict.layers) > 1)
        text = f"{has} the smallest RMSE at equal cost{''.join(where)} at every budget from "
        found.append((*names(best, " and "), f"{text}{_budgets(verdict)}{tie}."))
    elif verdict.choices:
        found += [tally(verdict), *_other_layers(verdict)]
    elif verdict.without_cost and not verdict.cases:
        text = "The results do not say what a draw costs, so that estimators cannot be compared at "
        found.append((f"{text}equal cost; run the suite again.",))
    elif not verdict.cases:
        found.append(("The gradient is zero, to which no error is relative.",))
    if verdict.cases and verdict.without_cost:
        text = " was left out: the results do not say what a draw costs."
        if len(verdict.without_cost) > 1:
            text = " were left out: the results do not say what a draw costs."
        found.append((*names(verdict.without_cost, " and "), text))
    if verdict.choices:
        found += _without_choice(verdict)
    if verdict.shares and NETWORK in verdict.layers and verdict.choices:
        shares = verdict.shares.values()
        ends = (f"{100.0 * share:.3g}" for share in (min(shares), max(shares)))
        share = " to ".join(dict.fromkeys(ends))
        found.append(
            (
                f"{_readout(verdict)} {share} % of the squared length of the gradient, and as much "
                "of the weight in the RMSE of the whole network: hence the verdict on the hidden "
                "layers beside it.",
            )
        )
    return found


def _readout(verdict: Decisions) -> str:
    """Return what the layers behind the last units are called, at the beginning of a sentence."""
    layers = list(dict.fromkeys(name for own in verdict.readout.values() for name in own))
    if layers == [OUTPUT]:
        return "The output layer has"
    have = "has" if len(layers) == 1 else "have"
    return f"Behind the last units, {enumeration(layers)} {have}"


def in_short(verdict: Decisions) -> str:
    """Return a verdict in a line."""
    sizes = {"place": len(verdict.places), "layer": len(verdict.layers)}
    about = ", ".join(f"{n} {what}{'s' * (n != 1)}" for what, n in sizes.items())
    return f"<Verdict: {plain(headline(verdict))} ({about}, at equal {verdict.cost})>"


def _without_choice(verdict: Decisions) -> list[Sentence]:
    """Return at which budgets there is no choice, if that is the same at all places."""
    alone = [case for case in verdict.cases if case.affordable == 1]
    first = {case.best for case in alone}
    ends = {
        place: max(case.budget for case in alone if case.place == place)
        for place in {case.place for case in alone}
    }
    if len(first) != 1 or len(set(ends.values())) != 1 or len(ends) < len(verdict.places):
        return []
    upto = str(Budget(ends.popitem()[1], verdict.cost))
    return [(f"With {upto} only ", *names(first.pop()), " can be afforded.")]


def tally(verdict: Decisions) -> Sentence:
    """Return how often the best estimators are unbeaten, of the network and its hidden layers."""
    layers = main_layers(verdict)
    cases = [case for layer in layers for case in verdict.of(layer) if case.is_choice]
    won = Counter(name for case in cases for name in case.best).most_common(3)
    of = enumeration([_of(layer) for layer in layers])
    where = f", at {len(verdict.places)} places" if len(verdict.places) > 1 else ""
    about = f"{of}{where}, with {_budgets(verdict)}"
    parts: list[str] = [f"Of {len(cases)} decisions ({about}) "]
    for k, (name, times) in enumerate(won):
        parts += (
            [Name(name), " in ", f"{times}, "]
            if k
            else [Name(name), f" has the smallest RMSE in {times}, "]
        )
    parts[-1] = parts[-1].removesuffix(", ")
    ties = any(len(case.best) > 1 for case in cases)
    return (*parts, "; ties count for each." if ties else ".")


def _other_layers(verdict: Decisions) -> list[Sentence]:
    """Return where a single layer has another best estimator than all of what is counted has."""
    layers = main_layers(verdict)
    same = common(case for layer in layers for case in verdict.of(layer) if case.is_choice)
    single = [case for case in verdict.choices if case.layer not in layers]
    others = [case for case in single if not set(same) & set(case.best)]
    if not same or not others:
        return []
    first = others[0]
    start = f"In {len(others)} of {len(single)} decisions on single layers it is another one, as "
    where = f" in {first.layer} at {Budget(first.budget, verdict.cost)}."
    return [(start, *names(first.best), where)]


def main_layers(verdict: Decisions) -> list[str]:
    """Return the layers that a summary is about: the network and its hidden layers.

    Where all layers are hidden ones, these are the network alone; without a network, they are all
    that there are.
    """
    known = verdict.layers
    if NETWORK not in known:
        return known
    if HIDDEN in known:
        return [NETWORK, HIDDEN]
    hidden = list(dict.fromkeys(name for place in verdict.places for name in verdict.hidden(place)))
    return [NETWORK, *hidden] if any(verdict.readout.values()) and len(hidden) == 1 else [NETWORK]


def layer_text(layer: str) -> str:
    """Return what a layer is called in a table."""
    return {NETWORK: "whole network", HIDDEN: "hidden layers together"}.get(layer, layer)


def _of(layer: str) -> str:
    return {NETWORK: "the whole network", HIDDEN: "its hidden layers together"}.get(layer, layer)


def _budgets(verdict: Decisions) -> str:
    """Return the budgets that leave a choice: "2 to 1000 evaluations"."""
    amounts = sorted({case.budget for case in verdict.choices})
    return _span(amounts[0], amounts[-1], verdict.cost)


def _varying(verdict: Decisions) -> list[str]:
    """Return the factors that differ between cases."""
    return [name for name in FACTORS if len({getattr(c, name) for c in verdict.choices}) > 1]


def range_text(found: Range, cost: str, unit: bool = True) -> str:
    """Return the budgets of a range: "2 to 20 evaluations", or without the unit of counts."""
    return _span(found.start, found.end, cost, unit)


def _span(start: float, end: float, cost: str, unit: bool = True) -> str:
    low, high = (str(Budget(amount, cost)) for amount in (start, end))
    if cost == "seconds":
        return low if low == high else f"{low} to {high}"
    if not unit:
        return f"{start:g}" if start == end else f"{start:g} to {end:g}"
    return low if low == high else f"{start:g} to {high}"


def winners(found: Range) -> Sentence:
    """Return the best estimators of a range, with ties, or the only one that can be afforded."""
    if not found.is_choice:
        return ("only ", *names(found.best), " can be afforded")
    tie: Sentence = (" (a tie)",) if len(found.best) > 1 else ()
    if found.tied:
        tie = (" (in part tied with ", *names(found.tied, " and ", 2), ")")
    return (*names(found.best), *tie)


def text(verdict: Decisions, layers: Iterable[str] | None = None) -> str:
    """Return a verdict as lines for a terminal: the headline, why, and the best by budget.

    Args:
        verdict: the verdict.
        layers: the layers whose best estimators are told; those of ``main_layers`` by default.
    """
    lines = [_wrapped(plain(headline(verdict)) + ".")]
    lines += [_wrapped(plain(sentence)) for sentence in explanation(verdict)]
    if not verdict.choices:
        return "\n".join(lines)
    for layer in main_layers(verdict) if layers is None else layers:
        lines += [
            "",
            f"{layer_text(layer)}: the smallest RMSE at equal cost",
            *_rows(verdict, layer),
        ]
    return "\n".join([*lines, "", _wrapped(judged(verdict))])


def _rows(verdict: Decisions, layer: str) -> list[str]:
    """Return the best estimators of a layer by budget, at all places alike or place by place."""
    named = place_names(verdict.places)
    if common := verdict.ranges(layer):
        parts = {"everywhere" if len(named) > 1 else "": common}
    else:
        some = list(named.items())[:_PLACES]
        parts = {name: verdict.ranges(layer, place) for place, name in some}
    rows = []
    for name, ranges in parts.items():
        shown = [one for one in ranges if one.is_choice]
        rows += [
            (name * (k == 0), range_text(one, verdict.cost, unit=k == 0), plain(winners(one)))
            for k, one in enumerate(shown)
        ] or [(name, "no choice", "")]
    first = 0 if any(parts) else 1  # a column of nothing
    lines = [f"  {line}" for line in aligned([row[first:] for row in rows])]
    if not common and len(named) > _PLACES:
        lines.append(f"  and at {len(named) - _PLACES} more places, which the report has")
    return lines


def judged(verdict: Decisions) -> str:
    """Return how a verdict was found, in a sentence or two."""
    if verdict.cost == "seconds":
        at = "times of 1, 2, 5, 10, ..., from the first that pays a draw to 1000 times as much"
    else:
        at = f"{enumeration([str(amount) for amount in BUDGETS])} {verdict.cost}"
    return (
        f"Judged at {at}, where each estimator averages as many draws as that pays for. "
        f"Differences that are not significant at {100 * LEVEL:.0f} % are ties."
    )


def _wrapped(line: str, indent: str = "") -> str:
    return textwrap.fill(
        line,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent + "  " * bool(indent),
        break_long_words=False,
        break_on_hyphens=False,
    )
