"""Real draws of an estimator, compared with what was enumerated of it.

An enumeration runs the loss of one example on uniforms that it chooses, and trusts what the
estimator says of itself. Here the estimator is called as a user calls it, under jit, scan and vmap:
on the whole batch of a small problem in both precisions, and on a single example of a wide one in
single precision; on all problems in all ways where the loss of a batch is not made by
``surrogate_loss``.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from statistics import NormalDist
from typing import NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.compiling import compile_plainly
from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.devices import in_full_precision
from gradbench.core.precision import single
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uncompiled import run_trace
from gradbench.estimators.adaptive import Learned, adapted
from gradbench.exact.moments import Moments
from gradbench.testing.problems import Problem
from gradbench.testing.requirement import Check
from gradbench.testing.rows import real_rows, vector, vectors_of

DRAWS = 1024
STEPS = 100  # of the fit of learned parts
_CHUNKS = 2
FALSE_ALARM = 1e-8  # rate of a test that alarms twice, each time at the root of this rate
_FAR = (40.0, 1e4)  # times the parameters: far beyond what any noise reaches
_ROUNDING = {"float64": 1e-9, "float32": 2e-3}  # of the size of the draws of a layer


class Variant(NamedTuple):
    """How an estimator is called.

    Attributes:
        one: on a single example.
        single: in single precision.
        traced: what was traced is run in numpy, which takes less time than compiling it.
    """

    one: bool
    single: bool
    traced: bool = False


# What is finite far out depends on the compiler too: some draws in single precision are compiled.
SMALL = (Variant(one=False, single=False, traced=True), Variant(one=False, single=True))
WIDE = (Variant(one=True, single=True, traced=True),)
VARIANTS = tuple(Variant(one, single) for one in (False, True) for single in (False, True))


def called_as_made(called: Loss) -> bool:
    """Return whether the loss of a batch is made by ``surrogate_loss``, and not by its own means.

    It is the mean of the losses of its examples by construction then, and ``SMALL`` and ``WIDE``
    see both sizes of batches and both precisions. Any other loss needs all of ``VARIANTS``.
    """
    return type(called).__call__ in (SurrogateLoss.__call__, Learned.__call__)


def check_draws(
    called: Loss,
    loss: Loss,
    found: Moments | None,
    problem: Problem,
    variants: Sequence[Variant],
    seed: int,
) -> list[Check]:
    """Compare draws of ``called(params, key, batch)`` with the enumeration ``found`` of ``loss``.

    Each difference is tested by z-tests of all coordinates: of the mean and the variance against
    those enumerated, and of the mean and the mean square against draws with the same keys of what
    was enumerated, which are usually the same numbers. What alarms at a rate of 1e-4 must alarm
    again with another seed, so that the rate of false alarms is 1e-8 for each test. Where nothing
    is enumerated, the calls are compared with those in double precision.

    ``loss`` is what was enumerated: of learned parts, their initial state.
    """
    alarms: set[str] | None = None
    for run in range(2):
        new = _alarms(called, loss, found, problem, variants, 1000 * (run + 1) + seed)
        alarms = new if alarms is None else alarms & new
        if not alarms:
            break
    assert alarms is not None
    return [
        Check(name, name not in alarms, seen)
        for name, seen in {
            "draws": "real draws differ from what was enumerated",
            "one example": "real draws on a single example differ from what was enumerated",
            "single precision": "draws in float32 differ from those in float64",
        }.items()
    ]


def made_of_rows(loss: Loss) -> TypeGuard[SurrogateLoss]:
    """Return whether draws are those of ``real_rows``."""
    return isinstance(loss, SurrogateLoss) and not getattr(loss.model, "random", False)


def threshold(coordinates: int) -> float:
    """Return the threshold of a z-test of so many coordinates that has to be confirmed."""
    return -NormalDist().inv_cdf(math.sqrt(FALSE_ALARM) / (2 * coordinates))


def keys_of(seed: int) -> Array:
    """Return keys for draws of one program, ``[chunks, keys]``."""
    key = jax.random.key(seed)
    keys: Array = run_trace(_split.trace(key), key)
    return keys


@jax.jit
def _split(key: Array) -> Array:
    return jax.random.split(key, (_CHUNKS, DRAWS // _CHUNKS))


def _in_type(leaf: np.ndarray) -> np.ndarray:
    """Return an array in the precision in which JAX computes."""
    return np.asarray(leaf, jnp.result_type(leaf))


def _alarms(
    called: Loss,
    loss: Loss,
    found: Moments | None,
    problem: Problem,
    variants: Sequence[Variant],
    seed: int,
) -> set[str]:
    params, batch = problem.params, problem.batches["any"]
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    alarms = set()
    right: dict[bool, np.ndarray] = {}
    if made_of_rows(loss):
        for alone in {variant.one for variant in variants}:
            keys, by_states = keys_of(seed).ravel(), loss.randomness != "uniforms"
            right[alone] = real_rows(loss, params, keys, one if alone else batch, by_states)
    for variant in variants:
        alone, in_single, _ = variant
        name = "one example" if alone and not in_single else "draws"
        draws = _called(called, problem, seed, variant)
        if alone not in right:
            double = variant._replace(single=False)
            right[alone] = draws if not in_single else _called(called, problem, seed, double)
        if _differ(draws, right[alone], params, "float32" if in_single else "float64"):
            alarms.add("single precision" if in_single else name)
        if found is not None and not alone and not in_single and _disagree(draws, found, params):
            alarms.add("draws")
    # Those in single precision are compared with what was enumerated too.
    return alarms - {"single precision"} if "draws" in alarms else alarms


def _called(
    called: Loss, problem: Problem, seed: int, variant: Variant, scale: float = 1
) -> np.ndarray:
    """Return draws of a batch, or of its first example alone, perhaps in single precision.

    All parameters but those of the objective, the last, are multiplied by ``scale``.
    """
    with single() if variant.single else nullcontext():
        params, batch = jax.tree.map(_in_type, (problem.params, problem.batches["any"]))
        *layers, objective = params
        params = (*jax.tree.map(lambda leaf: scale * leaf, layers), objective)
        batch = jax.tree.map(lambda leaf: leaf[:1], batch) if variant.one else batch
        draws = draws_of(called, params, keys_of(seed), batch, variant.traced)
        return np.asarray(draws, np.float64)


def saturation(called: Loss, problem: Problem, variant: Variant, seed: int) -> Check:
    """Check that draws are finite far out, where units saturate.

    States that all examples share are weights, which may be real numbers to an estimator: the
    objective has to be finite at these.
    """
    for scale in _FAR[:1] if hasattr(problem.model, "as_single_example") else _FAR:
        if not np.all(np.isfinite(_called(called, problem, seed, variant, scale))):
            seen = f"not finite in single precision with parameters times {scale:g}"
            return Check("saturation", False, seen)
    return Check("saturation", True, "")


def draws_of(
    loss: Loss, params: Params, keys: Array, batch: Batch, traced: bool = False
) -> Float[np.ndarray, "draws coordinates"]:
    """Return the draws of value and gradient for every key, under jit, scan and vmap.

    An estimator sees these while it is traced. What was traced is compiled, or run in numpy.
    """
    if traced:
        return np.asarray(run_trace(_draws.trace(loss, params, keys, batch), params, keys, batch))
    return np.asarray(_draws(loss, params, keys, batch))


@partial(compile_plainly, static_argnums=0)
def _draws(
    loss: Loss, params: Params, keys: Array, batch: Batch
) -> Float[Array, "draws coordinates"]:
    def draw(key: Array) -> Array:
        with in_full_precision():
            return vector(*jax.value_and_grad(loss)(params, key, batch))

    found = jax.lax.map(jax.vmap(draw), keys)
    return found.reshape(-1, found.shape[-1])


def _size(draws: np.ndarray, params: Params) -> np.ndarray:
    """Return for every coordinate the size of the draws of its layer, at least 1e-6."""
    lengths = [1, *(len(theta) for theta in vectors_of(params))]
    ends = np.cumsum([0, *lengths])
    sizes = [np.sqrt(np.mean(draws[:, a:b] ** 2)) for a, b in pairwise(ends)]
    return np.repeat(np.maximum(sizes, 1e-6), lengths)


def _differ(mine: np.ndarray, theirs: np.ndarray, params: Params, dtype: str) -> bool:
    """Return whether draws of the same keys differ in their mean or their mean square."""
    size = _size(theirs, params)
    rounding = _ROUNDING[dtype] * size
    with np.errstate(invalid="ignore", over="ignore"):
        first = _far(mine - theirs, rounding)
        second = _far(mine**2 - theirs**2, rounding * size)
    return first or second


def _far(d: np.ndarray, rounding: np.ndarray) -> bool:
    """Return whether the mean of the rows is not 0, by a z-test beyond ``rounding``."""
    if not np.all(np.isfinite(d)):
        return True
    error = np.std(d, axis=0) / np.sqrt(len(d))
    return bool(np.any(np.abs(np.mean(d, axis=0)) > threshold(d.shape[1]) * error + rounding))


def _disagree(draws: np.ndarray, found: Moments, params: Params) -> bool:
    """Return whether mean or variance of draws are not those enumerated."""
    mean = np.concatenate([np.ravel(found.value), *vectors_of(found.mean)])
    variance = np.concatenate(vectors_of(found.variance))
    rounding = 1e-6 * _size(draws, params)
    z = threshold(len(mean))
    d = draws - mean
    error = np.sqrt(np.concatenate([[np.var(d[:, 0])], variance]) / len(d))
    off = np.abs(np.mean(d, axis=0)) > z * error + rounding
    squares = d[:, 1:] ** 2
    spread = np.std(squares, axis=0) / np.sqrt(len(d))
    other = np.abs(np.mean(squares, axis=0) - variance) > 1.5 * z * spread + rounding[1:] ** 2
    return bool(off.any() or other.any())


def at_start(loss: Loss, params: Params, batch: Batch) -> Loss:
    """Return the estimator with learned parts frozen at their initial state, found in numpy."""
    if not isinstance(loss, Learned):
        return loss
    return loss.frozen(run_trace(jax.jit(loss.init).trace(params, batch), params, batch))


def after_fit(loss: Loss, params: Params, batch: Batch, seed: int) -> Loss:
    """Return the estimator with learned parts frozen after ``STEPS`` steps, found in numpy."""
    if not isinstance(loss, Learned):
        return loss
    key = jax.random.key(seed)
    steps = adapted.trace(loss, STEPS, params, key, batch)
    return loss.frozen(run_trace(steps, params, key, batch))


def trace(loss: Loss, params: Params, batch: Batch) -> None:
    """Trace an estimator without running it.

    Raises:
        GradbenchError: it refuses the model.
    """
    jax.eval_shape(loss, params, jax.random.key(0), batch)
