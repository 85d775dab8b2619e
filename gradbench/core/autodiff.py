"""The two functions by which estimators set a gradient by hand."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def surrogate_gradient(slope: Callable[..., Array], x: Array, a: Array, *args: Any) -> Array:
    """Return the value ``x``, with the gradient ``slope(x, a, *args)`` in ``a``.

    Every straight-through rule is of this form. The value is exactly ``x``. Forward, reverse and
    second-order differentiation work.

    Args:
        slope: the derivative of the result in ``a``, elementwise.
        x: the value, of any shape.
        a: what is differentiated, of the same shape.
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
