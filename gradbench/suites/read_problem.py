"""Problems read from TOML, and checked without JAX."""

import os
from dataclasses import replace
from typing import Any

from gradbench.core.errors import GradbenchError
from gradbench.suites.config import (
    Table,
    Unfit,
    estimator,
    fraction,
    list_of,
    not_negative,
    number,
    one_of,
    record,
    several,
    string,
    whole,
)
from gradbench.suites.data import check_data
from gradbench.suites.library import find, known
from gradbench.suites.problem import (
    ConvLayer,
    Data,
    DenseLayer,
    Distance,
    LogitsLayer,
    Network,
    Polynomial,
    Problem,
    Training,
    Weights,
    WeightTraining,
    _pair,
)


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
