"""Real draws of an estimator, compared with what was enumerated of it.

An enumeration runs the loss of one example on uniforms that it chooses, and trusts what the
estimator says of itself. Here the estimator is called as a user calls it, on the whole batch in
double precision and on its first example alone in single precision, under jit, scan and vmap.
"""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Example, Loss, Params
from gradbench.core.precision import single
from gradbench.core.pytrees import closed, layer_vectors, real_type
from gradbench.core.run import as_examples, batch_size, find_sites, sampled
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uniforms import Uniforms, draw_uniforms
from gradbench.estimators.adaptive import Learned
from gradbench.exact.moments import Moments
from gradbench.testing.bias import threshold
from gradbench.testing.conduct import Check
from gradbench.testing.problems import Problem

DRAWS = 1024
_CHUNKS = 8
_ROUNDING = {"float64": 1e-9, "float32": 2e-3}  # of the size of the draws of a layer


def check_draws(
    make: Any, loss: Loss, found: Moments | None, problem: Problem, seed: int
) -> list[Check]:
    """Compare draws of ``make(model)(params, key, batch)`` with the enumeration ``found`` of it.

    Each difference is tested by z-tests of all coordinates: of the mean and the variance against
    those enumerated, and of the mean and the mean square against draws with the same keys of what
    was enumerated, which are usually the same numbers. What alarms at a rate of 1e-4 must alarm
    again with another seed, so that the rate of false alarms is 1e-8 for each test. Where nothing
    is enumerated, single precision is compared with double precision.

    ``loss`` is what was enumerated: of learned parts, their initial state.
    """
    alarms: set[str] | None = None
    for run in range(2):
        new = _alarms(make, loss, found, problem, 1000 * (run + 1) + seed)
        alarms = new if alarms is None else alarms & new
        if not alarms:
            break
    assert alarms is not None
    return [
        Check(name, name not in alarms, seen)
        for name, seen in {
            "draws": "real draws differ from what was enumerated",
            "one example": "draws in float32 on a single example differ from those in float64",
        }.items()
    ]


def _alarms(make: Any, loss: Loss, found: Moments | None, problem: Problem, seed: int) -> set[str]:
    params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
    one = jax.tree.map(lambda leaf: leaf[:1], batch)
    keys = jax.random.split(jax.random.key(seed), (_CHUNKS, DRAWS // _CHUNKS))
    draws = np.asarray(_draws(make(problem.model), params, keys, batch))
    alarms = set()
    if isinstance(loss, SurrogateLoss) and not getattr(loss.model, "random", False):
        right, right_alone = map(np.asarray, _enumerated(loss, params, keys, batch))
        if _differ(draws, right, params, "float64"):
            alarms.add("draws")
    else:
        right_alone = np.asarray(_draws(make(problem.model), params, keys, one))
    if found is not None and _disagree(draws, found, params):
        alarms.add("draws")
    if _differ(_in_single(make, problem, seed), right_alone, params, "float32"):
        alarms.add("one example")
    return alarms


def _in_single(make: Any, problem: Problem, seed: int) -> np.ndarray:
    """Return draws of the first example in single precision, for the keys of the others."""
    with single():
        keys = jax.random.split(jax.random.key(seed), (_CHUNKS, DRAWS // _CHUNKS))
        params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
        one = jax.tree.map(lambda leaf: leaf[:1], batch)
        return np.asarray(_draws(make(problem.model), params, keys, one), np.float64)


def _vector(value: Array, gradient: Params) -> Float[Array, " coordinates"]:
    return jnp.concatenate([value[None], *layer_vectors(gradient)])


@partial(jax.jit, static_argnums=0)
def _draws(
    loss: Loss, params: Params, keys: Array, batch: Batch
) -> Float[Array, "draws coordinates"]:
    """Return the draws of value and gradient for every key."""

    def draw(key: Array) -> Array:
        return _vector(*jax.value_and_grad(loss)(params, key, batch))

    found = jax.lax.map(jax.vmap(draw), keys)
    return found.reshape(-1, found.shape[-1])


@partial(jax.jit, static_argnums=0)
def _enumerated(
    loss: SurrogateLoss, params: Params, keys: Array, batch: Batch
) -> tuple[Array, Array]:
    """Return the draws that were enumerated, of the paths that the keys of real draws give.

    They are on the whole batch and on its first example, both ``[draws, coordinates]``. An
    estimator that is driven by states gets the uniforms 0 and 1 in the place of its own.
    """
    opened = jax.tree.map(lambda leaf: leaf[:1], batch)

    def uniforms(params: Params, key: Array, examples: Batch) -> tuple[Uniforms, ...]:
        sites = find_sites(loss.model, params, jax.tree.map(lambda leaf: leaf[0], examples))
        shapes, n = [site.shape for site in sites], batch_size(examples)
        u = draw_uniforms(key, shapes, loss.streams, n, real_type(params))
        if loss.randomness == "uniforms":
            return u

        def of_path(stream: Uniforms, example: Example) -> Uniforms:
            run = sampled(loss.model, params, stream, example)
            return tuple((1 - x) / 2 for x in run.x)

        return tuple(jax.vmap(of_path, (-1, 0), -1)(stream, examples) for stream in u)

    def gradients(u: tuple[Uniforms, ...], examples: Batch) -> Array:
        """Return value and gradient of each example, or of all together where they are coupled."""
        draw = jax.value_and_grad(loss.example_loss)
        if loss.couples_batch:
            return _vector(*draw(closed(params), u, examples))[None]
        return jax.vmap(lambda u, e: _vector(*draw(closed(params), u, e)), (-1, 0))(u, examples)

    def one(key: Array) -> tuple[Array, Array]:
        parts = []
        for few in (batch, opened):
            examples = as_examples(loss.model, key, few)
            parts.append((uniforms(closed(params), key, examples), examples))
        if loss.couples_batch or hasattr(loss.model, "as_single_example"):
            whole, first = (jnp.mean(gradients(*part), axis=0) for part in parts)
            return whole, first
        u = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=-1), parts[0][0], parts[1][0])
        examples = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), parts[0][1], parts[1][1])
        every = gradients(u, examples)  # of one program
        return jnp.mean(every[:-1], axis=0), every[-1]

    found = jax.lax.map(jax.vmap(one), keys)
    return tuple(x.reshape(-1, x.shape[-1]) for x in found)  # type: ignore[return-value]


def _size(draws: np.ndarray, params: Params) -> np.ndarray:
    """Return for every coordinate the size of the draws of its layer, at least 1e-6."""
    lengths = [1, *(len(theta) for theta in layer_vectors(params))]
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
    mean = np.concatenate([np.ravel(found.value), *map(np.asarray, layer_vectors(found.mean))])
    variance = np.concatenate([*map(np.asarray, layer_vectors(found.variance))])
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
    """Return the estimator with learned parts frozen at their initial state."""
    return loss.frozen(loss.init(params, batch)) if isinstance(loss, Learned) else loss


def trace(loss: Loss, params: Params, batch: Batch) -> None:
    """Trace an estimator without running it.

    Raises:
        GradbenchError: it refuses the model.
    """
    jax.eval_shape(loss, params, jax.random.key(0), batch)
