"""A suite of training: rates are searched, runs are trained, gradients are measured along them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from gradbench import exact
from gradbench.core.compiling import let_go
from gradbench.core.devices import in_full_precision
from gradbench.core.display import names_to_keep
from gradbench.core.errors import GradbenchError
from gradbench.core.names import file_name
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64, single
from gradbench.core.specs import family
from gradbench.estimators.registry import claims_of, families_of, make_estimator
from gradbench.models.structure import has_latent_weights
from gradbench.results.quantities import LOSS, read_quantity
from gradbench.results.runs import Stored, load
from gradbench.results.store import Results
from gradbench.suites.instance import ProblemInstance, build, estimator
from gradbench.suites.part import Part
from gradbench.suites.plan import Plan, read_optimiser
from gradbench.suites.suite import Suite
from gradbench.suites.train import check_batch
from gradbench.suites.training.budget import training_budget
from gradbench.suites.training.engine import advance
from gradbench.suites.training.errors import OF_ESTIMATORS, measure_errors
from gradbench.suites.training.group import Group, train_group
from gradbench.suites.training.judge import Judge, make_judge
from gradbench.suites.training.search import search
from gradbench.suites.training.several import takes_several, trained_model
from gradbench.suites.weight_optimisers import check_fit

EXACT = "exact"  # the estimator whose runs are the reference
# Lets workers do all of a suite: takes the results, the suite, its problems and the bar.
Spread = Callable[[Results, Suite, Sequence[ProblemInstance], tqdm], None]


def train_suite(
    suite: Suite,
    part: Part,
    directory: Path,
    seed: int,
    progress: bool,
    force: bool = False,
    spread: Spread | None = None,
) -> Results:
    """Do what is not stored yet of a part of a suite of training, and return the closed results.

    A run that diverges is recorded as such, and the others go on.

    Args:
        suite: the suite, with a ``plan``.
        part: the problems and estimators of it that are meant. Errors along the runs of the exact
            gradient are left out where it is not among these, until the whole is run.
        directory: that of the results.
        seed: of data, initial parameters, batches and draws.
        progress: whether to show a bar.
        force: also train what asks for days, or for more memory than is likely to be meant.
        spread: lets workers do it; what they leave is done here.

    Raises:
        GradbenchError: the suite or its problems are wrong or ask for too much, the results cannot
            be written, or a platform computes wrong values.
    """
    plan, chosen = plan_of(suite), part.of_suite(suite)
    with precision(suite):
        problems = list(build_problems(chosen, seed))
        if not force:
            training_budget(chosen, problems).check(suite.name)
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
        runs = plan.runs(len(problems), chosen.estimators, suite.replicates)
        total = runs["search"] * plan.search.steps + runs["reported"] * plan.steps
        total += runs["reported"] * (plan.continuation.steps if plan.continuation else 0)
        with tqdm(
            total=total, unit=" steps", unit_scale=True, dynamic_ncols=True, disable=not progress
        ) as bar:
            if spread is not None:
                spread(results, chosen, problems, bar)
                bar.reset(total)
            for built in problems:
                train_methods(results, chosen, built, plan.optimisers, bar)
                if let_go(len(chosen.estimators)):
                    estimator.cache_clear()
    return results


def is_exact(spec: str) -> bool:
    """Return whether an estimator is the exact gradient, along whose runs others are measured."""
    return family(spec) == EXACT


def train_methods(
    results: Results,
    suite: Suite,
    built: ProblemInstance,
    optimisers: Sequence[str],
    bar: tqdm,
) -> None:
    """Train and measure all estimators with some optimisers, the exact gradient first.

    The compiled programs of an estimator are let go when all optimisers are done with it, or at the
    end where they all go on with one and the same estimator.

    Args:
        results: the directory of results, open to write.
        suite: the suite, whose estimators are taken.
        built: the problem.
        optimisers: the optimisers, which share programs where they differ in numbers alone.
        bar: the bar of progress.

    Raises:
        GradbenchError: the results cannot be written.
    """
    plan, references = plan_of(suite), dict[str, Group]()
    judge = _judge(plan, built)
    for spec in sorted(suite.estimators, key=lambda spec: not is_exact(spec)):
        for optimiser in optimisers:
            if spec in plan.with_optimiser(optimiser, suite.estimators):
                how = (optimiser, spec, judge, references.get(optimiser), bar)
                reported = _train_method(results, suite, built, *how)
                if is_exact(spec):
                    references[optimiser] = reported
        if plan.continuation is None:
            _forget_programs()
    _forget_programs()


def _forget_programs() -> None:
    """Let the compiled programs of estimators go; those of networks are used for others too."""
    programs: tuple[Any, ...] = (advance, *OF_ESTIMATORS)
    for program in programs:
        program.clear_cache()


def _train_method(
    results: Results,
    suite: Suite,
    built: ProblemInstance,
    optimiser: str,
    spec: str,
    judge: Judge | None,
    reference: Group | None,
    bar: tqdm,
) -> Group:
    """Train an estimator with an optimiser, and measure it along its runs and the reference's."""
    plan, grid = plan_of(suite), plan_of(suite).rates_of(optimiser)
    name = f"{built.problem.name}, {optimiser}, {spec}"

    def group(rates: tuple[float, ...], phase: str, seeds: range) -> Group:
        own = plan.search if phase == "search" else plan
        how = (rates, tuple(seeds), own, suite.dtype)
        return Group(built, spec, optimiser, phase, *how, judge=judge)

    def attempt(rates: tuple[float, ...]) -> Stored:
        bar.set_description(f"{name}: rates")
        tried = group(rates, "search", search_seeds(suite))
        if rates != grid:
            bar.total += len(tried.lanes) * tried.plan.steps
        train_group(results, tried, bar.update)
        stored = load(results, "runs", tried.identity)
        assert stored is not None  # by train_group
        return stored

    how = (grid, plan.extensions, _searched_by(plan), read_optimiser(optimiser).largest)
    rate = grid[0] if len(plan.rates) == 1 else search(attempt, *how).rate
    reported = group((rate,), "report", range(suite.replicates))
    bar.set_description(name)
    train_group(results, reported, bar.update)
    if plan.continuation is not None:
        bar.set_description(f"{name}: continued")
        train_group(results, reported.continued(), bar.update)
    if plan.measured:
        bar.set_description(f"{name}: errors")
        along = reported if is_exact(spec) else reference
        measure_errors(results, reported, "own", reported, suite.draws)
        if along is not None:
            measure_errors(results, reported, "exact", along, suite.draws)
    return reported


def _judge(plan: Plan, built: ProblemInstance) -> Judge | None:
    return None if plan.result is None else make_judge(built, read_quantity(plan.result))


def _searched_by(plan: Plan) -> str:
    """Return the curve that rates are searched by, one of the training data."""
    quantity = LOSS if plan.result is None else read_quantity(plan.result)
    return quantity.name if quantity.searched else LOSS.name


def search_seeds(suite: Suite) -> range:
    """Return the seeds of the search, none of which is reported."""
    return range(suite.replicates, suite.replicates + plan_of(suite).search_seeds)


def plan_of(suite: Suite) -> Plan:
    """Return the plan of a suite of training."""
    assert suite.plan is not None
    return suite.plan


@contextmanager
def precision(suite: Suite) -> Iterator[None]:
    """Return the context in which a suite is trained."""
    with float64() if suite.dtype == "float64" else single(), in_full_precision():
        yield


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
                exact.check_size(built.network, built.shapes(), few)
            then = (plan.continuation.estimator,) if plan.continuation else ()
            for spec in (*suite.estimators, *then):
                make_estimator(spec, trained_model(spec, built.network, plan.bound_samples))
                if plan.measured and takes_several(spec):
                    raise GradbenchError(
                        f"{spec} has the gradient of a bound, which is no error of that of the "
                        "loss; give measured = 0"
                    )
            _check_optimisers(suite, built)
            _judge(plan, built)
        except GradbenchError as error:
            raise GradbenchError(f"problem {problem.name!r}: {error}") from None
        yield built


def _check_optimisers(suite: Suite, built: ProblemInstance) -> None:
    """Refuse optimisers of weights that do not fit the network, or the estimators with them."""
    plan = plan_of(suite)
    for optimiser in plan.optimisers:
        spec = read_optimiser(optimiser)
        if spec.weights is None:
            continue
        if not has_latent_weights(built.network):
            raise GradbenchError(
                f"{spec.name} is an optimiser of binary weights, which the network does not have; "
                "add [network.weights], or take another optimiser"
            )
        for name in plan.with_optimiser(optimiser, suite.estimators):
            try:
                check_fit(spec.name, name, built.network.noise)
            except GradbenchError as error:
                raise GradbenchError(
                    f"{error}, or say in [training.only] which estimators it trains with"
                ) from None
