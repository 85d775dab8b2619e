"""The noise of a sampled reference, which every metric that looks at it takes into account."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradbench.blocks import Blocks, Floats


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
    def freedom(self) -> int:
        """Degrees of freedom of C."""
        return len(self.deviations) - 1

    @cached_property
    def trace(self) -> float:
        """tr C."""
        return float(self.variances.sum())

    @cached_property
    def square(self) -> float:
        """tr(C^2)."""
        return trace_of_square(self.deviations * np.sqrt(self.freedom), 1.0, self.variances)

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
