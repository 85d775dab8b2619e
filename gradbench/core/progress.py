"""The progress of what takes long, on the standard error: a bar on a terminal, else plain lines.

Whoever does something long says ``step("figure rmse")`` at the beginning of each part of it. What
is shown, if anything, is up to the ``Progress`` that is open around it.
"""

import contextlib
import sys
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from gradbench.core.names import visible

_SHORT = 1.0  # seconds: steps without draws are told when they took longer
_OPEN: ContextVar["Progress | None"] = ContextVar("progress", default=None)


def step(text: str) -> None:
    """Say what begins now, where progress is shown."""
    if (shown := _OPEN.get()) is not None:
        shown.set_description(text)


class Progress:
    """Progress in steps, with a line for each one that is done; a context manager.

    On a terminal a bar below these lines tells the step that runs, what is done of ``total`` and
    the time left. Where a line cannot be written, none is.

    Args:
        lines: whether steps that are done are told, off a terminal too.
        total: the number of units, such as draws; None where it is not known.
        unit: what is counted, such as "draws".
        initial: how many of them are done already.
        show: whether to show anything.
    """

    def __init__(
        self,
        total: int | None = None,
        unit: str = "",
        initial: int = 0,
        lines: bool = True,
        show: bool = True,
    ) -> None:
        self._lines = lines
        self._total, self._unit, self._show = total, unit, show
        self._done, self._in_step = initial, 0
        self._text, self._since = "", time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    @property
    def disable(self) -> bool:
        """Whether steps show no bars of their own: a second one would garble this one."""
        return True

    def __enter__(self) -> Self:
        self._token = _OPEN.set(self)
        if self._show and _is_terminal():
            self._bar, self._task = _bar(self._total, self._done)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._end_step()
        _OPEN.reset(self._token)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def set_description(self, text: str) -> None:
        """Begin a step; the one before it is done."""
        self._end_step()
        self._text, self._since, self._in_step = visible(text), time.monotonic(), 0
        if self._bar is not None:
            self._bar.update(self._task, description=self._text)

    def update(self, number: int = 1) -> None:
        """Count so many units that are done."""
        self._done += number
        self._in_step += number
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    def tell(self, text: str, number: int, seconds: float) -> None:
        """Tell a step that others have done, with its units, which ``update`` has counted."""
        if self._show and self._lines:
            self._say(visible(text), number, seconds)

    def _end_step(self) -> None:
        seconds = time.monotonic() - self._since
        if (
            not self._text
            or not (self._show and self._lines)
            or not (self._in_step or seconds > _SHORT)
        ):
            return
        self._say(self._text, self._in_step, seconds)
        self._text = ""

    def _say(self, text: str, number: int, seconds: float) -> None:
        counted = f", {number:,} {self._unit}" if number and self._unit else ""
        share = f", {self._done / self._total:.0%} done" if self._total else ""
        line = f"{text}{counted}, {seconds:.1f} s{share}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # nobody reads it
                print(line, file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _bar(total: int | None, done: int) -> tuple[Any, Any]:
    """Return a bar of the library rich, which is loaded here alone, and its task."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    text = TextColumn(
        "{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True)
    )
    known = [BarColumn(bar_width=16), TaskProgressColumn(), TimeRemainingColumn()]
    columns = [SpinnerColumn(), text, *(known if total else [TimeElapsedColumn()])]
    bar = Progress(
        *columns, console=Console(stderr=True), transient=True, refresh_per_second=4, expand=True
    )
    return bar, bar.add_task("", total=total, completed=done)
