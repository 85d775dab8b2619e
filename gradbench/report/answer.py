"""The answer of a suite of training in sentences: does a smaller error train better?"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from gradbench.metrics.correlation import AVERAGES
from gradbench.metrics.sentences import enumeration
from gradbench.metrics.training import quantity_of
from gradbench.metrics.training_tables import together
from gradbench.report.numbers import codes
from gradbench.results.quantities import LOSS


def answer(found: pd.DataFrame, exact_path: pd.DataFrame) -> list[Markup]:
    """Return sentences on the correlation of errors with results, whichever way it falls.

    Args:
        found: a ``gradbench.metrics.correlation`` along the runs themselves.
        exact_path: the same along the runs with the exact gradient.
    """
    if found.empty:
        return [
            Markup(
                "This cannot be told: it takes at least four estimators with measured errors and "
                "different results."
            )
        ]
    chosen = found[found["chosen"]]
    above = int((chosen["correlation_low"] > 0).sum())
    below = int((chosen["correlation_high"] < 0).sum())
    sentences = [
        Markup(
            "{} The error is the relative RMSE of the mean of M draws along the training, where M "
            "is the number of steps that the optimiser averages over, fixed beforehand. The "
            "correlation is Spearman's over estimators, with an interval at 95 % by bootstrap over "
            "seeds and estimators."
        ).format(_verdict(above, below, len(chosen)))
    ]
    sentences += [_of_optimiser(str(name), rows) for name, rows in _by(chosen, "optimiser")]
    sentences.append(_one_draw(found))
    if len(exact_path):
        sentences.append(_along_exact(exact_path[exact_path["chosen"]]))
    return sentences


def _verdict(above: int, below: int, cases: int) -> str:
    """Return the answer, given in how many cases the interval is above and below zero."""
    of = f"{cases} cases of network and optimiser"
    goes = "a larger error of the gradient goes with a larger final loss"
    if above == cases:
        return f"Yes: {goes}" + (f", in all of {of}." if cases > 1 else ".")
    if below == cases:
        where = f", in all of {of}." if cases > 1 else "."
        return f"No, on the contrary: a larger error goes with a smaller final loss{where}"
    if not above and not below:
        inside = "the interval of the correlation contains zero"
        return f"This cannot be told: {inside}" + (f" in all of {of}." if cases > 1 else ".")
    rest = cases - above - below
    parts = [f"in {above} of {of} {goes}"]
    parts += [f"in {below} it is the other way round"] * (below > 0)
    parts += [f"in {rest} the interval contains zero"] * (rest > 0)
    return f"Not everywhere: {enumeration(parts)}."


def _by(frame: pd.DataFrame, column: str) -> Sequence[tuple[object, pd.DataFrame]]:
    return list(frame.groupby(column, sort=False))


def _of_optimiser(name: str, rows: pd.DataFrame) -> Markup:
    values = [
        f"{row['correlation']:.2f} [{row['correlation_low']:.2f}, {row['correlation_high']:.2f}]"
        for row in rows.to_dict("records")
    ]
    where = [str(row["problem"]) for row in rows.to_dict("records")]
    each = [f"{value} for {place}" for value, place in zip(values, where, strict=True)]
    first = rows.iloc[0]
    return Markup("With <code>{}</code> (M = {}): {}, over {} estimators and {} seeds.").format(
        name, first["M"], enumeration(each), first["estimators"], first["seeds"]
    )


def _one_draw(found: pd.DataFrame) -> Markup:
    """Return how the M that was fixed compares with one draw, and with the bias alone."""
    chosen = found[found["chosen"]]["correlation"].mean()
    one = found[found["M"] == 1]["correlation"].mean()
    bias = found[found["M"] == max(AVERAGES)]["correlation"].mean()
    return Markup(
        "In the mean over these cases the correlation is {} at this M, {} for the error of one "
        "draw, and {} for the mean of {:,} draws, where hardly more than bias is left."
    ).format(f"{chosen:.2f}", f"{one:.2f}", f"{bias:.2f}", max(AVERAGES))


def _along_exact(rows: pd.DataFrame) -> Markup:
    low, high = rows["correlation"].min(), rows["correlation"].max()
    span = f"{low:.2f}" if len(rows) == 1 else f"{low:.2f} to {high:.2f}"
    sure = int((rows["correlation_low"] > 0).sum())
    return Markup(
        "Along the runs with the exact gradient, where all estimators are measured at the same "
        "parameters, the correlation is {}, with an interval above zero in {} of {} cases. An "
        "estimator whose own run ends where gradients are easy looks better along its own run."
    ).format(span, sure, len(rows))


def best_methods(ranked: pd.DataFrame) -> list[Markup]:
    """Return which estimators train best, beside the exact gradient, as sentences.

    Args:
        ranked: a ``gradbench.metrics.trained``.
    """
    quantity = quantity_of(ranked)
    most = "greatest" if quantity.larger else "least"
    name = "method" if "method" in ranked else "estimator"
    sentences = []
    for (problem, *optimiser), rows in ranked.groupby(together(ranked), sort=False):
        others = rows[rows["family"] != "exact"]
        if others.empty:
            continue
        best = others[others["rank"] == others["rank"].min()][name].tolist()
        text = Markup("{}{}: the {} {} has {}").format(
            problem, _with(optimiser), most, quantity.title, codes(best[:4])
        )
        if len(best) > 4:
            text += f" and {len(best) - 4} more that cannot be told apart"
        text += f" ({quantity.text(others.loc[others['rank'].idxmin(), quantity.column])}"
        exact = rows[rows["family"] == "exact"]
        if len(exact):
            text += f"; the exact gradient {quantity.text(exact[quantity.column].iloc[0])}"
        bad = others[others["diverged"] > 0][name].tolist()
        text += ")"
        if bad:
            text += Markup("; diverged with some seed: {}").format(codes(bad))
        sentences.append(text + ".")
    return sentences


def _with(optimiser: Sequence[str]) -> Markup:
    return Markup("").join(map(Markup(", <code>{}</code>").format, optimiser))


def continued_methods(ranked: pd.DataFrame, phase: Mapping[str, Any] | None) -> list[Markup]:
    """Return what a second phase with one estimator for all changed, as sentences.

    Args:
        ranked: a ``gradbench.metrics.trained``.
        phase: the estimator and the number of steps, None where there is no second phase.
    """
    if phase is None or "continued_loss" not in ranked:
        return []
    quantity = quantity_of(ranked)
    steps = f"{phase['steps']:,}"
    sentences = [
        Markup(
            "All methods went on for {} steps with {}, each at its own rate. A loss that falls by "
            "more than that of the method that used this estimator from the start shows the bias "
            "that had accumulated."
        ).format(steps, codes([phase["estimator"]]))
    ]
    name = "method" if "method" in ranked else "estimator"
    for (problem, *optimiser), rows in ranked.groupby(together(ranked), sort=False):
        rows = rows.dropna(subset=["continued_loss"])
        if rows.empty:
            continue
        falls = rows["loss"] - rows["continued_loss"]
        at = rows.loc[falls.idxmax()]
        text = Markup("{}{}: the loss of {} falls most, from {} to {}").format(
            problem,
            _with(optimiser),
            codes([at[name]]),
            f"{at['loss']:.3f}",
            f"{at['continued_loss']:.3f}",
        )
        if quantity != LOSS:
            column = quantity.column
            text += f"; the {quantity.title} goes from {quantity.text(at[column])} to "
            text += quantity.text(at[f"continued_{column}"])
        sentences.append(text + ".")
    return sentences
