"""What a suite of training asks for: runs, hours, memory and disk; too much is refused.

The hours are a guess, as those of ``gradbench.suites.budget``: the operations of a network are
those that the compiler counts, and a step is a few passes through it for each example of a batch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax

from gradbench.core.devices import kind
from gradbench.core.run import batch_size
from gradbench.core.specs import family
from gradbench.estimators.registry import get_estimator
from gradbench.exact.routes import route_of
from gradbench.exact.size import sites_and_type
from gradbench.measure.cell import coordinates_of
from gradbench.suites.budget import refuse_too_much
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.plan import Plan
from gradbench.suites.suite import Suite
from gradbench.suites.training.work import operations

_RATES = {"cpu": 1e10, "gpu": 2e12}  # operations in a second, of the whole machine
_STEP = 1e-4  # seconds: a step of a run whose network takes no time
_PROGRAMS = 6.0  # seconds: what a method has to compile
_BACKWARD = 2  # passes: back through the network, to its states and its parameters
_PREDICTIONS = 12  # of a test example: one sample, ten, and the mean field
_STATE = 4  # times the parameters: themselves, two moments and the gradient


class TrainingBudget(NamedTuple):
    """What a suite of training takes, where no search goes beyond its grid."""

    runs: int
    steps: int
    hours: float
    gigabytes: float
    disk: float

    def check(self, name: str) -> None:
        """Refuse more than a slip of the pen would be told from a wish.

        Raises:
            GradbenchError: names what is too much.
        """
        what = f"{self.runs:,} runs with {self.steps:,} steps in all"
        refuse_too_much(name, what, self.hours, self.gigabytes)


def training_budget(suite: Suite, problems: Sequence[ProblemInstance]) -> TrainingBudget:
    """Return what a suite of training takes on the device that JAX has, of its built problems."""
    plan, replicates = suite.plan, suite.replicates
    assert plan is not None
    lanes = max([replicates, *map(plan.searched, plan.optimisers)])
    rate = _RATES.get(kind(), _RATES["gpu"])
    seconds = gigabytes = disk = 0.0
    for built in problems:
        run = operations(built)
        for spec in suite.estimators:
            optimisers = [o for o in plan.optimisers if plan.with_optimiser(o, (spec,))]
            of_draw = _of_draw(spec, built, plan.batch, run) / rate
            step = _STEP + plan.batch * of_draw
            searching = plan.search.steps * step + _evaluation(plan.search, built) * run / rate
            own = replicates * (plan.steps * step + _evaluation(plan, built) * run / rate)
            if (then := plan.continuation) is not None:
                again = _of_draw(then.estimator, built, plan.batch, run) / rate
                own += replicates * then.steps * (_STEP + plan.batch * again)
            own += replicates * 2 * plan.measured * suite.draws * plan.examples * of_draw
            seconds += len(optimisers) * (own + _PROGRAMS)
            seconds += sum(map(plan.searched, optimisers)) * searching
        state = 4e-9 * lanes * _STATE * coordinates_of(built.shapes())
        examples = sum(leaf.nbytes for leaf in jax.tree.leaves((built.data, built.batch)))
        gigabytes = max(gigabytes, state + 1e-9 * examples)
        kept = (plan.measured + 1) * replicates * coordinates_of(built.shapes())
        methods = plan.runs(1, suite.estimators, 1)["reported"]
        disk += methods * (8.0 * kept + 5e4)
    runs = plan.runs(len(problems), suite.estimators, replicates)
    steps = runs["search"] * plan.search.steps + runs["reported"] * plan.steps
    count = runs["search"] + runs["reported"]
    return TrainingBudget(count, steps, seconds / 3600, gigabytes, disk)


def _evaluation(plan: Plan, built: ProblemInstance) -> float:
    """Return how many passes of an example the losses and accuracies of one run take."""
    data, test = (
        min(batch_size(part), plan.evaluated or batch_size(part))
        for part in (built.data, built.batch)
    )
    return len(plan.recorded) * (plan.samples * (data + test) + _PREDICTIONS * test)


def _of_draw(spec: str, built: ProblemInstance, batch: int, run: float) -> float:
    """Return the operations of a draw for each example of a batch, given those of a run."""
    shapes = built.shapes()
    if family(spec) == "exact":
        examples = jax.tree.map(lambda leaf: leaf[:batch], built.data)
        return route_of(built.network).size(built.network, shapes, examples).work / batch
    sites, _ = sites_and_type(built.network, shapes, built.data)
    units = [site.size for site in sites]
    entry, arguments = get_estimator(spec)
    sizes = {"L": len(units), "D": sum(units), "n": units[-1]}
    _, _, layers = entry.price(**arguments).evaluate(**sizes, **(entry.hyperparameters | arguments))
    return run * (min(layers, 1e30) / len(units) + _BACKWARD)
