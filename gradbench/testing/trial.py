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
from gradbench.testing.draws import (
    USUAL,
    VARIANTS,
    Variant,
    at_start,
    called_as_made,
    check_draws,
    saturation,
    trace,
)
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
        if _needless(tried, problem):
            continue
        try:
            loss = make(problem.model)
            check_loss(loss)
            if _settled(tried.found, problem):
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


def _needless(tried: Tried, problem: Problem) -> bool:
    """Return whether a problem stands for another one that has told what there is to know."""
    if not problem.stands_for or problem.stands_for in tried.refused:
        return False
    known = any(problem.stands_for in (p.name, p.stands_for) for p, *_ in tried.enumerated.values())
    settled = _settled(tried.found, problem)
    return any(p.name == problem.stands_for for p in tried.taken) and (
        known or settled or not problem.narrow
    )


def _settled(found: Sequence[Finding], problem: Problem) -> bool:
    """Return whether a problem can no longer change the class that is found."""
    biased = [f for f in found if not f.unbiased]
    linear = any(f.objective == "linear" and not f.deep for f in biased)
    return linear or (problem.deep and any(f.deep for f in biased))


class Place(NamedTuple):
    """Where real draws are made: of ``called``, which are compared with what ``loss`` gives.

    ``moments`` are those that were enumerated, None where there are none. The draws are those of
    ``variants``.
    """

    problem: Problem
    called: Loss
    loss: Loss
    moments: Moments | None
    variants: tuple[Variant, ...]


def places(make: Callable[[Model], Loss], tried: Tried) -> list[Place]:
    """Return where to make real draws, the first on the smallest problem that was enumerated.

    The second is on the widest problem, in single precision. An estimator that is called in a way
    of its own is drawn from on every problem, in every way.
    """
    small = next((p for p, *_ in tried.enumerated.values()), tried.taken[0])
    wide = next((p for p in tried.taken if p.deep), tried.taken[0])
    first = _place(make, tried, small, USUAL[:1])
    if called_as_made(first.called):
        return [first, _place(make, tried, wide, USUAL[1:])]
    rest = {p.name: p for p in (wide, *(p for p, *_ in tried.enumerated.values()))}
    rest.pop(small.name, None)
    every = [_place(make, tried, p, VARIANTS) for p in rest.values()]
    return [first._replace(variants=VARIANTS), *every]


def _place(
    make: Callable[[Model], Loss], tried: Tried, problem: Problem, variants: tuple[Variant, ...]
) -> Place:
    called = make(problem.model)
    if problem.name in tried.enumerated:
        _, loss, moments = tried.enumerated[problem.name]
        if problem is not tried.taken[0] or not isinstance(called, Learned):
            return Place(problem, called, loss, moments, variants)
    # Nothing was enumerated of it as it is called: what it learns was fitted on the first problem.
    loss = at_start(called, problem.params, problem.batches["any"])
    return Place(problem, called, loss, None, variants)


def real_draws(where: Sequence[Place], seed: int) -> list[Check]:
    """Check real draws at some places, and far out at the second of them, which is the widest.

    A requirement is met if it is at all of them.
    """
    every = [check_draws(p.called, p.loss, p.moments, p.problem, p.variants, seed) for p in where]
    far = where[min(1, len(where) - 1)]
    return [
        *(
            next((check for check in same if not check.passed), same[0])
            for same in zip(*every, strict=True)
        ),
        saturation(far.called, far.problem, seed),
    ]
