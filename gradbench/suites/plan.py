"""The table [training] of a suite: what is trained, how long, and how rates are searched."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, NamedTuple, TypeGuard

from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.fields import (
    LARGEST,
    Checked,
    Count,
    Distinct,
    Estimator,
    Natural,
    Positive,
    unfit,
)
from gradbench.core.specs import canonical, parse_spec
from gradbench.results.methods import estimators_with
from gradbench.results.quantities import read_quantity
from gradbench.suites.train import OPTIMISERS
from gradbench.suites.weight_optimisers import WEIGHT_OPTIMISERS, WeightOptimiser


class OptimiserSpec(NamedTuple):
    """An optimiser of training.

    Attributes:
        name: its name in the registry of optimisers, or in that of optimisers of binary weights.
        numbers: its hyper-parameters beside the rate, as far as they are given.
        weights: the optimiser of weights, None where it is one of all parameters.
    """

    name: str
    numbers: dict[str, float]
    weights: WeightOptimiser | None

    @property
    def largest(self) -> float:
        """The largest rate that it can have."""
        return math.inf if self.weights is None else self.weights.largest


def read_optimiser(text: str) -> OptimiserSpec:
    """Return the optimiser of a text such as "adam", "nesterov(momentum=0.9)" or "mirror_descent".

    Raises:
        GradbenchError: an unknown name, or arguments that it does not have.
    """
    name, arguments = parse_spec(text)
    numbers = {key: float(value) for key, value in arguments.items() if _is_number(value)}
    wrong = set(arguments) - set(numbers)
    if OPTIMISERS.resolve(name) is None and WEIGHT_OPTIMISERS.resolve(name) is not None:
        found = WEIGHT_OPTIMISERS.find(name)
        if wrong or set(numbers) - set(found.numbers) or found.lacking(numbers):
            takes = f"{', '.join(found.numbers)}, as numbers" if found.numbers else "no arguments"
            raise GradbenchError(f"{name} takes {takes}; write it so")
        found.make(min(1.0, found.largest), (*found.noises, "logistic")[0], **numbers)
        return OptimiserSpec(name, numbers, found)
    if OPTIMISERS.resolve(name) is None:
        raise GradbenchError(
            f"unknown optimiser {name!r}; "
            f"{did_you_mean(name, [*OPTIMISERS.names(), *WEIGHT_OPTIMISERS.names()])}"
        )
    if wrong or set(numbers) - {"momentum"} or not 0 <= numbers.get("momentum", 0) < 1:
        raise GradbenchError(
            "write the name of an optimiser, with a momentum from 0 to below 1 if it has one, as "
            "'nesterov(momentum=0.9)'"
        )
    return OptimiserSpec(name, numbers, None)


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= LARGEST


def _optimiser(text: str) -> str:
    read_optimiser(text)
    return canonical(text)


def _grid(rates: tuple[float, ...]) -> tuple[float, ...]:
    rates = tuple(sorted(rates))
    steps = [math.log(high / low) for low, high in pairwise(rates)]
    if steps and max(steps) > 1.3 * min(steps):
        raise GradbenchError("give rates at equal ratios, such as [0.001, 0.01, 0.1]")
    return rates


def _points(number: int) -> int:
    if not 2 <= number <= 1000:
        raise GradbenchError("give at least 2 points and at most 1000")
    return number


def _result(text: str) -> str:
    return read_quantity(text).spec


@dataclass(frozen=True)
class Continuation:
    """The table [training.continuation] of a suite: the second phase of reported runs.

    Each of them goes on from where it ended, with its rate, for so many ``steps`` with one and the
    same unbiased ``estimator``. What the loss falls by shows the bias that had accumulated.
    """

    estimator: Estimator
    steps: Count


def _by_optimiser(chosen: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {canonical(name): estimators for name, estimators in chosen.items()}


def _of_all(text: str) -> str:
    if read_optimiser(text).weights is not None:
        raise GradbenchError("give an optimiser that is not of weights, such as adam")
    return canonical(text)


@dataclass(frozen=True)
class Biases:
    """The table [training.biases] of a suite: how parameters beside binary weights are trained.

    It is their ``optimiser`` and its ``rate`` where the weights have an optimiser of their own,
    whose rate is searched.
    """

    optimiser: Annotated[str, Checked(_of_all)]
    rate: Positive


@dataclass(frozen=True)
class Plan:
    """The table [training] of a suite.

    Every estimator of the suite trains every problem with each of the ``optimisers``, for so many
    ``steps`` on batches of so many examples. The rate is searched for each of these: the grid
    ``rates`` with ``search_seeds`` seeds of its own, and as many rates again beyond an edge as long
    as the best one lies there, at most ``extensions`` times. With the best rate follow the
    ``replicates`` of the suite, which are reported.

    Runs of the search have ``search_steps``, where that is given, and else all steps.

    Losses and accuracies are taken at ``points`` steps on a logarithmic grid, by ``samples``
    samples of each example: of the first ``evaluated`` of the training data and of the test data
    where that is given, and else of all. At ``measured`` of these steps the errors of gradients are
    measured, by the ``draws`` of the suite on ``examples`` examples, along the run itself and along
    that with the exact gradient; 0 leaves them out.

    Methods are compared by their ``result``, by default the training loss with sampled states:
    "precision(at=100)" is the precision of the codes of test examples among those to train with,
    "bound(samples=100)" the bound of -log p of test examples. Estimators of bounds, such as
    ``vimco``, train that of ``bound_samples`` samples. With a ``continuation`` the reported runs
    have a second phase.

    An optimiser may be one of binary weights, such as "mirror_descent" or "bop(threshold=1e-6)"; it
    then goes with the table ``biases``. With ``only``, the optimisers named there train with these
    estimators of the suite alone, and all methods of a problem are ranked together.
    """

    optimisers: Distinct[Annotated[str, Checked(_optimiser)]]
    steps: Count
    batch: Count
    rates: Annotated[Distinct[Positive], Checked(_grid)]
    search_seeds: Count = 2
    extensions: Natural = 2
    points: Annotated[int, Checked(_points)] = 12
    measured: Natural = 4
    examples: Count = 128
    samples: Count = 4
    search_steps: Count | None = None
    evaluated: Count | None = None
    bound_samples: Count | None = None
    result: Annotated[str, Checked(_result)] | None = None
    continuation: Continuation | None = None
    biases: Biases | None = None
    only: Annotated[dict[str, Distinct[Estimator]], Checked(_by_optimiser)] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if len(self.rates) == 1 and self.extensions:
            raise unfit(
                f"rates is {list(self.rates)}, one value, so that there is no grid to extend; give "
                "two or more at equal ratios, or extensions = 0 to take it as it is"
            )
        if self.search_steps is not None and self.search_steps > self.steps:
            raise unfit(
                f"search_steps is {self.search_steps}, more than the {self.steps} steps of a run; "
                "give fewer"
            )
        specs = [read_optimiser(one) for one in self.optimisers]
        of_weights = [spec.name for spec in specs if spec.weights is not None]
        if of_weights and self.biases is None:
            raise unfit(
                f"the optimiser {of_weights[0]} is one of weights, and biases are trained by "
                'another one; give biases = { optimiser = "adam", rate = 0.003 }'
            )
        if self.biases is not None and not of_weights:
            raise unfit("there are biases and no optimiser of weights; take the biases out")
        for name in self.only or {}:
            if name not in self.optimisers:
                raise unfit(f"only has {name!r}; {did_you_mean(name, self.optimisers)}")
        for text, spec in zip(self.optimisers, specs, strict=True):
            if not self._grid(spec):
                raise unfit(
                    f"{text} has a rate of at most {spec.largest:g}; give smaller rates too"
                )

    def with_optimiser(self, optimiser: str, estimators: Sequence[str]) -> tuple[str, ...]:
        """Return those of the ``estimators`` of a suite that train with an optimiser."""
        return tuple(estimators_with(self.only, optimiser, estimators))

    def rates_of(self, optimiser: str) -> tuple[float, ...]:
        """Return the grid of an optimiser: the rates that it can have."""
        return self._grid(read_optimiser(optimiser))

    def _grid(self, spec: OptimiserSpec) -> tuple[float, ...]:
        return tuple(rate for rate in self.rates if rate <= spec.largest)

    @property
    def search(self) -> "Plan":
        """The plan of the runs of the search; a shorter one takes its losses at both ends."""
        if self.search_steps is None:
            return self
        return replace(self, steps=self.search_steps, points=2)

    @property
    def recorded(self) -> tuple[int, ...]:
        """The steps at which losses are taken: 0, a logarithmic grid, and the last."""
        between = self.points - 1 if self.points > 2 else 0
        grid = (self.steps ** (k / (self.points - 2)) for k in range(between))
        return tuple(sorted({0, *(round(step) for step in grid), self.steps}))

    @property
    def measured_steps(self) -> tuple[int, ...]:
        """The steps at which errors of gradients are measured: the first, the last, and between."""
        steps, n = self.recorded, min(self.measured, len(self.recorded))
        if n <= 1:
            return steps[-1:] * n
        # The early half of a logarithmic grid are the first few steps: one of them is enough.
        late = [step for step in steps if step >= self.steps / 50]
        chosen = (
            [late[round(k * (len(late) - 1) / (n - 2))] for k in range(n - 1)]
            if n > 2
            else [self.steps]
        )
        return tuple(sorted({0, *chosen}))

    def runs(self, problems: int, estimators: Sequence[str], replicates: int) -> dict[str, int]:
        """Return how many runs there are: ``search`` of one grid, ``most`` of it, ``reported``."""
        search = reported = 0
        for optimiser in self.optimisers:
            methods = problems * len(self.with_optimiser(optimiser, estimators))
            search += methods * self.searched(optimiser)
            reported += methods * replicates
        return {"search": search, "most": search * (1 + self.extensions), "reported": reported}

    def searched(self, optimiser: str) -> int:
        """Return how many runs the search of the rate takes with an optimiser, of one grid."""
        rates = len(self.rates_of(optimiser))
        return rates * self.search_seeds if len(self.rates) > 1 else 0
