"""The tables that show, table, rank and compare print: frames as text."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.core.text import FORMATS, records, records_by
from gradbench.metrics import times
from gradbench.metrics.best import BOLD, best_by_layer, marked, named
from gradbench.metrics.budget import budget
from gradbench.metrics.directions import FEW
from gradbench.metrics.frames import names_in
from gradbench.metrics.intervals import Estimate
from gradbench.metrics.measurement import KEYS
from gradbench.metrics.registry import METRICS, check_metrics
from gradbench.metrics.render import by_layer, comment, number, render, shown

DEFAULT = ("rmse", "bias", "std", "cosine")


def table(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    form: str = "terminal",
    intervals: bool = False,
    limit: int | None = None,
) -> str:
    """Return a ``summary`` as text: some metrics of every layer and estimator, place by place.

    Digits in brackets are the standard error of the last digits shown. A value that may be zero is
    shown as its upper limit, "< x". Exact values are marked "=". In the format "csv" numbers are
    written in full.

    Args:
        frame: a frame of ``gradbench.summary``.
        metrics: names of metrics; by default rmse, bias, std and, if it is known at this M, cosine.
        form: the format: "terminal", "markdown", "latex" (for the package booktabs) or "csv".
        intervals: whether to show limits at 95 % in place of standard errors.
        limit: print no more than so many rows; the functions below have it too.

    Raises:
        GradbenchError: an unknown metric or format, or a metric that is not known at this M.
    """
    if metrics is None:
        known = frame.empty or frame["zero_gradient"].all()
        metrics = [name for name in DEFAULT if known or frame[name].notna().any()]
    names = check_metrics(metrics)
    if in_full := FORMATS.find(form).numbers:
        facts = ["loss"] * ("loss" in frame) + ["M", "draws", "zero_gradient", "exact"]
        facts += ["bias_source"]
        numbers = [f"{name}{end}" for name in names for end in ("", "_se", "_low", "_high")]
        return in_full(frame.head(limit).reindex(columns=[*KEYS, *facts, *numbers]))
    if frame.empty:
        return "no finished cells"
    _refuse_missing(frame, names)
    band = "cosine" in names
    known_names = names_in(frame)
    parts = []
    for (problem, replicate, checkpoint), group in records_by(frame.head(limit), KEYS[:3]):
        loss = f", loss {group[0]['loss']:.4f}" if "loss" in frame else ""
        rows = [["layer", "estimator", *(_title(name, form) for name in names), *["band"] * band]]
        best = best_by_layer(group, names) if FORMATS.find(form).formulas else {}
        for layer, row in by_layer(group):
            own = best.get((row["layer"], row["estimator"]), ())
            name = _named(row, form, known_names)
            rows.append([layer, name, *_cells(row, names, band, intervals, own)])
        parts.append(
            render(rows, form, f"{problem}, replicate {replicate}, {checkpoint}{loss}", right=2)
        )
    note = legend(frame["M"].iloc[0], names)
    if FORMATS.find(form).formulas:
        note = f"{note}\n{BOLD}"
    return "\n\n".join([*parts, comment(note, form)])


def legend(average: int, names: Sequence[str] = DEFAULT) -> str:
    """Return the meaning of the digits and marks of a table, and of its less usual metrics."""
    draws = "one draw" if average == 1 else f"the mean of {average} draws"
    lines = [
        f"Relative to the exact gradient, for {draws}. 0.213(4): 0.213, standard error 0.004;",
        "< x: may be zero, upper limit at 95 %"
        + ("; band: 15 % and 85 % quantiles of the cosine;" if "cosine" in names else ";"),
        "=: exact, by enumeration, but for cosine, signs and P(descent). A bias is known by",
        "theorem (the certified class), by enumeration (=), or by a test of draws (all others).",
    ]
    if "cosine" in names or "signs" in names:
        lines.append(f"too few: fewer than {FEW} groups of draws, which have no interval.")
    more = [name for name in names if name not in DEFAULT]
    lines += [f"{METRICS[name].title}: {METRICS[name].meaning}." for name in more]
    return "\n".join(lines)


def ranking(
    frame: pd.DataFrame, by: str, at: str, form: str = "terminal", limit: int | None = None
) -> str:
    """Return a ``rank`` as text.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit))
    (by,) = check_metrics([by])
    timed = budget(at).cost == "seconds"
    alone = timed and bool(frame["latency"].notna().any())
    known_names = names_in(frame)
    ties = frame.groupby([*KEYS[:4], "rank"])["rank"].transform("size") > 1
    rows_shown = frame.assign(tie=ties).head(limit)
    parts = []
    for (problem, replicate, checkpoint, layer), group in records_by(rows_shown, KEYS[:4]):
        rows = [["rank", "estimator", "bias by", "M", _title(by, form)]]
        paper = FORMATS.find(form).formulas
        unit = times.common_unit(group) if timed and paper else None
        rows[0] += times.titles(unit)[: timed + alone]
        several = any(row["rank"] > 1 for row in group)
        for row in group:
            place = f"{row['rank']:.0f}{' (tie)' * row['tie']}"
            if math.isnan(row["rank"]):
                place = "-"
            number = shown(row, by) if row["M"] else "a draw costs more"
            if row["zero_gradient"]:
                number = "zero gradient"
            best = row["rank"] == 1 and several
            name = marked(_named(row, form, known_names), best)
            rows.append([place, name, row["bias_source"], str(row["M"]), marked(number, best)])
            rows[-1] += times.time_cells(row, unit)[: timed + alone]
        heading = f"{problem}, replicate {replicate}, {checkpoint}, {layer}: at {at}"
        parts.append(render(rows, form, heading, right=3))
    note = (
        "M: draws averaged at this budget; rank: one more than the number of estimators that are\n"
        "significantly better; (tie): no significant difference; =: exact; bias by:\n"
        "a theorem says that it is zero, an enumeration is exact, a test has seen draws."
    )
    if timed:
        note += (
            "\ntime of a draw: of one among many that are made together; ±: how far repeats\n"
            "spread, the uncertainty of a time"
        )
        note += "; single draw: its latency when it is made alone." if alone else "."
        note = "\n".join(filter(None, [note, times.notes(frame)]))
    return "\n\n".join([*parts, comment(note, form)])


def needed(
    frame: pd.DataFrame, eps: float, form: str = "terminal", limit: int | None = None
) -> str:
    """Return a ``sample_complexity`` as text, the cheapest in evaluations first.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit))
    places = frame.groupby(KEYS[:4], sort=False)
    ordered = pd.concat([rows.sort_values(["evaluations", "draws"]) for _, rows in places])
    places = ordered.head(limit).groupby(KEYS[:4], sort=False)
    parts = []
    for (problem, replicate, checkpoint, layer), group in places:
        rows = [["estimator", "draws", "95 %", "evaluations", "time", "bias known by"]]
        for row in records(group):
            low, high = (_count(row[f"draws_{end}"]) for end in ("low", "high"))
            limits = "" if low == high else f"{low} to {high}"
            time = times.time_text(row["seconds"], row["seconds_spread"])
            known = row["bias_source"] or "-"
            cells = [_count(row["draws"]), limits, _count(row["evaluations"]), time, known]
            if row["zero_gradient"]:
                cells = ["zero gradient", "", "", "", ""]
            rows.append([named(row["estimator"], form), *cells])
        heading = f"{problem}, replicate {replicate}, {checkpoint}, {layer}: a relative RMSE of"
        parts.append(render(rows, form, f"{heading} {eps:g} needs", right=1))
    note = "never: the bias alone exceeds this RMSE."
    return "\n\n".join([*parts, comment("\n".join(filter(None, [note, times.notes(frame)])), form)])


def _count(number: float) -> str:
    if math.isnan(number):
        return "-"
    return "never" if math.isinf(number) else f"{math.ceil(number - 1e-6):,}"


def comparison(
    frame: pd.DataFrame, by: str, form: str = "terminal", limit: int | None = None
) -> str:
    """Return a ``compare`` as text.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame.head(limit))
    parts = []
    for (problem, replicate, checkpoint), group in records_by(frame.head(limit), KEYS[:3]):
        rows = [["layer", "estimator", "bias by", "before", "after", "ratio", "p", "change"]]
        for layer, row in by_layer(group):
            numbers = [
                number(Estimate(row[when], math.nan, math.nan, math.nan))
                for when in ("before", "after")
            ]
            ratio = "-" if math.isnan(row["ratio"]) else f"{row['ratio']:.3f}"
            p = "-" if math.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.2g}"
            known = named(row["estimator"], form), row["bias_source"]
            changes = ("worse", "better")  # in which the one before is the best, and that after
            numbers = [
                marked(text, row["change"] == change)
                for text, change in zip(numbers, changes, strict=True)
            ]
            rows.append([layer, *known, *numbers, ratio, p, row["change"]])
        heading = f"{problem}, replicate {replicate}, {checkpoint}: {METRICS.find(by).title}"
        parts.append(render(rows, form, heading, right=3))
    count = frame["change"].value_counts()
    counts = ", ".join(f"{count[word]} {word}" for word in count.index)
    notes = [comment(f"{counts}; p adjusted by Holm's method", form)]
    if (gap := frame["gradient_gap"].max()) > 0.0:
        notes.append(
            comment(
                f"trained differently: exact gradients differ by up to {gap:.1g}, as another "
                "machine or version has trained these networks; their metrics are not compared",
                form,
            )
        )
    return "\n\n".join([*parts, "\n".join(notes)])


def replicates(frame: pd.DataFrame, orders: pd.DataFrame, form: str = "terminal") -> str:
    """Return two frames as text: ``over_replicates``, and ``orderings`` of its first metric.

    Raises:
        GradbenchError: an unknown format.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    names = list(dict.fromkeys(frame["metric"]))
    parts = []
    for (problem, checkpoint), group in frame.groupby(["problem", "checkpoint"], sort=False):
        rows = [["layer", "estimator", *(_title(name, form) for name in names)]]
        found = {(r["layer"], r["estimator"], r["metric"]): r for r in records(group)}
        for layer, row in by_layer(records(group[group["metric"] == names[0]])):
            own = [found.get((row["layer"], row["estimator"], name)) for name in names]
            rows.append([layer, named(row["estimator"], form), *map(_spread, own)])
        count = int(group["replicates"].max())
        heading = f"{problem}, {checkpoint}: mean over {count} replicates (least to greatest)"
        parts.append(render(rows, form, heading, right=2))
        pairs = orders[(orders["problem"] == problem) & (orders["checkpoint"] == checkpoint)]
        rows = [["layer", "less", "than", "replicates", "share at 95 %"]]
        for layer, row in by_layer(records(pairs[pairs["less"] > 0])):
            equal = f", {row['equal']} equal" if row["equal"] else ""
            counts = f"{row['less']} of {count}{equal}"
            limits = f"{row['low']:.2f} to {row['high']:.2f}"
            pair = [named(row[name], form) for name in ("first", "second")]
            rows.append([layer, *pair, counts, limits])
        heading = f"{problem}, {checkpoint}: {METRICS[names[0]].title} of pairs of estimators"
        parts.append(render(rows, form, heading, right=3))
    return "\n\n".join(parts)


def _refuse_missing(frame: pd.DataFrame, names: Sequence[str]) -> None:
    known = frame[~frame["zero_gradient"]]
    for name in names:
        if len(known) and known[name].isna().all():
            raise GradbenchError(
                f"{name} at M = {frame['M'].iloc[0]} is not in these results; take an M that they "
                "have, or run the suite again with this one in its averages"
            )


def _spread(row: Mapping[str, Any] | None) -> str:
    if row is None:  # not known in any replicate
        return "-"
    if row["greatest"] < 1e-10:
        return "0"
    return f"{row['mean']:.3g} ({row['least']:.2g} to {row['greatest']:.2g})"


def _title(name: str, form: str) -> str:
    return f"${METRICS[name].symbol}$" if FORMATS.find(form).formulas else METRICS[name].title


def _named(row: Mapping[str, Any], form: str, known: Mapping[str, str]) -> str:
    exact = bool(row["exact"]) and not FORMATS.find(form).formulas  # there, without an error
    return named(row["estimator"], form, known) + " =" * exact


def _cells(
    row: Mapping[str, Any], names: Sequence[str], band: bool, intervals: bool, best: Collection[str]
) -> list[str]:
    if row["zero_gradient"]:
        return ["zero gradient", *[""] * (len(names) - 1 + band)]
    cells = [marked(shown(row, name, intervals), name in best) for name in names]
    if band:
        low, high = row["cosine_q15"], row["cosine_q85"]
        cells.append("-" if math.isnan(low) else f"{low:5.2f} {high:5.2f}")
    return cells
