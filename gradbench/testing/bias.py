"""The bias of an estimator on a problem: exact where it can be enumerated, else tested."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.pytrees import layer_vectors
from gradbench.core.surrogate import SurrogateLoss
from gradbench.estimators.adaptive import fitted
from gradbench.exact.moments import Moments, moments, moments_work
from gradbench.testing.problems import Problem, truth

EXACT = 1e-10  # relative bias that counts as none where it is enumerated
_SMOOTH = 1e-6  # and where smooth draws are integrated

# Of one test. What is far beyond its threshold in a short run is biased; else a long run that
# alarms at the root of this rate has to be confirmed by another one with another seed.
FALSE_ALARM = 1e-8
POWER = 0.975  # probability with which a bias of the size stated as ``bound`` is seen
_WORK = 1 << 19  # draws of one example that an enumeration may take, beyond which bias is tested
_POINTS = 1 << 17  # of them for each example, where they are points of an integral over uniforms
_SHORT, _LONG = 1 << 12, 1 << 16  # draws
_CHUNK = 1 << 11
_STEPS = 100  # of the fit of learned parts


class Finding(NamedTuple):
    """What was found on one problem and class of objectives.

    ``problem`` and ``objective`` name them, ``deep`` says whether there are several layers.
    ``bias`` is the largest over the layers, relative to the norm of the exact gradient; NaN where a
    gradient is not finite. ``unbiased``: none was found. ``exact`` is true where it comes of an
    enumeration; else ``bound`` is the size of a bias that would have been seen with probability
    97.5 %. ``value_unbiased``: none was found of the value; ``random``: the draws differ.
    """

    problem: str
    objective: str
    deep: bool
    bias: float
    unbiased: bool
    exact: bool
    bound: float
    value_unbiased: bool
    random: bool


def findings(loss: Loss, problem: Problem, seed: int, fit: bool) -> list[Finding]:
    """One finding for each class of objectives of a problem.

    Where biases are only tested, and there is none for any objective, the others are left out.
    ``fit``: learned parts are fitted first, else they are at their start.
    """
    key = jax.random.key(seed)
    steps = _STEPS if fit else 0
    loss = fitted(loss, problem.params, key, problem.batches["any"], steps)
    enumerated = _moments(loss, problem)
    last = _find(loss, enumerated, problem, "any", seed)
    if last.unbiased and not last.exact:
        return [last]
    others = [name for name in problem.batches if name != "any"]
    return [_find(loss, enumerated, problem, name, seed) for name in others] + [last]


def _find(
    loss: Loss,
    enumerated: Callable[[Params, Batch], Moments] | None,
    problem: Problem,
    objective: str,
    seed: int,
) -> Finding:
    params, batch = problem.params, problem.batches[objective]
    value, gradient = truth(seed, problem.name, objective)
    truths = layer_vectors(gradient)
    where = (problem.name, objective, problem.deep)
    if enumerated:
        found = enumerated(params, batch)
        means, limit = layer_vectors(found.mean), _limit(loss)
        bias = max(_relative(m - g, g) for m, g in zip(means, truths, strict=True))
        off = abs(float(found.value - value)) / max(1.0, abs(float(value)))
        random = any(float(jnp.max(v)) > 1e-20 for v in layer_vectors(found.variance))
        return Finding(*where, bias, bias < limit, True, 0.0, off < limit, random)
    return Finding(*where, *_tested(loss, params, batch, value, truths, seed))


def _relative(error: Array, gradient: Array) -> float:
    return float(jnp.linalg.norm(error) / jnp.linalg.norm(gradient))


def _limit(loss: Loss) -> float:
    return _SMOOTH if _by_uniforms(loss) and loss.smoothness == "smooth" else EXACT


def _by_uniforms(loss: Loss) -> TypeGuard[SurrogateLoss]:
    return isinstance(loss, SurrogateLoss) and loss.randomness == "uniforms"


def _moments(loss: Loss, problem: Problem) -> Callable[[Params, Batch], Moments] | None:
    """The exact moments on a problem, None where there are none or they would take long."""
    if moments_work(loss, problem.params, problem.batches["any"], _POINTS) > _WORK:
        return None
    found = partial(moments, loss, points=_POINTS)
    return found if _by_uniforms(loss) else jax.jit(found)  # a grid needs concrete arrays


def _tested(
    loss: Loss, params: Params, batch: Batch, value: Array, truths: tuple[Array, ...], seed: int
) -> tuple[float, bool, bool, float, bool, bool]:
    """A z-test of every coordinate; what alarms is drawn again with another seed.

    What a ``Finding`` says, from its bias on.
    """
    coordinates = 1 + sum(len(g) for g in truths)
    threshold = -NormalDist().inv_cdf(math.sqrt(FALSE_ALARM) / (2 * coordinates))
    exact = np.concatenate([np.ravel(value), *map(np.asarray, truths)])
    alarms = np.ones(coordinates, bool)
    for run, draws in enumerate((_SHORT, _LONG, _LONG)):
        key = jax.random.fold_in(jax.random.key(seed), run)
        mean, deviation = map(np.asarray, _statistics(loss, params, key, batch, draws // _CHUNK))
        scale = deviation / math.sqrt(draws)
        error = np.where(np.isfinite(mean), mean - exact, np.inf)
        far = 2 if draws == _SHORT else 1
        beyond = np.abs(error) > far * threshold * scale + 1e-9 * (1 + np.abs(exact))
        if draws == _SHORT and beyond[1:].any():
            alarms = beyond
            break
        if draws == _LONG:
            alarms &= beyond
            if not alarms.any():
                break
    ends = np.cumsum([1, *(len(g) for g in truths)])
    layers = [slice(a, b) for a, b in pairwise(ends)]
    norms = [np.linalg.norm(exact[layer]) for layer in layers]
    reach = threshold + NormalDist().inv_cdf(POWER)
    bias = max(np.linalg.norm(error[layer]) / n for layer, n in zip(layers, norms, strict=True))
    bound = max(
        reach * np.linalg.norm(scale[layer]) / n for layer, n in zip(layers, norms, strict=True)
    )
    random = bool(np.any(deviation[1:] > 1e-10))
    return float(bias), not alarms[1:].any(), False, float(bound), not alarms[0], random


@partial(jax.jit, static_argnums=0)
def _statistics(
    loss: Loss, params: Params, key: Array, batch: Batch, chunks: int
) -> tuple[Array, Array]:
    """Mean and standard deviation of value and gradient, as one vector."""

    def draw(key: Array) -> Array:
        value, g = jax.value_and_grad(loss)(params, key, batch)
        return jnp.concatenate([value[None], *layer_vectors(g)])

    def some(number: Array, total: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        shift, first, second = total
        keys = jax.random.split(jax.random.fold_in(key, number), _CHUNK)
        draws = jax.vmap(draw)(keys)
        shift = jnp.where(number == 0, draws[0], shift)  # sums of what is small keep their digits
        d = draws - shift
        return shift, first + jnp.sum(d, axis=0), second + jnp.sum(d**2, axis=0)

    zero = jnp.zeros(1 + sum(len(theta) for theta in layer_vectors(params)))
    shift, first, second = jax.lax.fori_loop(0, chunks, some, (zero, zero, zero))
    mean = first / (chunks * _CHUNK)
    return shift + mean, jnp.sqrt(jnp.maximum(second / (chunks * _CHUNK) - mean**2, 0))
