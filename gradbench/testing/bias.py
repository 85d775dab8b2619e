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
from gradbench.exact.moments import Moments, moments_work, unchecked_moments
from gradbench.testing.problems import Problem, truth

EXACT = 1e-10  # relative bias that counts as none where it is enumerated
_SMOOTH = 1e-6  # the same where smooth draws are integrated

# The rate of one test. A short run that is far beyond the threshold shows a bias at once. Else a
# long run that alarms at the root of this rate has to be confirmed by another one of another seed.
FALSE_ALARM = 1e-8
POWER = 0.975  # probability with which a bias of the size stated as ``bound`` is detected
_WORK = 1 << 19  # draws of one example that an enumeration may take, beyond which bias is tested
_POINTS = 1 << 17  # the same for each example, if they are points of an integral over uniforms
_SHORT, _LONG = 1 << 12, 1 << 16  # draws
_CHUNK = 1 << 11
_STEPS = 100  # of the fit of learned parts


class Finding(NamedTuple):
    """The bias on one problem and one class of objectives.

    Attributes:
        problem: the name of the problem.
        objective: the name of the class of objectives.
        deep: True if there are several layers.
        bias: the largest over the layers, relative to the norm of the exact gradient; NaN where a
            gradient is not finite.
        unbiased: True if no bias was found.
        exact: True if the bias was enumerated, False if it was tested.
        bound: the size of a bias that a test would have detected with probability 97.5 %.
        value_unbiased: True if no bias of the value was found.
        random: True if draws differ.
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
    """Return one finding for each class of objectives of a problem.

    Where bias is only tested, and there is none for the general objective, the other classes are
    left out. If ``fit``, learned parts are fitted first, else they are at their initial state.
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
    """Return the exact moments on a problem, None where there are none or they are much work."""
    at = problem.params, problem.batches["any"]
    if moments_work(loss, *at, _POINTS, declared=False) > _WORK:
        return None
    # Its draws are what is judged, and a bias of NaN is a finding.
    found = partial(unchecked_moments, loss, points=_POINTS, declared=False)
    return found if _by_uniforms(loss) else jax.jit(found)  # a grid needs concrete arrays


def _tested(
    loss: Loss, params: Params, batch: Batch, value: Array, truths: tuple[Array, ...], seed: int
) -> tuple[float, bool, bool, float, bool, bool]:
    """Test every coordinate by a z-test; a run that alarms is repeated with another seed.

    Returns:
        The fields of a ``Finding``, from ``bias`` on.
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
    """Return the mean and the standard deviation of value and gradient, as vectors."""

    def draw(key: Array) -> Array:
        value, g = jax.value_and_grad(loss)(params, key, batch)
        return jnp.concatenate([value[None], *layer_vectors(g)])

    def some(number: Array, total: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        shift, first, second = total
        keys = jax.random.split(jax.random.fold_in(key, number), _CHUNK)
        draws = jax.vmap(draw)(keys)
        shift = jnp.where(number == 0, draws[0], shift)  # sums of small numbers keep their digits
        d = draws - shift
        return shift, first + jnp.sum(d, axis=0), second + jnp.sum(d**2, axis=0)

    zero = jnp.zeros(1 + sum(len(theta) for theta in layer_vectors(params)))
    shift, first, second = jax.lax.fori_loop(0, chunks, some, (zero, zero, zero))
    mean = first / (chunks * _CHUNK)
    return shift + mean, jnp.sqrt(jnp.maximum(second / (chunks * _CHUNK) - mean**2, 0))
