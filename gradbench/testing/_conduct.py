"""How an estimator behaves as a function: purity, transformations, types, saturation."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradbench.errors import GradbenchError
from gradbench.layers import Dense
from gradbench.model import Loss, Model, Params
from gradbench.network import SBN
from gradbench.noise import NOISES
from gradbench.testing._problems import Problem, polynomial
from gradbench.weights import BinaryWeights

_FAR = (40.0, 1e4)  # pre-activations far beyond what any noise reaches
_ROUNDING = 1e-9


class Check(NamedTuple):
    """One requirement, whether it is met, and what was seen where it is not."""

    name: str
    passed: bool
    seen: str = ""


def conduct(make: Callable[[Model], Loss], problem: Problem) -> list[Check]:
    """The requirements on a loss as a function, on one problem and at saturation."""
    params, batch = jax.tree.map(jnp.asarray, (problem.params, problem.batches["any"]))
    loss = make(problem.model)
    keys = jax.random.split(jax.random.key(5), 4)
    draw = jax.value_and_grad(loss)
    compiled = jax.jit(draw)
    before = jax.tree.map(np.array, (params, batch))
    singles = [compiled(params, key, batch) for key in keys]
    first, again = singles[0], compiled(params, keys[0], batch)
    eager = draw(params, keys[0], batch)
    anew = jax.jit(jax.vmap(jax.value_and_grad(make(problem.model)), (None, 0, None)))
    mapped = anew(params, keys, batch)
    together = jax.tree.map(lambda *x: jnp.stack(x), *singles)
    return [
        Check("pure", _equal((params, batch), before), "it changes its arguments"),
        Check("deterministic", _equal(first, again), "a key gives different draws"),
        Check("jit", _close(first, eager), "draws differ under jit"),
        Check("vmap", _close(mapped, together), "draws differ under vmap, or made anew"),
        Check("pytree", _alike(first[1], params), "its gradient has another form than params"),
        _types(compiled, problem),
        _saturation(make, problem),
    ]


def _equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _close(a: Any, b: Any) -> bool:
    return all(
        np.allclose(x, y, rtol=_ROUNDING, atol=_ROUNDING, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _alike(gradient: Any, params: Params) -> bool:
    same: bool = jax.tree.structure(gradient) == jax.tree.structure(params)  # type: ignore[operator]
    return same and all(
        g.shape == p.shape and g.dtype == p.dtype
        for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(params), strict=True)
    )


def _types(compiled: Any, problem: Problem) -> Check:
    """float32 parameters give a float32 value and gradient, as finite as in float64."""
    params, batch = jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float32), (problem.params, problem.batches["any"])
    )
    value, g = compiled(params, jax.random.key(5), batch)
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves((value, g))})
    finite = all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves((value, g)))
    return Check("float32", types == ["float32"] and finite, f"types {types}, finite: {finite}")


def _saturation(make: Callable[[Model], Loss], problem: Problem) -> Check:
    """Finite values and gradients in float32 where every unit is certain, for every noise."""
    if not isinstance(problem.model, SBN):
        params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 40, jnp.float32), problem.params)
        chains = [(problem.model, (*params[:-1], jnp.float32(0.2)))]
    else:
        layers = tuple(Dense(1, 1, noise) for noise in NOISES)
        theta = {"weight": jnp.ones((1, 1), jnp.float32), "bias": jnp.zeros(1, jnp.float32)}
        chains = [
            (SBN(part, polynomial), (*(theta,) * len(part), jnp.float32(0.2)))
            for part in (layers, *((layer,) for layer in layers))
        ]
    batch = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), problem.batches["any"])
    for model, params in chains:
        try:
            draw = jax.jit(jax.value_and_grad(make(model)))
            for far in _FAR:
                theirs = params
                inputs = batch[0]
                if isinstance(model, SBN):
                    inputs = jnp.array([[far], [-far], [far / 40]], jnp.float32)
                    theirs = (
                        *(
                            {**p, "weight": p["weight"] * (far if k else 1)}
                            for k, p in enumerate(params[:-1])
                        ),
                        params[-1],
                    )
                leaves = jax.tree.leaves(draw(theirs, jax.random.key(5), (inputs, batch[1])))
                if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in leaves):
                    return Check("saturation", False, f"not finite at pre-activations of {far:g}")
        except GradbenchError:
            continue  # a depth that the estimator refuses
        if len(chains) > 1 and model is chains[0][0]:
            break  # one chain through all noises will do
    return Check("saturation", True)


def takes_black_box(make: Callable[[Model], Loss], problem: Problem) -> bool | None:
    """Whether a draw can be had of an objective that has no derivative in the states.

    None for binary weights: real parameters beside them reach the objective too.
    """

    def opaque(theta: Any, x: Any, target: Any) -> Any:
        def outside(x: Any) -> Any:
            return np.sum(np.asarray(x), axis=-1)

        like = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(outside, like, x.ravel(), vmap_method="expand_dims")

    model: Any = problem.model
    if isinstance(model, BinaryWeights):
        return None
    if isinstance(model, SBN):
        model = replace(model, objective=opaque)
    else:  # several samples of one
        model = replace(model, model=replace(model.model, objective=opaque))
    draw = jax.grad(make(model))
    try:
        jax.eval_shape(draw, problem.params, jax.random.key(0), problem.batches["any"])
    except ValueError:  # what JAX raises where it should differentiate a callback
        return False
    return True
