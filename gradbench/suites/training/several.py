"""Estimators of bounds of several samples, trained beside those of one sample."""

from typing import Any

from gradbench.core.errors import GradbenchError
from gradbench.estimators.registry import get_estimator
from gradbench.estimators.vimco import NEEDS
from gradbench.models.multisample import MultiSample, as_weights


def takes_several(spec: str) -> bool:
    """Return whether an estimator is one of bounds of several samples, such as ``vimco``."""
    return get_estimator(spec)[0].needs == NEEDS


def trained_model(spec: str, network: Any, samples: int | None) -> Any:
    """Return the model that an estimator trains: the network, or ``samples`` runs of it.

    Args:
        spec: the estimator.
        network: the network.
        samples: of bounds, None where the suite does not say it.

    Raises:
        GradbenchError: the estimator needs the number of samples, or a network of one example.
    """
    if not takes_several(spec):
        return network
    if samples is None:
        raise GradbenchError(
            f"{spec} trains a bound of several samples; give bound_samples = 5 in [training]"
        )
    return MultiSample(as_weights(network), samples)
