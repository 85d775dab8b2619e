"""The registry of estimators: what stands beside each function, and specs such as "psa"."""

import contextlib
import inspect
import math
import re
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

from gradbench import plugins
from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Loss, Model, Randomness
from gradbench.spec import parse_spec

Exactness = Literal[
    "exact", "unbiased", "one layer", "quadratic", "multilinear", "linear", "biased"
]
EXACTNESS: dict[str, str] = {
    "exact": "the gradient itself",
    "unbiased": "any objective, any depth",
    "one layer": "one layer and any objective",
    "quadratic": "one layer and objectives of degree up to 2 in each unit",
    "multilinear": "one layer and multilinear objectives",
    "linear": "one layer and linear objectives",
    "biased": "nothing",
}  # what a class is exact for; each but "unbiased" includes those below it


class Cost(NamedTuple):
    """Evaluations per draw and example: of the objective, its gradient in the states, the layers.

    Formulas in L (layers), D (units), n (units of the last layer) and the hyper-parameters, such as
    ``Cost("samples", layers="samples * L")``. A layer is evaluated once for each states below it
    and once for a sheet of single flips (``flip_pull``), the objective once for each flip.
    """

    objective: str = "1"
    gradient: str = "0"
    layers: str = "L"

    def __str__(self) -> str:
        if self.gradient == "0":
            return self.objective
        times = "G" if self.gradient == "1" else f"{_factor(self.gradient)} G"
        return times if self.objective == "0" else f"{self.objective} + {times}"

    def evaluate(self, **sizes: Any) -> tuple[int, int, int]:
        """The three numbers for given ``sizes``: L, D, n and the hyper-parameters."""
        objective, gradient, layers = (eval(text, {"__builtins__": {}}, sizes) for text in self)
        return int(objective), int(gradient), int(layers)

    def __add__(self, other: Any) -> "Cost":
        return Cost(*(_sum(a, b) for a, b in zip(self, other, strict=True)))

    def times(self, n: Any) -> "Cost":
        """The cost of n draws."""
        return Cost(*(_product(str(n), part) for part in self))

    def at(self, **hyperparameters: Any) -> "Cost":
        """The formulas with the values of ``hyperparameters`` in the place of their names."""
        if not hyperparameters:
            return self
        names = re.compile(rf"\b({'|'.join(hyperparameters)})\b")
        return Cost(*(names.sub(lambda m: repr(hyperparameters[m[1]]), part) for part in self))


def _factor(formula: str) -> str:
    return formula if formula.isalnum() else f"({formula})"


def _sum(a: str, b: str) -> str:
    if "0" in (a, b):
        return b if a == "0" else a
    return str(int(a) + int(b)) if a.isdigit() and b.isdigit() else f"{a} + {b}"


def _product(n: str, part: str) -> str:
    if part in ("0", "1"):
        return n if part == "1" else "0"
    return str(int(n) * int(part)) if n.isdigit() and part.isdigit() else f"{n} * {_factor(part)}"


ONE = Cost()


class Entry(NamedTuple):
    """An estimator and its metadata.

    ``name`` is that of the function, ``family`` that of its file, ``source`` the paper.
    ``make(model, **hyper-parameters)`` gives the surrogate loss. ``exactness`` is what it claims to
    be exact for (``EXACTNESS``), ``cost`` its cost per draw; both may be functions of the
    hyper-parameters, see ``claim`` and ``price``. ``differentiable``: needs an objective that is
    differentiable in the states. ``value_unbiased``: whether the value of the surrogate loss
    estimates J without bias. ``needs``: what a model must have for it, empty where any model will
    do. ``layers``: "any" number, or "one" where a deeper model is refused.
    """

    name: str
    make: Callable[..., Loss]
    family: str
    exactness: Exactness | Callable[..., Exactness]
    cost: Cost | Callable[..., Cost]
    differentiable: bool | Callable[..., bool]
    value_unbiased: bool | Callable[..., bool]
    source: str
    needs: str = ""
    layers: Literal["any", "one"] = "any"

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def randomness(self) -> Randomness:
        """What a draw depends on, see ``gradbench.model.Lifted``."""
        return getattr(self.make(any_model), "randomness", "uniforms")

    @property
    def local(self) -> bool:
        """Whether it is a rule for single units, see ``gradbench.model.local``."""
        return not self.needs and getattr(self.make(any_model), "rule", None) is not None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Names and defaults."""
        signature = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}

    def claim(self, **hyperparameters: Any) -> Exactness:
        """What it is claimed to be exact for, with these ``hyperparameters``."""
        return self._at(self.exactness, hyperparameters)

    def price(self, **hyperparameters: Any) -> Cost:
        """The cost per draw, with these ``hyperparameters``."""
        return self._at(self.cost, hyperparameters)

    def needs_derivative(self, **hyperparameters: Any) -> bool:
        """Whether it differentiates the objective in the states, with these ``hyperparameters``."""
        return self._at(self.differentiable, hyperparameters)

    def estimates_value(self, **hyperparameters: Any) -> bool:
        """Whether its value estimates the loss without bias, with these ``hyperparameters``."""
        return self._at(self.value_unbiased, hyperparameters)

    def _at(self, fact: Any, hyperparameters: dict[str, Any]) -> Any:
        """A fact that may be a function of the hyper-parameters."""
        return fact(**(self.hyperparameters | hyperparameters)) if callable(fact) else fact


ESTIMATORS: dict[str, Entry] = {}


def register(
    *,
    family: str,
    exactness: Exactness | Callable[..., Exactness],
    source: str,
    cost: Cost | Callable[..., Cost] = ONE,
    differentiable: bool | Callable[..., bool] = False,
    value_unbiased: bool | Callable[..., bool] = True,
    needs: str = "",
    layers: Literal["any", "one"] = "any",
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Registers an estimator ``name(model, *, hyper-parameters) -> loss`` under its own name.

    ``family``, ``exactness``, ``source``, ``cost``, ``differentiable``, ``value_unbiased``,
    ``needs`` and ``layers`` are as in ``Entry``.

    Raises:
        GradbenchError: another module has registered that name.
    """

    def enter(make: Callable[..., Loss]) -> Callable[..., Loss]:
        known = ESTIMATORS.get(make.__name__)
        if known and known.make.__module__ != make.__module__:  # that same module may run again
            raise GradbenchError(
                f"the estimator {make.__name__!r} is registered already, by "
                f"{known.make.__module__}; give the other one another name"
            )
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
            layers,
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
        plugins.load_installed("estimators")
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
    """The surrogate loss of a spec for a model, e.g. ``make_estimator("psa", model)``.

    Raises:
        GradbenchError: as ``check_spec``; also a model that the estimator is not made for.
    """
    entry, arguments = get_estimator(spec)
    return entry.make(model, **arguments)


def check_spec(spec: str) -> None:
    """Refuses a spec that no estimator can be made from, whatever the model.

    Raises:
        GradbenchError: see ``get_estimator``; also a hyper-parameter with an impossible value.
    """
    make_estimator(spec, any_model)


def less_exact(*specs: str) -> Exactness:
    """The least exact of the classes that some estimators claim, for what is made of them all."""
    claims = [entry.claim(**arguments) for entry, arguments in map(get_estimator, specs)]
    return max(claims, key=list(EXACTNESS).index)


def derivative_of(*specs: str) -> bool:
    """Whether any of some estimators differentiates the objective in the states."""
    return any(entry.needs_derivative(**args) for entry, args in map(get_estimator, specs))


def value_of(*specs: str) -> bool:
    """Whether the values of all of some estimators estimate the loss without bias."""
    return all(entry.estimates_value(**args) for entry, args in map(get_estimator, specs))


def price_of(spec: str) -> Cost:
    """The cost per draw of a spec, in formulas without its hyper-parameters."""
    entry, arguments = get_estimator(spec)
    return entry.price(**arguments).at(**(entry.hyperparameters | arguments))


def evaluations(spec: str, units: Sequence[int], chain: bool = True) -> int:
    """Evaluations of the objective per draw and example, in a model with these layers of units.

    One of its gradient in the states counts as one more. A model that is no ``chain``, as an
    ``SBN`` is, has to be run again for flips of units of any layer, as if all were in the last.
    """
    entry, arguments = get_estimator(spec)
    sizes = {"L": len(units), "D": sum(units), "n": units[-1] if chain else sum(units)}
    objective, gradient, _ = entry.price(**arguments).evaluate(
        **sizes, **(entry.hyperparameters | arguments)
    )
    return objective + gradient


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


def at_least(least: int, name: str, value: object) -> int:
    """The value of a hyper-parameter that has to be a whole number of at least ``least``.

    Raises:
        GradbenchError: it is none.
    """
    number = _number(value)
    if not (number >= least and number.is_integer()):
        raise GradbenchError(f"{name} is {value!r}; give a whole number of at least {least}")
    return int(number)


def fraction(name: str, value: object) -> float:
    """The value of a hyper-parameter that has to be a number from 0 to 1.

    Raises:
        GradbenchError: it is none.
    """
    number = _number(value)
    if not 0 <= number <= 1:
        raise GradbenchError(f"{name} is {value!r}; give a number from 0 to 1")
    return number
