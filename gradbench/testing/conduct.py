"""The conduct of an estimator as a function: purity, transformations, types, saturation."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.contract import Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.models.dense import Dense
from gradbench.models.network import SBN
from gradbench.models.structure import is_layered
from gradbench.testing.draws import draws_of
from gradbench.testing.objectives import polynomial
from gradbench.testing.problems import Problem
from gradbench.testing.requirement import Check
from gradbench.testing.rows import vector

# Pre-activations of ordinary size, and far beyond what any noise reaches.
_NEAR, _FAR = 1.0, (40.0, 1e4)
_ROUNDING = 1e-9
# Exponential tails, those of a normal distribution, and none.
_NOISES = ("logistic", "normal", "uniform")


def conduct(make: Callable[[Model], Loss], problem: Problem) -> list[Check]:
    """Check the requirements on a loss as a function, on one problem and at saturation."""
    params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
    called = make(problem.model)
    keys = jax.random.split(jax.random.key(5), (2, 2))
    before = jax.tree.map(np.array, (params, batch))
    together, again = (draws_of(called, params, keys, batch) for _ in range(2))
    value, gradient = jax.value_and_grad(make(problem.model))(params, keys[-1, -1], batch)
    pure = _equal((params, batch), before)
    alike = _alike(gradient, params)
    eager, last = vector(value, gradient), together[-1]
    same = under_jit = under_vmap = under_scan = _close(last, eager)
    if not same:  # find out which of the three changes a draw

        def draw(key: Array) -> Array:
            return vector(*jax.value_and_grad(called)(params, key, batch))

        compiled, mine = jax.jit(draw)(keys[-1, -1]), jax.jit(jax.vmap(draw))(keys[-1, -2:])[-1]
        under_jit, under_vmap = _close(compiled, eager), _close(mine, compiled)
        under_scan = _close(last, mine)
    return [
        Check("pure", pure, "it changes its arguments"),
        Check("deterministic", _equal(together, again), "a key gives different draws"),
        Check("jit", under_jit, "draws differ under jit, or made anew"),
        Check("vmap", under_vmap, "draws differ under vmap"),
        Check("scan", under_scan, "draws differ under scan"),
        Check("pytree", alike, "its gradient has another structure than params"),
        *_single_precision(make, problem),
    ]


def _equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _close(a: Array, b: Array) -> bool:
    same = np.shape(a) == np.shape(b)
    return same and np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True)


def _alike(gradient: Any, params: Params) -> bool:
    same: bool = jax.tree.structure(gradient) == jax.tree.structure(params)  # type: ignore[operator]
    return same and all(
        g.shape == p.shape and g.dtype == p.dtype
        for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True)
    )


def _single_precision(make: Callable[[Model], Loss], problem: Problem) -> tuple[Check, Check]:
    """Check that float32 parameters give finite float32 draws, also where units saturate."""
    draws = list(_float32_draws(make, problem))
    types = sorted({str(leaf.dtype) for _, leaves in draws for leaf in leaves})
    bad = {a for a, leaves in draws if not all(bool(jnp.all(jnp.isfinite(x))) for x in leaves)}
    finite = _NEAR not in bad
    far = max(bad, default=_NEAR)
    return (
        Check("float32", types == ["float32"] and finite, f"types {types}, finite: {finite}"),
        Check("saturation", far == _NEAR, f"not finite at pre-activations of {far:g}"),
    )


def _float32_draws(
    make: Callable[[Model], Loss], problem: Problem
) -> Iterator[tuple[float, list[Array]]]:
    """Yield draws in float32 through ``_NOISES``, each with the size of its pre-activations."""
    params, (inputs, targets) = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), (problem.params, problem.batches["any"])
    )
    key = jax.random.key(5)
    if not is_layered(problem.model):
        draw = jax.jit(jax.value_and_grad(make(problem.model)))
        far = jax.tree.map(lambda leaf: jnp.full_like(leaf, 40), params[:-1])
        for a, theta in ((_NEAR, params), (40.0, (*far, params[-1]))):
            yield a, jax.tree.leaves(draw(theta, key, (inputs, targets)))
        return
    layers = tuple(Dense(1, 1, noise) for noise in _NOISES)
    for part in (layers, *((layer,) for layer in layers)):
        try:
            draw = jax.jit(jax.value_and_grad(make(SBN(part, polynomial))))
            for a in (_NEAR, *_FAR):
                weights = (1.0, *(a,) * (len(part) - 1))  # the inputs are as large themselves
                theta = tuple(
                    {"weight": jnp.full((1, 1), w, jnp.float32), "bias": jnp.zeros(1, jnp.float32)}
                    for w in weights
                )
                inputs = jnp.array([[a], [-a], [a / 40]], jnp.float32)
                yield a, jax.tree.leaves(draw((*theta, params[-1]), key, (inputs, targets)))
        except GradbenchError:
            continue  # the estimator refuses this number of layers
        if part is layers:
            return  # one chain through all of them is enough


def takes_black_box(make: Callable[[Model], Loss], problem: Problem) -> bool | None:
    """Return whether the estimator takes an objective that has no derivative in the states.

    None for binary weights, where real parameters reach the objective as well.
    """

    def opaque(theta: Any, x: Any, target: Any) -> Any:
        def outside(x: Any) -> Any:
            return np.sum(np.asarray(x), axis=-1)

        like = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(outside, like, x.ravel(), vmap_method="expand_dims")

    model: Any = problem.model
    if not hasattr(model, "with_objective"):
        return None
    draw = jax.grad(make(model.with_objective(opaque)))
    try:
        jax.eval_shape(draw, problem.params, jax.random.key(0), problem.batches["any"])
    except ValueError:  # raised by JAX where it would have to differentiate a callback
        return False
    return True
