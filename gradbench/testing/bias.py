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

from gradbench.core.compiling import compile_plainly
from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.pytrees import layers_of
from gradbench.core.run import batch_size
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uncompiled import run_trace
from gradbench.exact.moments import Moments, unchecked_moments
from gradbench.testing.draws import DRAWS, called_as_made, draws_of, made_of_rows, threshold
from gradbench.testing.problems import Problem, truth
from gradbench.testing.rows import real_rows, row_moments, row_work, vectors_of

EXACT = 1e-10  # relative bias that counts as none where it is enumerated
_SMOOTH = 1e-6  # the same where smooth draws are integrated
_FLOOR = 2e-4  # of the gradient of a layer: that of a unit counts as at least this large

# A short run that is far beyond the threshold shows a bias at once. Else a long run that alarms has
# to be confirmed by another one of another seed.
POWER = 0.975  # probability with which a bias of the size stated as ``bound`` is detected
_WORK = 1 << 19  # draws of one example that an enumeration may take, beyond which bias is tested
_POINTS = 1 << 17  # the same for each example, if they are points of an integral over uniforms
_SHORT, _LONG = 1 << 12, 1 << 16  # draws of single examples
_SHARE = 0.02  # of a sum of squares; where one draw has more of it, its variance is not known

# A test sees no event that does not happen in it. One of this probability in a draw of an example,
# or of a larger one, happens in a long run with the probability POWER.
RARE = -math.log(1 - POWER) / _LONG


class Finding(NamedTuple):
    """The bias on one problem and one class of objectives.

    Attributes:
        problem: the name of the problem.
        objective: the name of the class of objectives.
        deep: True if there are several layers.
        bias: the largest over the layers, relative to the norm of the exact gradient; NaN where a
            gradient is not finite.
        unbiased: True if no bias was found, in any unit of any layer.
        exact: True if the bias was enumerated, False if it was tested.
        bound: the size of a bias that a test would have detected with probability 97.5 %, unless it
            is made by events that are rarer than ``RARE``. Infinite where it is not known, since
            single draws have much of the variance.
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


Enumerate = Callable[[Params, Batch], Moments]


def findings(
    loss: Loss,
    enumerated: Enumerate | None,
    moments: Moments | None,
    problem: Problem,
    seed: int,
) -> list[Finding]:
    """Return findings for the classes of objectives of a problem, also where it saturates.

    Where there is no bias for the general objective, which has a term of every kind, the other
    classes are left out. ``enumerated`` gives the exact moments, see ``exact_moments``; those of
    the general objective are ``moments``.
    """
    found = _by_class(loss, enumerated, problem, problem.batches, seed, moments)
    # Between breakpoints that are so near to 0 and 1, smooth draws have too few points.
    if enumerated and not (_by_uniforms(loss) and loss.smoothness == "smooth"):
        far = problem._replace(name=f"{problem.name}, saturated")
        batches = problem.saturated
        if _by_uniforms(loss) and batches:
            batches = {"any": batches["any"]}
        found[:0] = _by_class(loss, enumerated, far, batches, seed)
    return found


def _by_class(
    loss: Loss,
    enumerated: Enumerate | None,
    problem: Problem,
    batches: dict[str, Batch],
    seed: int,
    known: Moments | None = None,
) -> list[Finding]:
    if not batches:
        return []
    general = _find(loss, enumerated, problem, "any", batches["any"], seed, known)
    if general.unbiased:
        return [general]
    rest = [(name, batch) for name, batch in batches.items() if name != "any"]
    return [
        *(_find(loss, enumerated, problem, name, batch, seed) for name, batch in rest),
        general,
    ]


def _find(
    loss: Loss,
    enumerated: Enumerate | None,
    problem: Problem,
    objective: str,
    batch: Batch,
    seed: int,
    known: Moments | None = None,
) -> Finding:
    params = problem.params
    value, gradient = truth(problem, batch)
    where = (problem.name, objective, problem.deep)
    if enumerated:
        found = known or enumerated(params, batch)
        limit = _limit(loss)
        by_layer, by_unit = biases(found.mean, gradient)
        bias = float(np.max(by_layer))  # NaN where one is
        unbiased = bool(np.max(by_layer if _by_uniforms(loss) else by_unit) < limit)
        off = abs(float(found.value - value)) / max(1.0, abs(float(value)))
        random = any(np.max(v) > 1e-20 for v in vectors_of(found.variance))
        return Finding(*where, bias, unbiased, True, 0.0, off < limit, random)
    return Finding(*where, *_tested(loss, params, batch, value, vectors_of(gradient), seed))


def biases(mean: Params, gradient: Params) -> tuple[list[float], list[float]]:
    """Return the relative bias of every layer, and the largest of the units of every layer.

    The parameters of a unit are a row of the weights or a bias. Its gradient counts as at least
    2e-4 of that of its layer, since it has no more digits than this leaves.
    """
    layers, units = [], []
    for (_, found), (_, right) in zip(layers_of(mean), layers_of(gradient), strict=True):
        both = [(np.asarray(m), np.asarray(g)) for m, g in zip(found, right, strict=True)]
        norm = np.sqrt(sum(np.sum(g**2) for _, g in both))
        layers.append(float(np.sqrt(sum(np.sum((m - g) ** 2) for m, g in both)) / norm))
        rows = [
            (np.sum((m - g) ** 2, axis=axes) ** 0.5, np.sum(g**2, axis=axes) ** 0.5)
            for m, g in both
            for axes in [tuple(range(1, g.ndim))]
        ]
        units.append(float(np.max([np.max(e / (g + _FLOOR * norm)) for e, g in rows])))
    return layers, units


def _limit(loss: Loss) -> float:
    return _SMOOTH if _by_uniforms(loss) and loss.smoothness == "smooth" else EXACT


def _by_uniforms(loss: Loss) -> TypeGuard[SurrogateLoss]:
    return isinstance(loss, SurrogateLoss) and loss.randomness == "uniforms"


def exact_moments(loss: Loss, problem: Problem) -> Enumerate | None:
    """Return the exact moments on a problem, None where there are none or they are much work."""
    if row_work(loss, problem.params, problem.batches["any"], _POINTS) > _WORK:
        return None
    assert isinstance(loss, SurrogateLoss)
    if loss.couples_batch:  # all examples are one draw
        return compile_plainly(partial(unchecked_moments, loss, declared=False))
    return partial(row_moments, loss, points=_POINTS)


def _tested(
    loss: Loss, params: Params, batch: Batch, value: Array, truths: list[np.ndarray], seed: int
) -> tuple[float, bool, bool, float, bool, bool]:
    """Test every coordinate by a z-test; a run that alarms is repeated with another seed.

    A draw of a batch counts as many if it is made of independent draws of its examples.

    Returns:
        The fields of a ``Finding``, from ``bias`` on.
    """
    coordinates = 1 + sum(len(g) for g in truths)
    far_out = threshold(coordinates)
    exact = np.concatenate([np.ravel(value), *truths])
    alarms = np.ones(coordinates, bool)
    for run, draws in enumerate((_SHORT, _LONG, _LONG)):
        key = jax.random.fold_in(jax.random.key(seed), run)
        mean, deviation, scale, share = _statistics(loss, params, key, batch, draws)
        error = np.where(np.isfinite(mean), mean - exact, np.inf)
        far = 2 if draws == _SHORT else 1
        beyond = np.abs(error) > far * far_out * scale + 1e-9 * (1 + np.abs(exact))
        # What never happened in a short run is waited for, unless nothing is random.
        sure = beyond & ((deviation > 0) | ~deviation.any())
        if draws == _SHORT and sure[1:].any():
            alarms = beyond
            break
        if draws == _LONG:
            alarms &= beyond
            if not alarms.any():
                break
    ends = np.cumsum([1, *(len(g) for g in truths)])
    layers = [slice(a, b) for a, b in pairwise(ends)]
    norms = [np.linalg.norm(exact[layer]) for layer in layers]
    reach = far_out + NormalDist().inv_cdf(POWER)
    scale = np.where(share > _SHARE, np.inf, scale)
    relative = [np.linalg.norm(error[layer]) / n for layer, n in zip(layers, norms, strict=True)]
    bias = np.max(relative)
    bound = max(
        reach * np.linalg.norm(scale[layer]) / n for layer, n in zip(layers, norms, strict=True)
    )
    random = bool(np.any(deviation[1:] > 1e-10))
    return float(bias), not alarms[1:].any(), False, float(bound), not alarms[0], random


def _statistics(
    loss: Loss, params: Params, key: Array, batch: Batch, draws: int
) -> tuple[np.ndarray, ...]:
    """Return mean, standard deviation and error of the mean of value and gradient, as vectors.

    There are ``draws`` of single examples, or of batches where these are no draws of their own.
    The last result is the largest part that a single draw has of a sum of squares.
    """
    width = 1 << (batch_size(batch) - 1).bit_length() if made_of_rows(loss) else 1
    count = _SHORT // width if made_of_rows(loss) else DRAWS  # keys
    keys = run_trace(_split.trace(key, draws // width, count), key)
    if made_of_rows(loss):
        d = real_rows(loss, params, keys.ravel(), batch)
    else:
        made = called_as_made(loss)
        d = np.concatenate([draws_of(loss, params, part, batch, made) for part in keys])
    mean, deviation = np.mean(d, axis=0), np.std(d, axis=0)
    far = np.max((d - mean) ** 2, axis=0)
    share = np.where(deviation > 1e-10, far / np.where(deviation > 1e-10, deviation**2, 1), 0)
    return mean, deviation, deviation / math.sqrt(len(d)), share / len(d)


@partial(jax.jit, static_argnums=(1, 2))
def _split(key: Array, number: int, count: int) -> Array:
    """Return so many keys, ``[parts, 8, keys]`` with ``count`` in each part."""

    def part(start: Array) -> Array:
        return jax.random.split(jax.random.fold_in(key, start), (8, count // 8))

    return jax.vmap(part)(jnp.arange(0, number, count))
