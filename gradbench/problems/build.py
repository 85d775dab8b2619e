"""From the description of a problem to its network, its batch and its trained parameters."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp

from gradbench.errors import GradbenchError
from gradbench.estimators import check_spec, make_estimator
from gradbench.model import Batch, Loss, Params
from gradbench.names import named_seed
from gradbench.network import SBN, dense_network
from gradbench.noise import get_noise
from gradbench.objectives import get_loss
from gradbench.problem import Network, Problem
from gradbench.problems.data import Examples, load_data
from gradbench.problems.initialise import get_initialisation
from gradbench.problems.train import check_batch, get_optimiser, train


@dataclass(frozen=True)
class Built:
    """A problem made ready for a seed and a replicate. Build and use it in float64.

    ``batch`` is what gradients are measured on, ``data`` what the network is trained on.
    """

    problem: Problem
    seed: int
    replicate: int
    network: SBN
    data: Batch
    batch: Batch

    def key(self, purpose: str) -> jax.Array:
        """A key that depends on the seed, the problem, the replicate and what it is for."""
        names = (self.problem.name, str(self.replicate), purpose)
        return jax.random.key(named_seed(self.seed, *names))

    def initial(self) -> tuple[Params, ...]:
        """The initial parameters."""
        network = self.problem.network
        initialise = get_initialisation(network.initialisation)
        return initialise(self.network, self.key("initial"), self.data[0], network.scale)

    def checkpoints(self) -> Iterator[tuple[Params, ...]]:
        """The parameters at ``problem.checkpoints``, trained as they are asked for."""
        training = self.problem.training
        if training is None:
            yield self.initial()
            return
        optimiser = get_optimiser(training.optimiser, training.rate, training.momentum)
        for _, params in train(
            estimator(training.estimator, self.network),
            self.initial(),
            self.data,
            self.key("training"),
            optimiser,
            training.batch,
            training.checkpoints,
        ):
            yield params


@lru_cache(maxsize=64)
def estimator(spec: str, network: SBN) -> Loss:
    """The surrogate loss, the same object for the same spec and network: compiled once."""
    return make_estimator(spec, network)


def check_problem(problem: Problem) -> None:
    """Refuses names that the description of a problem holds and nobody knows.

    Raises:
        GradbenchError: names the problem, the name and the remedy.
    """
    network, training = problem.network, problem.training
    try:
        get_noise(network.noise)
        get_loss(network.objective)
        get_initialisation(network.initialisation)
        if training is not None:
            check_spec(training.estimator)
            get_optimiser(training.optimiser, training.rate, training.momentum)
    except GradbenchError as error:
        raise GradbenchError(f"problem {problem.name!r}: {error}") from None


def build(problem: Problem, seed: int = 0, replicate: int = 0) -> Built:
    """The network and the data of a problem.

    Raises:
        GradbenchError: unknown names, or data that do not fit the objective or the training.
    """
    check_problem(problem)
    data, batch = (
        load_data(part.name, part.arguments, seed, replicate)
        for part in (problem.data, problem.measured)
    )
    part = problem.network
    sizes = (data[0].shape[1], *part.hidden, part.outputs)
    network = dense_network(sizes, part.objective, part.noise, part.states)
    built = Built(
        problem, seed, replicate, network, _as_outputs(part, data), _as_outputs(part, batch)
    )
    _check_data(built)
    return built


def _check_data(built: Built) -> None:
    problem, training = built.problem, built.problem.training
    try:
        params = jax.eval_shape(built.initial)
        for batch in (built.data, built.batch):
            built.network.check(params, batch)
        if training is not None:
            check_batch(training.batch, built.data)
    except GradbenchError as error:
        raise GradbenchError(f"problem {problem.name!r}: {error}") from None


def _as_outputs(network: Network, examples: Examples) -> Batch:
    """The examples, with targets as numbers per output where the squared error wants them so."""
    inputs, targets = examples
    if network.objective == "squared_error" and targets.ndim == 1:
        targets = targets[:, None].astype(float)
    return jnp.asarray(inputs), jnp.asarray(targets)
