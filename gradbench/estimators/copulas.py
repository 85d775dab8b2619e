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
    return jnp.maximum(2 * q ** (1 / (n - 1)) - 1, 0) ** (n - 1)


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
