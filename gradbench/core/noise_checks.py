"""Checks of a noise that a user makes, and what of it can be computed where it is not given."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.arguments import positive
from gradbench.core.atomic import Floats
from gradbench.core.errors import GradbenchError
from gradbench.core.precision import float64

if TYPE_CHECKING:
    from gradbench.core.noise import Noise

Elementwise = Callable[[Array], Array]
_POINTS = 201

# --------------------------------------------------------------------------------- the checks


def check_noise(noise: "Noise") -> None:
    """Refuse a noise whose functions do not agree with each other, in float64 on a grid of points.

    Raises:
        GradbenchError: a function fails or is not elementwise, F is not symmetric or decreases, the
            density is not its derivative, the quantile not its inverse, the hazard not F'/F, or
            ``log_cdf`` not log F. The sentence gives the worst point and both values there.
    """
    with jax.ensure_compile_time_eval(), float64():
        scale = _scale(noise)
        a = _grid(scale)
        _check_cdf(noise, a)
        _check_pdf(noise, a, scale)
        p = _values(noise, "cdf", a)
        inside = (p > 1e-9) & (p < 1 - 1e-9)
        a, p = a[inside], p[inside]
        z = _values(noise, "quantile", p)
        off = np.abs(_values(noise, "cdf", z) - p) / (1e-4 * np.minimum(p, 1 - p))
        _compare(noise, "quantile(cdf({}))", a, z, a, off, "give the inverse of its cdf")
        for part, right in (("hazard", _values(noise, "pdf", a) / p), ("log_cdf", np.log(p))):
            found = _values(noise, part, a)
            _compare(noise, part + "({})", a, found, right, _distance(found, right))


def _check_cdf(noise: "Noise", a: Floats) -> None:
    """Refuse a cdf outside [0, 1], one that is not symmetric, and one that decreases."""
    f, mirrored = _values(noise, "cdf", a), 1 - _values(noise, "cdf", -a)
    worst = np.argmax(np.abs(f - 0.5))
    if abs(f[worst] - 0.5) > 0.5 + 1e-9:
        found = f"has cdf({a[worst]:.6g}) = {f[worst]:.6g}"
        raise _wrong(noise, found, "give probabilities, from 0 to 1")
    worst = np.argmax(np.abs(f - mirrored))
    if abs(f[worst] - mirrored[worst]) > 1e-6:
        raise _wrong(
            noise,
            f"is not symmetric, since cdf({a[worst]:.6g}) = {f[worst]:.6g} and "
            f"1 - cdf({0 - a[worst]:.6g}) = {mirrored[worst]:.6g}",
            "give a distribution that is symmetric about 0",
        )
    worst = np.argmin(np.diff(f))
    if f[worst + 1] < f[worst] - 1e-9:
        raise _wrong(
            noise,
            f"has a cdf that falls from cdf({a[worst]:.6g}) = {f[worst]:.6g} to "
            f"cdf({a[worst + 1]:.6g}) = {f[worst + 1]:.6g}",
            "give a distribution function",
        )


def _check_pdf(noise: "Noise", a: Floats, scale: float) -> None:
    """Refuse a density that is not the derivative of the cdf.

    The slope of F between a - h and a + h lies between values of its density there, also where the
    density has a kink or a jump.
    """
    h = 1e-3 * scale
    near = np.stack([_values(noise, "pdf", a + shift) for shift in (-h, 0, h)])
    slope = (_values(noise, "cdf", a + h) - _values(noise, "cdf", a - h)) / (2 * h)
    off = np.abs(slope - np.clip(slope, near.min(0), near.max(0)))
    off /= 1e-7 / scale + 1e-3 * np.abs(slope)
    _compare(noise, "pdf({})", a, near[1], slope, off, "give the derivative of its cdf")


def _compare(
    noise: "Noise",
    what: str,
    a: Floats,
    found: Floats,
    right: Floats,
    off: Floats,
    remedy: str = "leave it out to have it computed",
) -> None:
    """Refuse a noise where ``off`` is above 1, and tell what it is at the worst point."""
    worst = np.argmax(np.where(np.isnan(off), np.inf, off))
    if not off[worst] <= 1:
        here = what.format(f"{a[worst]:.6g}")
        raise _wrong(noise, f"has {here} = {found[worst]:.6g} and not {right[worst]:.6g}", remedy)


def _distance(found: Floats, right: Floats) -> Floats:
    """Return the distance of values from the right ones, in units of what is tolerated."""
    return np.abs(found - right) / (1e-3 * np.abs(right) + 1e-6 * np.max(np.abs(right)))


def _wrong(noise: "Noise", what: str, remedy: str) -> GradbenchError:
    return GradbenchError(f"the noise {noise.name!r} {what}; {remedy}")


def _scale(noise: "Noise") -> float:
    """Return the upper quartile of a noise, its unit of length."""
    quartile = float(_values(noise, "quantile", np.array([0.75]))[0])
    if not 0 < abs(quartile) < math.inf:
        raise _wrong(noise, f"has quantile(0.75) = {quartile:.6g}", "give the inverse of its cdf")
    return abs(quartile)


def _grid(scale: float) -> Floats:
    """Return points around 0, close there and up to 74 times the scale away."""
    return scale * np.sinh(np.linspace(-5, 5, _POINTS))


def _values(noise: "Noise", part: str, at: Floats) -> Floats:
    """Return the values of a function of the noise, compiled as estimators compile it."""
    padded = np.pad(at, (0, _POINTS - len(at)), mode="edge")  # one shape, to be compiled once
    try:
        found = np.asarray(jax.jit(getattr(noise, part))(jnp.asarray(padded)))
    except Exception as error:  # of any kind: it is the user's function
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        what = f"has a {part} that fails on an array ({reason})"
        raise _wrong(noise, what, "write it with jax.numpy") from error
    if found.shape != padded.shape:
        what = f"has a {part} that makes an array of shape {found.shape} of one of {padded.shape}"
        raise _wrong(noise, what, "give an elementwise function")
    found = found[: len(at)]
    if part != "quantile" and not np.all(np.isfinite(found)):
        first = np.argmin(np.isfinite(found))
        raise _wrong(noise, f"has {part}({at[first]:.6g}) = {found[first]}", "give finite numbers")
    return found


# ------------------------------------------------------------- what is given, or else computed
# Integrals over u in (0, c) are taken over s in (0, inf) with u = c exp(-s). A quantile that grows
# at 0 as a logarithm or a power of u becomes a smooth function times an exponential decay.

_ENDS = np.array([[0], [1], [2], [4], [8], [16], [32.0]])  # of panels in s


def _rule(points: int) -> tuple[Floats, Floats]:
    """Return nodes s and weights, Gauss-Legendre in each panel, both ``[panels, points]``."""
    node, weight = np.polynomial.legendre.leggauss(points)
    length = np.diff(_ENDS, axis=0)
    return _ENDS[:-1] + length * (1 + node) / 2, length * weight / 2


def _moment(noise: "Noise", power: int) -> float:
    """Return E abs(z)^power, infinite where values below u = 1e-7 make a large part of it."""
    s, weight = _rule(20)
    u = np.exp(-s) / 2
    with jax.ensure_compile_time_eval(), float64():
        z = _values(noise, "quantile", u.ravel()).reshape(u.shape)
    panels = 2 * np.sum(weight * u * np.abs(z) ** power, axis=1)
    return float(np.sum(panels)) if panels[-1] < 0.01 * np.sum(panels) else math.inf


def variance_of(noise: "Noise", given: float | None) -> float:
    """Return the variance of a noise, infinite where it has none.

    Raises:
        GradbenchError: another one is given.
    """
    right = _moment(noise, 2)
    if given is None:
        return right
    variance = (
        math.inf
        if given == math.inf
        else positive(f"the variance of the noise {noise.name!r}", given)
    )
    if abs(variance - right) > 1e-3 * right:
        what = f"has the variance {variance:.6g} and not {right:.6g}"
        raise _wrong(noise, what, "leave it out to have it computed")
    return variance


def integral_of(noise: "Noise", given: Elementwise | None) -> Elementwise | None:
    """Return E max(a - z, 0) as a function of a, None where it is infinite.

    With rest(a) = E max(z - a, 0), the integral of -F^{-1}(u) - a over u in (0, F(-a)), it is
    max(a, 0) + rest(abs(a)).

    Raises:
        GradbenchError: another one is given.
    """
    if _moment(noise, 1) == math.inf:
        return given
    s, weight = (array.ravel() for array in _rule(8))

    def integral(a: Array) -> Array:
        p, c = noise.cdf(-jnp.abs(a))[..., None], jnp.abs(a)[..., None]
        u = jnp.maximum(p * np.exp(-s).astype(a.dtype), jnp.finfo(a.dtype).tiny)
        rest = p * jnp.maximum(-noise.quantile(u) - c, 0)
        return jax.nn.relu(a) + rest @ (weight * np.exp(-s)).astype(a.dtype)

    if given is None:
        return integral
    with jax.ensure_compile_time_eval(), float64():
        a = _grid(_scale(noise))
        found = _values(replace(noise, integral=given), "integral", a)
        right = np.asarray(jax.jit(integral)(jnp.asarray(a)))
        _compare(noise, "integral({})", a, found, right, _distance(found, right))
    return given


def bound_of(noise: "Noise", given: float | None) -> float:
    """Return the largest value of a noise, by default its quantile of 1; infinite if it has none.

    Raises:
        GradbenchError: the noise goes beyond the one that is given.
    """
    with jax.ensure_compile_time_eval(), float64():
        if given is None:
            least = float(_values(noise, "quantile", np.zeros(1))[0])
            return -least if -math.inf < least < 0 else math.inf
        if given == math.inf:
            return math.inf
        bound = positive(f"the bound of the noise {noise.name!r}", given)
        f = float(_values(noise, "cdf", np.array([bound]))[0])
    if f < 1 - 1e-6:
        what = f"goes beyond its bound, since cdf({bound:.6g}) = {f:.6g}"
        raise _wrong(noise, what, "leave the bound out to have it computed")
    return bound
