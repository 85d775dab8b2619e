"""``gradbench run``: measure a suite."""

from pathlib import Path
from typing import Any

import click

from gradbench.cli import complete
from gradbench.cli.options import (
    WHOLE,
    compute_on,
    say,
    with_cache,
    with_device,
    with_quiet,
    with_time_limit,
)
from gradbench.cli.own import is_own, refuse_options


@click.command(short_help="Measure a suite, or continue where it was.")
@click.argument("suite", metavar="SUITE", shell_complete=complete.suites)
@click.option(
    "--out",
    type=Path,
    metavar="DIR",
    shell_complete=complete.directories,
    help="Directory of the results (results/SUITE).",
)
@click.option("--seed", type=WHOLE, default=0, help="Seed of everything random (0).")
@click.option("--draws", type=WHOLE, help="Draws per cell instead of the suite's number.")
@click.option("--quick", is_flag=True, help="Measure the quick form of the suite.")
@click.option(
    "--until",
    metavar="rel_se=1%",
    help="Draw until metrics have this relative standard error; --draws is then the limit.",
)
@click.option(
    "--metrics",
    metavar="NAMES",
    help="The metrics that --until is about (rmse,cosine), at M=1.",
)
@click.option("--retrain", is_flag=True, help="Train anew what comes trained with the package.")
@click.option("--workers", type=WHOLE, metavar="N", help="Measure by N processes at once.")
@click.option("--dask", metavar="ADDRESS", help="Measure by the workers of a Dask scheduler.")
@click.option(
    "-e",
    "--estimator",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.estimators,
    help="Measure this estimator alone, with arguments or all of that name; repeatable.",
)
@click.option(
    "-p",
    "--problem",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.problems,
    help="Measure this problem alone; repeatable.",
)
@click.option(
    "--checkpoint",
    multiple=True,
    metavar="NAME",
    help='Measure at this checkpoint alone, such as "epoch 100" or 100; repeatable.',
)
@click.option(
    "--force", is_flag=True, help="Run also what seems to be too much: days, or gigabytes."
)
@with_time_limit
@with_device
@with_quiet
@with_cache
@click.option(
    "--dry-run", is_flag=True, help="Check, and say what would be run and how long it takes."
)
def command(
    suite: str,
    out: Path | None,
    seed: int,
    draws: int | None,
    quick: bool,
    until: str | None,
    metrics: str | None,
    retrain: bool,
    workers: int | None,
    dask: str | None,
    estimator: tuple[str, ...],
    problem: tuple[str, ...],
    checkpoint: tuple[str, ...],
    force: bool,
    time_limit: float | None,
    device: str | None,
    quiet: bool,
    no_cache: bool,
    dry_run: bool,
) -> None:
    """Measure a suite, given by name or by the path of a TOML file, and draw its figures.

    In the place of a suite, FILE.py:NAME is a problem of your own: a tuple of a model, its
    parameters and a batch, or a function that returns one. Its results are in results/FILE-NAME,
    with a report.

    What is finished is not measured again, and figures of it are not drawn again: then nothing is
    loaded that this takes. A part of a suite, chosen by --estimator, --problem or --checkpoint, is
    measured into the same directory; the whole then continues it, with the same numbers.
    """
    from gradbench.cli.options import print_figures, read_precision
    from gradbench.core.compiling import kept_programs
    from gradbench.core.errors import GradbenchError
    from gradbench.core.progress import Progress
    from gradbench.metrics.directory import left_to_run
    from gradbench.results.drawn import current_figures

    compute_on(device)
    if is_own(suite):
        from gradbench.cli.own import run_own

        alone: dict[str, object] = {"quick": quick, "until": until, "metrics": metrics}
        alone |= {"retrain": retrain, "workers": workers, "dask": dask, "problem": problem}
        alone |= {"checkpoint": checkpoint, "force": force, "dry-run": dry_run}
        refuse_options(suite, alone)
        own: dict[str, Any] = {"out": out, "seed": seed, "draws": draws, "time_limit": time_limit}
        run_own(suite, list(estimator) or None, not no_cache, **own, progress=not quiet)
        return
    how: dict[str, Any] = {"quick": quick, "until": read_precision(until)}
    if metrics and until is None:
        raise GradbenchError(f"--metrics is {metrics!r} without --until; add rel_se=1%")
    if metrics:
        how["until_metrics"] = metrics.split(",")
    if dry_run:
        from gradbench.suites.runner import describe

        how |= {"problems": problem, "estimators": estimator, "checkpoints": checkpoint}
        say(describe(suite, seed, draws, **how, out=out, force=force))
        return
    from gradbench.suites.asked import asked_suite, finished_results

    asked = asked_suite(suite, draws, **how)
    results = finished_results(asked, out, seed)
    part = {"problems": problem, "estimators": estimator, "checkpoints": checkpoint}
    if any(part.values()) or results is None:
        from gradbench.suites import runner

        more: dict[str, Any] = {"retrain": retrain, "force": force, "progress": not quiet, **part}
        more |= {"workers": workers, "dask": dask}
        with kept_programs(not no_cache):
            results = runner.run(asked, out, seed, **more)
    if any(part.values()) and (left := left_to_run(results)):
        if not quiet:
            say(f"left: {left}, which the same command without the choice does")
            say(f"the table: gradbench show {results.directory}")
        return
    figures = current_figures(results)
    if figures is None:
        from gradbench.plots.suite import plot

        with Progress(lines=False, show=not quiet):
            figures = plot(results.directory)
    if quiet:
        return
    print_figures(figures)
    say(f"the table: gradbench show {results.directory}")
