"""Objectives of the toy problems of the literature, which know their expectation.

Each is its own form in TOML, see ``gradbench.models.losses``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Self

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError
from gradbench.core.fields import Number, OneOrMore, Real
from gradbench.models.losses import OBJECTIVES, Stack


class _Toy:
    """An objective of the last states themselves."""

    uses = ("states",)

    def objective(self, stack: Stack) -> Self:
        """Return the objective: the form itself."""
        return self


class _Separable(_Toy, ABC):
    """The mean or, with ``total``, the sum over the units of a function ``each`` of one unit."""

    total: bool

    @abstractmethod
    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """Return the part of each unit."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """Return the objective of one example; neither parameters nor the target are read."""
        return self._over_units(self.each(jnp.ravel(x)))

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """Return the expectation over independent units, see ``gradbench.models.losses``."""
        low, high = (self.each(jnp.full(p.size, value, p.dtype)) for value in values)
        return self._over_units(low + jnp.ravel(p) * (high - low))

    def _over_units(self, parts: Array) -> Array:
        return jnp.sum(parts) if self.total else jnp.mean(parts)


@OBJECTIVES.register("distance")
@dataclass(frozen=True)
class Distance(_Separable):
    """The mean of |b_i - t_i|^power over the units, or with ``total`` the sum; b is 0 or 1.

    ``distance`` holds t, one number for all units or one for each. Power 2 with t = 0.45, 0.49 or
    0.499 is the toy problem of Tucker et al. 2017 (REBAR) and Grathwohl et al. 2018 (RELAX). The
    sum of three bits with one logit and t = 0.6, 0.51, 0.48 is from Liu et al. 2019 and Kool et al.
    2020. Powers 1.5, 2, 3 of 128 bits with t = 0.45 are the polynomial programs of Liu et al. 2023
    (ReinMax).
    """

    distance: OneOrMore[Real]
    power: Annotated[float, Number(least=1)] = 2.0
    total: bool = False

    def __post_init__(self) -> None:
        """Refuse a power without a finite derivative."""
        if not self.power >= 1:
            raise GradbenchError(f"the power of a distance is {self.power!r}; give at least 1")

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """Return |b_i - t_i|^power."""
        if len(self.distance) not in (1, x.size):
            raise GradbenchError(
                f"a distance got {x.size} units and a target of {len(self.distance)} numbers; give "
                "one number, or one for each unit"
            )
        return jnp.abs(x - jnp.asarray(self.distance, x.dtype)) ** self.power


@OBJECTIVES.register("polynomial")
@dataclass(frozen=True)
class Polynomial(_Separable):
    """The mean of c_1 x_i + c_2 x_i^2 + ... over the units, or with ``total`` the sum.

    ``polynomial`` holds the coefficients c_1, c_2, ...
    """

    polynomial: OneOrMore[Real]
    total: bool = False

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """Return the polynomial of each unit."""
        value = jnp.zeros_like(x)
        for coefficient in reversed(self.polynomial):
            value = x * (coefficient + value)
        return value


@OBJECTIVES.register("quadratic")
@dataclass(frozen=True)
class Quadratic(_Toy):
    """The quadratic form x'Qx / 2 + c'x; the target is Q, symmetric, with c as its last column."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """Return the objective of one example.

        Raises:
            GradbenchError: a target of another shape.
        """
        x, (q, c) = jnp.ravel(x), self._split(jnp.size(x), target)
        return x @ q @ x / 2 + c @ x

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """Return the expectation over independent units, see ``gradbench.models.losses``."""
        low, high = values
        p = jnp.ravel(p)
        mean, variance = low + (high - low) * p, (high - low) ** 2 * p * (1 - p)
        q, _ = self._split(p.size, target)
        return self(theta, mean, target) + jnp.diagonal(q) @ variance / 2

    def _split(self, units: int, target: Array) -> tuple[Array, Array]:
        if jnp.shape(target) != (units, units + 1):
            raise GradbenchError(
                f"a quadratic objective got {units} units and a target of shape "
                f"{jnp.shape(target)}; give a matrix with c as its last column, {units} x "
                f"{units + 1}"
            )
        return target[:, :-1], target[:, -1]
