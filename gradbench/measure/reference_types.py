"""The gradient that estimators are compared with, as ``gradbench.reference`` returns it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

from gradbench.core.atomic import Floats
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.measure.blocks import Blocks
from gradbench.measure.pilot import Pilot


class Samples(NamedTuple):
    """The draws that a sampled reference is the mean of.

    All are made in float64, and none of them is kept.

    Attributes:
        estimator: the spec of the unbiased estimator.
        draws: their number.
        layer_names: the names of the layers.
        blocks: the moments of the draws, for each layer.
        rel_se: by the name of a layer, the relative standard error sqrt(tr Cov r) / |G| of the
            reference r, with |G|^2 estimated without bias. It is infinite where the gradient of
            the layer cannot be told from zero.
        standard_error: of the gradient, with the structure of the parameters.
        value_se: the standard error of the value; NaN if the estimator does not estimate it.
        pilot: the candidates that the estimator was chosen from; empty if there was only one.
    """

    estimator: str
    draws: int
    layer_names: tuple[str, ...]
    blocks: tuple[Blocks, ...]
    rel_se: dict[str, float]
    standard_error: PyTree[np.ndarray]
    value_se: float
    pilot: tuple[Pilot, ...] = ()

    def covariance(self, layer: str) -> Floats:
        """Return the covariance [P, P] of the reference of a layer, in the order of its blocks.

        It is computed from the spread of the blocks, so that its rank is below their number.

        Raises:
            GradbenchError: there is no such layer.
        """
        if layer not in self.layer_names:
            raise GradbenchError(
                f"there is no layer {layer!r}; {did_you_mean(layer, self.layer_names)}"
            )
        deviations = self.blocks[self.layer_names.index(layer)].deviations()
        return deviations.T @ deviations


class Reference(NamedTuple):
    """The loss and the gradient of a model on a batch, in float64, with their checks.

    Attributes:
        value: the expected loss, or its estimate.
        gradient: with the structure of the parameters, as NumPy arrays.
        route: the name of the enumeration, or "sampled".
        agreement: the largest relative difference that each check of an enumeration found; None
            where there is no second route: for models that are not an ``SBN``, and where there are
            more than 2^24 paths.
        samples: the draws of a sampled reference, else None.
    """

    value: float
    gradient: PyTree[np.ndarray]
    route: str
    agreement: dict[str, float | None]
    samples: Samples | None = None

    @property
    def blocks(self) -> tuple[Blocks, ...] | None:
        """The blocks of a sampled reference by layer, as ``metrics.Measurement`` takes them."""
        return self.samples.blocks if self.samples else None
