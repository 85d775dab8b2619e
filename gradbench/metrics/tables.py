"""Metrics as text with uncertain digits: what show, table, rank and compare print."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from gradbench.core.errors import GradbenchError
from gradbench.core.specs import label
from gradbench.core.text import FORMATS
from gradbench.metrics import KEYS, METRICS, Budget, Estimate, check_metrics
from gradbench.metrics.intervals import digits

DEFAULT = ("rmse", "bias", "std", "cosine")


def table(
    frame: pd.DataFrame,
    metrics: Sequence[str] | None = None,
    form: str = "terminal",
    intervals: bool = False,
) -> str:
    """A ``summary`` as text: some metrics of every layer and estimator, place by place.

    Digits in brackets are the standard error of the last digits shown; with ``intervals`` there are
    limits instead. What may be zero reads as the upper limit "< x". What is exact is marked
    "=". In the form "csv" numbers are written in full.

    Args:
        frame: of ``gradbench.summary``.
        metrics: names of ``gradbench.metrics.METRICS``; rmse, bias, std and, where it is known at
            this M, cosine, unless given.
        form: "terminal", "markdown", "latex" (for the package booktabs) or "csv".
        intervals: whether to show limits at 95 %.

    Raises:
        GradbenchError: an unknown metric or form, or a metric that is not known at this M.
    """
    if metrics is None:
        known = frame.empty or frame["zero_gradient"].all()
        metrics = [name for name in DEFAULT if known or frame[name].notna().any()]
    names = check_metrics(metrics)
    if in_full := FORMATS.find(form).numbers:
        facts = ["loss"] * ("loss" in frame) + ["M", "draws", "zero_gradient", "exact"]
        numbers = [f"{name}{end}" for name in names for end in ("", "_se", "_low", "_high")]
        return in_full(frame.reindex(columns=[*KEYS, *facts, *numbers]))
    if frame.empty:
        return "no finished cells"
    _refuse_unknown(frame, names)
    band = "cosine" in names
    parts = []
    for (problem, replicate, checkpoint), group in frame.groupby(KEYS[:3], sort=False):
        loss = f", loss {group['loss'].iloc[0]:.4f}" if "loss" in group else ""
        rows = [["layer", "estimator", *(_title(name, form) for name in names), *["band"] * band]]
        rows += [[layer, *_cells(row, names, band, intervals)] for layer, row in _by_layer(group)]
        parts.append(
            render(rows, form, f"{problem}, replicate {replicate}, {checkpoint}{loss}", right=2)
        )
    average = frame["M"].iloc[0]
    return "\n\n".join([*parts, _comment(legend(average, names), form)])


def legend(average: int, names: Sequence[str] = DEFAULT) -> str:
    """What the digits and marks of a table mean."""
    draws = "one draw" if average == 1 else f"the mean of {average} draws"
    lines = [
        f"Relative to the exact gradient, for {draws}; 0.213(4) is 0.213, standard error 0.004;",
        "< x: not told from zero, the upper limit at 95 %"
        + ("; band: 15 % and 85 % quantiles of the cosine." if "cosine" in names else "."),
        "=: all but the directions (cosine, signs, P(descent)) is exact, by enumeration.",
    ]
    more = [name for name in names if name not in DEFAULT]
    lines += [f"{METRICS[name].title}: {METRICS[name].meaning}." for name in more]
    return "\n".join(lines)


def ranking(frame: pd.DataFrame, by: str, at: str, form: str = "terminal") -> str:
    """A ``rank`` as text: those not told apart share one, what the budget does not pay has none.

    Raises:
        GradbenchError: an unknown form.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    parts = []
    for (problem, replicate, checkpoint, layer), group in frame.groupby(KEYS[:4], sort=False):
        rows = [["rank", "estimator", "M", _title(by, form)]]
        ranks = group["rank"].dropna().tolist()
        for row in group.to_dict("records"):
            place = f"{row['rank']:.0f}{' (tie)' * (ranks.count(row['rank']) > 1)}"
            if math.isnan(row["rank"]):
                place = "-"
            number = shown(row, by) if row["M"] else "a draw costs more"
            if row["zero_gradient"]:
                number = "zero gradient"
            rows.append([place, _named(row), str(row["M"]), number])
        heading = f"{problem}, replicate {replicate}, {checkpoint}, {layer}: at {at}"
        parts.append(render(rows, form, heading, right=2))
    note = (
        "M: draws that are averaged at this budget; rank: one more than the number significantly\n"
        "better; (tie): shared with what is not told apart; =: exact."
    )
    return "\n\n".join([*parts, _comment(note, form)])


def needed(frame: pd.DataFrame, eps: float, form: str = "terminal") -> str:
    """A ``sample_complexity`` as text, the cheapest in evaluations first.

    Raises:
        GradbenchError: an unknown form.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    parts = []
    for (problem, replicate, checkpoint, layer), group in frame.groupby(KEYS[:4], sort=False):
        rows = [["estimator", "draws", "95 %", "evaluations", "time"]]
        for row in group.sort_values(["evaluations", "draws"]).to_dict("records"):
            low, high = (_count(row[f"draws_{end}"]) for end in ("low", "high"))
            limits = "" if low == high else f"{low} to {high}"
            time = _time(row["seconds"])
            cells = [_count(row["draws"]), limits, _count(row["evaluations"]), time]
            if row["zero_gradient"]:
                cells = ["zero gradient", "", "", ""]
            rows.append([label(row["estimator"]), *cells])
        heading = f"{problem}, replicate {replicate}, {checkpoint}, {layer}: a relative RMSE of"
        parts.append(render(rows, form, f"{heading} {eps:g} needs", right=1))
    return "\n\n".join([*parts, _comment("never: the bias alone is larger.", form)])


def _count(number: float) -> str:
    if math.isnan(number):
        return "-"
    return "never" if math.isinf(number) else f"{math.ceil(number - 1e-6):,}"


def _time(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return "never" if math.isinf(seconds) else str(Budget(float(f"{seconds:.2g}"), "seconds"))


def unbiased(frame: pd.DataFrame, form: str = "terminal") -> str:
    """An ``unbiasedness`` as text.

    Raises:
        GradbenchError: an unknown form.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    parts = []
    for (problem, replicate, checkpoint), group in frame.groupby(KEYS[:3], sort=False):
        rows = [["layer", "estimator", "|bias|", "p", "detectable", "verdict"]]
        for layer, row in _by_layer(group):
            bias = digits(row["bias"], math.nan if row["p"] >= 0.0 else 0.0)
            numbers = [
                "" if math.isnan(row[name]) else f"{row[name]:.2g}"
                for name in ("p_adjusted", "detectable")
            ]
            rows.append([layer, label(row["estimator"]), bias, *numbers, row["verdict"]])
        parts.append(render(rows, form, f"{problem}, replicate {replicate}, {checkpoint}", right=2))
    note = (
        "p: that a bias seen is chance, adjusted for all that is tested here (Sidak, Holm);\n"
        "detectable: the bias of one coordinate that had a chance of 0.9 to be found.\n"
        "No p: known, from exact moments or because draws do not vary."
    )
    return "\n\n".join([*parts, _comment(note, form)])


def comparison(frame: pd.DataFrame, by: str, form: str = "terminal") -> str:
    """A ``compare`` as text.

    Raises:
        GradbenchError: an unknown form.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    parts = []
    for (problem, replicate, checkpoint), group in frame.groupby(KEYS[:3], sort=False):
        rows = [["layer", "estimator", "before", "after", "ratio", "p", "change"]]
        for layer, row in _by_layer(group):
            numbers = [
                _number(Estimate(row[when], math.nan, math.nan, math.nan))
                for when in ("before", "after")
            ]
            ratio = "-" if math.isnan(row["ratio"]) else f"{row['ratio']:.3f}"
            p = "-" if math.isnan(row["p_adjusted"]) else f"{row['p_adjusted']:.2g}"
            rows.append([layer, label(row["estimator"]), *numbers, ratio, p, row["change"]])
        heading = f"{problem}, replicate {replicate}, {checkpoint}: {METRICS[by].title}"
        parts.append(render(rows, form, heading, right=2))
    count = frame["change"].value_counts()
    said = ", ".join(f"{count[word]} {word}" for word in count.index)
    return "\n\n".join([*parts, _comment(f"{said}; p adjusted by Holm's method", form)])


def replicates(frame: pd.DataFrame, orders: pd.DataFrame, form: str = "terminal") -> str:
    """Two frames as text: ``over_replicates``, and ``orderings`` of its first metric.

    Raises:
        GradbenchError: an unknown form.
    """
    if in_full := FORMATS.find(form).numbers:
        return in_full(frame)
    names = list(dict.fromkeys(frame["metric"]))
    parts = []
    for (problem, checkpoint), group in frame.groupby(["problem", "checkpoint"], sort=False):
        rows = [["layer", "estimator", *(_title(name, form) for name in names)]]
        found = {(r["layer"], r["estimator"], r["metric"]): r for r in group.to_dict("records")}
        for layer, row in _by_layer(group[group["metric"] == names[0]]):
            own = [found.get((row["layer"], row["estimator"], name)) for name in names]
            rows.append([layer, label(row["estimator"]), *map(_spread, own)])
        count = int(group["replicates"].max())
        heading = f"{problem}, {checkpoint}: mean over {count} replicates (least to greatest)"
        parts.append(render(rows, form, heading, right=2))
        pairs = orders[(orders["problem"] == problem) & (orders["checkpoint"] == checkpoint)]
        rows = [["layer", "less", "than", "replicates", "share at 95 %"]]
        for layer, row in _by_layer(pairs[pairs["less"] > 0]):
            equal = f", {row['equal']} not told apart" if row["equal"] else ""
            counts = f"{row['less']} of {count}{equal}"
            limits = f"{row['low']:.2f} to {row['high']:.2f}"
            rows.append([layer, label(row["first"]), label(row["second"]), counts, limits])
        heading = f"{problem}, {checkpoint}: {METRICS[names[0]].title} of pairs of estimators"
        parts.append(render(rows, form, heading, right=3))
    return "\n\n".join(parts)


def _by_layer(frame: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, layer by layer, each with what its first column says: the layer, once."""
    for layer, part in frame.groupby("layer", sort=False):
        for k, row in enumerate(part.to_dict("records")):
            yield "" if k else str(layer), row


def _spread(row: Mapping[str, Any] | None) -> str:
    if row is None:  # not known in any replicate
        return "-"
    if row["greatest"] < 1e-10:
        return "0"
    return f"{row['mean']:.3g} ({row['least']:.2g} to {row['greatest']:.2g})"


def render(rows: Sequence[Sequence[str]], form: str, heading: str, right: int) -> str:
    """A table with its heading; the first row is that of the titles."""
    return FORMATS.find(form).table(rows, right, heading)


def check_form(form: str) -> str:
    """The name of a form of tables.

    Raises:
        GradbenchError: it is none.
    """
    return FORMATS.canonical(form)


def shown(row: Mapping[str, Any], name: str, intervals: bool = False) -> str:
    """A metric of a row of a frame, with its uncertain digits."""
    return _number(
        Estimate(*(row[f"{name}{end}"] for end in ("", "_se", "_low", "_high"))), intervals
    )


def _refuse_unknown(frame: pd.DataFrame, names: Sequence[str]) -> None:
    known = frame[~frame["zero_gradient"]]
    for name in names:
        if len(known) and known[name].isna().all():
            raise GradbenchError(
                f"{name} at M = {frame['M'].iloc[0]} is not in these results; take an M that they "
                "store, or run the suite again with this one in its averages"
            )


def _title(name: str, form: str) -> str:
    return f"${METRICS[name].symbol}$" if FORMATS.find(form).formulas else METRICS[name].title


def _named(row: Mapping[str, Any]) -> str:
    return label(row["estimator"]) + " =" * bool(row["exact"])


def _cells(row: Mapping[str, Any], names: Sequence[str], band: bool, intervals: bool) -> list[str]:
    if row["zero_gradient"]:
        return [_named(row), "zero gradient", *[""] * (len(names) - 1 + band)]
    cells = [shown(row, name, intervals) for name in names]
    if band:
        low, high = row["cosine_q15"], row["cosine_q85"]
        cells.append("-" if math.isnan(low) else f"{low:5.2f} {high:5.2f}")
    return [_named(row), *cells]


def _number(found: Estimate, intervals: bool = False) -> str:
    if found.low == 0.0 and 0.0 < found.high < math.inf and found.se > 0.0:
        return f"< {found.high:.2g}"
    if not intervals or not 1e-6 * abs(found.value) < found.se < math.inf:
        return digits(found.value, found.se)
    last = math.floor(math.log10(found.se)) - 1  # the power of ten of the second digit of the error
    size = max(abs(found.value), found.se)
    if size < 1e-4:
        form = f"#.{math.floor(math.log10(size)) - last + 1}g"
    else:
        form = f".{max(-last, 0)}f"
    value, low, high = (f"{round(x, -last):{form}}" for x in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


def _comment(text: str, form: str) -> str:
    return FORMATS.find(form).note(text)
