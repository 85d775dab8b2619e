"""The noise of a sampled reference, which every metric takes into account."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks


@dataclass(frozen=True, eq=False)
class Noise:
    """The covariance C of a reference with P coordinates, from the spread of its blocks.

    Attributes:
        deviations: [n, P] the rows d of C = d'd.
        variances: [P] the diagonal of C, from all draws and so better known.
    """

    deviations: Floats
    variances: Floats

    @classmethod
    def of(cls, blocks: Blocks) -> "Noise":
        """Return the noise of the mean of all draws of some blocks."""
        return cls(blocks.deviations(), blocks.variances())

    def times(self, factor: float) -> "Noise":
        """Return the noise of a positive multiple of the reference."""
        return Noise(self.deviations * factor, self.variances * factor * factor)

    @property
    def dof(self) -> int:
        """The degrees of freedom of C."""
        return len(self.deviations) - 1

    @cached_property
    def gram(self) -> Floats:
        """[n, n] the products of the rows d, which take time in wide models."""
        return self.deviations @ self.deviations.T

    @cached_property
    def squares(self) -> Floats:
        """[P] the diagonal of d'd."""
        return np.einsum("np,np->p", self.deviations, self.deviations)

    @cached_property
    def trace(self) -> float:
        """tr C."""
        return float(self.variances.sum())

    @cached_property
    def square(self) -> float:
        """tr(C^2)."""
        return _square_of(_centred(self.gram) * self.dof, self.variances)

    @cached_property
    def largest(self) -> float:
        """The largest variance in any direction; the estimate errs to the larger side."""
        rows = self.deviations
        small = self.gram if len(rows) <= rows.shape[1] else rows.T @ rows
        return max(float(np.linalg.eigvalsh(small)[-1]), 0.0)

    def spread(self, slopes: Floats) -> float:
        """Return the standard error of a function of the reference that has these slopes [P]."""
        return float(np.linalg.norm(self.deviations @ slopes))

    def moved(self, slopes: Floats) -> Floats:
        """Return what each block adds [n, k] to functions of these slopes [P, k]."""
        return self.deviations @ slopes

    def shared(self, deviations: Floats) -> float:
        """Return tr(C D), where D = d'd is an independent covariance, given by d [m, P]."""
        return float(((deviations @ self.deviations.T) ** 2).sum())

    def turned(self, unit: Floats, factor: float) -> "TurnedNoise":
        """Return the noise of ``factor`` times the part orthogonal to the ``unit`` vector [P]."""
        return TurnedNoise(self, unit, factor)


@dataclass(frozen=True, eq=False)
class TurnedNoise:
    """The noise of a multiple of the part of a reference that is orthogonal to a vector.

    Its rows are factor (d - (d u) u'), which are not made: they would be as large as those of the
    reference, for each estimator.

    Attributes:
        whole: the noise of the reference.
        unit: [P] the unit vector u.
        factor: the factor.
    """

    whole: Noise
    unit: Floats
    factor: float

    @cached_property
    def along(self) -> Floats:
        """[n] the component of the rows of the whole noise along u."""
        return self.whole.deviations @ self.unit

    @cached_property
    def variances(self) -> Floats:
        """[P] the diagonal of the covariance."""
        along, unit = self.along, self.unit
        found = self.whole.squares - 2.0 * unit * (along @ self.whole.deviations)
        return self.factor**2 * np.maximum(found + along @ along * unit**2, 0.0)

    @property
    def trace(self) -> float:
        """The trace of the covariance."""
        return float(self.variances.sum())

    @cached_property
    def square(self) -> float:
        """The trace of its square."""
        gram = self.whole.gram - np.outer(self.along, self.along)
        return _square_of(self.factor**2 * _centred(gram) * self.whole.dof, self.variances)

    def moved(self, slopes: Floats) -> Floats:
        """Return what each block adds [n, k] to functions of these slopes [P, k]."""
        found = self.whole.deviations @ slopes - np.outer(self.along, self.unit @ slopes)
        return self.factor * found

    def shared(self, deviations: Floats) -> float:
        """Return tr(C D), where D = d'd is an independent covariance, given by d [m, P]."""
        both = deviations @ self.whole.deviations.T
        both -= np.outer(deviations @ self.unit, self.along)
        return float(self.factor**2 * (both**2).sum())


def _centred(gram: Floats) -> Floats:
    """Return the products [n, n] of rows less their mean, from those of the rows."""
    means = gram.mean(0)
    return gram - means - means[:, None] + means.mean()


def trace_of_square(means: Floats, count: float, variances: Floats) -> float:
    """Estimate tr(S^2) from the means [n, P] of blocks.

    The estimate is kept between its bounds, the squared diagonal and (tr S)^2. With fewer than four
    blocks it is the upper bound, which errs towards a larger standard error.

    Args:
        means: [n, P] the means of whole blocks.
        count: the number of draws in each of them.
        variances: [P] the diagonal of S.
    """
    n = len(means)
    if n < 4:
        return float(variances.sum() ** 2)
    centred = (means - means.mean(0)) * np.sqrt(count)
    gram = centred @ centred.T if n <= centred.shape[1] else centred.T @ centred
    return _from_products(float((gram**2).sum()), (centred**2).sum(1), variances)


def _square_of(gram: Floats, variances: Floats) -> float:
    """Return the same from the products [n, n] of the centred means, times their count."""
    if len(gram) < 4:
        return float(variances.sum() ** 2)
    return _from_products(float((gram**2).sum()), np.diag(gram), variances)


def _from_products(squares: float, sizes: Floats, variances: Floats) -> float:
    """Return it from the sum of the squared products of n means, and their squared sizes [n]."""
    n = len(sizes)
    total = (n - 2) / (n - 1) * squares
    total += sizes.sum() ** 2 / (n - 1) ** 2 - n / (n - 1) * (sizes**2).sum()
    square = total * (n - 1) / (n * (n - 2) * (n - 3))
    return float(np.clip(square, variances @ variances, variances.sum() ** 2))


class ReferenceNoise(NamedTuple):
    """The effect that the noise of a reference has on the estimates of |b|^2 and V.

    Attributes:
        influence: [n, 2] what each block of the reference adds to the two at first order.
        first: [2] the standard errors of the first order.
        second: [2] the standard errors of the second order, with signs: one random number moves
            both estimates.
        shrinkage: estimated share of the first-order term of |b|^2 that is real bias and so depends
            on that of V; the rest is noise.
        trace: the expectation of the noise in |m - r|^2.
    """

    influence: Floats
    first: Floats
    second: Floats
    shrinkage: float
    trace: float

    def shared(self, other: "ReferenceNoise") -> Floats:
        """Return the covariance [2, 2] with the estimates of another estimator, same reference."""
        limit = np.outer(*(np.sqrt((x.influence**2).sum(0)) for x in (self, other)))
        both = self.influence.T @ other.influence
        alike = np.divide(both, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        known = np.array([[alignment(self, other), self.shrinkage], [other.shrinkage, 1.0]])
        first = alike * known * np.outer(self.first, other.first)
        return first + np.outer(self.second, other.second)

    def times(self, factors: Floats | float) -> "ReferenceNoise":
        """Return the effect on both estimates times positive factors [2]."""
        return self._replace(
            influence=self.influence * factors,
            first=self.first * factors,
            second=self.second * factors,
        )


class _Shrunk(Protocol):
    @property
    def shrinkage(self) -> float: ...


def alignment(a: _Shrunk, b: _Shrunk) -> float:
    """Return the greatest correlation of two errors that are bias by their ``shrinkage``.

    Each is a sum of a part that is known to be bias and of the rest. Both parts of one are taken to
    be as much like those of the other as they can be.
    """
    one, two = (math.acos(x.shrinkage) for x in (a, b))
    return math.cos(one - two)
