"""The words about the best estimator at a single place and budget."""

import math
from collections.abc import Sequence

import pandas as pd

from gradbench.metrics.budget import Budget
from gradbench.metrics.intervals import digits
from gradbench.metrics.measurement import Measurement
from gradbench.metrics.ranking import difference_p
from gradbench.metrics.sentences import Name, Sentence, names


def at_budget(frame: pd.DataFrame, cells: Sequence[Measurement], budget: Budget) -> Sentence:
    """Return the best estimator at one place and budget: by how much it is best, and how sure.

    Args:
        frame: the ``rank`` of the cells by RMSE at this budget.
        cells: measurements at one place.
        budget: the budget.
    """
    able = frame[frame["rank"].notna()]
    first, others = able.iloc[0], able.iloc[1:]
    start = (f"At {budget} use ", *_with_error(first))
    if others.empty:
        if len(frame) == 1:
            return (*start, ": no other was measured.")
        only = (f"At {budget} only ", Name(first["estimator"]), " can be afforded: ")
        return (*only, *_with_error(first), ". The budget pays no draw of any other.")
    tied = others["rank"] == 1
    known = bool(able["exact"].all()) and budget.cost != "seconds"
    chance = [difference_p(cells, (first, other), budget) for _, other in others.iterrows()]
    if tied.any():
        equal = others["estimator"][tied]
        listed = names(list(equal), " and ", 3)
        if known:
            return (*start, "; as good: ", *listed, ".")
        remedy = "times vary by as much" if able["exact"].all() else "more draws would tell"
        largest = max(p for p, one in zip(chance, tied, strict=True) if one)
        sure = f" (p-values of equal errors up to {largest:.2g}); {remedy}."
        return (*start, "; not told apart from it: ", *listed, sure)
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
    return (*start, f", {share} % less than the runner-up ", *_with_error(second), f"; {sure}.")


def _p_value(p: float) -> str:
    return "below 1e-16" if p < 1e-16 or math.isnan(p) else f"{p:.1g}"


def _with_error(row: pd.Series) -> Sentence:
    """Return an estimator in the sentence, with its error and its number of draws."""
    draws = "one draw" if row["M"] == 1 else f"mean of {row['M']} draws"
    number = digits(row["rmse"], row["rmse_se"])
    return (Name(row["estimator"]), f" (relative RMSE {number}, {draws})")
