"""Small random problems that show what an estimator is exact for.

They are few, and each has several things at once that an estimator may get wrong. Narrow ones are
there for estimators that can only be integrated over the uniforms of a few units, or that take
nothing but chains. What a model calls often is traced once for all estimators: its noises and the
terms of its objective.
"""

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.compiling import compile_plainly
from gradbench.core.contract import Batch, Model, Params
from gradbench.core.noise import Noise, get_noise
from gradbench.estimators.exact import exact
from gradbench.exact.enumeration import brute_force
from gradbench.models.binary_weights import BinaryWeights
from gradbench.models.conv import Conv
from gradbench.models.dense import Dense
from gradbench.models.layer import axes
from gradbench.models.network import SBN, RealNetwork
from gradbench.testing.objectives import OBJECTIVES, Bound, EveryLayer, polynomial, targets

# The probabilities of the rarer state of the units of a saturated batch.
SATURATED = (0.3, 1e-3, 1e-6, 1e-9, 1e-12)  # of five units, which are summed over states
NEARLY = 1e-4  # of two units, which are integrated over the uniforms too


class Problem(NamedTuple):
    """A model with parameters, and a batch for each class of objectives, all of one shape.

    ``saturated`` has further batches, in which the unit with number i is in its rarer state with
    the probability ``SATURATED[i]``, or all with the probability ``NEARLY``.

    ``stands_for`` is the name of a problem that this one stands for where that one is refused, or,
    if this one is ``narrow``, where it cannot be enumerated either.
    """

    name: str
    model: Model
    params: Params
    batches: dict[str, Batch]
    deep: bool = False
    stands_for: str = ""
    narrow: bool = False
    saturated: dict[str, Batch] = {}  # noqa: RUF012 - never changed


@cache
def traced_once(name: str) -> Noise:
    """Return a noise whose functions are traced once for arrays of one shape."""
    noise = get_noise(name)
    functions = ("cdf", "pdf", "quantile", "hazard", "log_cdf")
    once: dict[str, Any] = {of: jax.jit(getattr(noise, of)) for of in functions}
    return replace(noise, **once)


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


def layer_params(layers: tuple[Any, ...], random: np.random.Generator) -> tuple[Params, ...]:
    """Return random parameters of affine layers."""
    return _params([jax.eval_shape(x.init, jax.random.key(0)) for x in layers], random)


def _network(name: str, layers: tuple[Any, ...], random: np.random.Generator, **more) -> Problem:
    """Return a chain on three examples, one of which drives the first layer into saturation."""
    network = SBN(layers, polynomial, **more)
    params = (*layer_params(layers, random), np.array(0.2))
    inputs, units = axes(layers[0].inputs), int(np.prod(axes(layers[-1].outputs)))
    x = random.standard_normal((3, *inputs)) * np.array([0.4, 1, 3]).reshape(3, *[1] * len(inputs))
    deep = len(layers) > 1
    names = ("any",) if deep else tuple(OBJECTIVES)
    batches = {objective: (x, targets(objective, units, 3, random)) for objective in names}
    return Problem(name, network, params, batches, deep)


def _weights(random: np.random.Generator) -> Problem:
    """Return a problem of two binary weights, read by a polynomial; its biases are real."""
    model = BinaryWeights(
        RealNetwork((Dense(1, 2),), polynomial, lambda x: x),
        noise=traced_once("triangular"),
        entries=(0,),
    )
    theta = {"weight": random.uniform(-0.8, 0.8, (2, 1)), "bias": random.uniform(-0.3, 0.3, 2)}
    batches = {name: (np.ones((3, 1)), targets(name, 2, 3, random)) for name in OBJECTIVES}
    return Problem("binary weights", model, (theta, np.array(0.2)), batches)


def _convolution(random: np.random.Generator) -> Problem:
    """Return a convolution with two units of states 0 and 1."""
    layer = Conv((3, 1), 1, 2, noise=traced_once("logistic"))
    one = _network("convolution", (layer,), random, states=(0, 1))
    (v, w), (b,) = one.params[0]["weight"].ravel(), one.params[0]["bias"]
    far = np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]) * _logit(NEARLY)
    middle = np.full(3, 0.3)
    x = np.stack([(far[:, 0] - b - w * middle) / v, middle, (far[:, 1] - b - v * middle) / w], 1)
    saturated = {name: (x[:, :, None], of) for name, (_, of) in one.batches.items()}
    return one._replace(saturated=saturated, stands_for="five units", narrow=True)


def _logit(p: Any) -> Any:
    """Return the quantile of the logistic distribution."""
    return np.log(p) - np.log1p(-np.asarray(p))


def _five_units(random: np.random.Generator) -> Problem:
    """Return one layer of five units of states 0 and 1 under an evidence bound, on five examples.

    There are as many inputs as units, so that inputs can be found for any pre-activations.
    """
    layer, n = Dense(5, 5, traced_once("laplace")), 5
    (theta,) = layer_params((layer,), random)
    theta["weight"] *= np.where(np.eye(n), 1, 0.35)
    signs = random.choice([-1.0, 1.0], (n, n))
    quantiles = np.log(2 * np.array(SATURATED))  # of the Laplace distribution
    far = np.linalg.solve(theta["weight"], (signs * quantiles - theta["bias"]).T).T
    near = 0.8 * random.standard_normal((n, n))
    batches, saturated = {}, {}
    for name in OBJECTIVES:
        of = targets(name, n, n, random)
        batches[name] = (near, of)
        saturated[name] = (far, of | {"direct": np.zeros(n)})
    params = (theta, np.array(0.2))
    network = SBN((layer,), Bound(), states=(0, 1))
    return Problem("five units", network, params, batches, saturated=saturated)


_FIRST = Conv((4, 1), 1, 2, noise=traced_once("normal"))
_SECOND = Conv((3, 1), 1, 2, noise=traced_once("logistic"))
_THIRD = Dense(5, 2, traced_once("logistic"))
_FOURTH = Dense(7, 1, traced_once("uniform"))


class Skipping:
    """A model of four layers, two of them convolutions, with skip connections, written by hand.

    The third layer reads both convolutions and the fourth all three layers below it. The objective
    has a term of every layer and of all states, pre-activations, parameters and inputs.
    """

    def __call__(self, params: Params, example: Any, binary: Any) -> Array:
        """Return the objective."""
        return sum(self.terms(params, example, binary), jnp.zeros(()))

    def terms(self, params: Params, example: Any, binary: Any) -> tuple[Array, ...]:
        """Return the terms of the layers, which no layer above can change."""
        x, target = example
        a = _first(params[0], x)
        first = binary(a, _FIRST.noise)
        b = _second(params[1], first, x)
        second = binary(b, _SECOND.noise)
        c = _third(params[2], first, second)
        third = binary(c, _THIRD.noise)
        fourth = binary(_fourth(params[3], first, second, third), _FOURTH.noise)
        return _terms(params, (first, second, third, fourth), (a, b, c), target)


# Like the noises, each part is traced once, and not whenever an estimator runs the model.
@jax.jit
def _first(theta: Params, x: Array) -> Array:
    return _FIRST(theta, x)


@jax.jit
def _second(theta: Params, first: Array, x: Array) -> Array:
    return _SECOND(theta, first) + x[1:3] / 2


@jax.jit
def _third(theta: Params, *below: Array) -> Array:
    return _THIRD(theta, _joined(below)) / 2


@jax.jit
def _fourth(theta: Params, *below: Array) -> Array:
    return _FOURTH(theta, _joined(below)) / 10


def _joined(states: tuple[Array, ...]) -> Array:
    return jnp.concatenate([x.ravel() for x in states])


@jax.jit
def _terms(
    params: Params, states: tuple[Array, ...], a: tuple[Array, ...], target: Array
) -> tuple[Array, ...]:
    theta, x = params[4], _joined(states)
    first, second, third, fourth = jnp.split(theta * x * target, (3, 5, 7))
    biases = sum(jnp.sum(p["bias"] ** 2) for p in params[:4]) / 3
    bound = _THIRD.noise.log_probability(x[5:7], a[2])  # type: ignore[union-attr]
    odd = jnp.sin(jnp.sum(theta * x) + target) + x[7] * (x[3] + x[6]) * x[1]
    return (
        jnp.sum(first) + jnp.sum(jnp.sin(a[0])) / 5,
        jnp.sum(second) + jnp.sum(a[1] ** 2) / 7,
        jnp.sum(third) + bound / 5,
        jnp.sum(fourth) + 1.5 * odd + biases,
    )


def _skips(random: np.random.Generator) -> Problem:
    """Return the problem of ``Skipping`` on one example."""
    layers = (_FIRST, _SECOND, _THIRD, _FOURTH)
    params = (*layer_params(layers, random), random.uniform(0.4, 1.1, 8))
    batch = (0.8 * random.standard_normal((1, 4, 1)), random.uniform(0.5, 1.5, 1))
    return Problem("four layers", Skipping(), params, {"any": batch}, deep=True)


def _chain(random: np.random.Generator) -> Problem:
    """Return a chain of four layers of states 0 and 1 with a term of every layer."""
    sizes, noises = (2, 3, 2, 2, 1), ("logistic", "laplace", "logistic", "triangular")
    layers = tuple(
        Dense(m, n, traced_once(z)) for m, n, z in zip(sizes, sizes[1:], noises, strict=False)
    )
    network = SBN(layers, EveryLayer(), states=(0, 1))
    params = (*layer_params(layers, random), np.array([0.9, -0.8, 1.1, 1.3]))
    batch = (np.array([[0.7, -0.5]]), np.array([0.4]))
    return Problem("chain", network, params, {"any": batch}, True, stands_for="four layers")


def _several_samples(random: np.random.Generator) -> Problem:
    from gradbench.models.multisample import MultiSample

    one = _network("two samples", (Dense(2, 2, "normal"),), random)
    batches = {"any": one.batches["any"]}
    return Problem("two samples", MultiSample(one.model, 2), one.params, batches, deep=True)


def _weights_and_states(random: np.random.Generator) -> Problem:
    network = SBN((Dense(1, 2, "normal"),), polynomial)
    theta = {"weight": random.uniform(-0.8, 0.8, (2, 1)), "bias": random.uniform(-0.3, 0.3, 2)}
    batch = (np.ones((3, 1)), targets("any", 2, 3, random))
    model = BinaryWeights(network, activations=exact, entries=(0,))
    name = "binary weights and activations"
    return Problem(name, model, (theta, np.array(0.2)), {"any": batch}, deep=True)


@cache
def problems(seed: int) -> tuple[Problem, ...]:
    """Return the problems for every estimator: all five noises, one to four layers."""
    random = np.random.default_rng(seed)
    two = (Dense(2, 1, traced_once("normal")), Dense(1, 3, traced_once("laplace")))
    return (
        _five_units(random),
        _weights(random),
        _convolution(random),
        _skips(random),
        _chain(random),
        _network("two layers", two, random)._replace(stands_for="four layers", narrow=True),
    )


@cache
def special_problems(seed: int) -> tuple[Problem, ...]:
    """Return the problems for estimators that are made for a special kind of model."""
    random = np.random.default_rng(seed)
    return (_several_samples(random), _weights_and_states(random))


def truth(problem: Problem, batch: Batch) -> tuple[Array, Params]:
    """Return the exact value and gradient of a problem, by enumeration of all paths."""
    return _value_and_gradient(problem.model)(problem.params, batch)  # type: ignore[arg-type]


@cache
def _value_and_gradient(model: Model) -> Any:
    return compile_plainly(
        jax.value_and_grad(lambda params, batch: brute_force(model, params, batch))
    )
