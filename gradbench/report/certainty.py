"""Sentences on what is exact and what is uncertain."""

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from gradbench.report.numbers import SEVERAL, about, code, codes, span
from gradbench.report.places import rivals


def what_is_exact(summary: pd.DataFrame) -> list[Markup]:
    """Return sentences on which estimators have exact metrics, and which are estimated."""
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
                "Bias, standard deviation and RMSE of {} are exact, by enumeration of all states, "
                "and marked “=”."
            ).format(codes(known))
        )
    if drawn:
        found.append(
            Markup(
                "Those of {} are estimated from {} draws each, with 95 % intervals. Cosine, signs "
                "and the probability of descent are always estimated."
            ).format(codes(drawn), draws)
        )
    return found


def unbiased_estimators(bias: pd.DataFrame) -> tuple[list[str], dict[str, float]]:
    """Return the estimators that are unbiased in all layers, and those where no bias was seen.

    The latter come with the bias of a single coordinate that would have been seen, relative to |G|.
    """
    known, unseen = [], {}
    for name, rows in bias.groupby("estimator", sort=False) if len(bias) else ():
        if rows["verdict"].eq("unbiased").all():
            known.append(str(name))
        elif rows["verdict"].isin(["unbiased", "no bias seen"]).all():
            unseen[str(name)] = float(rows["detectable"].max())
    return known, unseen


def what_is_unbiased(known: Sequence[str], unseen: dict[str, float]) -> Markup:
    """Return a sentence on which estimators are unbiased."""
    parts = []
    if known:
        parts.append(Markup("certainly unbiased in every layer: {}").format(codes(known)))
    if unseen:
        some = list(unseen.items())[:SEVERAL]
        text = Markup(", ").join(
            Markup("{} ({})").format(code(name), about(limit)) for name, limit in some
        )
        more = f" and {len(unseen) - SEVERAL} more" if len(unseen) > SEVERAL else ""
        what = "no bias seen in any layer: {}{} (in brackets the bias of a coordinate, relative to "
        what += "|G|, that would have been seen)"
        parts.append(Markup(what).format(text, more))
    if not parts:
        return Markup("Every estimator is biased in some layer; the last table shows in which.")
    text = Markup("; ").join(parts)
    return Markup("{}; all others are biased in some layer.").format(text[:1].upper() + text[1:])


def unseen_biases(whole: pd.DataFrame) -> list[Markup]:
    """Return a sentence on how large biases may be that are not significant."""
    rows = whole[(whole["bias2_low"] <= 0.0) & ~whole["exact"] & ~whole["zero_gradient"]]
    if rows.empty:
        return []
    parts = [
        Markup("{} ({})").format(code(str(name)), span(list(own["bias_high"])))
        for name, own in rows.groupby("estimator", sort=False)
    ]
    more = f", and {len(parts) - SEVERAL} more" if len(parts) > SEVERAL else ""
    text = Markup(", ").join(parts[:SEVERAL])
    return [
        Markup(
            "A bias that is not significantly different from zero counts as zero. For the whole "
            "gradient it may be as large as, relative to |G|: {}{}."
        ).format(text, more)
    ]


def how_times_vary(whole: pd.DataFrame, device: str) -> list[Markup]:
    """Return a sentence on measured times."""
    if whole["seconds"].isna().all():
        return [Markup("The costs of draws were not stored; run the suite again to compare costs.")]
    return [
        Markup("Times were measured on one machine ({}) and vary with its load.").format(device)
    ]
