"""Sentences on what is exact and what is uncertain."""

from typing import NamedTuple

import pandas as pd
from markupsafe import Markup

from gradbench.metrics import times
from gradbench.metrics.unbiasedness import AGAINST
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


class Unbiased(NamedTuple):
    """The estimators without a bias in any layer, by how that is known.

    ``tested`` has the bias of a single coordinate that would have been seen, relative to |G|.
    ``against`` have a bias although a theorem says that they have none.
    """

    theorem: list[str]
    enumerated: list[str]
    tested: dict[str, float]
    against: list[str]

    @property
    def known(self) -> list[str]:
        """The ones that are certainly unbiased."""
        return [*self.theorem, *self.enumerated]


def unbiased_estimators(bias: pd.DataFrame) -> Unbiased:
    """Return the estimators that are unbiased in all layers, or seem to be."""
    found = Unbiased([], [], {}, [])
    for name, rows in bias.groupby("estimator", sort=False) if len(bias) else ():
        verdicts = set(rows["verdict"])
        if AGAINST in verdicts:
            found.against.append(str(name))
        elif verdicts == {"unbiased by theorem"}:
            found.theorem.append(str(name))
        elif verdicts <= {"unbiased by theorem", "unbiased"}:
            found.enumerated.append(str(name))
        elif verdicts <= {"unbiased by theorem", "unbiased", "no bias seen"}:
            found.tested[str(name)] = float(rows["detectable"].max())
    return found


def what_is_unbiased(found: Unbiased) -> Markup:
    """Return a sentence on which estimators are unbiased."""
    parts = []
    if found.against:
        what = "warning: a bias was found against the theorem that there is none: {}"
        parts.append(Markup(what).format(codes(found.against)))
    if found.theorem:
        parts.append(Markup("unbiased by theorem in every layer: {}").format(codes(found.theorem)))
    if found.enumerated:
        what = "unbiased by enumeration in every layer: {}"
        parts.append(Markup(what).format(codes(found.enumerated)))
    if found.tested:
        some = list(found.tested.items())[:SEVERAL]
        text = Markup(", ").join(
            Markup("{} ({})").format(code(name), about(limit)) for name, limit in some
        )
        more = f" and {len(found.tested) - SEVERAL} more" if len(found.tested) > SEVERAL else ""
        what = "no bias seen in tests of any layer, which is no proof: {}{} (in brackets the bias "
        what += "of a coordinate, relative to |G|, that would have been seen)"
        parts.append(Markup(what).format(text, more))
    if not parts:
        return Markup("Every estimator is biased in some layer; the last table shows in which.")
    text = Markup("; ").join(parts)
    return Markup("{}; all others are biased in some layer.").format(text[:1].upper() + text[1:])


def unseen_biases(whole: pd.DataFrame) -> list[Markup]:
    """Return a sentence on how large biases may be that are not significant."""
    rows = whole[(whole["bias2_low"] <= 0.0) & ~whole["zero_gradient"]]
    rows = rows[rows["bias_source"] == "test"]
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
    """Return sentences on measured times: how they were measured, and which are uncertain."""
    if whole["evaluations"].isna().all():
        return [Markup("The costs of draws were not stored; run the suite again to compare costs.")]
    if whole["seconds"].isna().any():
        return [
            Markup(
                "The times of some draws were not stored, as they are measured at the end of a run."
            )
        ]
    found = [
        Markup("Times were measured on one machine ({}) and vary with its load.").format(device)
    ]
    if times.is_assumed(whole):
        return [
            *found,
            Markup(
                "An older gradbench did not store how far repeats of a time spread: {} is assumed."
            ).format(times.percent(times.ASSUMED)),
        ]
    typical = times.percent(float(whole["seconds_spread"].median()))
    found.append(
        Markup(
            "A time is the median of repeats, in which all estimators and checkpoints took turns; "
            "they spread by {} in the median, which is the uncertainty of a time."
        ).format(typical)
    )
    if apart := times.disagreeing(whole):
        some = list(apart.items())
        text = Markup(", ").join(
            Markup("{} (by up to {})").format(code(name), times.percent(spread))
            for name, spread in some[:SEVERAL]
        )
        more = f" and {len(some) - SEVERAL} more" if len(some) > SEVERAL else ""
        found.append(
            Markup("Repeats of the time of a draw disagree for {}{}: so uncertain is it.").format(
                text, more
            )
        )
    return found
