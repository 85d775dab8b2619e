"""Problems: a network, its data and its training, as TOML files say them.

A problem comes with the package or a plugin, by name, or from a user's file, by path. The classes
here are read from the tables of the file, see ``gradbench.suites.parse``.
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from gradbench.core.errors import GradbenchError
from gradbench.core.fields import (
    Checked,
    Count,
    Distinct,
    Estimator,
    Named,
    Natural,
    NotNegative,
    Number,
    OneOrMore,
    Positive,
    Real,
    Text,
)
from gradbench.models.layer import LayerForm
from gradbench.models.losses import ObjectiveForm
from gradbench.suites.forms import Data, DataTable, FormOf, MeasuredTable, ObjectiveName
from gradbench.suites.own_parameters import ParametersTable, StoredParameters

UNTRAINED = 0  # the checkpoint of the initial parameters


def _two(states: tuple[float, ...]) -> tuple[float, ...]:
    if len(states) != 2:
        raise GradbenchError("give two numbers, such as [0, 1] or [-1, 1]")
    return states


# A number of dense units, or the table of a layer; the name of an objective, or its table.
Hidden: TypeAlias = Annotated[int | LayerForm, FormOf("layers", Count)]
Objective: TypeAlias = Annotated[
    str | ObjectiveForm, FormOf("objectives", Annotated[str, ObjectiveName()])
]
Pair: TypeAlias = Annotated[Distinct[Real], Checked(_two)]


@dataclass(frozen=True)
class Weights:
    """Binary weights: the ``noise`` of latent weights; ``activation`` None for stochastic units.

    ``activations`` estimates the gradient of stochastic units where a suite names an estimator of
    the weights alone; by default it is the exact one.
    """

    noise: Annotated[str, Named("noises")] = "logistic"
    activation: Annotated[str, Named("activations")] | None = None
    activations: Estimator | None = None


@dataclass(frozen=True)
class Network:
    """A chain of stochastic layers and an objective.

    ``hidden`` are the stochastic layers; a plain number stands for so many dense units. ``outputs``
    is the size of the affine map that a loss reads, ``inputs`` the shape of an input that is not a
    vector, ``states`` the two values that the next layer reads for the states -1 and +1, or for
    these values of an activation. The
    objective "elbo" has a decoder for each layer, with its deterministic layers in reverse, and the
    divergence ``kl``. ``initialisation`` names how parameters are drawn, with ``scale`` the scale
    of pre-activations; the default is the one that trains best in the suite "initialisation".
    """

    hidden: OneOrMore[Hidden]
    objective: Objective
    outputs: Count = 1
    inputs: OneOrMore[Count] | None = None
    noise: Annotated[str, Named("noises")] = "logistic"
    states: Pair = (-1.0, 1.0)
    kl: Literal["closed", "sampled"] = "closed"
    weights: Weights | None = None
    initialisation: Annotated[str, Named("initialisations")] = "data_dependent"
    scale: Positive = 1.0


@dataclass(frozen=True)
class WeightTraining:
    """The training of latent weights, where it differs from that of the other parameters.

    ``strength`` is the strength of a proximal term, where the optimiser has one, ``threshold`` the
    one at which weights flip.
    """

    optimiser: Annotated[str, Named("weight_optimisers")]
    rate: Positive
    strength: NotNegative = 0.0
    threshold: NotNegative | None = None


@dataclass(frozen=True)
class Training:
    """The training of the parameters; ``checkpoints`` are numbers of epochs, 0 before the first."""

    estimator: Estimator
    rate: Positive
    batch: Count
    checkpoints: Annotated[Distinct[Natural], Checked(lambda epochs: tuple(sorted(epochs)))]
    momentum: Annotated[float, Number(least=0, below=1)] = 0.0
    optimiser: Annotated[str, Named("optimisers")] = "sgd"
    weights: WeightTraining | None = None


@dataclass(frozen=True)
class Sampled:
    """The sampled gradient that stands for an exact one where a network is too wide to enumerate.

    It is drawn until every layer is known to the relative standard error ``rel_se``, or for about
    ``seconds``, see ``gradbench.reference``. ``estimator`` is what it is the mean of, by default
    the one that is quickest in a pilot.
    """

    rel_se: Annotated[float, Number(above=0, below=1)] = 0.05
    seconds: Positive = 600.0
    estimator: Estimator | None = None


@dataclass(frozen=True)
class ProblemTable:
    """The whole file of a problem. Gradients are measured on [measured], by default on [data]."""

    title: Text
    data: Annotated[Data, DataTable()]
    network: Network
    measured: Annotated[Data | None, MeasuredTable()] = None
    training: Training | None = None
    reference: Sampled | None = None
    parameters: ParametersTable | None = None


@dataclass(frozen=True)
class Problem:
    """A network with its data. Gradients are measured on ``measured``, all of it as one batch.

    ``name`` and ``title`` are what tables and figures call it; ``training`` is None where gradients
    are measured at the initial parameters alone. ``label`` is the width, depth or other number
    that a sweep varies, None without a sweep. ``base`` is the name that random keys are made from;
    the variants of a problem share it. ``reference`` says how gradients are sampled if the network
    is too wide to enumerate; without it such a network is refused. ``parameters`` are those of a
    file, in the place of random initial ones.
    """

    name: str
    title: str
    data: Data
    measured: Data
    network: Network
    training: Training | None
    label: float | None = None
    base: str = ""
    reference: Sampled | None = None
    parameters: StoredParameters | None = None

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The numbers of epochs after which gradients are measured."""
        return self.training.checkpoints if self.training else (UNTRAINED,)

    def checkpoint_name(self, epoch: int) -> str:
        """Return the name of a checkpoint: "epoch 100", or "untrained" without training."""
        return f"epoch {epoch}" if self.training else "untrained"


# Keys that came later: results of before are those of a suite that does not use them.
_LATER = (
    *("until", "threshold", "reference", "parameters", "plan"),
    *("search_steps", "evaluated", "bound_samples", "result", "continuation"),
    *("activations", "biases", "only"),
)
_LOCAL = "folder"  # where a file lies on this machine is no part of what is measured


def as_json(of: Any) -> dict[str, Any]:
    """Return all that a problem or a suite says, in types that JSON keeps."""

    def said(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        known = [(key, value) for key, value in pairs if key != _LOCAL]
        return {key: value for key, value in known if value is not None or key not in _LATER}

    return dict(json.loads(json.dumps(asdict(of, dict_factory=said))))
