"""``gradbench run``: measure a suite."""

import argparse
from pathlib import Path
from typing import Any

from gradbench.cli.options import add_cache, say

HELP = "measure a suite, or continue where it was"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the options of ``gradbench run``."""
    command.add_argument("suite", metavar="SUITE", help="name of a suite, or a TOML file")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="directory of the results (results/SUITE)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of everything random (0)")
    command.add_argument("--draws", type=int, help="draws per cell instead of the suite's number")
    command.add_argument("--quick", action="store_true", help="the quick form of the suite")
    command.add_argument(
        "--until",
        metavar="rel_se=1%",
        help="draw until metrics have this relative standard error; --draws is then the limit",
    )
    command.add_argument(
        "--metrics", metavar="NAMES", help="the metrics that --until is about (rmse,cosine), at M=1"
    )
    command.add_argument(
        "--retrain", action="store_true", help="train anew what comes trained with the package"
    )
    add_cache(command)
    command.add_argument("--dry-run", action="store_true", help="check, and say what would be run")


def run(options: argparse.Namespace) -> None:
    """Measure a suite and draw its figures, or describe what would be measured.

    What is finished is not measured again, and figures of it are not drawn again: then nothing is
    loaded that this takes.
    """
    from gradbench.cli.options import print_figures, read_precision
    from gradbench.core.compiling import kept_programs
    from gradbench.core.errors import GradbenchError
    from gradbench.results.drawn import current_figures

    how: dict[str, Any] = {"quick": options.quick, "until": read_precision(options.until)}
    if options.metrics and options.until is None:
        raise GradbenchError(f"--metrics is {options.metrics!r} without --until; add rel_se=1%")
    if options.metrics:
        how["until_metrics"] = options.metrics.split(",")
    if options.dry_run:
        from gradbench.suites.runner import describe

        say(describe(options.suite, options.seed, options.draws, **how))
        return
    from gradbench.suites.asked import asked_suite, finished_results

    suite = asked_suite(options.suite, options.draws, **how)
    results = finished_results(suite, options.out, options.seed)
    if results is None:
        from gradbench.suites import runner

        with kept_programs(options.cache):
            results = runner.run(suite, options.out, options.seed, retrain=options.retrain)
    figures = current_figures(results)
    if figures is None:
        from gradbench.plots.suite import plot

        figures = plot(results.directory)
    print_figures(figures)
    say(f"the table: gradbench show {results.directory}")
