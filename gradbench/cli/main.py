"""The command line, ``gradbench list | run | show | ...``: a thin layer over functions.

What needs JAX or pandas is imported by the command that uses it, so that ``--help`` answers at
once.
"""

import argparse
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradbench.cli.options import (
    BAD_INPUT,
    FAILED,
    INTERRUPTED,
    _add_form,
    _read_until,
    _say_figures,
    _say_unfinished,
)
from gradbench.cli.schema import add_schema
from gradbench.cli.show import _compare, _rank, _show, _table
from gradbench.core import plugins
from gradbench.core.errors import GradbenchError, GradbenchWarning


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0, 1 where a check fails, 2 for bad input, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    warnings.showwarning = _say_warning
    try:
        for file in options.plugins_before + options.plugins_after:
            plugins.load(file)
        code = options.command(options)
        sys.stdout.flush()  # what is wrong with the output shall show here, not at exit
    except GradbenchError as error:
        print(f"gradbench: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print(
            "\ngradbench: interrupted; what was measured is kept, run the same command to continue",
            file=sys.stderr,
        )
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        _discard_output()
        return 0
    except OSError as error:  # such as a full disk behind the output
        print(f"gradbench: {error}; check the path and the space left there", file=sys.stderr)
        _discard_output()
        return BAD_INPUT
    return code or 0


def _say_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A warning of gradbench's own as a sentence, without the place in its code."""
    if issubclass(category, GradbenchWarning):
        from tqdm import tqdm

        tqdm.write(f"gradbench: {message}", file=sys.stderr)  # on a line beside progress bars
    else:
        _show_warning(message, category, *where, **more)


_show_warning = warnings.showwarning


def _discard_output() -> None:
    """What cannot be written goes nowhere: Python would fail once more on it at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gradbench",
        description="Measures gradient estimators for stochastic binary networks against the exact "
        "gradient.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="estimators, problems, suites, noises and metrics")
    kinds = ("estimators", "problems", "suites", "noises", "metrics")
    command.add_argument("kind", nargs="?", metavar="KIND", help=f"one of {', '.join(kinds)}")
    command.add_argument("--markdown", action="store_true", help="a table in Markdown")
    command.set_defaults(command=_list, kinds=kinds)

    command = commands.add_parser("run", help="measure a suite, or continue where it was")
    command.add_argument("suite", metavar="SUITE", help="name of a suite, or a TOML file")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="directory of the results (results/SUITE)"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of everything random (0)")
    command.add_argument("--draws", type=int, help="draws per cell, in the place of the suite's")
    command.add_argument("--quick", action="store_true", help="the quick form of the suite")
    command.add_argument(
        "--until",
        metavar="rel_se=1%",
        help="draw until metrics have this relative standard error; --draws is then the limit",
    )
    command.add_argument(
        "--metrics", metavar="NAMES", help="that --until is about (rmse,cosine), at M = 1"
    )
    command.add_argument("--dry-run", action="store_true", help="check, and say what would be run")
    command.set_defaults(command=_run)

    command = commands.add_parser(
        "show",
        usage="gradbench show DIR\n       gradbench show estimator NAME",
        help="print the table: bias, deviation, cosine per layer; or what an estimator is",
    )
    command.add_argument("directory", metavar="DIR", help="results")
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="an estimator, as in: show estimator psa"
    )
    command.set_defaults(command=_show)

    command = commands.add_parser("table", help="print metrics of your choice, in several formats")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument(
        "--metrics", metavar="NAMES", help="such as rmse,bias,snr (rmse,bias,std,cosine)"
    )
    command.add_argument("--at", type=int, default=1, metavar="M", help="draws averaged (1)")
    command.add_argument("--layer", metavar="LAYER", help='one layer, such as "network"')
    command.add_argument("--intervals", action="store_true", help="limits at 95 %%")
    views = command.add_mutually_exclusive_group()
    views.add_argument(
        "--over-replicates",
        action="store_true",
        help="means over replicates, and what holds in all",
    )
    views.add_argument(
        "--unbiasedness", action="store_true", help="which biases are zero, known or tested"
    )
    _add_form(command)
    command.set_defaults(command=_table)

    command = commands.add_parser("rank", help="the estimators at an equal budget, best first")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--by", metavar="METRIC", help="what is compared (rmse)")
    command.add_argument(
        "--at-cost",
        metavar="BUDGET",
        help="of an estimate: 64-draws, 100-evaluations or 1ms (1-draw)",
    )
    command.add_argument(
        "--reach",
        metavar="RMSE",
        help="instead, what each needs for this relative RMSE, such as 10%%",
    )
    command.add_argument(
        "--layer", default="network", metavar="LAYER", help="one layer (the network)"
    )
    _add_form(command)
    command.set_defaults(command=_rank)

    command = commands.add_parser("compare", help="what has changed between two results")
    command.add_argument("before", type=Path, metavar="BEFORE")
    command.add_argument("after", type=Path, metavar="AFTER")
    command.add_argument("--by", default="rmse", metavar="METRIC", help="what is compared (rmse)")
    command.add_argument("--at", type=int, default=1, metavar="M", help="draws averaged (1)")
    command.add_argument(
        "--fail-on",
        metavar="WHAT",
        help="exit code 1 if anything is gone, or significantly: worse, different, 5%% worse",
    )
    _add_form(command)
    command.set_defaults(command=_compare)

    command = commands.add_parser("plot", help="draw the figures: PDF, SVG, PNG, with scripts")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.set_defaults(command=_plot)

    command = commands.add_parser("report", help="write one HTML file: what to use, and why")
    command.add_argument("directory", type=Path, metavar="DIR", help="results")
    command.add_argument("--out", type=Path, metavar="FILE", help="the file (DIR/report.html)")
    command.set_defaults(command=_report)

    command = commands.add_parser(
        "recommend", help="the best estimator for a problem of your own, measured on it"
    )
    command.add_argument(
        "problem",
        metavar="FILE.py:NAME",
        help="a model, its parameters and a batch, or a function that returns them",
    )
    command.add_argument(
        "--budget",
        default="100-evaluations",
        help="of one gradient: 64-draws, 100-evaluations or 1ms (100-evaluations)",
    )
    command.add_argument(
        "--estimator",
        action="append",
        dest="estimators",
        metavar="NAME",
        help="only this one, with hyper-parameters; repeatable (all that fit)",
    )
    command.add_argument("--draws", type=int, default=2000, help="where nothing is exact (2000)")
    command.add_argument("--seed", type=int, default=0, help="seed of the draws (0)")
    command.set_defaults(command=_recommend)

    command = commands.add_parser("check", help="find what an estimator is really exact for")
    command.add_argument(
        "estimators", nargs="*", metavar="NAME", help="an estimator, or module:function"
    )
    command.add_argument("--all", action="store_true", help="every estimator there is")
    command.add_argument(
        "--claim", metavar="CLASS", help="claimed class, in place of the registry's"
    )
    command.add_argument("--seed", type=int, default=0, help="seed of problems and draws (0)")
    command.set_defaults(command=_check)

    add_schema(commands)

    # Before the command or after it: two destinations, as the later would empty the earlier.
    some: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    plugin = "a Python file with more estimators, problems or suites; repeatable"
    parser.add_argument("--plugin", dest="plugins_before", help=plugin, **some)
    for command in commands.choices.values():
        command.add_argument("--plugin", dest="plugins_after", help=plugin, **some)
    return parser


def _list(options: argparse.Namespace) -> None:
    from gradbench.cli import catalogue as listing

    # As wide as the terminal, if there is one; whole lines for other programs.
    width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
    kinds = [options.kind] if options.kind else options.kinds
    print("\n\n".join(listing.text(kind, width, options.markdown) for kind in kinds))


def _run(options: argparse.Namespace) -> None:
    from gradbench.plots.suite import plot
    from gradbench.suites.runner import describe, run

    how: dict[str, Any] = {"quick": options.quick, "until": _read_until(options.until)}
    if options.metrics and options.until is None:
        raise GradbenchError(f"--metrics is {options.metrics!r} without --until; add rel_se=1%")
    if options.metrics:
        how["until_metrics"] = options.metrics.split(",")
    if options.dry_run:
        print(describe(options.suite, options.seed, options.draws, **how))
        return
    results = run(options.suite, options.out, options.seed, options.draws, **how)
    _say_figures(plot(results.directory))
    print(f"the table: gradbench show {results.directory}")


def _plot(options: argparse.Namespace) -> None:
    from gradbench.metrics.directory import unfinished, unfinished_line
    from gradbench.plots.suite import plot

    _say_figures(plot(options.directory))
    if line := unfinished_line(*unfinished(options.directory)):
        print(line)


def _report(options: argparse.Namespace) -> None:
    from gradbench.report.html import report

    path = report(options.directory, options.out)
    _say_unfinished(options.directory)
    print(f"open {path}")


def _recommend(options: argparse.Namespace) -> None:
    import jax

    from gradbench.advise.recommend import recommend

    problem = plugins.imported(options.problem, "problem")
    if callable(problem):
        problem = plugins.called(problem, options.problem, "problem")
    if not isinstance(problem, tuple) or len(problem) != 3:
        raise GradbenchError(
            f"the problem {options.problem!r} is of type {type(problem).__name__}; give a tuple "
            "of a model, its parameters and a batch, or a function that returns one"
        )
    how = {"draws": options.draws, "seed": options.seed, "progress": True}
    # Callbacks of a model run in threads that the float64 of a context does not reach.
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    try:
        found = recommend(*problem, options.budget, options.estimators, **how)
    finally:
        jax.config.update("jax_enable_x64", before)
    print(found)


def _check(options: argparse.Namespace) -> int:
    import jax

    # Its many programs run for milliseconds: their compilation is what takes time.
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        return _checked(options)
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def _checked(options: argparse.Namespace) -> int:
    from gradbench.testing import check_all, check_estimator

    if options.all == bool(options.estimators):
        raise GradbenchError("check needs names of estimators or --all, and not both")
    if options.all:
        passed = check_all(options.seed, print)
    else:
        found = [check_estimator(name, options.claim, options.seed) for name in options.estimators]
        print("\n\n".join(map(str, found)))
        passed = all(certificate.passed for certificate in found)
    return 0 if passed else FAILED
