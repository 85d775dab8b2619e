"""A suite of training: rates are searched, runs are trained, gradients are measured along them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from gradbench import exact
from gradbench.core.compiling import let_go
from gradbench.core.display import names_to_keep
from gradbench.core.errors import GradbenchError
from gradbench.core.names import file_name
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64, single
from gradbench.core.specs import family
from gradbench.estimators.registry import claims_of, families_of, make_estimator
from gradbench.metrics.untrained import trained_methods
from gradbench.results.quantities import read_quantity
from gradbench.results.runs import Stored, load
from gradbench.results.store import Results
from gradbench.suites.budget import in_words
from gradbench.suites.instance import ProblemInstance, build, estimator
from gradbench.suites.plan import Plan
from gradbench.suites.suite import Suite
from gradbench.suites.train import check_batch
from gradbench.suites.training.budget import training_budget
from gradbench.suites.training.errors import measure_errors
from gradbench.suites.training.group import Group, train_group
from gradbench.suites.training.judge import Judge, make_judge
from gradbench.suites.training.search import search
from gradbench.suites.training.several import takes_several, trained_model

EXACT = "exact"  # the estimator whose runs are the reference
# Lets workers do all of a suite: takes the results, the suite, its problems and the bar.
Spread = Callable[[Results, Suite, Sequence[ProblemInstance], tqdm], None]


def train_suite(
    suite: Suite,
    directory: Path,
    seed: int,
    progress: bool,
    force: bool = False,
    spread: Spread | None = None,
) -> Results:
    """Do all of a suite of training that is not stored yet, and return the closed results.

    A run that diverges is recorded as such, and the others go on.

    Args:
        suite: the suite, with a ``plan``.
        directory: that of the results.
        seed: of data, initial parameters, batches and draws.
        progress: whether to show a bar.
        force: also train what asks for days, or for more memory than is likely to be meant.
        spread: lets workers do it; what they leave is done here.

    Raises:
        GradbenchError: the suite or its problems are wrong or ask for too much, the results cannot
            be written, or a platform computes wrong values.
    """
    plan = plan_of(suite)
    with precision(suite):
        problems = list(build_problems(suite, seed))
        if not force:
            training_budget(suite, problems).check(suite.name)
        check_platform()  # before anything is written
        results = Results.open_or_create(
            directory,
            suite.as_dict(),
            seed,
            suite.draws,
            families_of(suite.estimators),
            claims_of(suite.estimators),
            names_to_keep(suite.estimators),
        )
    with results, precision(suite):
        runs = plan.runs(len(problems), len(suite.estimators), suite.replicates)
        total = runs["search"] * plan.search.steps + runs["reported"] * plan.steps
        total += runs["reported"] * (plan.continuation.steps if plan.continuation else 0)
        with tqdm(
            total=total, unit=" steps", unit_scale=True, dynamic_ncols=True, disable=not progress
        ) as bar:
            if spread is not None:
                spread(results, suite, problems, bar)
                bar.reset(total)
            for built in problems:
                for optimiser in plan.optimisers:
                    train_methods(results, suite, built, optimiser, bar)
                if let_go(len(suite.estimators)):
                    estimator.cache_clear()
    return results


def is_exact(spec: str) -> bool:
    """Return whether an estimator is the exact gradient, along whose runs others are measured."""
    return family(spec) == EXACT


def train_methods(
    results: Results, suite: Suite, built: ProblemInstance, optimiser: str, bar: tqdm
) -> None:
    """Train and measure all estimators with one optimiser, the exact gradient first.

    Args:
        results: the directory of results, open to write.
        suite: the suite, whose estimators are taken.
        built: the problem.
        optimiser: the optimiser.
        bar: the bar of progress.

    Raises:
        GradbenchError: the results cannot be written.
    """
    plan = plan_of(suite)
    judge = _judge(plan, built)
    reference: Group | None = None
    for spec in sorted(suite.estimators, key=lambda spec: not is_exact(spec)):
        name = f"{built.problem.name}, {optimiser}, {spec}"

        def group(rates: tuple[float, ...], phase: str, seeds: range, spec: str = spec) -> Group:
            own = plan.search if phase == "search" else plan
            how = (rates, tuple(seeds), own, suite.dtype)
            return Group(built, spec, optimiser, phase, *how, judge=judge)

        def attempt(rates: tuple[float, ...], name: str = name, group: Any = group) -> Stored:
            bar.set_description(f"{name}: rates")
            tried = group(rates, "search", search_seeds(suite))
            if rates != plan.rates:
                bar.total += len(tried.lanes) * tried.plan.steps
            train_group(results, tried, bar.update)
            stored = load(results, "runs", tried.identity)
            assert stored is not None  # by train_group
            return stored

        fixed = len(plan.rates) == 1
        rate = plan.rates[0] if fixed else search(attempt, plan.rates, plan.extensions).rate
        reported = group((rate,), "report", range(suite.replicates))
        bar.set_description(name)
        train_group(results, reported, bar.update)
        if plan.continuation is not None:
            bar.set_description(f"{name}: continued")
            train_group(results, reported.continued(), bar.update)
        if is_exact(spec):
            reference = reported
        if plan.measured:
            bar.set_description(f"{name}: errors")
            measure_errors(results, reported, "own", reported, suite.draws)
            if reference is not None:
                measure_errors(results, reported, "exact", reference, suite.draws)


def _judge(plan: Plan, built: ProblemInstance) -> Judge | None:
    return None if plan.result is None else make_judge(built, read_quantity(plan.result))


def search_seeds(suite: Suite) -> range:
    """Return the seeds of the search, none of which is reported."""
    return range(suite.replicates, suite.replicates + plan_of(suite).search_seeds)


def plan_of(suite: Suite) -> Plan:
    """Return the plan of a suite of training."""
    assert suite.plan is not None
    return suite.plan


def precision(suite: Suite) -> AbstractContextManager[None]:
    """Return the context in which a suite is trained."""
    return float64() if suite.dtype == "float64" else single()


def build_problems(suite: Suite, seed: int) -> Iterator[ProblemInstance]:
    """Yield the problems of a suite, checked.

    Raises:
        GradbenchError: a network is too large for exact gradients that the suite asks for, an
            estimator or the result does not take it, or a name that no folder can have.
    """
    plan = plan_of(suite)
    for name in (*suite.estimators, *plan.optimisers):
        file_name(name)
    for problem in suite.problems:
        built = build(problem, seed)
        try:
            check_batch(plan.batch, built.data)
            if plan.measured:
                check_batch(plan.examples, built.data)
            if plan.measured or any(map(is_exact, suite.estimators)):
                few = jax.tree.map(lambda leaf: leaf[: plan.examples], built.data)
                exact.check_size(built.network, jax.eval_shape(built.initial), few)
            then = (plan.continuation.estimator,) if plan.continuation else ()
            for spec in (*suite.estimators, *then):
                make_estimator(spec, trained_model(spec, built.network, plan.bound_samples))
                if plan.measured and takes_several(spec):
                    raise GradbenchError(
                        f"{spec} has the gradient of a bound, which is no error of that of the "
                        "loss; give measured = 0"
                    )
            _judge(plan, built)
        except GradbenchError as error:
            raise GradbenchError(f"problem {problem.name!r}: {error}") from None
        yield built


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
    runs = plan.runs(len(suite.problems), len(suite.estimators), suite.replicates)
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
    total = len(suite.problems) * len(plan.optimisers) * len(suite.estimators)
    lines.append(f"  {directory}: {_trained(directory)} of {total} methods are trained")
    return "\n".join(lines)


def _trained(directory: Path) -> int:
    """Return how many methods are trained in a directory, 0 where there are no results."""
    try:
        return trained_methods(Results.open(directory))
    except GradbenchError:
        return 0
