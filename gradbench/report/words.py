"""The summary in sentences: the best estimator, why, what is exact and what is uncertain."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from gradbench import metrics
from gradbench.metrics import Measurement, Verdict
from gradbench.metrics.accuracy import EXACT
from gradbench.metrics.budget_text import at_budget
from gradbench.metrics.ranking import BUDGET
from gradbench.metrics.verdict_text import explanation, headline
from gradbench.report.certainty import (
    how_times_vary,
    unbiased_estimators,
    unseen_biases,
    what_is_exact,
    what_is_unbiased,
)
from gradbench.report.numbers import about, code, marked, span
from gradbench.report.places import Place, rivals


class Words(NamedTuple):
    """The sentences of the summary.

    Attributes:
        best: the estimators that are the best in all cases, if there are any.
        answer: the answer in a few words.
        reasons: why.
        certain: what is exact.
        uncertain: what is not.
    """

    best: tuple[str, ...]
    answer: Markup
    reasons: list[Markup]
    certain: list[Markup]
    uncertain: list[Markup]


def words(
    verdict: Verdict,
    cells: Sequence[Measurement],
    summary: pd.DataFrame,
    places: Sequence[Place],
    bias: pd.DataFrame,
    device: str,
) -> Words:
    """Return the summary of some results in sentences.

    Args:
        verdict: the verdict at equal evaluations of the objective.
        cells: the measurements.
        summary: their ``summary`` at M = 1.
        places: their places.
        bias: their ``unbiasedness``, without the exact estimator and gradients of zero.
        device: the device that times were measured on.
    """
    whole = pd.concat([place.rows(summary, place.whole) for place in places])
    whole = whole[whole["estimator"].isin(rivals(whole["estimator"]))]
    free = unbiased_estimators(bias)
    reasons = [marked(sentence) for sentence in explanation(verdict)]
    if len(verdict.best) == 1:
        (best,) = verdict.best
        known = whole[~whole["zero_gradient"]]
        reasons.append(_bias_and_deviation(known, best, [*free.known, *free.tested]))
        reasons += _price(whole, best)
    reasons += _at_default(verdict, cells)
    return Words(
        verdict.best,
        marked(headline(verdict)),
        reasons,
        [*what_is_exact(summary), what_is_unbiased(free)],
        [*unseen_biases(whole), *how_times_vary(whole, device)],
    )


def _at_default(verdict: Verdict, cells: Sequence[Measurement]) -> list[Markup]:
    """Return the best estimator of the only place at the default budget, if there is a choice."""
    here = [
        c for c in verdict.choices if c.budget == BUDGET.amount and c.layer == verdict.layers[0]
    ]
    if len(verdict.places) > 1 or not here:
        return []
    priced = [cell for cell in cells if verdict.cost in cell.cost]
    return [marked(at_budget(metrics.rank(priced), priced, BUDGET))]


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
    text = "A draw costs {} of the objective, the cheapest {}."
    return [Markup(text).format(_evaluations(own), about(least))]


def _evaluations(number: float) -> str:
    return f"{about(number)} evaluation{'' if number == 1 else 's'}"
