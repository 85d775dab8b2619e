"""The summary in sentences: the best estimator, why, what is exact and what is uncertain."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from gradbench import metrics
from gradbench.metrics import Budget, Measurement
from gradbench.metrics.accuracy import EXACT
from gradbench.report.certainty import (
    how_times_vary,
    unbiased_estimators,
    unseen_biases,
    what_is_exact,
    what_is_unbiased,
)
from gradbench.report.numbers import SEVERAL, about, code, codes, span
from gradbench.report.places import Place, joined, rivals

AVERAGES = (1, 10, 100, 1000)  # the M that the verdict compares at


class Words(NamedTuple):
    """The sentences of the summary.

    Attributes:
        verdict: the estimator that is best in most cases, if there is one.
        decided: whether there was anything to choose from.
        reasons: why the verdict, or that there is none.
        certain: what is exact.
        uncertain: what is not.
    """

    verdict: str | None
    decided: bool
    reasons: list[Markup]
    certain: list[Markup]
    uncertain: list[Markup]


def words(
    cells: Sequence[Measurement],
    summary: pd.DataFrame,
    places: Sequence[Place],
    bias: pd.DataFrame,
    device: str,
) -> Words:
    """Return the summary of some results in sentences.

    Args:
        cells: the measurements.
        summary: their ``summary`` at M = 1.
        places: their places.
        bias: their ``unbiasedness``, without the exact estimator and gradients of zero.
        device: the device that times were measured on.
    """
    whole = pd.concat([place.rows(summary, place.whole) for place in places])
    whole = whole[whole["estimator"].isin(rivals(whole["estimator"]))]
    usable = {tuple(key) for key in whole[~whole["zero_gradient"]][metrics.KEYS[:3]].to_numpy()}
    rival = [cell for cell in cells if cell.place in usable and rivals([cell.estimator])]
    free = unbiased_estimators(bias)
    unbiased = [*free.known, *free.tested]
    verdict, reasons, ties = None, [], []
    if rival:
        ranks = _ranks(rival)
        names = {place.key: place.name for place in places if place.key in usable}
        verdict = _winner(ranks)
        reasons = [_wins(ranks, names)]
        if verdict:
            reasons += _exceptions(ranks, verdict, names)
            reasons += [
                _bias_and_deviation(whole[~whole["zero_gradient"]], verdict, unbiased),
                *_price(whole, verdict),
            ]
        ties = _ties(ranks, names)
    else:
        reasons = [Markup("No estimator was measured at a gradient other than zero.")]
    return Words(
        verdict,
        bool(rival),
        reasons,
        [*what_is_exact(summary), what_is_unbiased(free)],
        [*ties, *unseen_biases(whole), *how_times_vary(whole, device)],
    )


def _ranks(cells: Sequence[Measurement]) -> pd.DataFrame:
    return pd.concat(
        [metrics.rank(cells, "rmse", Budget(m, "draws")) for m in AVERAGES], ignore_index=True
    )


def _order(ranks: pd.DataFrame) -> list[tuple[str, int]]:
    """Return how often each estimator has rank 1, the most frequent (then lowest ranks) first."""
    best = ranks["rank"].eq(1).groupby(ranks["estimator"]).sum()
    worst = ranks.groupby("estimator")["rank"].sum()
    names = sorted(best.index, key=lambda name: (-best[name], worst[name]))
    return [(str(name), int(best[name])) for name in names]


def _winner(ranks: pd.DataFrame) -> str | None:
    """Return the estimator that has rank 1 in more than half of all cases, if any."""
    name, won = _order(ranks)[0]
    return name if 2 * won > len(_cases(ranks)) else None


def _cases(ranks: pd.DataFrame) -> list[tuple[tuple, int, pd.DataFrame]]:
    groups = ranks.groupby([*metrics.KEYS[:3], "M"], sort=False)
    return [(key[:3], key[3], rows) for key, rows in groups]


def _wins(ranks: pd.DataFrame, names: dict[tuple, str]) -> Markup:
    """Return how often the best estimators are best."""
    cases = _cases(ranks)
    averages = joined([about(m) for m in AVERAGES])
    where = f" at each of {len(names)} places" if len(names) > 1 else ""
    if len(names) <= SEVERAL and not any("," in name for name in names.values()):
        where = f" at {joined(list(names.values()))}" if len(names) > 1 else ""
    text = f"the mean of {averages} draws{where}"
    if any(rows["rank"].eq(1).sum() > 1 for *_, rows in cases):
        text += "; ties count as well"
    (first, won), *others = _order(ranks)
    what = "the smallest error (RMSE of the whole gradient)"
    if _winner(ranks):
        share = "in every case" if won == len(cases) else f"in {won} of {len(cases)} cases"
        return Markup("{} has {} {}: {}.").format(code(first), what, share, text)
    runners = Markup(", ").join(
        Markup("{} in {}").format(code(name), times) for name, times in others[:2] if times
    )
    return Markup("Of {} cases ({}), {} has {} in {}, {}; the table shows where.").format(
        len(cases), text, code(first), what, won, runners
    )


def _exceptions(ranks: pd.DataFrame, verdict: str, names: dict[tuple, str]) -> list[Markup]:
    """Return where others are better than the verdict, neighbouring M together."""
    better: dict[tuple[tuple, str], list[tuple[int, float, float]]] = {}
    for key, average, rows in _cases(ranks):
        own = rows[rows["estimator"] == verdict]
        if (own["rank"] > 1).any():  # not where the run has not measured it yet
            first = rows.iloc[0]
            entry = (average, float(first["rmse"]), float(own["rmse"].iloc[0]))
            better.setdefault((key, str(first["estimator"])), []).append(entry)
    parts = []
    for (key, name), found in list(better.items())[:SEVERAL]:
        averages = joined([about(m) for m, *_ in found], "or")
        where = f" at {names[key]}" if len(names) > 1 else ""
        values = joined([f"{about(best)} against {about(own)}" for _, best, own in found])
        noun = "draw" if found[0][0] == 1 and len(found) == 1 else "draws"
        parts.append(
            Markup("{} with {} {}{} ({})").format(code(name), averages, noun, where, values)
        )
    if not parts:
        return []
    more = len(better) - len(parts)
    rest = f"; {more} more in the table below" if more else ""
    return [Markup("Better in some cases: {}{}.").format(Markup("; ").join(parts), rest)]


def _bias_and_deviation(whole: pd.DataFrame, verdict: str, free: Sequence[str]) -> Markup:
    """Return why the verdict is best: its bias and deviation beside those of others."""
    own = whole[whole["estimator"] == verdict]
    spread = np.log(whole["std"].clip(lower=1e-300)).groupby(whole["estimator"]).mean()
    bias = whole["bias"].groupby(whole["estimator"]).max()
    has = (
        f"the standard deviation of its draws is {span(list(own['std']))} times the length of the "
        "exact gradient"
    )
    if verdict in free:
        unseen = "" if own["bias"].max() < EXACT else " that could be seen"
        others = [name for name in spread.index if name not in free]
        end = f" and it has no bias{unseen}, so its error vanishes as more draws are averaged."
        if others and spread[others].min() < spread[verdict]:
            steady = min(others, key=lambda name: spread[name])
            end += f" Estimators that deviate less are biased: {{}} by up to {about(bias[steady])}."
            return Markup("Why: " + has + end).format(code(steady))
        return Markup("Why: {}{}").format(has, end)
    text = Markup("Why: {}, and its bias is {}").format(has, span(list(own["bias"])))
    steadier = [name for name in spread.index if spread[name] < spread[verdict]]
    if steadier:
        best = min(steadier, key=lambda name: bias[name])
        text += Markup(". Estimators that deviate less have more bias: {}, {}").format(
            code(best), span(list(whole["bias"][whole["estimator"] == best]))
        )
    if free:
        least = min(free, key=lambda name: spread[name])
        times = math.exp(spread[least] - spread[verdict])
        text += Markup(". The best one without bias is {}, with {} times the deviation").format(
            code(least), about(times)
        )
    return text + "."


def _price(whole: pd.DataFrame, verdict: str) -> list[Markup]:
    """Return what a draw costs, beside the cheapest."""
    costs = whole["evaluations"].groupby(whole["estimator"]).max()
    if not costs.notna().all():
        return []
    own, least = costs[verdict], costs.min()
    if own == least:
        text = "A draw costs {} of the objective; no estimator costs less."
        return [Markup(text).format(_evaluations(own))]
    text = "A draw costs {} of the objective, the cheapest {}; the table compares at equal cost."
    return [Markup(text).format(_evaluations(own), about(least))]


def _evaluations(number: float) -> str:
    return f"{about(number)} evaluation{'' if number == 1 else 's'}"


def _ties(ranks: pd.DataFrame, names: dict[tuple, str]) -> list[Markup]:
    found = []
    for key, average, rows in _cases(ranks):
        first = rows[rows["rank"] == 1]["estimator"].tolist()
        if len(first) > 1:
            where = f" at {names[key]}" if len(names) > 1 else ""
            found.append(Markup("{} with {} draws{}").format(codes(first), about(average), where))
    if not found:
        return []
    more = f"; {len(found) - SEVERAL} more" if len(found) > SEVERAL else ""
    text = Markup("; ").join(found[:SEVERAL])
    return [
        Markup("Ties for the first place, without a significant difference: {}{}.").format(
            text, more
        )
    ]
