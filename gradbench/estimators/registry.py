"""The registry of estimators: what stands beside each function, and specs such as "psa"."""

import contextlib
import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any, Literal, NamedTuple

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Loss, Model, Randomness
from gradbench.spec import parse_spec

Exactness = Literal["exact", "unbiased", "quadratic", "multilinear", "biased"]


class Entry(NamedTuple):
    """An estimator and its metadata.

    ``make(model, **hyper-parameters)`` gives the surrogate loss. ``exactness`` is the class for one
    layer and for all networks: "unbiased" for any objective and depth, "quadratic" for one layer
    and objectives of degree up to 2 in each unit, "multilinear" for one layer and multilinear
    objectives, "biased" otherwise. ``cost`` is in objective evaluations per draw,
    "+G" for a gradient of the objective in the states; L layers, D units, n in the last layer.
    ``differentiable``: needs an objective that is differentiable in the states.
    ``value_unbiased``: whether the value of the surrogate loss estimates J without bias. ``needs``:
    what a model must have for it, empty where any model will do.
    """

    name: str
    make: Callable[..., Loss]
    family: str
    exactness: Exactness
    cost: str
    differentiable: bool
    value_unbiased: bool
    source: str
    needs: str = ""

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def randomness(self) -> Randomness:
        """What a draw depends on, see ``gradbench.model.Lifted``."""
        return getattr(self.make(any_model), "randomness", "uniforms")

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
    cost: str,
    source: str,
    differentiable: bool = False,
    value_unbiased: bool = True,
    needs: str = "",
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Registers an estimator ``name(model, *, hyper-parameters) -> loss`` under its own name."""

    def enter(make: Callable[..., Loss]) -> Callable[..., Loss]:
        ESTIMATORS[make.__name__] = Entry(
            make.__name__,
            make,
            family,
            exactness,
            cost,
            differentiable,
            value_unbiased,
            source,
            needs,
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
    make_estimator(spec, any_model)


def any_model(params: Any, example: Any, binary: Any) -> Any:
    """Stands for a model where an estimator is made and not run."""
    raise AssertionError("not to be run")


def finite(name: str, value: object) -> float:
    """The value of a hyper-parameter that has to be a finite number, of Python or of numpy.

    Raises:
        GradbenchError: it is none.
    """
    number = _number(value)
    if not math.isfinite(number):
        raise GradbenchError(f"{name} is {value!r}; give a number")
    return number


def positive(name: str, value: object) -> float:
    """The value of a hyper-parameter that has to be a positive number, of Python or of numpy.

    Raises:
        GradbenchError: it is none.
    """
    number = _number(value)
    if not 0 < number < math.inf:
        raise GradbenchError(f"{name} is {value!r}; give a positive number")
    return number


def _number(value: object) -> float:
    if not isinstance(value, bool) and isinstance(value, Real):
        with contextlib.suppress(OverflowError):  # an integer too large for a float
            return float(value)
    return math.nan
