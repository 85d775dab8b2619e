"""The effects of all single flips on a layer, as a few products of matrices.

Let a_j be the pre-activations of a layer, and v_ji = W_ji (flipped_i - x_i) their changes where
input i is flipped. PSA needs, for each input i, the pull

    sum over j of g_j (phi(a_j + v_ji) - phi(a_j)),

where phi is F, the distribution function of the noise. That is one value of phi for each pair of an
input and a unit. Where phi is smooth, (phi(a + v) - phi(a)) / v is interpolated in v, at an even
number of r Chebyshev nodes of the interval [-V, V] with V = max |v_ji|:

    phi(a + v) - phi(a) = v * (polynomial of degree r - 1 in v, with coefficients that depend on a),

and the sum over j is r products of W, raised to powers, with g times the coefficients. All
changes of inputs have one size, |flipped_i - x_i| = size, so that V is a number for the layer and
not for the example, and the polynomial is split into its odd and its even part in v: the sign of
the change then stands before the products, and W without it is the same for all examples.

``low_rank_bound`` bounds the error. Which rank a layer takes is said in ``gradbench.models.ranks``.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Elementwise, Noise, get_noise


class Smooth(NamedTuple):
    """A smooth function of pre-activations.

    Attributes:
        value: the function, elementwise.
        slope: its derivative.
        bound: ``bound(k)`` is a bound of its k-th derivative, k >= 1.
    """

    value: Elementwise
    slope: Elementwise
    bound: Callable[[int], float]


def smooth_cdf(noise: str | Noise) -> Smooth | None:
    """Return the distribution function of a noise, where it is known to be smooth."""
    noise = get_noise(noise)
    bound = noise.derivative_bound
    return Smooth(noise.cdf, noise.pdf, bound) if bound else None


def low_rank_bound(noise: str | Noise, rank: int, width: Any) -> Any:
    """Return a bound of the error of a low-rank pull, as a share of the steepest slope.

    Each pull is wrong by at most the bound times the sum over j of |g_j| |v_ji| max F', besides
    rounding. The largest v F' is what a change of F by v can be at most.

    Proof. phi(a + v) - phi(a) = v q(v) with q(v) = integral of phi'(a + tv) over t from 0 to 1. Its
    r-th derivative in v is the integral of t^r phi^(r+1)(a + tv), at most M / (r + 1) with M = max
    |phi^(r+1)|. Cauchy's remainder of interpolation at the r Chebyshev nodes of [-V, V] is at most
    (V^r 2^(1-r) / r!) times that, and v q(v) is wrong by |v| times the remainder. For logistic
    noise M is attained at 0, and the bound is 1.62 (V / 2 pi)^r, to 2 %.

    Args:
        noise: logistic or normal noise, or another with a ``derivative_bound``.
        rank: the number of nodes r, even.
        width: V, the largest change of a pre-activation: |high - low| max |W_ji| for states low and
            high. A number or an array.

    Raises:
        GradbenchError: the noise has no bound of its derivatives, or the rank is odd or below 2.

    Source: the remainder is in books of numerical analysis, such as Stoer & Bulirsch, chapter 2.
    """
    function = smooth_cdf(noise)
    if function is None:
        raise GradbenchError(
            f"the noise {get_noise(noise).name!r} has no bound of its derivatives; take 'logistic' "
            "or 'normal'"
        )
    if rank < 2 or rank % 2:
        raise GradbenchError(f"the rank is {rank!r}; give an even number of at least 2")
    return bound_of(function, rank, width)


def bound_of(function: Smooth, rank: int, width: Any) -> Any:
    """Return the bound of ``low_rank_bound`` for any smooth function."""
    worst = 2 * function.bound(rank + 1) / (function.bound(1) * math.factorial(rank) * (rank + 1))
    return worst * (width / 2) ** rank


def slope_bound_of(function: Smooth, rank: int, width: Any) -> Any:
    """Return the larger of ``bound_of`` and the bound of the derivatives of ``smooth_pull``.

    Those in the weights have phi'(a + v), which is wrong by at most this share of max |phi'|.
    """
    slope = Smooth(function.slope, function.slope, lambda k: function.bound(k + 1))
    share = function.bound(2) / function.bound(1)
    return jnp.maximum(
        bound_of(function, rank, width), share * width * bound_of(slope, rank, width)
    )


# ------------------------------------------------------------------------------ interpolation


def _nodes(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive nodes n_k in [0, 1], and the basis for them, [r/2, r/2].

    The odd part of the interpolant is u times a polynomial in u^2, and the even one u^2 times such
    a polynomial, for u = v / V. These go through the values at u^2 = n_k^2, which are Chebyshev
    nodes for u^2 in [0, 1]: in the polynomials T_l(2 u^2 - 1) their basis is known.
    """
    half = rank // 2
    angles = np.pi * (np.arange(half) + 0.5) / rank
    basis = 2 / half * np.cos(2 * np.outer(angles, np.arange(half)))
    basis[:, 0] /= 2
    return np.cos(angles), basis


def _powers(rank: int, weight: Array) -> tuple[Array, Array]:
    """Return what stands for W in the odd and in the even part, [r/2 * outputs, ...]."""
    nodes, basis = _nodes(rank)
    largest = jnp.max(jnp.abs(weight))
    u = weight / jnp.where(largest > 0, largest, 1)
    t = 2 * u**2 - 1
    chebyshev = [jnp.ones_like(t), t]
    while len(chebyshev) < len(nodes):
        chebyshev.append(2 * t * chebyshev[-1] - chebyshev[-2])
    through = [sum(float(b) * c for b, c in zip(row, chebyshev, strict=False)) for row in basis]
    pairs = [(float(n), p) for n, p in zip(nodes, through, strict=True)]
    odd = jnp.concatenate([p * u / (2 * n) for n, p in pairs])
    even = jnp.concatenate([p * u**2 / (2 * n**2) for n, p in pairs])
    return odd, even


def _coefficients(
    rank: int, phi: Elementwise, a: Array, width: Array, g: Array
) -> tuple[Array, Array]:
    """Return g times the values of the odd and the even part, [..., r/2 * units]."""
    base, ups, downs = phi(a), [], []
    for node in _nodes(rank)[0]:
        ups.append(phi(a + float(node) * width))
        downs.append(phi(a - float(node) * width))
    pairs = list(zip(ups, downs, strict=True))
    odd = [g * (up - down) for up, down in pairs]
    even = [g * (up + down - 2 * base) for up, down in pairs]
    return jnp.concatenate(odd, axis=-1), jnp.concatenate(even, axis=-1)


Transposed = Callable[[Array, Array], Array]  # from weights and g [..., channels] to the inputs


def low_rank_pull(
    rank: int,
    phi: Elementwise,
    transposed: Transposed,
    size: float,
    weight: Array,
    a: Array,
    change: Array,
    g: Array,
) -> Array:
    """Return the pull of rank r, for changes of the inputs by ``size``, 0 or -``size``."""
    sign, width = change / size, size * jnp.max(jnp.abs(weight))
    powers = _powers(rank, weight)
    odd, even = map(transposed, powers, _coefficients(rank, phi, a, width, g))
    return sign * odd + sign**2 * even


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2, 3))
def smooth_pull(
    rank: int,
    phi: Smooth,
    transposed: Transposed,
    size: float,
    weight: Array,
    a: Array,
    change: Array,
    line: Array,
) -> Array:
    """Return the sum over j of phi(a_j + v_ji) - phi(a_j) - v_ji line_j, of rank r.

    Derivatives in the weight and in a are of rank r too: they interpolate phi' as the pull
    interpolates phi. A derivative of the interpolant would be less accurate. ``change`` and
    ``line`` are constants.
    """
    sign, width = change / size, size * jnp.max(jnp.abs(weight))
    odd, even = _coefficients(rank, phi.value, a, width, jnp.ones_like(a))
    # What is linear in v is interpolated as it is.
    odd -= jnp.concatenate([2 * float(n) * width * line for n in _nodes(rank)[0]], axis=-1)
    odd, even = map(transposed, _powers(rank, weight), (odd, even))
    return sign * odd + sign**2 * even


@smooth_pull.defjvp
def _smooth_pull_jvp(rank, phi, transposed, size, primals, tangents):
    weight, a, change, line = primals
    weight_dot, a_dot, _, _ = tangents
    sign, width = change / size, size * jnp.max(jnp.abs(weight))
    by_a = low_rank_pull(rank, phi.slope, transposed, size, weight, a, change, a_dot)
    moved = jnp.concatenate([weight_dot] * (rank // 2))
    powers = [moved * power for power in _powers(rank, weight)]
    parts = _coefficients(rank, phi.slope, a, width, jnp.ones_like(a))
    odd, even = map(transposed, powers, parts)
    by_weight = transposed(weight_dot, phi.slope(a) - line) + sign * odd + sign**2 * even
    value = smooth_pull(rank, phi, transposed, size, weight, a, change, line)
    return value, by_a + change * by_weight
