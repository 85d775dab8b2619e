"""The table [training] of a suite: what is trained, how long, and how rates are searched."""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, NamedTuple

from gradbench.core.errors import GradbenchError
from gradbench.core.fields import Checked, Count, Distinct, Estimator, Natural, Positive, unfit
from gradbench.core.specs import canonical, parse_spec
from gradbench.results.quantities import read_quantity
from gradbench.suites.train import OPTIMISERS


class OptimiserSpec(NamedTuple):
    """An optimiser: the name in the registry, and the momentum, None where none was given."""

    name: str
    momentum: float | None

    @property
    def averaging(self) -> int:
        """The number of steps that it averages over, (1 + m) / (1 - m): of Adam with m = 0.9."""
        m = self.momentum if self.momentum is not None else (0.9 if self.name == "adam" else 0.0)
        return round((1 + m) / (1 - m))


def read_optimiser(text: str) -> OptimiserSpec:
    """Return the optimiser of a text such as "adam" or "nesterov(momentum=0.9)".

    Raises:
        GradbenchError: an unknown name, or another argument than a momentum from 0 to below 1.
    """
    name, arguments = parse_spec(text)
    OPTIMISERS.find(name)
    momentum = arguments.get("momentum", 0.0)
    number = isinstance(momentum, int | float) and not isinstance(momentum, bool)
    if set(arguments) - {"momentum"} or not number or not 0 <= momentum < 1:  # type: ignore[operator]
        raise GradbenchError(
            "write the name of an optimiser, with a momentum from 0 to below 1 if it has one, as "
            "'nesterov(momentum=0.9)'"
        )
    return OptimiserSpec(name, float(momentum) if arguments else None)  # type: ignore[arg-type]


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

    def runs(self, problems: int, estimators: int, replicates: int) -> dict[str, int]:
        """Return how many runs there are: ``search`` of one grid, ``most`` of it, ``reported``."""
        each = problems * estimators * len(self.optimisers)
        search = (
            each * len(self.rates) * self.search_seeds
            if self.extensions or (len(self.rates) > 1)
            else 0
        )
        return {
            "search": search,
            "most": search * (1 + self.extensions),
            "reported": each * replicates,
        }
