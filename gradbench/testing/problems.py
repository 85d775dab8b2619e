"""Small random problems that show what an estimator is exact for.

The objectives are polynomials in the first and the last state. Their coefficients are data of the
examples, so that one compiled program serves all classes of objectives.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Model, Params
from gradbench.estimators.exact import exact
from gradbench.exact.enumeration import brute_force
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.network import SBN, RealNetwork

# The classes of objectives, each with the largest degree in one unit and in both units together.
OBJECTIVES = {
    "linear": (1, 1),
    "multilinear": (1, 2),
    "quadratic": (2, 4),
    "cubic": (3, 6),
    "any": (3, 6),
}
_POWERS = 4  # from 0 to 3


class Problem(NamedTuple):
    """A model with parameters, and a batch for each class of objectives, all of one shape."""

    name: str
    model: Model
    params: Params
    batches: dict[str, Batch]
    deep: bool = False


@jax.jit  # so that it is traced once, although an estimator calls it many times in a draw
def polynomial(theta: Array, x: Array, target: Any) -> Float[Array, ""]:
    """Return a polynomial of the first and the last unit, times 1 + theta.

    Its coefficients are ``target["powers"]`` [4, 4]. A function of all units that is no polynomial
    is added with the weight ``target["other"]``.
    """
    units = list(x.ravel())
    first, last = units[0], units[-1]
    a, b = (jnp.stack([jnp.ones((), x.dtype), v, v * v, v * v * v]) for v in (first, last))
    rest = jnp.exp(0.7 * first - 0.5 * last) + jnp.sin((2 * first + 1) * last) + math.prod(units)
    return (1 + theta) * (a @ target["powers"] @ b + target["other"] * rest)


def _targets(name: str, examples: int, random: np.random.Generator) -> dict[str, Any]:
    single, both = OBJECTIVES[name]
    i, j = np.indices((_POWERS, _POWERS))
    allowed = (np.maximum(i, j) <= single) & (i + j <= both)
    powers = random.uniform(0.3, 1, (examples, _POWERS, _POWERS))
    powers *= random.choice([-1.0, 1.0], powers.shape)
    other = np.full(examples, 1.0 if name == "any" else 0.0)
    return {"powers": np.where(allowed, powers, 0), "other": other}


def _params(shapes: Any, random: np.random.Generator) -> Params:
    """Return weights away from 0, so that layers pass on what those below do, and small biases."""

    def one(theta: Any) -> Any:
        weight, bias = theta["weight"].shape, theta["bias"].shape
        signs = random.choice([-1.0, 1.0], weight)
        return {
            "weight": signs * random.uniform(0.6, 1.3, weight),
            "bias": random.uniform(-0.4, 0.4, bias),
        }

    return tuple(map(one, shapes))


def _network(name: str, layers: tuple[Any, ...], random: np.random.Generator) -> Problem:
    """Return a chain on three examples, one of which drives the first layer into saturation."""
    network = SBN(layers, polynomial)
    params = (*_params(jax.eval_shape(network.init, jax.random.key(0))[:-1], random), np.array(0.2))
    shape = (layers[0].inputs,) if isinstance(layers[0].inputs, int) else layers[0].inputs
    inputs = random.standard_normal((3, *shape)) * np.array([0.4, 1, 4]).reshape(
        3, *[1] * len(shape)
    )
    deep = len(layers) > 1
    names = ("any",) if deep else OBJECTIVES
    batches = {objective: (inputs, _targets(objective, 3, random)) for objective in names}
    return Problem(name, network, params, batches, deep)


def _weights(random: np.random.Generator) -> Problem:
    """Return a problem of two binary weights, read by a polynomial; its biases are real."""
    model = BinaryWeights(
        RealNetwork((Dense(1, 2),), polynomial, lambda x: x), noise="triangular", entries=(0,)
    )
    theta = {"weight": random.uniform(-0.8, 0.8, (2, 1)), "bias": random.uniform(-0.3, 0.3, 2)}
    batches = {name: (np.ones((3, 1)), _targets(name, 3, random)) for name in OBJECTIVES}
    return Problem("binary weights", model, (theta, np.array(0.2)), batches)


def _several_samples(random: np.random.Generator) -> Problem:
    from gradbench.models.multisample import MultiSample

    one = _network("two samples", (Dense(2, 2, "normal"),), random)
    batches = {"any": one.batches["any"]}
    return Problem("two samples", MultiSample(one.model, 2), one.params, batches, deep=True)


def _weights_and_states(random: np.random.Generator) -> Problem:
    network = SBN((Dense(1, 2, "normal"),), polynomial)
    theta = {"weight": random.uniform(-0.8, 0.8, (2, 1)), "bias": random.uniform(-0.3, 0.3, 2)}
    batch = (np.ones((3, 1)), _targets("any", 3, random))
    model = BinaryWeights(network, activations=exact, entries=(0,))
    name = "binary weights and activations"
    return Problem(name, model, (theta, np.array(0.2)), {"any": batch}, deep=True)


@cache
def problems(seed: int) -> tuple[Problem, ...]:
    """Return the problems for every estimator: all five noises, one to three layers."""
    random = np.random.default_rng(seed)
    return (
        _network("convolution", (Conv((3, 1), 1, 2, noise="logistic"),), random),
        _weights(random),
        _network("two layers", (Dense(2, 1, "normal"), Dense(1, 3, "laplace")), random),
        _network(
            "three layers",
            (Dense(2, 1, "triangular"), Dense(1, 1, "logistic"), Dense(1, 2, "uniform")),
            random,
        ),
    )


@cache
def special_problems(seed: int) -> tuple[Problem, ...]:
    """Return the problems for estimators that are made for a special kind of model."""
    random = np.random.default_rng(seed)
    return (_several_samples(random), _weights_and_states(random))


@cache
def truth(seed: int, name: str, objective: str) -> tuple[Array, Params]:
    """Return the exact value and gradient of a problem, by enumeration of all paths."""
    found = [p for p in problems(seed) if p.name == name]
    (problem,) = found or [p for p in special_problems(seed) if p.name == name]
    of_model = _value_and_gradient(problem.model)  # type: ignore[arg-type]
    return of_model(problem.params, problem.batches[objective])


@cache
def _value_and_gradient(model: Model) -> Any:
    return jax.jit(jax.value_and_grad(lambda params, batch: brute_force(model, params, batch)))
