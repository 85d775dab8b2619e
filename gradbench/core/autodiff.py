"""The two functions by which estimators set a gradient by hand, and what has a first one alone."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PyTree

from gradbench.core.errors import GradbenchError


def surrogate_gradient(slope: Callable[..., Array], x: Array, a: Array, *args: Any) -> Array:
    """Return the value ``x``, with the gradient ``slope(x, a, *args)`` in ``a``.

    Every straight-through rule is of this form. The value is exactly ``x``. Forward and reverse
    differentiation work, and that of ``slope`` in what it closes over.

    Args:
        slope: the derivative of the result in ``a``, elementwise.
        x: the value [...].
        a: what is differentiated [...], of the same shape.
        args: further arrays for ``slope``, without a gradient.
    """
    if _sees_tracer(slope):  # such as a temperature that anneals: it has to be an argument
        slope, own = jax.closure_convert(slope, x, a, *args)
        args = (*args, *own)
    return _surrogate_gradient(slope, x, a, *args)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _surrogate_gradient(slope: Callable[..., Array], x: Array, a: Array, *args: Any) -> Array:
    # Nominally a function of a too, see gradient_term.
    return jnp.where(False, a, x).astype(jnp.result_type(x))


@_surrogate_gradient.defjvp
def _surrogate_gradient_jvp(slope, primals, tangents):
    x, a, *args = primals
    return _surrogate_gradient(slope, x, a, *args), slope(x, a, *args) * tangents[1]


def _sees_tracer(thing: Any, depth: int = 6) -> bool:
    """Return whether a function closes over a number that JAX traces, itself or by another one."""
    if isinstance(thing, jax.core.Tracer):
        return True
    if isinstance(thing, partial):
        inner = (thing.func, *thing.args, *thing.keywords.values())
    elif is_dataclass(thing):
        inner = tuple(vars(thing).values())
    else:
        inner = tuple(cell.cell_contents for cell in getattr(thing, "__closure__", None) or ())
    return depth > 0 and any(_sees_tracer(one, depth - 1) for one in inner)


@jax.custom_jvp
def gradient_term(g: Array, a: Array) -> Float[Array, ""]:
    """Return the value 0, with the gradient ``g`` in ``a``.

    Every score-function and finite-difference rule adds such terms to the objective, one per site.
    Differentiating once more differentiates ``g``, by which estimators minimise their variance.

    Args:
        g: the gradient, of the shape of ``a``.
        a: what is differentiated.
    """
    # Nominally a function of g and a: vmap has to see that the value is mapped as the tangent is.
    # Without it a gradient of jit of a gradient of vmap fails.
    return jnp.sum(jnp.where(False, g * a, 0)).astype(jnp.result_type(a))


@gradient_term.defjvp
def _gradient_term_jvp(primals, tangents):
    g, a = primals
    slope = jnp.sum(g * tangents[1])
    return gradient_term(g, a), slope.astype(jnp.result_type(a))  # g may have higher precision


def fixed_at_infinity(a: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return pre-activations whose infinite entries, of masked units, have the gradient 0."""
    return jnp.where(jnp.isinf(a), jax.lax.stop_gradient(a), a)


def first_order(sampled: PyTree, direct: PyTree = ()) -> tuple[PyTree, PyTree]:
    """Return two pytrees whose second derivatives are refused.

    A draw of an estimator has the right mean as a first derivative. Differentiated once more, it
    misses how the distribution of the states depends on what is differentiated. Derivatives of a
    draw in anything else, such as learned parts, are not affected.

    Args:
        sampled: what the distribution of the states may depend on.
        direct: what only the objective depends on; its own second derivatives are right.

    Raises:
        GradbenchError: later, when a derivative in ``sampled`` is differentiated in either, or one
            in ``direct`` in ``sampled``.
    """
    found = [leaf for leaf in jax.tree.leaves((sampled, direct)) if _varies(leaf)]
    if not found:
        return sampled, direct
    at_states = sum(map(_varies, jax.tree.leaves(sampled)))
    once = iter(_once(at_states, tuple(found)))
    return jax.tree.map(lambda leaf: next(once) if _varies(leaf) else leaf, (sampled, direct))


def _varies(leaf: Any) -> bool:
    """Return whether JAX may differentiate in a leaf: it then traces it."""
    return isinstance(leaf, jax.core.Tracer) and jnp.issubdtype(leaf.dtype, jnp.floating)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once(at_states: int, leaves: tuple[Array, ...]) -> tuple[Array, ...]:
    """Return the leaves, of which the states depend on so many at the front."""
    return leaves


def _once_jvp(at_states, primals, tangents):
    (leaves,), (slopes,) = primals, tangents
    some = any(not isinstance(slope, SymbolicZero) for slope in slopes[:at_states])
    # The factor 1 is differentiated wherever the derivative is, and stands in its known part, which
    # JAX does not forget when it transposes. The compiler drops it.
    one = _one(leaves if some else leaves[:at_states])
    return _once(at_states, leaves), tuple(
        slope if isinstance(slope, SymbolicZero) else slope * one.astype(slope.dtype)
        for slope in slopes
    )


_once.defjvp(_once_jvp, symbolic_zeros=True)


@jax.custom_jvp
def _one(leaves: tuple[Array, ...]) -> Float[Array, ""]:
    return jnp.ones(())


@_one.defjvp
def _one_jvp(primals, tangents):
    raise GradbenchError(
        "a gradient through sampled states is differentiated once more, as a Hessian or a gradient "
        "of a gradient's norm does, and its derivative would not have the right mean; "
        "differentiate gradbench.expected_loss twice, which sums over all states, or give the "
        "inner gradient jax.lax.stop_gradient(params) where it is meant as a constant"
    )


def refuses_second_derivatives(loss: Any, params: PyTree, key: Array, batch: PyTree) -> bool:
    """Return whether a loss refuses the derivative of its gradient in the (real) parameters.

    Nothing is computed but shapes.

    Raises:
        GradbenchError: the gradient itself is refused.
    """

    def draw(params: PyTree) -> PyTree:
        return jax.grad(loss)(params, key, batch)

    jax.eval_shape(draw, params)
    try:
        jax.eval_shape(lambda params: jax.jvp(draw, (params,), (params,)), params)
    except GradbenchError:
        return True
    return False
