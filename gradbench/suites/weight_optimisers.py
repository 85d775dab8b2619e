"""Optimisers of binary weights, as suites name them: their registry, and what they fit."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optax

from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry
from gradbench.core.specs import parse_spec
from gradbench.models.optimisers import (
    bayesian_learning_rule,
    bop,
    exponentiated_gradient,
    mirror_descent,
    proximal_kl,
)

WEIGHT_OPTIMISERS: Registry["WeightOptimiser"] = Registry("weight optimiser")
_NATURAL = ("bayesbinn",)  # estimators that give dE/dw by a rule of their own


@dataclass(frozen=True)
class WeightOptimiser:
    """An optimiser of the latent weights of binary weights.

    ``make(rate, noise, **numbers)`` returns it, where ``noise`` is the name of the noise of the
    weights. It reads dE/dw, the gradient of ``straight_through`` with the identity as its proxy,
    unless ``reads_latent``: then dE/deta. ``noises`` are those that it is made for, any if there
    are none, and ``largest`` is the largest rate that it can have.
    """

    make: Callable[..., optax.GradientTransformation]
    reads_latent: bool = False
    noises: tuple[str, ...] = ()
    largest: float = math.inf

    @property
    def numbers(self) -> dict[str, float | None]:
        """Its hyper-parameters beside the rate, with their defaults, None where one is needed."""
        _, _, *more = inspect.signature(self.make).parameters.values()
        return {p.name: None if p.default is p.empty else p.default for p in more}

    def lacking(self, given: Mapping[str, Any]) -> list[str]:
        """Return the hyper-parameters that are needed and not given."""
        return [key for key, value in self.numbers.items() if value is None and key not in given]


def weight_optimiser(
    name: str | None = None,
    *,
    reads_latent: bool = False,
    noises: tuple[str, ...] = (),
    largest: float = math.inf,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that registers a ``WeightOptimiser``, under its own name by default."""

    def enter(make: Callable[..., Any]) -> Callable[..., Any]:
        found = WeightOptimiser(make, reads_latent, noises, largest)
        WEIGHT_OPTIMISERS.add(name or make.__name__, found, source=make)
        return make

    return enter


@weight_optimiser("sgd", reads_latent=True)
def _latent_sgd(rate: float, noise: str) -> optax.GradientTransformation:
    """Plain gradient descent on latent weights."""
    return optax.sgd(rate)


weight_optimiser()(mirror_descent)
weight_optimiser()(exponentiated_gradient)


@weight_optimiser("binary_connect")
def _binary_connect(rate: float, noise: str, momentum: float = 0.0) -> optax.GradientTransformation:
    """Descent on latent weights that are clipped to [-1, 1] (Courbariaux et al. 2015)."""
    return mirror_descent(rate, "uniform", momentum)


@weight_optimiser("proximal_kl", noises=("logistic",))
def _proximal_kl(rate: float, noise: str, strength: float) -> optax.GradientTransformation:
    """Mirror descent with a proximal term, the divergence of p from 1/2."""
    return proximal_kl(rate, strength)


@weight_optimiser("bop", largest=1)
def _bop(rate: float, noise: str, threshold: float = 1e-8) -> optax.GradientTransformation:
    """Flips of states against an average gradient beyond a threshold (Helwegen et al. 2019)."""
    return bop(rate, threshold)


@weight_optimiser("bayesian_learning_rule", noises=("logistic",), largest=1)
def _bayesian_learning_rule(
    rate: float, noise: str, examples: float, momentum: float = 0.0
) -> optax.GradientTransformation:
    """Natural gradient steps on the posterior of weights (Meng et al. 2020, BayesBiNN)."""
    return bayesian_learning_rule(rate, examples, momentum)


def check_fit(name: str, estimator: str, noise: Any) -> None:
    """Refuse an optimiser of weights that does not fit an estimator, or the noise of weights.

    Raises:
        GradbenchError: names what is wrong and the remedy.
    """
    found, identity = WEIGHT_OPTIMISERS.find(name), _gives_identity(estimator)
    if found.reads_latent == identity:
        reads, use = ("dE/deta", "without") if identity else ("dE/dw", "with")
        raise GradbenchError(
            f"the optimiser {name!r} of weights reads {reads} but the estimator is "
            f"{estimator!r}; take straight_through {use} proxy='identity'"
        )
    if found.noises and noise not in found.noises:
        raise GradbenchError(
            f"{name} got weights with {noise} noise; take {' or '.join(found.noises)} noise"
        )


def _gives_identity(spec: str) -> bool:
    """Return whether an estimator gives dE/dw for weights."""
    name, arguments = parse_spec(spec)
    if name == "nested":
        return _gives_identity(str(arguments.get("weights", "straight_through")))
    return name in _NATURAL or arguments.get("proxy") == "identity"
