"""Proxies: what straight-through estimators take for the derivative of the sign.

A proxy is a derivative of states -1 and +1 in the pre-activation a, with a steepness m, the
``slope`` of the estimators: of most it is m s(m a). One of your own is a function s of a, given to
an estimator as it is, or registered under its name:

    @proxy()
    def my_sech(a):
        \"\"\"2F' of the hyperbolic secant distribution.\"\"\"
        return 1 / jnp.cosh(jnp.pi / 2 * a)

The noise of the model matters to "density" alone. A proxy that is 2F' of another noise is exact for
multilinear objectives only if that is the noise of the model.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array

from gradbench.core.callables import short
from gradbench.core.errors import GradbenchError
from gradbench.core.noise import Noise
from gradbench.core.plugins import imported
from gradbench.core.registry import Registry

Slope: TypeAlias = Callable[[Array], Array]
# The derivative of x at (noise, a), optionally with its steepness, which is 1 otherwise.
Proxy: TypeAlias = Callable[..., Array]

PROXIES: Registry[Proxy] = Registry("proxy", "proxies")


def scaled(slope: Slope) -> Proxy:
    """Return the proxy m s(m a) of a function s, whatever the noise."""

    def derivative(noise: Noise | None, a: Array, m: Any = 1.0) -> Array:
        return (m * slope(m * a)).astype(a.dtype)

    return derivative


def proxy(name: str | None = None, *, aliases: Sequence[str] = ()) -> Callable[[Slope], Slope]:
    """Return a decorator that registers a function of a as a proxy, under its own name by default.

    Raises:
        GradbenchError: something else has that name, or there is no docstring.
    """

    def enter(slope: Slope) -> Slope:
        PROXIES.add(name or slope.__name__, scaled(slope), aliases=aliases, source=slope)
        return slope

    return enter


def find_proxy(given: str | Slope) -> Proxy:
    """Return the proxy of a name, of "module:function" or "file.py:function", or of a function.

    Raises:
        GradbenchError: there is no such proxy, or the function does not give one real number for
            each pre-activation.
    """
    if isinstance(given, str) and ":" in given:
        return scaled(_checked(imported(given, "proxy"), repr(given)))
    if callable(given):
        return scaled(_checked(given, getattr(given, "__name__", type(given).__name__)))
    if (name := PROXIES.resolve(given)) is None:
        raise GradbenchError(f"proxy is {given!r}; {PROXIES.suggestion(given)}")
    return PROXIES[name]


def _checked(slope: Any, what: str) -> Slope:
    """Refuse what is no elementwise function of pre-activations."""
    remedy = "give a function of a, elementwise, made of jax.numpy"
    if not callable(slope):
        raise GradbenchError(f"the proxy {what} is {short(slope)}; {remedy}")
    try:
        found = jax.eval_shape(slope, jax.ShapeDtypeStruct((2, 3), jnp.float32))
    except Exception as error:  # whatever the user's function raises
        reason = str(error).strip().partition("\n")[0]
        raise GradbenchError(
            f"the proxy {what} fails on pre-activations [2, 3] ({type(error).__name__}: {reason}); "
            f"{remedy}"
        ) from error
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if dtype is None or shape != (2, 3) or not jnp.issubdtype(dtype, jnp.floating):
        got = short(found) if shape is None else f"{dtype}{list(shape)}"
        raise GradbenchError(f"the proxy {what} gives {got} for pre-activations [2, 3]; {remedy}")
    return slope


PROXIES.add(
    "density",
    lambda noise, a, m=1.0: 2 * m * noise.pdf(m * a),
    summary="2F', twice the density of the noise of the model",
)


@proxy()
def identity(a: Array) -> Array:
    """1: the identity, which no noise gives (Hinton 2012)."""
    return jnp.ones_like(a)


@proxy()
def sigmoid(a: Array) -> Array:
    """2F' of logistic noise."""
    return 2 * jax.nn.sigmoid(a) * jax.nn.sigmoid(-a)


@proxy()
def tanh(a: Array) -> Array:
    """1 - tanh^2 a, 2F' of logistic noise of scale 1/2."""
    return 4 * jax.nn.sigmoid(2 * a) * jax.nn.sigmoid(-2 * a)


@proxy()
def hardtanh(a: Array) -> Array:
    """1 where abs(a) <= 1, else 0: the clipped identity, 2F' of uniform noise (Hubara 2016)."""
    return jnp.where(jnp.abs(a) <= 1, 1.0, 0.0).astype(a.dtype)


@proxy()
def approxsign(a: Array) -> Array:
    """2 max(1 - abs(a), 0), 2F' of triangular noise (Liu 2018, Bi-Real Net)."""
    return 2 * jnp.clip(1 - jnp.abs(a), min=0)


@proxy()
def erf(a: Array) -> Array:
    """2F' of normal noise, whose F is an error function."""
    return 2 * norm.pdf(a)


@proxy()
def exponential(a: Array) -> Array:
    """exp(-abs(a)), 2F' of Laplace noise; of spiking networks."""
    return jnp.exp(-jnp.abs(a))


@proxy()
def arctan(a: Array) -> Array:
    """2 / (pi (1 + a^2)), 2F' of Cauchy noise; of spiking networks."""
    return 2 / jnp.pi / (1 + a**2)


@proxy()
def swish(a: Array) -> Array:
    """(2 - a tanh(a/2)) / (1 + cosh(a)), the derivative of 2 sig(a) (1 + a sig(-a)) - 1.

    It is no density: negative where abs(a) > 2.4 (Darabi 2018, BNN+).
    """
    a = jnp.clip(a, -1e3, 1e3)  # beyond it is 0
    return 2 * jax.nn.sigmoid(a) * jax.nn.sigmoid(-a) * (2 - a * jnp.tanh(a / 2))


@proxy(aliases=("superspike",))
def fast_sigmoid(a: Array) -> Array:
    """1 / (1 + abs(a))^2, the derivative of a / (1 + abs(a)) (Zenke & Ganguli 2018, SuperSpike).

    SuperSpike has no factor m before it: m is 100 there and scales the rate.
    """
    return 1 / (1 + jnp.abs(a)) ** 2


@PROXIES.register(aliases=("irnet", "ir_net"))
def ede(noise: Noise | None, a: Array, m: Any = 1.0) -> Array:
    """max(m, 1) (1 - tanh(m a)^2): the error decay estimator (Qin et al. 2020, IR-Net).

    The paper raises m, its t, from 0.1 to 10 along the training; its k is max(1 / m, 1). From m = 1
    on it is "tanh".
    """
    return (jnp.maximum(m, 1) * tanh(m * a)).astype(a.dtype)


_FLAT, _END = 0.1, 1.5  # of ReSTE: m and t of the paper


@PROXIES.register()
def reste(noise: Noise | None, a: Array, m: Any = 1.0) -> Array:
    """d/da sign(a) abs(a)^(1/m) where 0.1 < abs(a) <= 1.5 (Wu et al. 2023, ReSTE).

    It is 0 beyond 1.5; within 0.1 it is the difference quotient 0.1^(1/m) / 0.1. m, the paper's o,
    rises from 1, which is the clipped identity, to 3 along the training.
    """
    r = jnp.clip(jnp.abs(a), _FLAT, _END)
    inside = jnp.where(jnp.abs(a) > _FLAT, r ** (1 / m - 1) / m, _FLAT ** (1 / m - 1))
    return jnp.where(jnp.abs(a) <= _END, inside, 0).astype(a.dtype)
