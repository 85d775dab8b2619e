"""What an estimator is required to do, and whether it does."""

from typing import NamedTuple


class Check(NamedTuple):
    """A requirement: its ``name``, whether it ``passed``, and what was ``seen`` if it did not."""

    name: str
    passed: bool
    seen: str = ""
