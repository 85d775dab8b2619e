"""What an estimator claims for networks of several layers, enumerated on such networks."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.surrogate import SurrogateLoss
from gradbench.estimators.exactness import DEPTHS
from gradbench.exact.moments import Moments, moments_work
from gradbench.models.dense import Dense
from gradbench.models.network import SBN
from gradbench.testing.bias import EXACT, biases
from gradbench.testing.problems import Problem, layer_params, problems, traced_once, truth
from gradbench.testing.requirement import Check
from gradbench.testing.rows import row_moments

_MOST = 1 << 16  # draws of one example that an enumeration may take


def depth_checks(
    make: Callable[[Model], Loss],
    claims: Sequence[str],
    seed: int,
    known: Mapping[str, Moments] | None = None,
) -> list[Check]:
    """Check claims of ``DEPTHS`` by enumeration, each on a network of its kind.

    ``known`` are the moments on some problems, by their names.

    Raises:
        GradbenchError: nothing can be enumerated of the estimator.
    """
    checks = []
    done = dict(known or {})
    for claim in claims:
        problem, layers = _problem(claim, seed)
        if problem.name not in done:
            done[problem.name] = _enumerated(make, claim, problem)
        found = done[problem.name]
        value, gradient = truth(problem, problem.batches["any"])
        _, units = biases(found.mean, gradient)
        bias = max(units[layer] for layer in layers) if layers else 0.0
        if claim == "value":
            bias = max(bias, float(abs(found.value - value) / abs(value)))
        checks.append(
            Check(f"exact for {claim}", bias < EXACT, f"a bias of {bias:.2g} for {DEPTHS[claim]}")
        )
    return checks


def _enumerated(make: Callable[[Model], Loss], claim: str, problem: Problem) -> Moments:
    params, batch = problem.params, problem.batches["any"]
    loss = make(problem.model)
    if moments_work(loss, params, batch, _MOST, declared=False) > _MOST:
        raise GradbenchError(
            f"the claim in depth {claim!r} needs an estimator that can be enumerated; leave it out"
        )
    assert isinstance(loss, SurrogateLoss)
    return row_moments(loss, params, batch, _MOST)


def _problem(claim: str, seed: int) -> tuple[Problem, list[int]]:
    """Return a problem of a kind of network, and the entries of its parameters to look at."""
    if claim in ("value", "last layer"):
        (deep,) = (p for p in problems(seed) if p.name == "four layers")
        return deep, [-1 if claim == "value" else -2]
    found = _special(claim, seed)
    return found, list(range(len(found.params)))


@cache
def _special(claim: str, seed: int) -> Problem:
    random = np.random.default_rng(seed)
    x, target = random.standard_normal((2, 2)), random.uniform(0.5, 1.5, 2)
    params: Params
    model: Any
    if claim == "in-trees":
        (first,) = layer_params((Dense(2, 4),), random)
        params = (first, random.uniform(0.6, 1.3, 4), random.uniform(0.6, 1.3, 2), np.array(0.4))
        model = tree
    elif claim == "width-1 tails":
        kinds = ((2, 4, "triangular"), (4, 1, "normal"), (1, 1, "laplace"))
        tail = tuple(Dense(m, n, traced_once(noise)) for m, n, noise in kinds)
        params, model = (*layer_params(tail, random), np.array(0.4)), SBN(tail, bent)
    else:
        sizes = ((2, 3), (3, 3), (3, 2), (2, 2))
        layers = tuple(Dense(*size, traced_once("uniform")) for size in sizes)
        # The sum of the sizes of all that a unit reads is at most 1: it is never saturated.
        small = tuple(
            {"weight": 0.25 * theta["weight"] * 2 / m, "bias": 0.4 * theta["bias"]}
            for theta, (m, _) in zip(layer_params(layers, random), sizes, strict=True)
        )
        params, model = (*small, random.uniform(0.5, 1, 2)), SBN(layers, linear)
        x = random.uniform(-1, 1, (2, 2))
    return Problem(claim, model, params, {"any": (x, target)}, deep=True)


def tree(params: Params, example: Any, binary: Any) -> Array:
    """Return the objective of four units that feed two, which feed one, and nothing else."""
    first, second, third, theta = params
    x = binary(first["weight"] @ example[0] + first["bias"], traced_once("laplace"))
    y = binary(jnp.sum((second * x).reshape(2, 2), axis=1), traced_once("logistic"))
    z = binary(jnp.sum(third * y, keepdims=True) + 0.1, traced_once("normal"))
    return bent(theta, z, example[1])


def bent(theta: Array, x: Array, target: Array) -> Array:
    """Return an objective of the last unit that is not linear."""
    return jnp.exp(theta * jnp.sum(x)) * target


def linear(theta: Array, x: Array, target: Array) -> Array:
    """Return a linear objective of the last states."""
    return jnp.sum(theta * x) * target
