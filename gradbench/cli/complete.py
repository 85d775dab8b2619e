"""What a shell completes: names of suites, estimators, problems and metrics, beside paths."""

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

VARIABLE = "_GRADBENCH_COMPLETE"  # set by the script that a shell has
SHELLS = ("bash", "zsh", "fish")
_Names = Callable[[click.Context], Iterable[str]]
_Complete = Callable[[click.Context, click.Parameter, str], list["CompletionItem"]]


def script(shell: str) -> str:
    """Return the script that lets one of the ``SHELLS`` complete the commands of gradbench."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(click.Command("gradbench"), {}, "gradbench", VARIABLE)
    return made.source_template % made.source_vars()


def answer(command: click.Command) -> bool:
    """Answer a shell that asks for completions; return whether one does."""
    if not (instruction := os.environ.get(VARIABLE)):
        return False
    from click.shell_completion import shell_complete

    with contextlib.suppress(Exception):  # what cannot be completed gets no traceback
        shell_complete(command, {}, "gradbench", VARIABLE, instruction)
    return True


def _completed(names: _Names, paths: str = "") -> _Complete:
    """Return the completion of a parameter by names and, after them, by the shell's ``paths``."""

    def complete(
        context: click.Context, _: click.Parameter, incomplete: str
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        found: set[str] = set()
        with contextlib.suppress(Exception):  # such as results that are damaged
            found = {name for name in names(context) if name.startswith(incomplete)}
        if paths and not found:
            return [CompletionItem(incomplete, type=paths)]
        return [CompletionItem(name) for name in sorted(found)]

    return complete


def _suites(_: click.Context) -> Iterable[str]:
    folder = Path(__file__).parents[1] / "suites"
    return [path.stem for path in folder.glob("*.toml")]


def _estimators(context: click.Context) -> Iterable[str]:
    """Return the estimators of the results on the line, or all that come with the package."""
    from gradbench.core import index
    from gradbench.core.registry import registry

    if here := _suite(context).get("estimators"):
        return list(here)
    known = index.indexed()
    return known if known is not None else registry("estimators").names()


def _problems(context: click.Context) -> Iterable[str]:
    problems = _suite(context).get("problems")
    if problems is None:
        folder = Path(__file__).parents[1] / "suites" / "problems"
        return [path.stem for path in folder.glob("*.toml")]
    return [problem["name"] for problem in problems]


def _suite(context: click.Context) -> dict[str, Any]:
    """Return the suite of the results that stand on the line, {} if none do."""
    import json

    # An option without its value, which is to be completed, leaves the arguments unread.
    said = (context.params.get("directory"), context.params.get("before"), *context.args)
    for manifest in (Path(place) / "manifest.json" for place in said if place is not None):
        if manifest.is_file():
            return dict(json.loads(manifest.read_bytes())["suite"])
    return {}


def _kinds(_: click.Context) -> Iterable[str]:
    from gradbench.cli.catalogue import kinds

    return kinds().split("\n")


suites = _completed(_suites, "file")
estimators = _completed(_estimators)
problems = _completed(_problems)
kinds = _completed(_kinds)
directories = _completed(lambda _: (), "dir")
files = _completed(lambda _: (), "file")
