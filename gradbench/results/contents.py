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
from gradbench.measure.blocks import Blocks
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
        # Of a sampled reference; an error is null where a gradient cannot be told from zero.
        "samples?": {
            "estimator": name,
            "draws": count,
            "rel_se": {...: (not_negative, None)},
            ...: anything,
        },
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
    """The value, the gradient ``[P]`` per layer, and facts about them such as the route.

    ``blocks`` are those of the draws that a sampled reference is the mean of, for each layer; they
    are None where the gradient is exact. A sampled value may be NaN, where it is not known.
    """

    value: float
    gradient: tuple[Floats, ...]
    info: Json
    blocks: tuple[Blocks, ...] | None = None

    @classmethod
    def stored(cls, arrays: Mapping[str, Floats], layers: int, info: Json) -> "Reference":
        """Return the reference that ``arrays`` says.

        Raises:
            ValueError: something in it is not as it has to be.
            KeyError: something is missing.
        """
        gradient = tuple(vector(arrays, str(n)) for n in range(layers))
        value = float(arrays["value"].reshape(()))
        if not gradient or not (np.isfinite(value) or ("samples" in info and np.isnan(value))):
            raise ValueError("value")
        if "samples" not in info:
            return cls(value, gradient, info)
        blocks = tuple(_blocks(arrays, n, own) for n, own in enumerate(gradient))
        if {own.draws for own in blocks} != {info["samples"]["draws"]}:
            raise ValueError("draws")
        return cls(value, gradient, info, blocks)


def blocks_apart(blocks: Sequence[Blocks]) -> dict[str, Floats]:
    """Return the blocks of each layer as arrays with names."""
    return {
        f"{n}/{name}": part for n, own in enumerate(blocks) for name, part in own._asdict().items()
    }


def _blocks(arrays: Mapping[str, Floats], layer: int, gradient: Floats) -> Blocks:
    """Return the blocks of a layer, whose mean is its gradient.

    Raises:
        ValueError: they are impossible.
        KeyError: something is missing.
    """
    found = Blocks(*(arrays[f"{layer}/{name}"] for name in Blocks._fields))
    counts, means, squares = found
    rows = (len(counts), len(gradient))
    if counts.ndim != 1 or len(counts) < 2 or means.shape != rows or squares.shape != rows:
        raise ValueError("blocks")
    if not all(np.isfinite(part).all() for part in found):
        raise ValueError("numbers")
    if (counts < 1).any() or (counts % 1).any() or (squares < 0).any():
        raise ValueError("moments")
    if not np.allclose(found.mean(), gradient, rtol=1e-9, atol=1e-9 * abs(gradient).max(initial=0)):
        raise ValueError("mean")
    return found


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


def vector(arrays: Mapping[str, Floats], name: str) -> Floats:
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
