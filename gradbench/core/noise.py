"""Noise distributions of binary stochastic units: x = sign(a - z), z ~ F, so P(x | a) = F(x a).

All are symmetric about zero, F(-a) = 1 - F(a): this is what makes P(x | a) = F(x a). ``NOISES`` has
them by name. A noise of one's own is made by ``make_noise`` and registered under its name:

    sech = make_noise(
        "sech",
        cdf=lambda a: 2 / jnp.pi * jnp.arctan(jnp.exp(jnp.pi / 2 * a)),
        pdf=lambda a: 1 / (2 * jnp.cosh(jnp.pi / 2 * a)),
        quantile=lambda u: 2 / jnp.pi * jnp.log(jnp.tan(jnp.pi / 2 * u)),
    )
    NOISES.add("sech", sech, summary="hyperbolic secant, of variance 1")
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from gradbench.core.noise_checks import bound_of, check_noise, integral_of, variance_of
from gradbench.core.registry import Registry

Elementwise = Callable[[Array], Array]


@dataclass(frozen=True)
class Noise:
    """A symmetric noise distribution, made by ``make_noise``.

    All functions are elementwise on arrays of any shape. The derivatives of ``cdf``, ``log_cdf``
    and ``integral`` are ``pdf``, ``hazard`` and ``cdf`` by rule, so that they stay finite and right
    for pre-activations of any size.

    Attributes:
        name: its name in texts.
        cdf: F, the distribution function.
        pdf: F', its density.
        quantile: the inverse of F on (0, 1).
        hazard: F'/F, and 0 where F = 0.
        log_cdf: log F, finite where F = 0: there it is the logarithm of the smallest number.
        bound: z lies in [-``bound``, ``bound``].
        variance: the variance of z, infinite where it has none.
        integral: the integral of F up to a, E max(a - z, 0); None where it is infinite.
        derivative_bound: ``derivative_bound(k)`` is a bound of the k-th derivative of F, k >= 1;
            None where F is not smooth, or none is known.
    """

    name: str
    cdf: Elementwise
    pdf: Elementwise
    quantile: Elementwise
    hazard: Elementwise
    log_cdf: Elementwise
    bound: float = math.inf
    # Not in the text of a noise, by which models are recognised on disk.
    variance: float = field(default=math.inf, repr=False)
    integral: Elementwise | None = field(default=None, repr=False)
    derivative_bound: Callable[[int], float] | None = field(default=None, repr=False)

    def sample(self, key: Array, shape: tuple[int, ...], dtype=None) -> Float[Array, "..."]:
        """Return independent values of z, of shape ``shape``."""
        u = jax.random.uniform(key, shape, dtype or float)
        return self.quantile(u + jnp.finfo(u.dtype).eps / 2)  # midpoints of the grid: never 0

    def probability(self, x: Float[Array, "..."], a: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return P(x | a) = F(x a) of states x in {-1, +1}, per unit."""
        return self.cdf(x * a)

    def score(self, x: Float[Array, "..."], a: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return d log P(x | a) / da = x F'(a) / F(x a), per unit; 0 where P(x | a) = 0."""
        return x * self.hazard(x * a)

    def lead(
        self, x: Float[Array, "..."], a: Float[Array, "..."], v: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """Return x (a - z) >= 0, z the noise given the state x = sign(a - z), from uniforms v.

        By symmetry it is x a - F^{-1}(u) with u = v F(x a), which is uniform below F(x a). For
        x = -1 the noise is counted from its other end, so that no difference is taken near 1.
        """
        return x * a - self.quantile(v * self.cdf(x * a))

    def log_probability(
        self, x: Float[Array, " units"], a: Float[Array, " units"]
    ) -> Float[Array, ""]:
        """Return log P(x | a) of all units together.

        It is affine in x, so that for many x and a it is one matrix product. Units whose state has
        probability 0 under bounded noise are left out.
        """

        def log(a: Array) -> Array:
            # A state of probability 0 has no weight; it counts 0, not the smallest number.
            return jnp.where(self.cdf(a) > 0, self.log_cdf(a), 0)

        bounded = self.bound < jnp.inf
        plus, minus = (log(a), log(-a)) if bounded else (self.log_cdf(a), self.log_cdf(-a))
        return jnp.sum(plus + minus) / 2 + jnp.vdot(x, plus - minus) / 2

    def logit_slope(self, a: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return d logit F(a) / da = F'(a) / (F(a) F(-a)), per unit, as a sum of two hazards."""
        return self.hazard(a) + self.hazard(-a)


def make_noise(
    name: str,
    cdf: Elementwise,
    pdf: Elementwise,
    quantile: Elementwise,
    *,
    variance: float | None = None,
    integral: Elementwise | None = None,
    hazard: Elementwise | None = None,
    log_cdf: Elementwise | None = None,
    bound: float | None = None,
) -> Noise:
    """Return a noise distribution, checked on a grid of points.

    Args:
        name: its name in texts, best the one that it is registered under.
        cdf: the distribution function F; like all functions here made of ``jax.numpy``, elementwise
            on arrays of any shape, and accurate where it is small.
        pdf: its derivative.
        quantile: its inverse on (0, 1).
        variance: the variance; computed from the quantile by default.
        integral: the integral of F up to a, E max(a - z, 0); by default a sum over quantiles.
        hazard: F'/F; the ratio by default, which has no digits where F is below the smallest
            number.
        log_cdf: log F; by default the logarithm of F.
        bound: the noise lies in [-``bound``, ``bound``]; by default as far as its quantile of 0.

    Raises:
        GradbenchError: F is not symmetric or decreases, the density is not its derivative, the
            quantile not its inverse, or what else is given does not agree with them. The sentence
            gives the worst point of the grid and both values there.
    """
    noise = _noise(name, cdf, pdf, quantile, hazard, log_cdf)
    check_noise(noise)
    area = integral_of(noise, integral)
    return replace(
        noise,
        bound=bound_of(noise, bound),
        variance=variance_of(noise, variance),
        integral=area and _with_slope(area, noise.cdf),
    )


def _noise(
    name: str,
    cdf: Elementwise,
    pdf: Elementwise,
    quantile: Elementwise,
    hazard: Elementwise | None = None,
    log_cdf: Elementwise | None = None,
    bound: float = math.inf,
    variance: float = math.inf,
    integral: Elementwise | None = None,
    derivative_bound: Callable[[int], float] | None = None,
) -> Noise:
    """Return an unchecked noise, with derivatives by rule, and a ratio and logarithm of its own."""
    smooth = _with_slope(cdf, pdf)

    def ratio(a: Array) -> Array:
        positive = smooth(a) > 0
        return jnp.where(positive, pdf(a) / jnp.where(positive, smooth(a), 1), 0)

    def floored(a: Array) -> Array:
        return jnp.log(jnp.maximum(smooth(a), jnp.finfo(a.dtype).tiny))

    slope = hazard or ratio
    log = _with_slope(log_cdf or floored, slope)
    area = integral and _with_slope(integral, smooth)
    return Noise(name, smooth, pdf, quantile, slope, log, bound, variance, area, derivative_bound)


def _with_slope(function: Elementwise, slope: Elementwise) -> Elementwise:
    """Return a function whose derivative is ``slope``, whatever JAX would make of it."""
    smooth = jax.custom_jvp(function)
    smooth.defjvp(lambda primals, tangents: (smooth(*primals), slope(*primals) * tangents[0]))
    return smooth


def _symmetric(rest: Elementwise) -> Elementwise:
    """Return E max(a - z, 0) for any a, from ``rest(a)`` = E max(z - a, 0) for a >= 0."""
    return lambda a: jax.nn.relu(a) + jnp.maximum(rest(jnp.abs(a)), 0)


NOISES: Registry[Noise] = Registry("noise")


def get_noise(noise: str | Noise) -> Noise:
    """Return the noise of that name or alias; a ``Noise`` is returned as it is.

    Raises:
        GradbenchError: the name is unknown.
    """
    return noise if isinstance(noise, Noise) else NOISES.find(noise)


# ------------------------------------------------------------------------- those of the package


def _triangular_cdf(a: Array) -> Array:
    rest = 1 - jnp.clip(jnp.abs(a), max=1)
    return jnp.where(a < 0, rest**2 / 2, 1 - rest**2 / 2)


def _laplace_cdf(a: Array) -> Array:
    tail = jnp.exp(-jnp.abs(a)) / 2
    return jnp.where(a < 0, tail, 1 - tail)


# |F^(k)| is at most the integral of t^(k-1) |c(t)| / pi over t > 0, c the characteristic function.
def _logistic_derivative(k: int) -> float:
    """Return the bound with c(t) = pi t / sinh(pi t), from the sum of n^-(k+1) over odd n."""
    rest = 100.0**-k / (2 * k)  # of n > 100, at most: n^-(k+1) is convex
    odd = sum(n ** -(k + 1.0) for n in range(1, 100, 2)) + rest
    return 2 * math.factorial(k) * odd / math.pi ** (k + 1)


def _normal_derivative(k: int) -> float:
    """Return the bound with c(t) = exp(-t^2 / 2)."""
    return 2 ** (k / 2 - 1) * math.gamma(k / 2) / math.pi


NOISES.add(
    "logistic",
    _noise(
        "logistic",
        cdf=jax.nn.sigmoid,
        pdf=lambda a: jax.nn.sigmoid(a) * jax.nn.sigmoid(-a),
        quantile=lambda u: jnp.log(u) - jnp.log1p(-u),
        hazard=lambda a: jax.nn.sigmoid(-a),
        log_cdf=jax.nn.log_sigmoid,
        variance=math.pi**2 / 3,
        integral=_symmetric(lambda a: jnp.log1p(jnp.exp(-a))),
        derivative_bound=_logistic_derivative,
    ),
    summary="F is the sigmoid, and pre-activations are logits",
)
NOISES.add(
    "normal",
    _noise(
        "normal",
        cdf=ndtr,
        pdf=norm.pdf,
        quantile=ndtri,
        log_cdf=lambda a: log_ndtr(a),
        variance=1.0,
        integral=_symmetric(lambda a: norm.pdf(a) - a * ndtr(-a)),
        derivative_bound=_normal_derivative,
    ),
    aliases=("gaussian",),
    summary="the standard normal distribution: probit units",
)
NOISES.add(
    "uniform",
    _noise(
        "uniform",
        cdf=lambda a: jnp.clip((a + 1) / 2, 0, 1),
        pdf=lambda a: jnp.where(jnp.abs(a) < 1, 0.5, 0.0).astype(a.dtype),
        quantile=lambda u: 2 * u - 1,
        bound=1.0,
        variance=1 / 3,
        integral=_symmetric(lambda a: jax.nn.relu(1 - a) ** 2 / 4),
    ),
    summary="uniform on [-1, 1]: F is linear between its ends",
)
NOISES.add(
    "triangular",
    _noise(
        "triangular",
        cdf=_triangular_cdf,
        pdf=lambda a: jnp.clip(1 - jnp.abs(a), min=0),
        quantile=lambda u: jnp.where(u < 0.5, jnp.sqrt(2 * u) - 1, 1 - jnp.sqrt(2 * (1 - u))),
        bound=1.0,
        variance=1 / 6,
        integral=_symmetric(lambda a: jax.nn.relu(1 - a) ** 3 / 6),
    ),
    summary="triangular on [-1, 1]: the density falls linearly from its middle",
)
NOISES.add(
    "laplace",
    _noise(
        "laplace",
        cdf=_laplace_cdf,
        pdf=lambda a: jnp.exp(-jnp.abs(a)) / 2,
        quantile=lambda u: jnp.where(u < 0.5, jnp.log(2 * u), -jnp.log(2 * (1 - u))),
        log_cdf=lambda a: jnp.where(a < 0, a - jnp.log(2.0), jnp.log1p(-jnp.exp(-jnp.abs(a)) / 2)),
        variance=2.0,
        integral=_symmetric(lambda a: jnp.exp(-a) / 2),
    ),
    aliases=("double_exponential",),
    summary="the Laplace distribution: exponential to both sides",
)
