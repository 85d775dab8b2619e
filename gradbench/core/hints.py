"""Warnings about what runs but is seldom meant, each of them once."""

import warnings

_told: set[str] = set()


def hint(what: str) -> None:
    """Warn the caller of a public function once in this process.

    Args:
        what: the sentence, with a remedy.
    """
    if what not in _told:
        warnings.warn(what, stacklevel=4)
        _told.add(what)
