"""The registry of estimators: the facts about each function, and specs such as "psa"."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from gradbench.core import specs
from gradbench.core.contract import Loss, Model, Randomness
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.index import Description
from gradbench.core.registry import Registry, spelled
from gradbench.estimators.cost import ONE, Cost
from gradbench.estimators.exactness import EXACTNESS, Exactness
from gradbench.estimators.literature import ABSENT, synonyms


class Entry(NamedTuple):
    """An estimator and the facts about it.

    ``name`` is the name of its function and ``family`` decides its colour in figures.
    ``make(model, **hyper-parameters)`` returns the surrogate loss, ``source`` is the paper.
    ``exactness`` is what the estimator claims to be exact for (``EXACTNESS``) and ``cost`` its cost
    per draw; both may be functions of the hyper-parameters, see ``claim`` and ``price``.
    ``differentiable``: the objective must be differentiable in the states. ``value_unbiased``: the
    value of the surrogate loss estimates J without bias. ``needs``: what a model must have, empty
    where any model will do. ``layers``: "any" number, or "one" where a deeper model is refused.
    ``depth_claims``: names of ``DEPTHS``, what it is exact for in networks of several layers beside
    its class; a tuple, or a function of the hyper-parameters. ``presets``: names of the literature
    for it with other hyper-parameters than the defaults, and these. ``full_name``: its name in
    words, ``display_name``: what figures call it, see ``gradbench.core.display``. ``paper``: a
    link, ``as_published``: what the authors have where it is no default here, ``formula``: TeX.
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
    depth_claims: tuple[str, ...] | Callable[..., tuple[str, ...]] = ()
    presets: Mapping[str, Mapping[str, Any]] = {}
    full_name: str = ""
    display_name: str = ""
    paper: str = ""
    as_published: str = ""
    formula: str = ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.make) or "").partition("\n")[0]

    @property
    def randomness(self) -> Randomness:
        """The randomness that a draw depends on, see ``gradbench.core.run.SurrogateLoss``."""
        return self._made("randomness", "uniforms")

    @property
    def unitwise(self) -> bool:
        """True if it is a rule for single units, see ``gradbench.core.surrogate``."""
        return not self.needs and self._made("rule", None) is not None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The names and defaults."""
        signature = inspect.signature(self.make).parameters.values()
        return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}

    def claim(self, **hyperparameters: Any) -> Exactness:
        """Return what it claims to be exact for with these ``hyperparameters``."""
        return self._at(self.exactness, hyperparameters)

    def claim_in_depth(self, **hyperparameters: Any) -> tuple[str, ...]:
        """Return the names of ``DEPTHS`` that it claims with these ``hyperparameters``."""
        return self._at(self.depth_claims, hyperparameters)

    def price(self, **hyperparameters: Any) -> Cost:
        """Return the cost per draw with these ``hyperparameters``."""
        return self._at(self.cost, hyperparameters)

    def needs_derivative(self, **hyperparameters: Any) -> bool:
        """Return whether it differentiates the objective, with these ``hyperparameters``."""
        return self._at(self.differentiable, hyperparameters)

    def estimates_value(self, **hyperparameters: Any) -> bool:
        """Return whether its value has no bias as the loss, with these ``hyperparameters``."""
        return self._at(self.value_unbiased, hyperparameters)

    def describe(self, **hyperparameters: Any) -> Description:
        """Return all this in words, for ``hyperparameters`` and the defaults of the others."""
        cost = self.price(**hyperparameters)
        if hyperparameters:
            cost = cost.at(**(self.hyperparameters | hyperparameters))
        return Description(
            name=self.name,
            aliases=ESTIMATORS.facts(self.name).aliases,
            presets={alias: dict(arguments) for alias, arguments in self.presets.items()},
            hyperparameters=self.hyperparameters | hyperparameters,
            doc=inspect.getdoc(self.make) or "",
            family=self.family,
            exactness=self.claim(**hyperparameters),
            exact_for=EXACTNESS[self.claim(**hyperparameters)],
            value_unbiased=self.estimates_value(**hyperparameters),
            randomness=self._made("randomness", "uniforms", hyperparameters),
            cost=str(cost),
            evaluations=(str(cost.objective), str(cost.gradient), str(cost.layers)),
            layers=self.layers,
            unitwise=self.unitwise,
            differentiable=self.needs_derivative(),
            needs=self.needs,
            source=self.source,
            full_name=self.full_name,
            display_name=self.display_name,
            paper=self.paper,
            as_published=self.as_published,
            formula=self.formula,
        )

    def _at(self, fact: Any, hyperparameters: dict[str, Any]) -> Any:
        """Return a fact that may be a function of the hyper-parameters."""
        return fact(**(self.hyperparameters | hyperparameters)) if callable(fact) else fact

    def _made(self, name: str, default: Any, hyperparameters: dict[str, Any] | None = None) -> Any:
        """Return an attribute of the surrogate loss."""
        return getattr(self.make(any_model, **(hyperparameters or {})), name, default)


ESTIMATORS: Registry[Entry] = Registry("estimator", absent=ABSENT)


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
    depth_claims: tuple[str, ...] | Callable[..., tuple[str, ...]] = (),
    aliases: Sequence[str] = (),
    presets: Mapping[str, Mapping[str, Any]] = {},
    full_name: str = "",
    display_name: str = "",
    paper: str = "",
    as_published: str = "",
    formula: str = "",
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Return a decorator that registers an estimator ``name(model, *, hyper-parameters) -> loss``.

    It is registered under the name of the function, and found by ``aliases`` too, which are names
    of the literature, and by those of ``presets``. As in ``Entry`` are ``family``, ``exactness``,
    ``source``, ``cost``, ``differentiable``, ``value_unbiased``, ``needs``, ``layers``,
    ``depth_claims``, ``presets``, ``full_name``, ``display_name``, ``paper``, ``as_published`` and
    ``formula``.

    Raises:
        GradbenchError: something else has one of these names, or there is no docstring.
    """

    def enter(make: Callable[..., Loss]) -> Callable[..., Loss]:
        entry = Entry(
            make.__name__, make, family, exactness, cost, differentiable, value_unbiased, source,
            needs, layers, depth_claims, presets, full_name, display_name, paper, as_published,
            formula,
        )  # fmt: skip
        ESTIMATORS.add(entry.name, entry, aliases=(*aliases, *presets), source=make)
        return make

    return enter


# Registers an estimator that runs the model once and differentiates its objective in the states.
register_backprop = partial(register, cost=Cost(gradient=1), differentiable=True)


def get_estimator(spec: str) -> tuple[Entry, dict[str, Any]]:
    """Return the entry and the hyper-parameters of a spec such as ``"concrete(temperature=0.1)"``.

    Raises:
        GradbenchError: malformed spec, unknown estimator or unknown hyper-parameter.
    """
    name, arguments = specs.parse_spec(spec)
    entry = ESTIMATORS.find(name)
    for argument in arguments:
        if argument not in (known := entry.hyperparameters):
            remedy = did_you_mean(argument, known, synonyms(known)) if known else "it has none"
            raise GradbenchError(
                f"estimator {entry.name!r} has no hyper-parameter {argument!r}; {remedy}"
            )
    return entry, {**entry.presets.get(spelled(name), {}), **arguments}


def make_estimator(spec: str, model: Model) -> Loss:
    """Return the surrogate loss of a spec for a model, e.g. ``make_estimator("psa", model)``.

    Raises:
        GradbenchError: see ``check_spec``; also a model that the estimator is not made for.
    """
    entry, arguments = get_estimator(spec)
    return entry.make(model, **arguments)


def check_spec(spec: str) -> None:
    """Refuse a spec that no estimator can be made from, whatever the model.

    Raises:
        GradbenchError: see ``get_estimator``; also a hyper-parameter with an impossible value.
    """
    make_estimator(spec, any_model)


def describe(spec: str) -> Description:
    """Return what is known of the estimator of a spec, in words.

    Raises:
        GradbenchError: see ``check_spec``.
    """
    check_spec(spec)
    entry, arguments = get_estimator(spec)
    return entry.describe(**arguments)


def families_of(several: Sequence[str]) -> dict[str, str]:
    """Return the families of the estimators of some specs, by their names without arguments.

    A nested estimator counts as its estimator of the weights.

    Raises:
        GradbenchError: see ``get_estimator``.
    """
    return {name: get_estimator(name)[0].family for name in map(specs.family, several)}


def claims_of(several: Sequence[str]) -> dict[str, Exactness]:
    """Return what the estimators of some specs claim to be exact for, by these specs.

    Raises:
        GradbenchError: see ``get_estimator``.
    """
    return {spec: get_estimator(spec)[0].claim(**get_estimator(spec)[1]) for spec in several}


def less_exact(*several: str) -> Exactness:
    """Return the least exact class that some specs claim, for an estimator made of them all."""
    claims = [entry.claim(**arguments) for entry, arguments in map(get_estimator, several)]
    return max(claims, key=list(EXACTNESS).index)


def derivative_of(*several: str) -> bool:
    """Return whether any of some specs differentiates the objective in the states."""
    return any(entry.needs_derivative(**args) for entry, args in map(get_estimator, several))


def value_of(*several: str) -> bool:
    """Return whether the values of all of some specs estimate the loss without bias."""
    return all(entry.estimates_value(**args) for entry, args in map(get_estimator, several))


def price_of(spec: str) -> Cost:
    """Return the cost per draw of a spec, its hyper-parameters inserted into the formulas."""
    entry, arguments = get_estimator(spec)
    return entry.price(**arguments).at(**(entry.hyperparameters | arguments))


def evaluations(spec: str, units: Sequence[int], chain: bool = True) -> int:
    """Return the evaluations of the objective per draw and example.

    One gradient of the objective in the states counts as one evaluation more.

    Args:
        spec: the estimator.
        units: how many units each layer has.
        chain: whether flips of a layer need only the layers above. Any other model than an ``SBN``
            has to be run again for them, as if all units were in the last layer.

    Raises:
        GradbenchError: see ``get_estimator``.
    """
    entry, arguments = get_estimator(spec)
    sizes = {"L": len(units), "D": sum(units), "n": units[-1] if chain else sum(units)}
    objective, gradient, _ = entry.price(**arguments).evaluate(
        **sizes, **(entry.hyperparameters | arguments)
    )
    return objective + gradient


def any_model(params: Any, example: Any, binary: Any) -> Any:
    """Stand for a model where an estimator is made and not run."""
    raise AssertionError("not to be run")
