"""Objectives of the literature's toy problems, which know their expectation."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.errors import GradbenchError


class _Separable(ABC):
    """A toy: the mean or, with ``total``, the sum over the units of a function ``each`` of one."""

    total: bool

    @abstractmethod
    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """The part of each unit."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The objective of one example; neither parameters nor the target are read."""
        return self._over_units(self.each(jnp.ravel(x)))

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """The expectation over independent units, see the head of ``gradbench.objectives``."""
        low, high = (self.each(jnp.full(p.size, value, p.dtype)) for value in values)
        return self._over_units(low + jnp.ravel(p) * (high - low))

    def _over_units(self, parts: Array) -> Array:
        return jnp.sum(parts) if self.total else jnp.mean(parts)


@dataclass(frozen=True)
class Distance(_Separable):
    """mean_i |b_i - t_i|^power, or with ``total`` the sum, of states coded {0, 1}.

    ``target`` t holds one number for all units, or one for each. Power 2 with t = 0.45, 0.49, 0.499
    is the toy problem of Tucker et al. 2017 (REBAR) and Grathwohl et al. 2018 (RELAX); the sum of
    three bits with one logit and t = 0.6, 0.51, 0.48 that of Liu et al. 2019 and Kool et al. 2020;
    powers 1.5, 2, 3 of 128 bits, t = 0.45, the polynomial programs of Liu et al. 2023 (ReinMax).
    """

    target: tuple[float, ...]
    power: float = 2.0
    total: bool = False

    def __post_init__(self) -> None:
        """Refuses a power without a finite derivative."""
        if not self.power >= 1:
            raise GradbenchError(f"the power of a distance is {self.power!r}; give at least 1")

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """|b_i - t_i|^power."""
        if len(self.target) not in (1, x.size):
            raise GradbenchError(
                f"a distance got {x.size} units and a target of {len(self.target)} numbers; give "
                "one number, or one for each unit"
            )
        return jnp.abs(x - jnp.asarray(self.target, x.dtype)) ** self.power


@dataclass(frozen=True)
class Polynomial(_Separable):
    """mean_i c_1 x_i + c_2 x_i^2 + ..., or the sum, with the ``coefficients`` c_1, c_2, ..."""

    coefficients: tuple[float, ...]
    total: bool = False

    def each(self, x: Float[Array, " units"]) -> Float[Array, " units"]:
        """The polynomial of each unit."""
        value = jnp.zeros_like(x)
        for coefficient in reversed(self.coefficients):
            value = x * (coefficient + value)
        return value


@dataclass(frozen=True)
class Quadratic:
    """x'Qx / 2 + c'x, the target being Q, symmetric, with c as its last column."""

    def __call__(self, theta: Params, x: Array, target: Array) -> Float[Array, ""]:
        """The objective of one example."""
        x, (q, c) = jnp.ravel(x), self._split(jnp.size(x), target)
        return x @ q @ x / 2 + c @ x

    def expected(
        self, theta: Params, p: Array, values: tuple[float, float], target: Array
    ) -> Float[Array, ""]:
        """The expectation over independent units, see the head of ``gradbench.objectives``."""
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
