"""Data sets by name, with ``inputs [n, d]`` in float64 and ``targets [n, ...]``.

A data set is a function of a random generator and of its arguments. The generator is made from the
seed and the data set's name, never from a global state, so that the same names give the same data
in every process and on every machine.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints

import numpy as np
from jaxtyping import Float, Shaped
from numpy.random import Generator
from pydantic import ValidationError

from gradbench.core.errors import GradbenchError
from gradbench.core.fields import Whole
from gradbench.core.registry import Registry
from gradbench.core.seeds import named_generator
from gradbench.suites.parse import parse


class Examples(NamedTuple):
    """Inputs, each with its target: -1 or +1, an integer class, a number, or several of them."""

    inputs: Float[np.ndarray, "n d"]
    targets: Shaped[np.ndarray, "n *outputs"]


MOST = 10**7  # examples: more is a slip of the pen, and would end in a lack of memory
DATA: Registry[Callable[..., Examples]] = Registry(
    "data set", modules=("gradbench.suites.known_data", "gradbench.suites.own_data")
)


def data_set(make: Callable[..., Examples]) -> Callable[..., Examples]:
    """Register ``make(generator, **arguments) -> Examples`` under its own name.

    The arguments have annotations, such as ``int`` (1 to ``MOST``), ``float``, ``bool``, ``int |
    None`` or ``Literal``, which TOML files are checked against.
    """
    return DATA.add(make.__name__, make)


def load_data(
    name: str, arguments: Mapping[str, Any] | None = None, seed: int = 0, replicate: int = 0
) -> Examples:
    """Return the data set of a name, drawn anew for every seed and replicate.

    Raises:
        GradbenchError: the name or an argument is unknown, or an argument has no fitting value.
    """
    arguments = check_data(name, arguments or {})
    name = DATA.canonical(name)
    return DATA[name](named_generator(seed, "data", name, str(replicate)), **arguments)


def check_data(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a data set, checked without making the data.

    Raises:
        GradbenchError: the name or an argument is unknown, or an argument has no fitting value.
    """
    make = DATA.find(name)
    try:
        found = parse(arguments_of(make), arguments)
    except ValidationError as error:
        said = []
        for fault in error.errors(include_url=False):
            key, remedy = fault["loc"][0], fault["ctx"]["remedy"]
            problem = {
                "unknown": f"has no argument {key!r}",
                "missing": f"got no {key}",
                "unfit": f"got {key} = {arguments.get(str(key))!r}",
            }[fault["type"]]
            said.append(f"the data set {name!r} {problem}; {remedy}")
        raise GradbenchError("\n".join(said)) from None
    return {key: getattr(found, key) for key in arguments}


@lru_cache(maxsize=256)
def arguments_of(make: Callable[..., Examples]) -> type[Any]:
    """Return the arguments of a data set as a dataclass; its whole numbers are 1 to ``MOST``."""
    hints = get_type_hints(make, include_extras=True)
    size = Annotated[int, Whole(1, MOST)]
    sized = {int: size, int | None: size | None}
    parts = []
    for name, parameter in list(inspect.signature(make).parameters.items())[1:]:
        kind = hints.get(name, Any)
        optional = parameter.default is not inspect.Parameter.empty
        default = field(default=parameter.default) if optional else field()
        parts.append((name, sized.get(kind, kind), default))
    return make_dataclass(make.__name__, parts, frozen=True, namespace={"__doc__": make.__doc__})


@data_set
def overlapping_classes(rng: Generator, points: int = 200) -> Examples:
    """Two classes in the plane that overlap, half the points each, in random order.

    Class +1 is uniform on (-pi/2, pi/2) x (0, 1), class -1 uniform on the part of
    (-pi/2, pi/2) x (-1, 1) below the cosine. Source: the experiment on gradient accuracy of the PSA
    paper (Shekhovtsov, Yanush and Flach, 2020).
    """
    positive = _box(rng, points // 2, low=0)
    negative = _below_cosine(rng, points - points // 2)
    targets = np.repeat([1.0, -1.0], [len(positive), len(negative)])
    order = rng.permutation(points)
    return Examples(np.concatenate([positive, negative])[order], targets[order])


def _box(rng: Generator, points: int, low: float) -> Float[np.ndarray, "points 2"]:
    return rng.uniform([-np.pi / 2, low], [np.pi / 2, 1], (points, 2))


def _below_cosine(rng: Generator, points: int) -> Float[np.ndarray, "points 2"]:
    accepted = np.empty((0, 2))
    while len(accepted) < points:
        candidates = _box(rng, points, low=-1)
        below = candidates[:, 1] < np.cos(candidates[:, 0])
        accepted = np.concatenate([accepted, candidates[below]])
    return accepted[:points]


@data_set
def digits(
    rng: Generator, split: Literal["train", "test"] = "train", examples: int | None = None
) -> Examples:
    """Handwritten digits, 8x8 pixels scaled to [0, 1], classes 0 to 9: 1297 to train, 500 to test.

    The split does not depend on the seed, and ``examples`` takes the first so many of it, in an
    order that is random and fixed. Source: UCI, optical recognition of handwritten digits, in the
    copy that scikit-learn carries.

    Raises:
        GradbenchError: the split has fewer examples.
    """
    from sklearn.datasets import load_digits  # slow to import

    pixels, classes = load_digits(return_X_y=True)
    order = named_generator(0, "digits", "split").permutation(len(pixels))
    chosen = order[500:] if split == "train" else order[:500]
    if examples is not None and examples > len(chosen):
        raise GradbenchError(
            f"the {split} split of the digits has {len(chosen)} examples, not {examples}; "
            "ask for fewer"
        )
    chosen = chosen[:examples]
    return Examples(pixels[chosen] / 16, classes[chosen])


@data_set
def binary_digits(
    rng: Generator, split: Literal["train", "test"] = "train", examples: int | None = None
) -> Examples:
    """Handwritten digits as bits, +1 above half of the full scale and else -1, also as targets."""
    pixels = np.where(digits(rng, split, examples).inputs > 0.5, 1.0, -1.0)
    return Examples(pixels, pixels)


@data_set
def topics(rng: Generator, documents: int = 200, words: int = 30, length: int = 40) -> Examples:
    """Make bags of words: documents that mix two of four topics; inputs are log(1 + count).

    Topics are drawn from a Dirichlet distribution with parameter 0.1, shares of a document's topics
    uniformly. It is made for semantic hashing.
    """
    topic = rng.dirichlet(np.full(words, 0.1), 4)
    pairs = np.array([rng.choice(4, 2, replace=False) for _ in range(documents)])
    share = rng.uniform(size=(documents, 1))
    mixed = share * topic[pairs[:, 0]] + (1 - share) * topic[pairs[:, 1]]
    counts = np.array([rng.multinomial(length, p / p.sum()) for p in mixed]).astype(float)
    return Examples(np.log1p(counts), counts)


@data_set
def nothing(rng: Generator) -> Examples:
    """One example without inputs, for a first layer of logits; its target is always 0."""
    return Examples(np.zeros((1, 0)), np.zeros(1))


@data_set
def quadratic_form(rng: Generator, units: int = 8) -> Examples:
    """One example without inputs; its target is a random quadratic form, Q with c as last column.

    Q is symmetric, its diagonal and c from N(0, 1), the rest from N(0, 1/2).
    """
    a = rng.standard_normal((units, units + 1))
    q = (a[:, :-1] + a[:, :-1].T) / 2
    return Examples(np.zeros((1, 0)), np.concatenate([q, a[:, -1:]], axis=1)[None])
