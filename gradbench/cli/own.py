"""Problems of one's own on the command line."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradbench.cli.options import print_figures, say
from gradbench.core.errors import GradbenchError


def is_own(name: str) -> bool:
    """Return whether what is to be run is a problem of a Python file or module, and no suite."""
    return name.endswith(".py") or (":" in name and not name.endswith(".toml"))


def refuse_options(name: str, options: Mapping[str, object]) -> None:
    """Refuse options that are for suites alone.

    Raises:
        GradbenchError: names the first of them that is given.
    """
    for option, value in options.items():
        if value:
            raise GradbenchError(f"--{option} is for suites, and {name!r} is none; leave it out")


def run_own(path: str, estimators: list[str] | None, cache: bool, **how: Any) -> None:
    """Measure a problem of one's own, and draw its figures and a report.

    Args:
        path: "file.py:name" or "module:name".
        estimators: specs, or None for all that fit.
        cache: whether to keep compiled programs.
        how: arguments of ``gradbench.evaluate``; ``out`` may be None.

    Raises:
        GradbenchError: as ``read_own`` and ``gradbench.evaluate``.
    """
    from gradbench.advise.evaluate import evaluate
    from gradbench.advise.own import default_directory, double_precision, read_own
    from gradbench.core.compiling import kept_programs
    from gradbench.metrics import verdict_text

    problem = read_own(path)
    out = Path(how.pop("out") or default_directory(path))
    with double_precision(), kept_programs(cache):
        results = evaluate(
            *problem[1:], estimators=estimators, out=out, name=problem.name, **limited(how)
        )
    if not how["progress"]:
        results.plot()
        results.report()
        return
    say(results)
    say(verdict_text.text(results.decide()))
    print_figures(results.plot())
    say(f"the report: {results.report()}")
    say(f"the table: gradbench show {results.directory}")


def limited(how: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in which a time limit of infinity is None, and one of None is not there."""
    found = dict(how)
    limit = found.pop("time_limit")
    return found if limit is None else {**found, "time_limit": None if limit == math.inf else limit}
