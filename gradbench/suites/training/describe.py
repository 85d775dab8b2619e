"""What a suite of training would do, in words, and what it takes."""

from pathlib import Path

from gradbench.core.errors import GradbenchError
from gradbench.metrics.untrained import untrained
from gradbench.results.methods import Method, methods_of
from gradbench.results.quantities import read_quantity
from gradbench.results.store import Results
from gradbench.suites.budget import in_words
from gradbench.suites.suite import Suite
from gradbench.suites.training.budget import training_budget
from gradbench.suites.training.several import takes_several
from gradbench.suites.training.sweep import build_problems, plan_of, precision


def describe_training(suite: Suite, seed: int, directory: Path, force: bool = False) -> str:
    """Return what ``train_suite`` would do, with the budget of the search and of all of it.

    Args:
        suite: the suite, with a ``plan``.
        seed: of the data.
        directory: that of the results.
        force: also describe what is refused without it.

    Raises:
        GradbenchError: as ``train_suite``.
    """
    plan = plan_of(suite)
    with precision(suite):
        problems = list(build_problems(suite, seed))
        asked = training_budget(suite, problems)
        units = {one.problem.name: one.units for one in problems}
    if not force:
        asked.check(suite.name)
    runs = plan.runs(len(suite.problems), suite.estimators, suite.replicates)
    rates = f"{len(plan.rates)} rates from {plan.rates[0]:g} to {plan.rates[-1]:g}"
    lines = [
        f"suite {suite.name!r}, seed {seed}: {suite.title}",
        *(f"  problem {name}: {said}" for name, said in units.items()),
        f"  estimators: {', '.join(suite.estimators)}",
        f"  optimisers: {', '.join(plan.optimisers)}",
        f"  runs of {plan.steps:,} steps of {plan.batch} examples:",
        f"  {runs['search']:,} to search the rate, {rates} x {plan.search_seeds} seeds for each "
        f"method, at most {runs['most']:,} where the best rate stays at an edge",
        f"  {runs['reported']:,} reported, {suite.replicates} seeds for each method, none of the "
        "search",
    ]
    if plan.search_steps is not None:
        lines[-2] += f", of {plan.search_steps:,} steps each"
    if not runs["search"]:
        lines[-2] = f"  none to search the rate, which is {plan.rates[0]:g}"
    if plan.bound_samples and (several := list(filter(takes_several, suite.estimators))):
        lines.append(
            f"  bounds of {plan.bound_samples} samples are trained by {', '.join(several)}"
        )
    if plan.continuation:
        then = plan.continuation
        lines.append(f"  each of these goes on for {then.steps:,} steps with {then.estimator}")
    if plan.result:
        quantity = read_quantity(plan.result)
        lines.append(f"  judged by the {quantity.title}: {quantity.better} is better")
    if plan.measured:
        steps = ", ".join(f"{step:,}" for step in plan.measured_steps)
        lines.append(
            f"  errors of gradients at the steps {steps}: {suite.draws} draws on {plan.examples} "
            "examples"
        )
    lines.append(f"  {in_words(asked.hours, asked.gigabytes, asked.disk)}")
    methods = list(methods_of(suite.as_dict()))
    done = len(methods) - len(_untrained(directory, methods))
    lines.append(f"  {directory}: {done} of {len(methods)} methods are trained")
    return "\n".join(lines)


def _untrained(directory: Path, methods: list[Method]) -> list[Method]:
    """Return the methods that are not trained in a directory, all where there are no results."""
    try:
        return untrained(Results.open(directory), methods)
    except GradbenchError:
        return methods
