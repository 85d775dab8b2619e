"""Ctrl-C and SIGTERM end a command alike: files are whole, and what was measured stays."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

INTERRUPTED = 130  # as shells report Ctrl-C
TERMINATED = 143  # and SIGTERM
_SOON = 0.05  # seconds


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Return a context in which SIGTERM raises ``Terminated``, as Ctrl-C does KeyboardInterrupt.

    None of them gets lost: where Python or JAX is in the middle of a callback whose errors it only
    prints, or that it turns into an error of its own, the interrupt is raised after that. Signals
    that the process was told to ignore stay ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[type[KeyboardInterrupt]] = []

    def interrupt(number: int, _: Any) -> NoReturn:
        received.append(Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        raise received[-1]

    def again(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            show(lost)
            return
        number = signal.SIGTERM if issubclass(lost.exc_type, Terminated) else signal.SIGINT
        timer = threading.Timer(_SOON, os.kill, (os.getpid(), number))
        timer.daemon = True
        timer.start()

    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.getsignal(number) for number in usual}
    show, sys.unraisablehook = sys.unraisablehook, again
    try:
        for number, handler in usual.items():
            if before[number] is handler:
                signal.signal(number, interrupt)
        yield
    except Exception as error:
        if received:  # JAX has made an error of its own of it
            raise received[-1] from error
        raise
    finally:
        sys.unraisablehook = show
        for number, own in before.items():
            signal.signal(number, own)


def code_of(error: KeyboardInterrupt) -> int:
    """Return the exit code of a command that was interrupted."""
    return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
