"""Problems: a network, its data and its training, read from TOML files and checked.

A problem comes with the package, by name, or from a user's file, by path. Names that only JAX code
knows (estimators, noises, objectives) are checked where they are used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from gradbench.errors import GradbenchError
from gradbench.problems.data import check_data
from gradbench.spec import FORM, canonical
from gradbench.toml import (
    Table,
    Unfit,
    find,
    fraction,
    known,
    list_of,
    not_negative,
    number,
    one_of,
    record,
    several,
    string,
    whole,
)

UNTRAINED = 0  # the checkpoint of the initial parameters


@dataclass(frozen=True)
class Data:
    """A data set (``gradbench.problems.data``) and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class DenseLayer:
    """A dense stochastic layer: ``dense`` units, ``through`` deterministic tanh layers before."""

    dense: int
    through: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConvLayer:
    """A convolutional stochastic layer: ``conv`` channels, ``pool`` a window of pooling before."""

    conv: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class LogitsLayer:
    """A first layer that reads nothing: ``logits`` units, ``shared`` one logit, from ``value``."""

    logits: int
    shared: bool = False
    value: float = 0.0


@dataclass(frozen=True)
class Distance:
    """The toy objective mean_i |b_i - t_i|^power, or with ``total`` the sum, t the ``distance``."""

    distance: tuple[float, ...]
    power: float = 2.0
    total: bool = False


@dataclass(frozen=True)
class Polynomial:
    """The toy objective mean_i c_1 x_i + c_2 x_i^2 + ..., or with ``total`` the sum."""

    polynomial: tuple[float, ...]
    total: bool = False


@dataclass(frozen=True)
class Weights:
    """Binary weights: the ``noise`` of latent weights; ``activation`` None for stochastic units."""

    noise: str = "logistic"
    activation: str | None = None


@dataclass(frozen=True)
class Network:
    """A chain of stochastic layers and an objective.

    ``hidden`` are the stochastic layers, a number being that of dense units, ``outputs`` the size
    of the affine map that the objective reads, ``inputs`` the shape of an input where it is no
    vector, ``states`` the two values that the next layer reads for the states -1, +1. The objective
    "elbo" has a decoder for each layer, with its own deterministic layers in reverse, and the
    divergence ``kl``; "quadratic" and the tables of toys read the last states themselves.
    ``initialisation`` names how parameters are drawn, with ``scale`` the scale of pre-activations.
    """

    hidden: tuple[int | DenseLayer | ConvLayer | LogitsLayer, ...]
    objective: str | Distance | Polynomial
    outputs: int = 1
    inputs: tuple[int, ...] | None = None
    noise: str = "logistic"
    states: tuple[float, float] = (-1.0, 1.0)
    kl: str = "closed"
    weights: Weights | None = None
    initialisation: str = "normalised"
    scale: float = 1.0


@dataclass(frozen=True)
class WeightTraining:
    """How latent weights are trained, where not as the other parameters.

    ``strength`` is that of the proximal term, for ``proximal_kl`` alone.
    """

    optimiser: str
    rate: float
    strength: float = 0.0


@dataclass(frozen=True)
class Training:
    """How parameters are trained; ``checkpoints`` are numbers of epochs, 0 before the first."""

    estimator: str
    rate: float
    batch: int
    checkpoints: tuple[int, ...]
    momentum: float = 0.0
    optimiser: str = "sgd"
    weights: WeightTraining | None = None


@dataclass(frozen=True)
class Problem:
    """A network with its data. Gradients are measured on ``measured``, all of it as one batch.

    ``label`` is the width, depth or other number that a sweep varies, None without a sweep.
    ``base`` is the name that random keys are made from: the variants of a problem share it.
    """

    name: str
    title: str
    data: Data
    measured: Data
    network: Network
    training: Training | None
    label: float | None = None
    base: str = ""

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of epochs after which gradients are measured."""
        return self.training.checkpoints if self.training else (UNTRAINED,)

    def checkpoint_name(self, epoch: int) -> str:
        """What a checkpoint is called: "epoch 100", or "untrained" where none is trained."""
        return f"epoch {epoch}" if self.training else "untrained"


def list_problems() -> list[str]:
    """The names of the problems that come with the package, and of those of plugins."""
    return known("problem")


def load_problem(name_or_path: str | os.PathLike[str]) -> Problem:
    """A problem of the package or a plugin by name, or a user's by the path of its ``.toml`` file.

    Raises:
        GradbenchError: there is none, or something in it is wrong.
    """
    return read_problem(*find("problem", name_or_path))


def read_problem(
    name: str, table: Table, label: float | None = None, base: str | None = None
) -> Problem:
    """The problem that a table describes.

    Raises:
        GradbenchError: something in it is wrong.
    """
    data = _read_data(table)
    problem = Problem(
        name=name,
        title=table.take("title", string),
        data=data,
        measured=_read_measured(table, data),
        network=_read_network(table.table("network")),
        training=_read_training(table.optional_table("training")),
        label=label,
        base=base or name,
    )
    table.finish()
    return problem


def _read_data(table: Table) -> Data:
    data = table.table("data")
    name = data.take("name", string)
    return _checked(table, "data", Data(name, {key: data.values[key] for key in data.rest()}))


def _read_measured(table: Table, data: Data) -> Data:
    """The data set with the arguments of [measured] in the place of those of [data]."""
    measured = table.optional_table("measured")
    if measured is None:
        return data
    return _checked(table, "measured", Data(data.name, {**data.arguments, **measured.values}))


def _checked(table: Table, key: str, data: Data) -> Data:
    try:
        check_data(data.name, data.arguments)
    except GradbenchError as error:
        raise table.error(key, f"[{key}]: {error}") from None
    return data


def _read_network(table: Table) -> Network:
    network = Network(
        hidden=table.take("hidden", list_of(_layer)),
        objective=table.take("objective", _objective),
        outputs=table.take("outputs", whole(at_least=1), Network.outputs),
        inputs=table.take("inputs", list_of(whole(at_least=1)), Network.inputs),
        noise=table.take("noise", string, Network.noise),
        states=table.take("states", _pair, Network.states),
        kl=table.take("kl", one_of("closed", "sampled"), Network.kl),
        weights=_read_weights(table.optional_table("weights")),
        initialisation=table.take("initialisation", string, Network.initialisation),
        scale=table.take("scale", number(above=0), Network.scale),
    )
    table.finish()
    return network


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit("give true or false", value)
    return value


def _power(value: Any) -> float:
    power = number()(value)
    if power < 1:
        raise Unfit("give a finite number of at least 1", value)
    return power


def _objective(value: Any) -> str | Distance | Polynomial:
    """The name of an objective, or a table with the key distance or polynomial."""
    if not isinstance(value, dict):
        return string(value)
    numbers = list_of(number())
    if "polynomial" in value:
        return record(Polynomial, "polynomial", polynomial=numbers, total=_flag)(value)
    return record(Distance, "distance", distance=numbers, power=_power, total=_flag)(value)


def _layer(value: Any) -> int | DenseLayer | ConvLayer | LogitsLayer:
    """A stochastic layer: a number of dense units, or a table with the key dense, conv, logits."""
    count = whole(at_least=1)
    if not isinstance(value, dict):
        return count(value)
    if "logits" in value:
        logits = record(LogitsLayer, "logits", logits=count, shared=_flag, value=number())
        return logits(value)
    if "conv" in value:
        padding = whole(at_least=0)
        conv = record(
            ConvLayer, "conv", conv=count, kernel=count, stride=count, padding=padding, pool=count
        )
        return conv(value)
    return record(DenseLayer, "dense", dense=count, through=list_of(count))(value)


def _read_weights(table: Table | None) -> Weights | None:
    if table is None:
        return None
    weights = Weights(
        noise=table.take("noise", string, Weights.noise),
        activation=table.take("activation", string, Weights.activation),
    )
    table.finish()
    return weights


def _read_training(table: Table | None) -> Training | None:
    if table is None:
        return None
    training = Training(
        estimator=table.take("estimator", estimator),
        rate=table.take("rate", number(above=0)),
        batch=table.take("batch", whole(at_least=1)),
        checkpoints=table.take("checkpoints", several(whole(at_least=0))),
        momentum=table.take("momentum", fraction, Training.momentum),
        optimiser=table.take("optimiser", string, Training.optimiser),
        weights=_read_weight_training(table.optional_table("weights")),
    )
    table.finish()
    return replace(training, checkpoints=tuple(sorted(training.checkpoints)))


def _read_weight_training(table: Table | None) -> WeightTraining | None:
    if table is None:
        return None
    training = WeightTraining(
        optimiser=table.take("optimiser", string),
        rate=table.take("rate", number(above=0)),
        strength=table.take("strength", not_negative, WeightTraining.strength),
    )
    table.finish()
    return training


def estimator(value: Any) -> str:
    """The canonical text of an estimator: a kind of value in a TOML file."""
    try:
        return canonical(string(value))
    except GradbenchError:
        raise Unfit(FORM, value) from None


def _pair(value: Any) -> tuple[float, float]:
    values = several(number())(value)
    if len(values) != 2:
        raise Unfit("give two numbers, as [0, 1] or [-1, 1]", value)
    return values[0], values[1]
