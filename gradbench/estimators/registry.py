"""The registry of estimators: what stands beside each function, and specs such as "psa"."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from gradbench.core import plugins
from gradbench.core.contract import Loss, Model, Randomness
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.specs import parse_spec
from gradbench.estimators.cost import ONE, Cost

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
    def unitwise(self) -> bool:
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


# Registers an estimator that runs the model once and differentiates its objective in the states.
register_backprop = partial(register, cost=Cost(gradient=1), differentiable=True)


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
