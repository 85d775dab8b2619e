"""What is known of a data set, and how its arrays are made of what is published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradbench.suites.datasets.bags import WORDS, bags
from gradbench.suites.datasets.content import Content, Part

Arrays = dict[str, NDArray[Any]]


def joined(parts: Mapping[str, Content]) -> Arrays:
    """Return the arrays: a part whose name ends with a number is one of several in a row."""
    found: dict[str, list[Any]] = {}
    for name, part in parts.items():
        found.setdefault(name.rstrip("0123456789").rstrip("_"), []).append(part)
    return {name: np.concatenate(own) for name, own in found.items()}


@dataclass(frozen=True)
class Source:
    """A data set of the literature.

    Attributes:
        title: what it is, in a line.
        licence: on which terms it may be used.
        paper: what to cite.
        examples: how many there are to train and to test with.
        parts: what has to be found, as it is published.
        digest: of the arrays that are made of the parts.
        files: the files as they are published, each with its MD5 sum where one is known.
        hosts: the addresses that the files lie at, in the order in which they are tried.
        make: the function that makes the arrays ``train_inputs`` [n, ...], ``train_targets`` [n],
            ``test_inputs`` and ``test_targets`` of the parts.
    """

    title: str
    licence: str
    paper: str
    examples: tuple[int, int]
    parts: tuple[Part, ...]
    digest: str
    files: Mapping[str, str | None]
    hosts: tuple[str, ...]
    make: Callable[[Mapping[str, Content]], Arrays] = joined

    @property
    def inputs(self) -> str:
        """The size of an input in words, as "28x28"."""
        shape = self.parts[0].shape
        return f"{WORDS} words" if shape is None else "x".join(map(str, shape))


def images(train: int, shape: tuple[int, ...], digests: tuple[str, ...]) -> tuple[Part, ...]:
    """Return the parts of images and classes, of so many to train and 10000 to test with."""
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    sizes = [(train, shape), (train, ()), (10_000, shape), (10_000, ())]
    return tuple(
        Part(name, rows, own, digest)
        for name, (rows, own), digest in zip(names, sizes, digests, strict=True)
    )


def batches(digests: tuple[tuple[str, str], ...]) -> tuple[Part, ...]:
    """Return the parts of CIFAR-10, five batches to train and one to test with."""
    names = [("train", f"_{k}") for k in range(1, 6)] + [("test", "")]
    return tuple(
        Part(f"{split}_{kind}{number}", 10_000, shape, digest)
        for (split, number), both in zip(names, digests, strict=True)
        for kind, shape, digest in zip(("inputs", "targets"), ((32, 32, 3), ()), both, strict=True)
    )


def documents(train: int, test: int, digests: tuple[str, str]) -> tuple[Part, ...]:
    """Return the parts of so many documents to train and to test with."""
    return (Part("train", train, None, digests[0]), Part("test", test, None, digests[1]))


def fifths(parts: Mapping[str, Content]) -> Arrays:
    """Return arrays whose every fifth example is one to test with."""
    test = np.arange(len(parts["inputs"])) % 5 == 4
    return {
        f"{split}_{kind}": np.asarray(parts[kind])[own]
        for split, own in (("train", ~test), ("test", test))
        for kind in ("inputs", "targets")
    }


def bags_of(parts: Mapping[str, Content]) -> Arrays:
    """Return the arrays of documents, see ``bags``."""
    return bags(list(parts["train"]), list(parts["test"]))
