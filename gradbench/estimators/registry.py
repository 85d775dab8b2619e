"""The registry of estimators: what stands beside each function, and specs such as "psa"."""

import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Loss, Model
from gradbench.spec import parse_spec

Exactness = Literal["exact", "unbiased", "quadratic", "multilinear", "biased"]
Randomness = Literal["none", "states", "uniforms"]


class Entry(NamedTuple):
    """An estimator and its metadata.

    ``make(model, **hyper-parameters)`` gives the surrogate loss. ``exactness`` is the class for one
    layer and for all networks: "unbiased" for any objective and depth, "multilinear" for one layer
    and multilinear objectives, "biased" otherwise. ``randomness`` is what a draw depends on:
    nothing, the sampled states alone (exact moments by enumeration), or the uniforms themselves.
    ``cost`` is in objective evaluations per draw, "+G" for a gradient of the objective in the
    states; L layers, D units. ``differentiable``: needs an objective that is differentiable in the
    states. ``value_unbiased``: whether the value of the surrogate loss estimates J without bias.
    """

    name: str
    make: Callable[..., Loss]
    family: str
    exactness: Exactness
    randomness: Randomness
    cost: str
    differentiable: bool
    value_unbiased: bool
    source: str

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults."""
        signature = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


ESTIMATORS: dict[str, Entry] = {}


def register(
    *,
    family: str,
    exactness: Exactness,
    randomness: Randomness,
    cost: str,
    source: str,
    differentiable: bool = False,
    value_unbiased: bool = True,
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Registers an estimator ``name(model, *, hyper-parameters) -> loss`` under its own name."""

    def enter(make: Callable[..., Loss]) -> Callable[..., Loss]:
        ESTIMATORS[make.__name__] = Entry(
            make.__name__,
            make,
            family,
            exactness,
            randomness,
            cost,
            differentiable,
            value_unbiased,
            source,
        )
        return make

    return enter


def get_estimator(spec: str) -> tuple[Entry, dict[str, Any]]:
    """The entry and the hyper-parameters of a spec such as ``"concrete(temperature=0.1)"``.

    Raises:
        GradbenchError: malformed spec, unknown estimator or unknown hyper-parameter.
    """
    name, arguments = parse_spec(spec)
    if name not in ESTIMATORS:
        raise GradbenchError(f"unknown estimator {name!r}; {did_you_mean(name, ESTIMATORS)}")
    entry = ESTIMATORS[name]
    for argument in arguments:
        if argument not in entry.hyperparameters:
            remedy = (
                did_you_mean(argument, entry.hyperparameters)
                if entry.hyperparameters
                else "it has none"
            )
            raise GradbenchError(
                f"estimator {name!r} has no hyper-parameter {argument!r}; {remedy}"
            )
    return entry, arguments


def make_estimator(spec: str, model: Model) -> Loss:
    """The surrogate loss of a spec for a model, e.g. ``make_estimator("psa", model)``."""
    entry, arguments = get_estimator(spec)
    return entry.make(model, **arguments)


def check_spec(spec: str) -> None:
    """Refuses a spec that no estimator can be made from, whatever the model.

    Raises:
        GradbenchError: see ``get_estimator``; also a hyper-parameter with an impossible value.
    """
    make_estimator(spec, lambda params, example, binary: params)


def positive(name: str, value: object) -> None:
    """Refuses a value of a hyper-parameter that is not a positive number."""
    if type(value) not in (int, float) or not 0 < value < math.inf:  # type: ignore[operator]
        raise GradbenchError(f"{name} is {value!r}; give a positive number")
