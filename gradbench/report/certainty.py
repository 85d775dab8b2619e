"""What the report says of exactness and of limits."""

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from gradbench.report.numbers import _SEVERAL, _codes, about, code, span
from gradbench.report.places import rivals


def _exactness(summary: pd.DataFrame) -> list[Markup]:
    rows = summary[summary["estimator"].isin(rivals(summary["estimator"]))]
    rows = rows[~rows["zero_gradient"]]
    exact = rows["exact"].groupby(rows["estimator"], sort=False).all()
    known = [str(name) for name, yes in exact.items() if yes]
    drawn = [str(name) for name, yes in exact.items() if not yes]
    draws = span(sorted({float(n) for n in rows["draws"]})) if len(rows) else "0"
    found = []
    if known:
        found.append(
            Markup(
                "Exact, marked “=”: bias, standard deviation and RMSE of {}, by enumeration of all "
                "states."
            ).format(_codes(known))
        )
    if drawn:
        found.append(
            Markup(
                "Estimated from {} draws each, with 95 % intervals: those of {}. Cosine, signs and "
                "the probability of descent are always estimated."
            ).format(draws, _codes(drawn))
        )
    return found


def _unbiased(bias: pd.DataFrame) -> tuple[list[str], dict[str, float]]:
    """What is unbiased in all layers for certain; where no bias was seen, and what would have been.

    The latter is of a coordinate, relative to |G|.
    """
    known, unseen = [], {}
    for name, rows in bias.groupby("estimator", sort=False) if len(bias) else ():
        if rows["verdict"].eq("unbiased").all():
            known.append(str(name))
        elif rows["verdict"].isin(["unbiased", "no bias seen"]).all():
            unseen[str(name)] = float(rows["detectable"].max())
    return known, unseen


def _bias(known: Sequence[str], unseen: dict[str, float]) -> Markup:
    parts = []
    if known:
        parts.append(Markup("unbiased in every layer for certain: {}").format(_codes(known)))
    if unseen:
        some = list(unseen.items())[:_SEVERAL]
        text = Markup(", ").join(
            Markup("{} ({})").format(code(name), about(limit)) for name, limit in some
        )
        more = f" and {len(unseen) - _SEVERAL} more" if len(unseen) > _SEVERAL else ""
        what = "no bias seen in any layer (nor would be that of a coordinate of less than the part "
        what += "of |G| in brackets): {}{}"
        parts.append(Markup(what).format(text, more))
    if not parts:
        return Markup("Each estimator is biased somewhere; the last table says in which layers.")
    text = Markup("; ").join(parts)
    return Markup("{}; all others are biased somewhere.").format(text[:1].upper() + text[1:])


def _limits(whole: pd.DataFrame) -> list[Markup]:
    rows = whole[(whole["bias2_low"] <= 0.0) & ~whole["exact"] & ~whole["zero_gradient"]]
    if rows.empty:
        return []
    parts = [
        Markup("{} at most {}").format(code(str(name)), span(list(own["bias_high"])))
        for name, own in rows.groupby("estimator", sort=False)
    ]
    more = f", and {len(parts) - _SEVERAL} more" if len(parts) > _SEVERAL else ""
    text = Markup(", ").join(parts[:_SEVERAL])
    return [
        Markup(
            "A bias not told from zero counts as none; it can be, of the whole gradient: {}{}."
        ).format(text, more)
    ]


def _times(whole: pd.DataFrame, device: str) -> list[Markup]:
    if whole["seconds"].isna().all():
        return [Markup("What a draw costs was not stored; run the suite again to compare costs.")]
    return [
        Markup("Times were measured on one machine ({}), and vary with its load.").format(device)
    ]
