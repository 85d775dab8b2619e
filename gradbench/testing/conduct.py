"""The conduct of an estimator as a function: purity, transformations, types."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.autodiff import refuses_second_derivatives
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.uncompiled import run_trace
from gradbench.testing.draws import called_as_made, draws_of, keys_of
from gradbench.testing.problems import Problem
from gradbench.testing.requirement import Check
from gradbench.testing.rows import vector

Checks = list[Check]
_ROUNDING = 1e-9


def conduct(make: Callable[[Model], Loss], problem: Problem, called: Loss | None = None) -> Checks:
    """Check the requirements on a loss as a function, on one problem.

    Args:
        make: gives the loss.
        problem: a small one.
        called: what ``make`` has given already.
    """
    params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
    called = called or make(problem.model)
    keys = keys_of(5)
    before = jax.tree.map(np.array, (params, batch))
    how = (called, params, keys, batch, called_as_made(called))
    together, again = (draws_of(*how) for _ in range(2))
    anew = make(problem.model)
    # By itself: the key and the batch are known, and nothing but the parameters is traced.
    draw = jax.jit(lambda params: jax.value_and_grad(anew)(params, keys[-1, -1], batch))
    value, gradient = run_trace(draw.trace(params), params)
    pure = _equal((params, batch), before)
    alike = _alike(gradient, params)
    eager = np.concatenate(list(map(np.ravel, (value, *jax.tree.leaves(gradient)))))
    last = together[-1]
    same = under_jit = under_vmap = under_scan = _close(last, eager)
    if not same:  # find out which of the three changes a draw

        def one(key: Array) -> Array:
            return vector(*jax.value_and_grad(called)(params, key, batch))

        compiled, mine = jax.jit(one)(keys[-1, -1]), jax.jit(jax.vmap(one))(keys[-1])[-1]
        under_jit, under_vmap = _close(compiled, eager), _close(mine, compiled)
        under_scan = _close(last, mine)
    types = _types(called, params, batch)
    return [
        Check("pure", pure, "it changes its arguments"),
        Check("deterministic", _equal(together, again), "a key gives different draws"),
        Check("jit", under_jit, "draws differ under jit, or made anew"),
        Check("vmap", under_vmap, "draws differ under vmap"),
        Check("scan", under_scan, "draws differ under scan"),
        Check("pytree", alike, "its gradient has another structure than params"),
        Check("float32", types == ["float32"], f"it gives draws of types {types}"),
        _second_derivatives(called, params, keys[-1, -1], batch),
    ]


def _second_derivatives(called: Loss, params: Params, key: Array, batch: Batch) -> Check:
    """Check that a second derivative is refused, unless it is declared to be right."""
    safe = getattr(called, "second_order", False) or called_as_made(called)
    safe = safe or refuses_second_derivatives(called, params, key, batch)
    seen = "a derivative of its gradient, which is wrong for sampled states, is not refused"
    return Check("second derivatives", safe, f"{seen}; see gradbench.core.autodiff.first_order")


def _types(called: Loss, params: Params, batch: Batch) -> list[str]:
    """Return the types of what is differentiated where all numbers are in single precision.

    JAX sees to it that gradients have the types of the parameters.
    """
    single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (params, batch))
    found = jax.eval_shape(called, single[0], jax.random.key(5), single[1])
    return sorted({str(leaf.dtype) for leaf in jax.tree.leaves(found)})


def _equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _close(a: Array | np.ndarray, b: Array | np.ndarray) -> bool:
    same = np.shape(a) == np.shape(b)
    return same and np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True)


def _alike(gradient: Any, params: Params) -> bool:
    same: bool = jax.tree.structure(gradient) == jax.tree.structure(params)  # type: ignore[operator]
    return same and all(
        g.shape == p.shape and g.dtype == p.dtype
        for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True)
    )


def takes_black_box(make: Callable[[Model], Loss], taken: Sequence[Problem]) -> bool | None:
    """Return whether the estimator takes an objective that has no derivative in the states.

    None if it takes only binary weights, where real parameters reach the objective as well.
    """

    def opaque(theta: Any, x: Any, target: Any) -> Any:
        def outside(x: Any) -> Any:
            return np.sum(np.asarray(x), axis=-1)

        like = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(outside, like, x.ravel(), vmap_method="expand_dims")

    problem = next((p for p in taken if hasattr(p.model, "with_objective")), None)
    if problem is None:
        return None
    model: Any = problem.model
    draw = jax.grad(make(model.with_objective(opaque)))
    try:
        jax.eval_shape(draw, problem.params, jax.random.key(0), problem.batches["any"])
    except ValueError:  # raised by JAX where it would have to differentiate a callback
        return False
    return True
