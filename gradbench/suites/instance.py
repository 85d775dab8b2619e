"""From the description of a problem to its network, its batch and its trained parameters."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from gradbench.core.atomic import CorruptFile
from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.programs import share
from gradbench.core.seeds import named_seed
from gradbench.core.surrogate import SurrogateLoss
from gradbench.estimators import check_spec, get_estimator, make_estimator
from gradbench.measure.cell import Cell
from gradbench.results.shards import CheckpointId
from gradbench.suites.data import Examples
from gradbench.suites.initialise import get_initialisation
from gradbench.suites.networks import AnyNetwork, check_network, make_network
from gradbench.suites.pretrained import published_checkpoints
from gradbench.suites.problem import Problem, Sampled
from gradbench.suites.train import (
    TrainingState,
    check_batch,
    check_training,
    make_optimiser,
    train,
)

T = TypeVar("T")


@dataclass(frozen=True)
class ProblemInstance:
    """A problem made ready for a seed and a replicate. Build and use it in float64.

    Gradients are measured on ``batch``, and the network is trained on ``data``. Copies that differ
    in the replicate share what was ``drawn``: parameters by replicate, their shapes by precision.
    """

    problem: Problem
    seed: int
    replicate: int
    network: AnyNetwork
    data: Batch
    batch: Batch
    drawn: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def key(self, purpose: str) -> jax.Array:
        """Return a key [] that depends on the seed, the problem, the replicate and its purpose."""
        names = (self.problem.base, str(self.replicate), purpose)
        return jax.random.key(named_seed(self.seed, *names))

    @property
    def reference(self) -> Sampled | None:
        """How gradients are sampled where the network is too wide to enumerate."""
        return self.problem.reference

    @property
    def places(self) -> list[CheckpointId]:
        """The places of its checkpoints in results."""
        names = map(self.problem.checkpoint_name, self.problem.checkpoints)
        return [CheckpointId(self.problem.name, self.replicate, name) for name in names]

    def shapes(self) -> Params:
        """Return the shapes and types of the parameters."""
        if (precision := jnp.result_type(float)) not in self.drawn:
            self.drawn[precision] = jax.eval_shape(self._drawn)
        return self.drawn[precision]

    def loss(self, spec: str) -> Loss:
        """Return the estimator of a ``spec``, the same object each time.

        Raises:
            GradbenchError: it does not take the network.
        """
        return estimator(spec, self.network)

    def cost(self, cell: Cell, spec: str) -> dict[str, float]:
        """Return what a draw of a ``cell``, of the estimator ``spec``, costs that is counted.

        Raises:
            GradbenchError: there is no such estimator.
        """
        return cell.cost(spec, self.network)

    def restored(self, place: CheckpointId, stored: Params) -> Params:
        """Return the parameters that are ``stored`` at a ``place``, as the network takes them.

        Raises:
            GradbenchError: they are of another network.
        """
        wanted, found = (
            jax.tree_util.tree_flatten_with_path(tree)[0] for tree in (self.shapes(), stored)
        )
        if [(path, leaf.shape) for path, leaf in found] != [(p, leaf.shape) for p, leaf in wanted]:
            raise CorruptFile("has parameters of another network")
        return stored

    @property
    def units(self) -> str:
        """The units that are enumerated, in words, as "5-5-5 hidden units"."""
        return self.network.units_in_words(self.shapes())

    def initial(self) -> tuple[Params, ...]:
        """Return the initial parameters: random, or those of a file.

        Raises:
            GradbenchError: those of the file do not fit the network.
        """
        if self.problem.parameters is None:
            if self.replicate not in self.drawn:
                self.drawn[self.replicate] = self._drawn()
            return self.drawn[self.replicate]
        return tuple(self.problem.parameters.load(self.shapes()))

    def _drawn(self) -> tuple[Params, ...]:
        network = self.problem.network
        initialise = get_initialisation(network.initialisation)
        return initialise(self.network, self.key("initial"), self.data[0], network.scale)

    def checkpoints(self, retrain: bool = False) -> Iterator[tuple[Params, ...]]:
        """Yield the parameters at ``problem.checkpoints``, trained when they are asked for.

        Those of the suites of the package with seed 0 come with the package, as machines and
        versions train different networks. They are trained anew with ``retrain``.

        Raises:
            GradbenchError: the training does not fit the network, or ends in parameters that are
                not finite.
        """
        for _, params in self.trained(retrain):
            yield params

    def trained(
        self,
        retrain: bool = False,
        resumed: TrainingState | None = None,
        save: Callable[[TrainingState], None] | None = None,
    ) -> Iterator[tuple[int, tuple[Params, ...]]]:
        """Yield the number of epochs and the parameters at ``problem.checkpoints``.

        Args:
            retrain: as in ``checkpoints``.
            resumed: a state that was saved, to go on from; later checkpoints alone are yielded.
            save: is called with a state on the way, as ``gradbench.suites.train`` does.

        Raises:
            GradbenchError: as ``checkpoints``.
        """
        problem, training = self.problem, self.problem.training
        known = None if retrain else published_checkpoints(problem, self.seed, self.replicate)
        if known is None and training is None:
            known = [self.initial()]
        if known is not None:
            yield from zip(problem.checkpoints, known, strict=True)
            return
        assert training is not None
        yield from train(
            estimator(training.estimator, self.network),
            self.initial(),
            self.data,
            self.key("training"),
            make_optimiser(training, self.network),
            training.batch,
            training.checkpoints,
            resumed,
            save,
        )

    def untrained(self) -> tuple[Params, Any]:
        """Return the initial parameters and the optimiser's state of a problem with a training."""
        assert self.problem.training is not None
        params = self.initial()
        return params, make_optimiser(self.problem.training, self.network).init(params)


@lru_cache(maxsize=512)
def estimator(spec: str, network: Any) -> Loss:
    """Return the surrogate loss, one object for a spec and a network: it is compiled once.

    Specs that differ in real numbers, such as temperatures, share their programs. The numbers 0 and
    1 may stand for simpler formulas, and remain constants.
    """
    loss = make_estimator(spec, network)
    entry, arguments = get_estimator(spec)
    numbers = {
        name: float(value)
        for name, value in arguments.items()
        if isinstance(entry.hyperparameters[name], float)
        and isinstance(value, int | float)  # darn takes a name, too
        and value not in (0, 1)
    }
    if not numbers or entry.needs or not isinstance(loss, SurrogateLoss):
        return loss
    fixed = tuple((name, value) for name, value in arguments.items() if name not in numbers)
    return share(loss, _Maker(entry.make, network, fixed), numbers)


@dataclass(frozen=True)
class _Maker:
    """Makes an estimator on a network from its real hyper-parameters; the others are ``fixed``."""

    make: Callable[..., Loss]
    network: Model
    fixed: tuple[tuple[str, object], ...]

    def __call__(self, numbers: dict[str, float]) -> Loss:
        return self.make(self.network, **dict(self.fixed), **numbers)


def check_problem(problem: Problem) -> None:
    """Refuse names in the description of a problem that are unknown, and what does not fit.

    Raises:
        GradbenchError: names the problem, the name and the remedy.
    """
    network, training = problem.network, problem.training

    def check() -> None:
        check_network(network)
        get_initialisation(network.initialisation)
        if training is not None:
            check_spec(training.estimator)
            check_training(training, network)

    _named(problem, check)


def build(problem: Problem, seed: int = 0, replicate: int = 0) -> ProblemInstance:
    """Return the network and the data of a problem.

    Args:
        problem: the problem, see ``load_problem``.
        seed: of the data, the initial parameters, the training and the draws.
        replicate: the number of the replicate, whose data and draws are others.

    Raises:
        GradbenchError: unknown names, or data that do not fit the objective or the training.
    """
    check_problem(problem)
    parts = (problem.data, problem.measured)
    data, batch = _named(
        problem,
        lambda: [part.load(seed, replicate) for part in parts],
    )
    batches = [_as_batch(problem, part) for part in (data, batch)]
    network = _named(problem, lambda: make_network(problem.network, data.inputs.shape[1]))
    built = ProblemInstance(problem, seed, replicate, network, *batches)
    _named(problem, lambda: _check_built(built))
    return built


def _named(problem: Problem, make: Callable[[], T]) -> T:
    """Return what ``make`` does; its errors begin with the name of the problem.

    Numbers that are too large for the machine are refused like those that are wrong.
    """
    try:
        return make()
    except GradbenchError as error:
        raise GradbenchError(f"problem {problem.name!r}: {error}") from None
    except MemoryError as error:
        remedy = "ask for fewer units, examples or parameters"
        raise GradbenchError(f"problem {problem.name!r}: {error}; {remedy}") from None
    except OverflowError as error:
        reason = f"a number is too large ({error.args[-1]}); give smaller ones"
        raise GradbenchError(f"problem {problem.name!r}: {reason}") from None


def _check_built(built: ProblemInstance) -> None:
    training = built.problem.training
    params = built.shapes()
    for batch in (built.data, built.batch):
        built.network.check(params, batch)
    if built.problem.parameters is not None:
        built.initial()  # refuses what does not fit
    if training is not None:
        check_batch(training.batch, built.data)
        estimator(training.estimator, built.network)


def _as_batch(problem: Problem, examples: Examples) -> Batch:
    """Return the examples in the shapes that the network and the objective read."""
    network, (inputs, targets) = problem.network, examples
    if network.inputs is not None:
        if math.prod(network.inputs) != inputs.shape[1]:
            raise GradbenchError(
                f"problem {problem.name!r}: network.inputs is {network.inputs} but an input has "
                f"{inputs.shape[1]} numbers; give a shape of that size"
            )
        inputs = inputs.reshape(-1, *network.inputs)
    if network.objective == "squared_error" and targets.ndim == 1:
        targets = targets[:, None].astype(float)
    return jnp.asarray(inputs), jnp.asarray(targets)
