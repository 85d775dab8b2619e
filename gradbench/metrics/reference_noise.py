"""The noise of a sampled reference, which every metric that looks at it takes into account."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gradbench.core.atomic import Floats
from gradbench.measure.blocks import Blocks


@dataclass(frozen=True, eq=False)
class Noise:
    """The covariance C of a reference of P coordinates, from the spread of its blocks.

    ``deviations`` [n, P] are the rows d of C = d'd; ``variances`` [P] its diagonal, better known.
    """

    deviations: Floats
    variances: Floats

    @classmethod
    def of(cls, blocks: Blocks) -> "Noise":
        """Of the mean of all draws of some blocks."""
        return cls(blocks.deviations(), blocks.variances())

    @property
    def dof(self) -> int:
        """Degrees of freedom of C."""
        return len(self.deviations) - 1

    @cached_property
    def trace(self) -> float:
        """tr C."""
        return float(self.variances.sum())

    @cached_property
    def square(self) -> float:
        """tr(C^2)."""
        return trace_of_square(self.deviations * np.sqrt(self.dof), 1.0, self.variances)

    @cached_property
    def largest(self) -> float:
        """The largest variance in any direction; it errs to the larger side."""
        return float(np.linalg.norm(self.deviations, 2) ** 2)

    def spread(self, slopes: Floats) -> float:
        """The standard error of a function of the reference that has these slopes [P]."""
        return float(np.linalg.norm(self.deviations @ slopes))

    def shared(self, deviations: Floats) -> float:
        """tr(C D), where D = d'd is another covariance, independent of it, given by d [m, P]."""
        return float(((deviations @ self.deviations.T) ** 2).sum())

    def turned(self, unit: Floats, factor: float) -> "Noise":
        """Of ``factor`` times the part across a direction [P]."""
        across = factor * (self.deviations - np.outer(self.deviations @ unit, unit))
        return Noise(across, (across**2).sum(0))


def trace_of_square(means: Floats, count: float, variances: Floats) -> float:
    """tr(S^2) from means [n, P] over ``count`` draws each; ``variances`` [P] is the diagonal of S.

    It lies between the squared diagonal and (tr S)^2, and is kept there; with fewer than four whole
    blocks the upper bound stands in for it, which errs towards a larger standard error.
    """
    n = len(means)
    if n < 4:
        return float(variances.sum() ** 2)
    centred = (means - means.mean(0)) * np.sqrt(count)
    gram = centred @ centred.T if n <= centred.shape[1] else centred.T @ centred
    sizes = (centred**2).sum(1)
    total = (n - 2) / (n - 1) * (gram**2).sum()
    total += sizes.sum() ** 2 / (n - 1) ** 2 - n / (n - 1) * (sizes**2).sum()
    square = total * (n - 1) / (n * (n - 2) * (n - 3))
    return float(np.clip(square, variances @ variances, variances.sum() ** 2))


class ReferenceNoise(NamedTuple):
    """What the noise of a reference does to the estimates of |b|^2 and V.

    ``influence`` [n, 2] is what each of its blocks adds to the two at first order, which has the
    standard errors ``first`` [2]; ``second`` [2] are those of the second order, one random number
    for both, with signs. ``shrinkage``: how much of the first order of |b|^2 is known to be that of
    a bias, and so depends on that of V; the rest has the direction of the noise by chance.
    ``trace`` is what is expected of the noise in |m - r|^2.
    """

    influence: Floats
    first: Floats
    second: Floats
    shrinkage: float
    trace: float

    def shared(self, other: "ReferenceNoise") -> Floats:
        """The covariance [2, 2] of the estimates with those of another against one reference."""
        limit = np.outer(*(np.sqrt((x.influence**2).sum(0)) for x in (self, other)))
        both = self.influence.T @ other.influence
        alike = np.divide(both, limit, out=np.zeros((2, 2)), where=limit > 0.0)
        known = np.array([[_common(self, other), self.shrinkage], [other.shrinkage, 1.0]])
        first = alike * known * np.outer(self.first, other.first)
        return first + np.outer(self.second, other.second)

    def times(self, factors: Floats | float) -> "ReferenceNoise":
        """Of both estimates times positive factors [2]."""
        return self._replace(
            influence=self.influence * factors,
            first=self.first * factors,
            second=self.second * factors,
        )


def _common(a: Any, b: Any) -> float:
    """How alike two sums of a settled and another part are, whose parts are as alike as can be."""
    one, two = (math.acos(x.shrinkage) for x in (a, b))
    return math.cos(one - two)
