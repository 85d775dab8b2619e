"""Problems: a network, its data and its training, read from TOML files and checked.

A problem comes with the package, by name, or from a user's file, by path. Names that only JAX code
knows (estimators, noises, objectives) are checked where they are used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradbench.suites.config import Unfit, number, several

UNTRAINED = 0  # the checkpoint of the initial parameters


@dataclass(frozen=True)
class Data:
    """A data set (``gradbench.problems.data``) and its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class DenseLayer:
    """A dense stochastic layer: ``dense`` units, ``through`` deterministic tanh layers before."""

    dense: int
    through: tuple[int, ...] = ()


@dataclass(frozen=True)
class ConvLayer:
    """A convolutional stochastic layer: ``conv`` channels, ``pool`` a window of pooling before."""

    conv: int
    kernel: int = 3
    stride: int = 1
    padding: int = 0
    pool: int = 1


@dataclass(frozen=True)
class LogitsLayer:
    """A first layer that reads nothing: ``logits`` units, ``shared`` one logit, from ``value``."""

    logits: int
    shared: bool = False
    value: float = 0.0


@dataclass(frozen=True)
class Distance:
    """The toy objective mean_i |b_i - t_i|^power, or with ``total`` the sum, t the ``distance``."""

    distance: tuple[float, ...]
    power: float = 2.0
    total: bool = False


@dataclass(frozen=True)
class Polynomial:
    """The toy objective mean_i c_1 x_i + c_2 x_i^2 + ..., or with ``total`` the sum."""

    polynomial: tuple[float, ...]
    total: bool = False


@dataclass(frozen=True)
class Weights:
    """Binary weights: the ``noise`` of latent weights; ``activation`` None for stochastic units."""

    noise: str = "logistic"
    activation: str | None = None


@dataclass(frozen=True)
class Network:
    """A chain of stochastic layers and an objective.

    ``hidden`` are the stochastic layers, a number being that of dense units, ``outputs`` the size
    of the affine map that the objective reads, ``inputs`` the shape of an input where it is no
    vector, ``states`` the two values that the next layer reads for the states -1, +1. The objective
    "elbo" has a decoder for each layer, with its own deterministic layers in reverse, and the
    divergence ``kl``; "quadratic" and the tables of toys read the last states themselves.
    ``initialisation`` names how parameters are drawn, with ``scale`` the scale of pre-activations.
    """

    hidden: tuple[int | DenseLayer | ConvLayer | LogitsLayer, ...]
    objective: str | Distance | Polynomial
    outputs: int = 1
    inputs: tuple[int, ...] | None = None
    noise: str = "logistic"
    states: tuple[float, float] = (-1.0, 1.0)
    kl: str = "closed"
    weights: Weights | None = None
    initialisation: str = "normalised"
    scale: float = 1.0


@dataclass(frozen=True)
class WeightTraining:
    """How latent weights are trained, where not as the other parameters.

    ``strength`` is that of the proximal term, for ``proximal_kl`` alone.
    """

    optimiser: str
    rate: float
    strength: float = 0.0


@dataclass(frozen=True)
class Training:
    """How parameters are trained; ``checkpoints`` are numbers of epochs, 0 before the first."""

    estimator: str
    rate: float
    batch: int
    checkpoints: tuple[int, ...]
    momentum: float = 0.0
    optimiser: str = "sgd"
    weights: WeightTraining | None = None


@dataclass(frozen=True)
class Problem:
    """A network with its data. Gradients are measured on ``measured``, all of it as one batch.

    ``label`` is the width, depth or other number that a sweep varies, None without a sweep.
    ``base`` is the name that random keys are made from: the variants of a problem share it.
    """

    name: str
    title: str
    data: Data
    measured: Data
    network: Network
    training: Training | None
    label: float | None = None
    base: str = ""

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Numbers of epochs after which gradients are measured."""
        return self.training.checkpoints if self.training else (UNTRAINED,)

    def checkpoint_name(self, epoch: int) -> str:
        """What a checkpoint is called: "epoch 100", or "untrained" where none is trained."""
        return f"epoch {epoch}" if self.training else "untrained"


def _pair(value: Any) -> tuple[float, float]:
    values = several(number())(value)
    if len(values) != 2:
        raise Unfit("give two numbers, as [0, 1] or [-1, 1]", value)
    return values[0], values[1]
