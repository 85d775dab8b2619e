"""Noise distributions of binary stochastic units: x = sign(a - z), z ~ F, so P(x | a) = F(x a).

All are symmetric about zero, F(-a) = 1 - F(a): that is what makes P(x | a) = F(x a).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry

_VARIANCES = {"logistic": math.pi**2 / 3, "normal": 1.0, "uniform": 1 / 3}
_VARIANCES |= {"triangular": 1 / 6, "laplace": 2.0}


# E max(z - a, 0) for a >= 0.
_REST = {
    "logistic": lambda a: jnp.log1p(jnp.exp(-a)),
    "normal": lambda a: norm.pdf(a) - a * ndtr(-a),
    "uniform": lambda a: jax.nn.relu(1 - a) ** 2 / 4,
    "triangular": lambda a: jax.nn.relu(1 - a) ** 3 / 6,
    "laplace": lambda a: jnp.exp(-a) / 2,
}


@dataclass(frozen=True)
class Noise:
    """A symmetric noise distribution, elementwise on arrays of any shape.

    ``cdf`` is F, ``pdf`` its density F', ``quantile`` its inverse on (0, 1), ``hazard`` is F'/F,
    taken as 0 where F = 0, and ``log_cdf`` is log F, finite where F = 0: what has probability 0
    counts as the smallest number. The derivatives of ``cdf`` and ``log_cdf`` are ``pdf`` and
    ``hazard`` by rule, so that they stay finite and right for pre-activations of any size. z is
    within [-``bound``, ``bound``].
    """

    name: str
    cdf: Callable[[Array], Array]
    pdf: Callable[[Array], Array]
    quantile: Callable[[Array], Array]
    hazard: Callable[[Array], Array]
    log_cdf: Callable[[Array], Array]
    bound: float = jnp.inf

    def sample(self, key: Array, shape: tuple[int, ...], dtype=None) -> Float[Array, "..."]:
        """Independent values of z, shape ``shape``."""
        u = jax.random.uniform(key, shape, dtype or float)
        return self.quantile(u + jnp.finfo(u.dtype).eps / 2)  # midpoints of the grid: never 0

    def probability(self, x: Float[Array, "..."], a: Float[Array, "..."]) -> Float[Array, "..."]:
        """P(x | a) = F(x a) of states x in {-1, +1}, per unit."""
        return self.cdf(x * a)

    def score(self, x: Float[Array, "..."], a: Float[Array, "..."]) -> Float[Array, "..."]:
        """d log P(x | a) / da = x F'(a) / F(x a), per unit; 0 where P(x | a) = 0."""
        return x * self.hazard(x * a)

    def lead(
        self, x: Float[Array, "..."], a: Float[Array, "..."], v: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """x (a - z), never negative, of noise z given the state x = sign(a - z), from uniforms v.

        By symmetry it is x a - F^{-1}(u) for u < F(x a), so for u = v F(x a): that is u = v p where
        x = 1, and counted from the other end where x = -1, without differences near 1.
        """
        return x * a - self.quantile(v * self.cdf(x * a))

    def log_probability(
        self, x: Float[Array, " units"], a: Float[Array, " units"]
    ) -> Float[Array, ""]:
        """log P(x | a) of all units together, affine in x: of many x and a it is one product.

        Units whose state has probability 0 under bounded noise are left out.
        """

        def log(a: Array) -> Array:
            # A state of probability 0 has no weight; it counts 0, not the smallest number.
            return jnp.where(self.cdf(a) > 0, self.log_cdf(a), 0)

        bounded = self.bound < jnp.inf
        plus, minus = (log(a), log(-a)) if bounded else (self.log_cdf(a), self.log_cdf(-a))
        return jnp.sum(plus + minus) / 2 + jnp.vdot(x, plus - minus) / 2

    def logit_slope(self, a: Float[Array, "..."]) -> Float[Array, "..."]:
        """d logit F(a) / da = F'(a) / (F(a) F(-a)) = F'(a) / F(a) + F'(-a) / F(-a), per unit."""
        return self.hazard(a) + self.hazard(-a)


def _noise(
    name: str,
    cdf: Callable[[Array], Array],
    pdf: Callable[[Array], Array],
    quantile: Callable[[Array], Array],
    hazard: Callable[[Array], Array] | None = None,
    log_cdf: Callable[[Array], Array] | None = None,
    bound: float = jnp.inf,
) -> Noise:
    """A noise whose cdf has its density as derivative; ratio and logarithm unless given."""
    smooth = jax.custom_jvp(cdf)
    smooth.defjvp(lambda primals, tangents: (smooth(*primals), pdf(*primals) * tangents[0]))

    def ratio(a: Array) -> Array:
        positive = smooth(a) > 0
        return jnp.where(positive, pdf(a) / jnp.where(positive, smooth(a), 1), 0)

    def floored(a: Array) -> Array:
        return jnp.log(jnp.maximum(smooth(a), jnp.finfo(a.dtype).tiny))

    slope, log = hazard or ratio, jax.custom_jvp(log_cdf or floored)
    log.defjvp(lambda primals, tangents: (log(*primals), slope(*primals) * tangents[0]))
    return Noise(name, smooth, pdf, quantile, slope, log, bound)


def _triangular_cdf(a: Array) -> Array:
    rest = 1 - jnp.clip(jnp.abs(a), max=1)
    return jnp.where(a < 0, rest**2 / 2, 1 - rest**2 / 2)


def _laplace_cdf(a: Array) -> Array:
    tail = jnp.exp(-jnp.abs(a)) / 2
    return jnp.where(a < 0, tail, 1 - tail)


_BUILT_IN = {
    noise.name: noise
    for noise in (
        _noise(
            "logistic",
            cdf=jax.nn.sigmoid,
            pdf=lambda a: jax.nn.sigmoid(a) * jax.nn.sigmoid(-a),
            quantile=lambda u: jnp.log(u) - jnp.log1p(-u),
            hazard=lambda a: jax.nn.sigmoid(-a),
            log_cdf=jax.nn.log_sigmoid,
        ),
        _noise("normal", cdf=ndtr, pdf=norm.pdf, quantile=ndtri, log_cdf=lambda a: log_ndtr(a)),
        _noise(
            "uniform",
            cdf=lambda a: jnp.clip((a + 1) / 2, 0, 1),
            pdf=lambda a: jnp.where(jnp.abs(a) < 1, 0.5, 0.0).astype(a.dtype),
            quantile=lambda u: 2 * u - 1,
            bound=1.0,
        ),
        _noise(
            "triangular",
            cdf=_triangular_cdf,
            pdf=lambda a: jnp.clip(1 - jnp.abs(a), min=0),
            quantile=lambda u: jnp.where(u < 0.5, jnp.sqrt(2 * u) - 1, 1 - jnp.sqrt(2 * (1 - u))),
            bound=1.0,
        ),
        _noise(
            "laplace",
            cdf=_laplace_cdf,
            pdf=lambda a: jnp.exp(-jnp.abs(a)) / 2,
            quantile=lambda u: jnp.where(u < 0.5, jnp.log(2 * u), -jnp.log(2 * (1 - u))),
            log_cdf=lambda a: jnp.where(
                a < 0, a - jnp.log(2.0), jnp.log1p(-jnp.exp(-jnp.abs(a)) / 2)
            ),
        ),
    )
}
NOISES: Registry[Noise] = Registry("noise")
for _name, _built_in in _BUILT_IN.items():
    NOISES.add(_name, _built_in, summary=f"{_name} noise")


def get_noise(noise: str | Noise) -> Noise:
    """The noise of that name; a ``Noise`` is returned as it is.

    Raises:
        GradbenchError: the name is unknown.
    """
    if isinstance(noise, Noise):
        return noise
    return NOISES.find(noise)


def _noise_variance(noise: Noise) -> float:
    if noise.name not in _VARIANCES:
        raise GradbenchError(
            f"ap2() knows no variance of the noise {noise.name!r}; take one of "
            f"{', '.join(_VARIANCES)}"
        )
    return _VARIANCES[noise.name]


def _integral(noise: Noise, a: Array) -> Array:
    """The integral of F up to a: E max(a - z, 0)."""
    if noise.name not in _REST:
        raise GradbenchError(
            f"sa() knows no integral of the noise {noise.name!r}; take smoothing=0 or one of "
            f"{', '.join(_REST)}"
        )
    return jax.nn.relu(a) + jnp.maximum(_REST[noise.name](jnp.abs(a)), 0)
