"""Estimators as their papers define them, written plainly, for a comparison draw by draw."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from gradbench.core.contract import Example, Loss, Model, Params, Trace
from gradbench.core.pytrees import layer_vectors
from gradbench.core.run import batch_size, find_sites, flip, run_at_states, sampled
from gradbench.core.uniforms import Uniforms, draw_uniforms
from gradbench.testing.problems import problems
from gradbench.testing.requirement import Check

_KEYS = 16
_ROUNDING = 1e-9

Definition = Callable[[Model, Params, Uniforms, Example], PyTree]


def definition_checks(make: Callable[[Model], Loss], name: str, seed: int) -> list[Check]:
    """Compare draws in deep networks with the definition of a registered estimator.

    There is no check where there is no definition. An estimator with hyper-parameters is compared
    at its defaults.
    """
    if name not in DEFINITIONS:
        return []
    wrong = []
    for problem in problems(seed):
        if not problem.deep or problem.narrow:
            continue
        params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
        draws = _compare(make(problem.model), problem.model, DEFINITIONS[name])
        mine, right = draws(params, jax.random.split(jax.random.key(seed), _KEYS), batch)
        if not np.allclose(mine, right, rtol=_ROUNDING, atol=_ROUNDING):
            wrong.append(problem.name)
    return [Check("definition", not wrong, f"draws differ from its formula on {', '.join(wrong)}")]


def _compare(loss: Loss, model: Model, definition: Definition) -> Callable[..., Any]:
    """Return a function of parameters, keys and batch: the gradients of both, a row per key."""

    def by_formula(params: Params, key: Array, batch: Any) -> PyTree:
        n = batch_size(batch)
        sites = find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], batch))
        (u,) = draw_uniforms(key, [s.shape for s in sites], 1, n, jnp.result_type(float))
        every = jax.vmap(partial(definition, model, params), (-1, 0))(u, batch)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), every)

    def both(params: Params, key: Array, batch: Any) -> tuple[Array, Array]:
        g = jax.grad(loss)(params, key, batch), by_formula(params, key, batch)
        mine, right = (jnp.concatenate(layer_vectors(one)) for one in g)
        return mine, right

    return jax.jit(jax.vmap(both, (None, 0, None)))


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
    flipped_gradients: Any = None
    for k in reversed(range(last + 1)):
        noise, size = run.sites[k].noise, run.sites[k].size
        deltas = []
        for i in range(size):
            x = (*run.x[:k], flip(run.x[k], jnp.asarray(i)), *run.x[k + 1 :])
            other = run_at_states(model, params, example, x)
            delta = other.f - run.f
            for j in range(k + 1, last + 1):
                cdf = run.sites[j].noise.cdf
                delta += jnp.sum(signals[j] * (cdf(other.a[j]) - cdf(run.a[j])))
            deltas.append(delta)
            if k == last:
                p = noise.probability(run.x[k], run.a[k]).ravel()[i]
                own = jax.grad(lambda q, x=x: run_at_states(model, q, example, x).f)(params)
                base = jax.grad(lambda q: run_at_states(model, q, example, run.x).f)(params)
                part = jax.tree.map(lambda a, b, c=(1 - p) / size: c * (a - b), own, base)
                flipped_gradients = (
                    part
                    if flipped_gradients is None
                    else jax.tree.map(jnp.add, flipped_gradients, part)
                )
        signals[k] = -run.x[k] * jnp.stack(deltas).reshape(run.x[k].shape)
    slopes = [s * site.noise.pdf(a) for s, site, a in zip(signals, run.sites, run.a, strict=True)]
    total = _total(model, params, example, run, slopes)
    return jax.tree.map(jnp.add, total, flipped_gradients)


DEFINITIONS: dict[str, Definition] = {"psa": psa, "straight_through": straight_through}
