"""Estimators as their papers define them, written plainly, for a comparison draw by draw."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from gradbench.core.contract import Example, Loss, Model, Params, Trace
from gradbench.core.run import flip, run_at_states, sampled
from gradbench.core.uncompiled import by_rows
from gradbench.core.uniforms import Uniforms
from gradbench.testing.problems import Problem, problems
from gradbench.testing.requirement import Check
from gradbench.testing.rows import draws_at, uniforms_of_keys

_KEYS = 16
_ROUNDING = 1e-9

Definition = Callable[[Model, Params, Uniforms, Example], PyTree]


def definition_checks(
    make: Callable[[Model], Loss], name: str, seed: int, known: Mapping[str, Loss] | None = None
) -> list[Check]:
    """Compare draws in deep networks with the definition of a registered estimator.

    There is no check where there is no definition. An estimator with hyper-parameters is compared
    at its defaults. ``known`` are losses that were made for some problems, by their names.
    """
    if name not in DEFINITIONS:
        return []
    wrong = []
    for problem in problems(seed):
        if not problem.deep or problem.narrow:  # a function written by hand, and a chain
            continue
        loss = (known or {}).get(problem.name) or make(problem.model)
        mine, right = _both(loss, problem, DEFINITIONS[name], seed)
        if not np.allclose(mine, right, rtol=_ROUNDING, atol=_ROUNDING):
            wrong.append(problem.name)
    return [Check("definition", not wrong, f"draws differ from its formula on {', '.join(wrong)}")]


def _both(
    loss: Any, problem: Problem, definition: Definition, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return gradients of the first example, a row per key: of the estimator and of its formula."""
    model, (params, batch) = problem.model, (problem.params, problem.batches["any"])
    keys = jax.random.split(jax.random.key(seed), _KEYS)
    (u,), examples = uniforms_of_keys(model, 1, False, params, keys, batch)
    first = jax.tree.map(lambda leaf: leaf[:, 0], (u, examples))
    mine = draws_at(loss, params, (first[0],), first[1])[:, 1:]
    return mine, by_rows(_defined, (definition, model), params, first)


def _defined(
    definition: Definition, model: Model, params: Params, row: tuple[Uniforms, Example]
) -> Float[Array, " coordinates"]:
    return ravel_pytree(definition(model, params, *row))[0]


def _total(
    model: Model, params: Params, example: Example, run: Trace, signals: list[Array]
) -> PyTree:
    """Return df/dtheta at given states plus sum_k (da_k/dtheta)^T signal_k."""

    def parts(params: Params) -> tuple[Array, tuple[Array, ...]]:
        other = run_at_states(model, params, example, run.x)
        return other.f, other.a

    (f, _), pull = jax.vjp(parts, params)
    return pull((jnp.ones_like(f), tuple(signals)))[0]


def straight_through(model: Model, params: Params, u: Uniforms, example: Example) -> PyTree:
    """Return the chain of slopes: s_k = 2F'(a_k) (df/dx_k + sum_{j > k} (da_j/dx_k)^T s_j).

    The derivatives are those at the sampled states, of f and a as functions of all states.
    """
    run = sampled(model, params, u, example)

    def parts(x: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        other = run_at_states(model, params, example, x)
        return other.f, other.a

    (f, _), pull = jax.vjp(parts, run.x)
    signals = [jnp.zeros_like(a) for a in run.a]
    for k in reversed(range(len(run.a))):
        slope = pull((jnp.ones_like(f), tuple(signals)))[0][k]
        signals[k] = 2 * run.sites[k].noise.pdf(run.a[k]) * slope
    return _total(model, params, example, run, signals)


def psa(model: Model, params: Params, u: Uniforms, example: Example) -> PyTree:
    """Return the recursion over single flips; f is averaged over flips of the last layer.

    delta_i = f(x with i flipped) - f(x) + sum over the units j of all layers above of
    -x_j delta_j (F(a_j with i flipped) - F(a_j)); the gradient in a_i is -x_i delta_i F'(a_i).
    With n units in the last layer, f is f(x) + sum_i (1 - P(x_i)) (f(x with i flipped) - f(x)) / n.
    """
    run = sampled(model, params, u, example)
    last = len(run.x) - 1
    signals = [jnp.zeros_like(a) for a in run.a]
    for k in reversed(range(last + 1)):
        x_k, noise = run.x[k], run.sites[k].noise

        def flipped(theta: Params, i: Array, k: int = k) -> Trace:
            x = (*run.x[:k], flip(run.x[k], i), *run.x[k + 1 :])
            return run_at_states(model, theta, example, x)

        def delta(i: Array, k: int = k, flipped: Any = flipped) -> Array:
            other = flipped(params, i)
            found = other.f - run.f
            for j in range(k + 1, last + 1):
                cdf = run.sites[j].noise.cdf
                found += jnp.sum(signals[j] * (cdf(other.a[j]) - cdf(run.a[j])))
            return found

        units = jnp.arange(x_k.size)
        signals[k] = -x_k * jax.vmap(delta)(units).reshape(x_k.shape)
        if k == last:
            weights = (1 - noise.probability(x_k, run.a[k]).ravel()) / x_k.size

            def averaged(theta: Params, flipped: Any = flipped, weights: Any = weights) -> Array:
                change = jax.vmap(lambda i: flipped(theta, i).f)(jnp.arange(weights.size))
                return weights @ (change - run_at_states(model, theta, example, run.x).f)

            own = jax.grad(averaged)(params)
    slopes = [s * site.noise.pdf(a) for s, site, a in zip(signals, run.sites, run.a, strict=True)]
    return jax.tree.map(jnp.add, _total(model, params, example, run, slopes), own)


DEFINITIONS: dict[str, Definition] = {"psa": psa, "straight_through": straight_through}
