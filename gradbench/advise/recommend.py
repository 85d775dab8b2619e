"""Recommend an estimator for a problem of one's own: measured on it, at a budget."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.advise.evaluate import TIME_LIMIT, evaluate
from gradbench.advise.results import Results
from gradbench.core.contract import Batch, Model, Params
from gradbench.metrics import Budget, Measurement, Verdict, verdict_text
from gradbench.metrics.agreement import agreement
from gradbench.metrics.budget_text import at_budget
from gradbench.metrics.directory import read_cells
from gradbench.metrics.layers import settled
from gradbench.metrics.left_out import reasons
from gradbench.metrics.ranking import BUDGET
from gradbench.metrics.sentences import plain
from gradbench.metrics.tables import ranking
from gradbench.metrics.verdict_html import html


class Recommendation(NamedTuple):
    """The recommendation: a sentence, and the measurements behind it.

    ``ranking`` is the frame of ``gradbench.metrics.rank`` for ``budget``; ``verdict`` says which
    estimators are the best at other budgets and in single layers. ``unfit`` maps each estimator
    that was not measured to the reason. ``results`` are the measurements, as ``evaluate`` returns
    them.
    """

    sentence: str
    ranking: pd.DataFrame
    budget: Budget
    unfit: dict[str, str]
    verdict: Verdict
    results: Results | None = None

    def __repr__(self) -> str:
        return f"<Recommendation: {self.sentence}>"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>\n{html(self.verdict)}"

    @property
    def best(self) -> str:
        """The estimator that is recommended."""
        return str(self.ranking["estimator"].iloc[0])

    def __str__(self) -> str:
        _, _, rows = ranking(self.ranking, "rmse", str(self.budget)).partition("\n")
        parts = [f"the whole gradient, at {self.budget}\n{rows}"]
        if self.unfit:
            parts.append("not measured:\n" + "\n".join(f"  {one}" for one in reasons(self.unfit)))
        return "\n\n".join([*parts, verdict_text.text(self.verdict), self.sentence])


def recommend(
    model: Model,
    params: Params,
    batch: Batch,
    budget: str | Budget = BUDGET,
    estimators: Sequence[str] | None = None,
    draws: int | None = None,
    seed: int = 0,
    progress: bool = False,
    *,
    out: str | Path | None = None,
    time_limit: float | None = TIME_LIMIT,
) -> Recommendation:
    """Measure estimators on a model at its parameters, and recommend one for a budget.

    This is ``evaluate`` and a verdict. The ranking is by the relative RMSE of the gradient of the
    whole network, averaged over as many draws as the budget pays for.

    Args:
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: any pytree of real arrays, such as a tuple with an entry per layer and one for the
            objective.
        batch: examples along the first axis of its leaves.
        budget: for one gradient: "100-evaluations" (of the objective, per example), "16-draws", or
            "1ms" of time measured on this machine.
        estimators: specs; by default all that take the problem and that the budget pays.
        draws: of each estimator, by default as many as ``evaluate`` makes.
        seed: of the draws.
        progress: whether to show a bar.
        out: the directory of the measurements, which are continued there; a temporary one by
            default.
        time_limit: the seconds after which no further draws are begun; None for no limit.

    Raises:
        GradbenchError: as ``evaluate``, or a budget that pays no draw of any estimator.
    """
    allowed = metrics.budget(budget)
    results = evaluate(
        model,
        params,
        batch,
        estimators=estimators,
        draws=draws,
        budget=allowed,
        out=out,
        time_limit=time_limit,
        seed=seed,
        progress=progress,
    )
    read = read_cells(results)
    cells = [settled(cell, tests=False) for cell in read]
    found = recommendation_of(cells, allowed, results.left_out, results)
    if any(cell.reference is not None for cell in cells):
        found = found._replace(sentence=f"{found.sentence[:-1]}; {agreement(read.results)}.")
    return found


def recommendation_of(
    cells: Sequence[Measurement],
    budget: Budget,
    unfit: dict[str, str],
    results: Results | None = None,
) -> Recommendation:
    """Return the recommendation that measurements at one place lead to.

    Args:
        cells: the measurements.
        budget: of one gradient.
        unfit: the estimators that were not measured, with the reason.
        results: where the measurements are from.
    """
    frame = metrics.rank(cells, "rmse", budget)
    sentence = plain(at_budget(frame, cells, budget))
    # Equal draws are no equal cost: the verdict is by evaluations then.
    verdict = metrics.decide(cells, "seconds" if budget.cost == "seconds" else "evaluations")
    return Recommendation(sentence, frame, budget, unfit, verdict, results)
