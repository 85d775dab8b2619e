"""Processes that end with the one that began them, also where that is killed while they start.

It imports nothing that takes long: a worker watches its parent before it loads JAX.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_with(parent: int) -> None:
    """End this process, whatever it computes, as soon as its ``parent`` is no more."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Return a context at whose end SIGINT and SIGTERM are seen that came meanwhile.

    An exception in the middle of ``subprocess.Popen`` would leave a process that nobody knows of.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        seen.append(number)

    before = {
        number: signal.signal(number, note)
        for number in _SIGNALS
        if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in seen:
            signal.raise_signal(late)
