"""The commands that print results."""

import argparse
import math
from pathlib import Path

from gradbench import metrics
from gradbench.cli.options import (
    FAILED,
    _positive,
    _read_failure,
    _say_unfinished,
    _share,
)
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.metrics import temperature
from gradbench.metrics.directory import (
    agreement,
    expected,
    read_cells,
    unfinished_line,
)
from gradbench.metrics.tables import table
from gradbench.results.store import Results


def _show(options: argparse.Namespace) -> None:
    if options.name is None:
        if options.directory == "estimator" and not Path("estimator").exists():
            raise GradbenchError("show estimator got no name; give one, as in show estimator psa")
        from gradbench.cli.show import show

        print(show(options.directory))
    elif options.directory == "estimator":
        from gradbench.cli.catalogue import estimator

        print(estimator(options.name))
    else:
        raise GradbenchError(
            f"show got {options.directory!r} and {options.name!r}; give one directory, or "
            "'estimator' and a name"
        )


def _table(options: argparse.Namespace) -> None:
    from gradbench.metrics import orderings, over_replicates, summary, unbiasedness
    from gradbench.metrics.render import check_form
    from gradbench.metrics.tables import replicates, table, unbiased

    check_form(options.format)
    if options.unbiasedness and (options.metrics or options.at != 1 or options.intervals):
        raise GradbenchError("--unbiasedness is of one draw and has no metrics; leave out the rest")
    frame = summary(options.directory, _positive("--at", options.at))
    names = None if options.metrics is None else options.metrics.split(",")
    if options.layer:
        known = frame["layer"].unique()
        if options.layer not in known:
            raise GradbenchError(
                f"there is no layer {options.layer!r}; {did_you_mean(options.layer, known)}"
            )
        frame = frame[frame["layer"] == options.layer]
    if options.unbiasedness:
        tested = unbiasedness(options.directory)
        print(unbiased(tested[tested["layer"].isin(frame["layer"])], options.format))
    elif options.over_replicates:
        names = names or ["bias", "std", "rmse"]
        print(replicates(over_replicates(frame, names), orderings(frame, names[0]), options.format))
    else:
        print(table(frame, names, options.format, options.intervals))
    _say_unfinished(options.directory)


def _rank(options: argparse.Namespace) -> None:
    from gradbench.metrics import budget, rank, sample_complexity
    from gradbench.metrics.render import check_form
    from gradbench.metrics.tables import needed, ranking

    check_form(options.format)
    if options.reach is not None:
        if options.by or options.at_cost:
            raise GradbenchError("--reach says what an RMSE costs; leave out --by and --at-cost")
        eps = _share(options.reach)
        if not 0.0 < eps < math.inf:
            raise GradbenchError(
                f"--reach is {options.reach!r}; give a relative RMSE as 10% or 0.1"
            )
        found = sample_complexity(options.directory, eps, options.layer)
        print(needed(found, eps, options.format))
    else:
        by, at = options.by or "rmse", budget(options.at_cost or "1-draw")
        frame = rank(options.directory, by, at, options.layer)
        print(ranking(frame, by, str(at), options.format))
    _say_unfinished(options.directory)


def _compare(options: argparse.Namespace) -> int:
    from gradbench.metrics import compare
    from gradbench.metrics.render import check_form
    from gradbench.metrics.tables import comparison

    check_form(options.format)
    failing, margin = _read_failure(options.fail_on)
    average = _positive("--at", options.at)
    frame = compare(options.before, options.after, options.by, average, margin)
    print(comparison(frame, options.by, options.format))
    for directory in (options.before, options.after):
        _say_unfinished(directory)
    return FAILED if frame["change"].isin(failing).any() else 0


def show(results: str | Path | Results) -> str:
    """The text of ``gradbench show``: a table per checkpoint, layer and estimator.

    It ends with how well the exact gradients were confirmed and, if so, what is not finished.

    Raises:
        GradbenchError: as ``summary``.
    """
    results = results if isinstance(results, Results) else Results.open(results)
    cells = list(read_cells(results))
    total = expected(results)
    missing = unfinished_line(total - len(cells), total)
    summary = metrics.summary(cells)
    parts = [table(summary), agreement(results), missing]
    if results.manifest["suite"]["figure"] == "temperature":
        parts.insert(1, temperature.slopes_text(summary))
    return "\n".join(part for part in parts if part)
