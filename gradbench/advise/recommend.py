"""Recommend an estimator for a problem of one's own: measured on it, at a budget."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from gradbench import metrics
from gradbench.advise.evaluate import TIME_LIMIT, evaluate
from gradbench.advise.results import BUDGET, Results
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.specs import label
from gradbench.metrics import Budget, Measurement
from gradbench.metrics.directory import agreement, read_cells
from gradbench.metrics.intervals import digits
from gradbench.metrics.tables import ranking

_CHANCE = 0.05  # two estimators with a larger p-value are not told apart


class Recommendation(NamedTuple):
    """The recommendation: a sentence, and the measurements behind it.

    ``ranking`` is the frame of ``gradbench.metrics.rank`` for ``budget``. ``unfit`` maps each
    estimator that was not measured to the reason. ``results`` are the measurements, as ``evaluate``
    returns them.
    """

    sentence: str
    ranking: pd.DataFrame
    budget: Budget
    unfit: dict[str, str]
    results: Results | None = None

    @property
    def best(self) -> str:
        """The estimator that is recommended."""
        return str(self.ranking["estimator"].iloc[0])

    def __str__(self) -> str:
        _, _, rows = ranking(self.ranking, "rmse", str(self.budget)).partition("\n")
        parts = [f"the whole gradient, at {self.budget}\n{rows}"]
        if self.unfit:
            reasons = "\n".join(f"  {name}: {why}" for name, why in self.unfit.items())
            parts.append(f"not measured:\n{reasons}")
        return "\n\n".join([*parts, self.sentence])


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
    cells = list(read_cells(results))
    frame = metrics.rank(cells, "rmse", allowed)
    sentence = _sentence(frame, cells, allowed)
    if any(cell.reference is not None for cell in cells):
        sentence = f"{sentence[:-1]}; {agreement(results)}."
    return Recommendation(sentence, frame, allowed, results.left_out, results)


def _sentence(frame: pd.DataFrame, cells: Sequence[Measurement], budget: Budget) -> str:
    """Return the recommendation as a sentence: the best estimator, by how much, and how sure."""
    able = frame[frame["rank"].notna()]
    first, others = able.iloc[0], able.iloc[1:]
    start = f"At {budget} use {_with_error(first)}"
    if others.empty:
        if len(frame) == 1:
            return f"{start}: no other was measured."
        return f"{start}: the budget pays no draw of any other."
    chance = [metrics.difference_p(cells, (first, other), budget) for _, other in others.iterrows()]
    known = bool(able["exact"].all()) and budget.cost != "seconds"
    tied = [name for name, p in zip(others["estimator"], chance, strict=True) if p > _CHANCE]
    if tied:
        names = ", ".join(map(label, tied[:3])) + f" and {len(tied) - 3} more" * (len(tied) > 3)
        if known:
            return f"{start}; as good: {names}."
        remedy = "times vary by as much" if able["exact"].all() else "more draws would tell"
        return (
            f"{start}; not told apart from it: {names} (p-values of equal errors up to "
            f"{max(chance):.2g}); {remedy}."
        )
    second = others.iloc[0]
    less = 1.0 - first["rmse"] / second["rmse"]
    share = f"{100 * less:.2g}" if less < 0.99 else f"{100 * less:.3g}"  # 1e+02 is no percentage
    # The chance of such a difference if the errors were equal, not the chance that they are.
    sure = f"p-value of equality with the runner-up {_p_value(chance[0])}"
    if max(chance) > chance[0]:
        sure += f", with others up to {_p_value(max(chance))}"
    if known:
        sure = "exact, without doubt"
    if budget.cost == "seconds":
        sure += ", with times of this machine"
    return f"{start}, {share} % less than the runner-up {_with_error(second)}; {sure}."


def _p_value(p: float) -> str:
    return "below 1e-16" if p < 1e-16 else f"{p:.1g}"


def _with_error(row: pd.Series) -> str:
    """Return an estimator in the sentence, with its error and its number of draws."""
    draws = "one draw" if row["M"] == 1 else f"mean of {row['M']} draws"
    number = digits(row["rmse"], row["rmse_se"])
    return f"{label(row['estimator'])} (relative RMSE {number}, {draws})"
