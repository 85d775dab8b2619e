"""An estimator tried on problems: what is found, what is refused, and how its draws agree."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.estimators.adaptive import Learned, fitted
from gradbench.exact.moments import Moments
from gradbench.testing.bias import STEPS, Finding, exact_moments, findings
from gradbench.testing.conduct import Check
from gradbench.testing.draws import at_start, check_draws, trace
from gradbench.testing.problems import Problem


class Tried(NamedTuple):
    """What was found on some problems.

    ``refused`` has the reasons by the names of problems, ``enumerated`` the problems with exact
    moments of their general objective, each with the loss whose moments they are.
    """

    found: list[Finding]
    refused: dict[str, str]
    taken: list[Problem]
    enumerated: dict[str, tuple[Problem, Loss, Moments]]


def try_all(make: Callable[[Model], Loss], problems: Sequence[Problem], seed: int) -> Tried:
    """Return the findings on problems, why some of them are refused, and those that are taken."""
    tried = Tried([], {}, [], {})
    for problem in problems:
        params, batch = problem.params, problem.batches["any"]
        try:
            loss = make(problem.model)
            driven = getattr(loss, "randomness", "uniforms") == "uniforms"
            if _settled(tried.found, problem, driven):
                trace(loss, params, batch)
            else:
                steps = 0 if tried.taken else STEPS
                loss = fitted(loss, params, jax.random.key(seed), batch, steps)
                enumerated = exact_moments(loss, problem)
                tried.found.extend(findings(loss, enumerated, problem, seed))
                if enumerated is not None:
                    moments = enumerated(params, batch)
                    tried.enumerated[problem.name] = (problem, loss, moments)
            tried.taken.append(problem)
        except GradbenchError as error:
            tried.refused[problem.name] = str(error)
    return tried


def _settled(found: Sequence[Finding], problem: Problem, driven: bool) -> bool:
    """Return whether a problem can no longer change the class that is found.

    The wide problem of several layers is for real draws too, unless these are driven by uniforms.
    """
    biased = [f for f in found if not f.unbiased]
    if any(f.objective == "linear" and not f.deep for f in biased):
        return driven or not problem.deep or problem.narrow or _has_deep(found)
    if problem.narrow and any(f.deep and f.exact for f in found):
        return True
    return problem.deep and any(f.deep for f in biased)


def _has_deep(found: Sequence[Finding]) -> bool:
    return any(f.deep for f in found)


def real_draws(make: Callable[[Model], Loss], tried: Tried, seed: int) -> list[Check]:
    """Check real draws on the widest problem that was enumerated, else on the widest of all."""
    wide = ("skip connections", "two layers", "five units", "convolution")
    of = tried.enumerated
    for name in (*wide, *of):
        if name in of:
            problem, loss, moments = of[name]
            if problem is tried.taken[0] and isinstance(make(problem.model), Learned):
                loss = at_start(make(problem.model), problem.params, problem.batches["any"])
                return check_draws(make, loss, None, problem, seed)
            return check_draws(make, loss, moments, problem, seed)
    problem = tried.taken[-1]
    loss = at_start(make(problem.model), problem.params, problem.batches["any"])
    return check_draws(make, loss, None, problem, seed)
