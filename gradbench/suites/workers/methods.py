"""Suites of training by workers: a unit is all that one estimator does with one optimiser.

That is the search of its rate, its reported runs, and its errors of gradients. The exact gradient
comes first, as the errors of others are measured along its runs too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gradbench.core.names import file_name
from gradbench.core.run import sites_of
from gradbench.estimators.registry import evaluations
from gradbench.results.runs import KINDS
from gradbench.results.store import Results
from gradbench.suites.instance import ProblemInstance
from gradbench.suites.suite import Suite
from gradbench.suites.training.sweep import is_exact, plan_of
from gradbench.suites.workers.engine import Engine
from gradbench.suites.workers.loop import Loop
from gradbench.suites.workers.order import Unit
from gradbench.suites.workers.unit import Job


class Method(NamedTuple):
    """An estimator with an optimiser on a problem.

    Attributes:
        problem: the number of the problem.
        optimiser: the optimiser.
        estimator: the estimator.
        tries: how often its worker has died.
    """

    problem: int
    optimiser: str
    estimator: str
    tries: int = 0


def distribute_training(
    engine: Engine, results: Results, suite: Suite, problems: Sequence[ProblemInstance], bar: Any
) -> None:
    """Let workers train and measure all methods of a suite, as ``train_suite`` does.

    Args:
        engine: the workers.
        results: where all is stored.
        suite: the suite.
        problems: its problems.
        bar: the bar of progress, in steps.

    Raises:
        GradbenchError: what a serial run raises; a unit whose workers die again and again; or no
            workers.
        RuntimeError: a worker failed by an error that is none of the input.
    """
    _Methods(results, suite, problems, bar).drive(engine)


class _Methods(Loop[Method]):
    """A suite of training while it goes on."""

    kinds = KINDS

    def __init__(
        self, results: Results, suite: Suite, problems: Sequence[ProblemInstance], bar: Any
    ) -> None:
        super().__init__(results, suite, bar)
        self.problems, self.plan = problems, plan_of(suite)
        for number in range(len(problems)):
            for optimiser in self.plan.optimisers:
                exact, others = self._estimators(optimiser)
                self._add(number, optimiser, exact[:1] or others)

    def _estimators(self, optimiser: str) -> tuple[list[str], list[str]]:
        """Return the estimators of an optimiser: those that are the exact gradient, and others."""
        every = self.plan.with_optimiser(optimiser, self.suite.estimators)
        exact = [spec for spec in every if is_exact(spec)]
        return exact, [spec for spec in every if spec not in exact]

    def _add(self, problem: int, optimiser: str, estimators: Sequence[str]) -> None:
        for spec in estimators:
            built = self.problems[problem]
            sites = sites_of(built.network, built.shapes(), built.batch)
            cost = float(evaluations(spec, [site.size for site in sites]))
            rank = 0 if is_exact(spec) else 1
            method = Method(problem, optimiser, spec)
            self.queue.add(Unit(method, (built.network, spec), rank, cost))

    def job(self, what: Method) -> Job:
        """Return a method, with all that is stored of it and of the exact gradient before it."""
        built = self.problems[what.problem]
        exact, _ = self._estimators(what.optimiser)
        before = exact[: exact.index(what.estimator)] if is_exact(what.estimator) else exact
        estimators = (*before, what.estimator)
        folders = [
            self.results.directory.joinpath(kind, *map(file_name, names))
            for kind in KINDS
            for spec in estimators
            for names in [(built.problem.name, spec, what.optimiser)]
        ]
        return Job(
            self.versions,
            self.manifest,
            replace(self.suite, estimators=estimators),
            built.problem,
            built.seed,
            built.replicate,
            None,
            what.estimator,
            self.files(path for folder in folders for path in sorted(folder.glob("*.npz"))),
            False,
            self.device,
            what.optimiser,
        )

    def name(self, what: Method) -> str:
        """Return what the bar calls a method."""
        return f"{self.problems[what.problem].problem.name}, {what.optimiser}, {what.estimator}"

    def ended(self, what: Method, draws: int, seconds: float) -> None:
        """Count the steps of a method; after the exact gradient, add what is measured along it."""
        plan, reported = self.plan, self.suite.replicates
        searched = plan.searched(what.optimiser)
        then = plan.continuation.steps if plan.continuation else 0
        self.bar.update(searched * plan.search.steps + reported * (plan.steps + then))
        self.bar.set_description(self.name(what))
        if is_exact(what.estimator):
            exact, others = self._estimators(what.optimiser)
            after = exact.index(what.estimator) + 1
            self._add(what.problem, what.optimiser, exact[after : after + 1] or others)
