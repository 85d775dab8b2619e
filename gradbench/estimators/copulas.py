"""Copulas of ARMS: antithetic copies of a uniform number, and the probability of two small ones."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array


def dirichlet_copies(u: Sequence[Array]) -> list[Array]:
    """Return uniforms (1 - d_k)^(n-1) with d ~ Dirichlet(1, ..., 1), the first one ``u[0]``."""
    n = len(u)
    first = 1 - u[0] ** (1 / (n - 1))
    shares = [-jnp.log(v) for v in u[1:]]  # of the others in the rest, when normalised
    rest = (1 - first) / sum(shares)
    return [u[0], *((1 - rest * share) ** (n - 1) for share in shares)]


def gaussian_copies(u: Sequence[Array]) -> list[Array]:
    """Return uniforms Phi(z_k), z_k normal with correlations -1/(n-1), the first one ``u[0]``."""
    n = len(u)
    others = [ndtri(v) for v in u[1:]]
    shift = ndtri(u[0]) / (n - 1) + math.sqrt(n / (n - 1)) * sum(others) / (n - 1)
    return [u[0], *(ndtr(math.sqrt(n / (n - 1)) * z - shift) for z in others)]


def dirichlet_both(q: Array, n: int) -> Array:
    """Return P(two of n copies are below q), for q up to 1/2."""
    return dirichlet_below([q, q], n)


def dirichlet_below(q: Sequence[Array], n: int) -> Array:
    """Return P(copy k is below ``q[k]``, for all k) of some of n copies.

    A copy is below q if its share d is above 1 - q^(1/(n-1)), and P(d_k > t_k for all k) is
    (1 - sum_k t_k)^(n-1) where that is positive.
    """
    roots = sum(limit ** (1 / (n - 1)) for limit in q)
    return jnp.maximum(roots - (len(q) - 1), 0) ** (n - 1)


def copies_law(together: Sequence[Array], n: int, scale: Array) -> Array:
    """Return the law of two of n exchangeable bits r_k, in the form of ``Branches.law``.

    ``together[m]`` is the probability that m given bits are 1, from m = 0 to 4, and w_k = ``scale``
    times (r_k - mean of the bits). The outcomes are (0, 0), (0, 1), (1, 0), (1, 1).
    """

    def joint(ones: int, more: int) -> Array:
        """Return P(``ones`` of the two bits are 1, the rest of them 0, and ``more`` others 1)."""
        h = together[more:]
        return (h[0] - 2 * h[1] + h[2], h[1] - h[2], h[2])[ones]

    outcomes = []
    for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
        s = first + second
        p, third, fourth = (joint(s, more) for more in (0, 1, 2))
        rest = (n - 2) * third  # the sum of the other bits, and its square
        square = rest + (n - 2) * (n - 3) * fourth
        mean, mean_square = (s * p + rest) / n, (s**2 * p + 2 * s * rest + square) / n**2
        both = first * second * p - s * mean + mean_square
        w = scale * (first * p - mean), scale * (second * p - mean), scale**2 * both
        outcomes.append(jnp.stack([p, *w]))
    return jnp.stack(outcomes, axis=1)


def gaussian_both(q: Array, n: int) -> Array:
    """Return P(two of n copies are below q), for q up to 1/2.

    The bivariate normal probability at equal limits h, correlation r, is q^2 plus the integral of
    exp(-h^2 / (1 + sin t)) / 2pi over t from 0 to asin(r) (Drezner & Wesolowsky 1990).
    """
    if n == 2:
        return jnp.zeros_like(q)  # exactly antithetic; the integrand is not smooth at r = -1
    node, weight = np.polynomial.legendre.leggauss(20)
    end = math.asin(1 / (n - 1))
    t, h = end * (1 + node) / 2, ndtri(q)
    integrand = jnp.exp(-(h[..., None] ** 2) / (1 - np.sin(t)).astype(q.dtype))
    return q**2 - integrand @ (end * weight / (4 * math.pi)).astype(q.dtype)


COPULAS = {
    "dirichlet": (dirichlet_copies, dirichlet_both),
    "gaussian": (gaussian_copies, gaussian_both),
}
