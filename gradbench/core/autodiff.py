"""The two places where a gradient is put by hand."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def surrogate_gradient(slope: Callable[..., Array], x: Array, a: Array, *args: Any) -> Array:
    """The value ``x``, with the gradient ``slope(x, a, *args)`` in ``a``.

    Every straight-through rule is one of these. The value is exactly ``x``; forward, reverse and
    second-order differentiation work.
    """
    return jnp.where(False, a, x).astype(jnp.result_type(x))  # nominally a function of a, as credit


@surrogate_gradient.defjvp
def _surrogate_gradient_jvp(slope, primals, tangents):
    x, a, *args = primals
    return surrogate_gradient(slope, x, a, *args), slope(x, a, *args) * tangents[1]


@jax.custom_jvp
def gradient_term(g: Array, a: Array) -> Float[Array, ""]:
    """The value 0, with the gradient ``g`` in ``a``.

    Every score-function and finite-difference rule adds these to the objective, one per site.
    Differentiating once more differentiates ``g``: estimators minimise their variance so.
    """
    # Nominally a function of g and a: vmap must see that the value is mapped as the tangent is, or
    # a gradient of jit of a gradient of vmap fails.
    return jnp.sum(jnp.where(False, g * a, 0)).astype(jnp.result_type(a))


@gradient_term.defjvp
def _gradient_term_jvp(primals, tangents):
    g, a = primals
    slope = jnp.sum(g * tangents[1])
    return gradient_term(g, a), slope.astype(jnp.result_type(a))  # g may come of higher precision
