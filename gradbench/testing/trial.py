"""An estimator tried on problems: what is found, what is refused, and how its draws agree."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from gradbench.core.callables import check_loss
from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.estimators.adaptive import Learned, fitted
from gradbench.exact.moments import Moments
from gradbench.testing.bias import STEPS, Finding, exact_moments, findings
from gradbench.testing.draws import at_start, called_as_made, check_draws, trace
from gradbench.testing.problems import Problem
from gradbench.testing.requirement import Check


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
            check_loss(loss)
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


class Place(NamedTuple):
    """Where real draws are made: of ``called``, which are compared with what ``loss`` gives.

    ``moments`` are those that were enumerated, None where there are none.
    """

    problem: Problem
    called: Loss
    loss: Loss
    moments: Moments | None


def places(make: Callable[[Model], Loss], tried: Tried) -> list[Place]:
    """Return where to make real draws, the widest problem that was enumerated first.

    An estimator that is called in a way of its own is drawn from on every problem that was
    enumerated. Where none was, it is the widest of all.
    """
    wide = ("skip connections", "two layers", "five units", "convolution")
    of = tried.enumerated
    names = [name for name in wide if name in of]
    names += [name for name in of if name not in wide]
    found = []
    for name in names:
        problem, loss, moments = of[name]
        called = make(problem.model)
        if problem is tried.taken[0] and isinstance(called, Learned):  # it was fitted there
            loss = at_start(called, problem.params, problem.batches["any"])
            found.append(Place(problem, called, loss, None))
        else:
            found.append(Place(problem, called, loss, moments))
        if called_as_made(called):
            break
    if found:
        return found
    problem = tried.taken[-1]
    called = make(problem.model)
    loss = at_start(called, problem.params, problem.batches["any"])
    return [Place(problem, called, loss, None)]


def real_draws(where: Sequence[Place], seed: int) -> list[Check]:
    """Check real draws at some places; a requirement is met if it is at all of them."""
    every = [check_draws(p.called, p.loss, p.moments, p.problem, seed) for p in where]
    return [
        next((check for check in same if not check.passed), same[0])
        for same in zip(*every, strict=True)
    ]
