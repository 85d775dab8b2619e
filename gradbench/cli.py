"""The command line: ``gradbench list | run | show | plot | check``, a thin layer over functions.

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

from gradbench import plugins
from gradbench.errors import GradbenchError, GradbenchWarning

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130  # as shells report Ctrl-C


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
        print(f"gradbench: {message}", file=sys.stderr)
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

    command = commands.add_parser("list", help="estimators, problems, suites and noises")
    kinds = ("estimators", "problems", "suites", "noises")
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

    command = commands.add_parser("plot", help="draw the figures, PDF and PNG")
    command.add_argument("directory", type=Path, metavar="DIR")
    command.set_defaults(command=_plot)

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

    # Before the command or after it: two destinations, as the later would empty the earlier.
    some: dict[str, Any] = {"action": "append", "default": [], "metavar": "FILE"}
    plugin = "a Python file with more estimators, problems or suites; repeatable"
    parser.add_argument("--plugin", dest="plugins_before", help=plugin, **some)
    for command in commands.choices.values():
        command.add_argument("--plugin", dest="plugins_after", help=plugin, **some)
    return parser


def _list(options: argparse.Namespace) -> None:
    from gradbench import listing

    # As wide as the terminal, if there is one; whole lines for other programs.
    width = shutil.get_terminal_size(fallback=(0, 0)).columns or None
    kinds = [options.kind] if options.kind else options.kinds
    print("\n\n".join(listing.text(kind, width, options.markdown) for kind in kinds))


def _run(options: argparse.Namespace) -> None:
    from gradbench.results import plot
    from gradbench.runner import describe, run

    if options.dry_run:
        print(describe(options.suite, options.seed, options.draws, options.quick))
        return
    results = run(options.suite, options.out, options.seed, options.draws, quick=options.quick)
    _say_figures(plot(results.directory))
    print(f"the table: gradbench show {results.directory}")


def _show(options: argparse.Namespace) -> None:
    if options.name is None:
        if options.directory == "estimator" and not Path("estimator").exists():
            raise GradbenchError("show estimator got no name; give one, as in show estimator psa")
        from gradbench.results import show

        print(show(options.directory))
    elif options.directory == "estimator":
        from gradbench.listing import estimator

        print(estimator(options.name))
    else:
        raise GradbenchError(
            f"show got {options.directory!r} and {options.name!r}; give one directory, or "
            "'estimator' and a name"
        )


def _plot(options: argparse.Namespace) -> None:
    from gradbench.results import plot, unfinished, unfinished_line

    _say_figures(plot(options.directory))
    if line := unfinished_line(*unfinished(options.directory)):
        print(line)


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


def _say_figures(paths: Sequence[Path]) -> None:
    for path in paths:
        print(f"figure: {path}")


if __name__ == "__main__":
    sys.exit(main())
