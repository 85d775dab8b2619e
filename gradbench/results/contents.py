"""What files of results have inside: parameters as a tree of arrays, vectors, and facts."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from gradbench.core.atomic import CorruptFile, Floats, Json
from gradbench.core.errors import GradbenchError
from gradbench.results.shape import (
    Shape,
    anything,
    count,
    name,
    not_negative,
    number,
    positive,
    text,
)

# The facts in the files of each kind; more of them may be there.
FACTS: dict[str, Shape] = {
    "checkpoints": {"tree": name, ...: anything},
    "references": {
        "agreement?": {
            "finite difference": not_negative,
            "brute force?": (not_negative, None),
            ...: (number, None),
        },
        ...: anything,
    },
    "moments": {...: anything},
    # The times, which are measured at the end of a run; the first of older gradbench has no spread.
    "costs": {
        "evaluations": not_negative,
        "seconds?": positive,
        "spread?": not_negative,
        "repeats?": count,
        "latency?": positive,
        "latency_spread?": not_negative,
        "machine?": text,
        ...: (number, None, [number], name),
    },
}


class Reference(NamedTuple):
    """The exact value, the gradient ``[P]`` per layer, and facts about them such as the route."""

    value: float
    gradient: tuple[Floats, ...]
    info: Json


def take_apart(tree: Any, name: str, arrays: dict[str, Any]) -> Any:
    """Return a tree as JSON with a name for each array, such as "0/weight", and fill ``arrays``."""
    if isinstance(tree, Mapping):
        return {
            key: take_apart(part, f"{name}/{quote(key, safe='')}", arrays)
            for key, part in tree.items()
        }
    if isinstance(tree, Sequence):
        return [take_apart(part, f"{name}/{n}", arrays) for n, part in enumerate(tree)]
    arrays[name[1:]] = tree
    return name[1:]


def put_together(tree: Any, arrays: Mapping[str, Floats]) -> Any:
    """Return the tree with its arrays; the contrary of ``take_apart``."""
    if isinstance(tree, dict):
        return {key: put_together(part, arrays) for key, part in tree.items()}
    if isinstance(tree, list):
        return tuple(put_together(part, arrays) for part in tree)
    return arrays[tree]


def vector(arrays: dict[str, Floats], name: str) -> Floats:
    """Return an array that is a vector of finite numbers.

    Raises:
        ValueError: it is not.
        KeyError: it is missing.
    """
    if arrays[name].ndim != 1 or not np.isfinite(arrays[name]).all():
        raise ValueError(name)
    return arrays[name]


@contextlib.contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Tell that a file is not as gradbench writes it, where it lacks something inside."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, GradbenchError):
            raise
        raise CorruptFile(
            f"{str(path)!r} is not as gradbench writes it; delete it and run again"
        ) from error


def natural_order(names: tuple[object, ...]) -> list[list[str | int]]:
    """Return a key that sorts numbers inside names by their size ("2" before "10")."""
    parts = (re.split(r"(\d+)", str(name)) for name in names)
    return [[int(part) if part.isdecimal() else part for part in split] for split in parts]
