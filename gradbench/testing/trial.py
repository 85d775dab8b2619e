"""An estimator tried on problems: what is found, what is refused, and how its draws agree."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from gradbench.core.callables import check_loss
from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.estimators.adaptive import Learned
from gradbench.exact.moments import Moments
from gradbench.testing.bias import Finding, exact_moments, findings
from gradbench.testing.draws import (
    SMALL,
    VARIANTS,
    WIDE,
    Variant,
    after_fit,
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

    ``refused`` has the reasons, ``losses`` what was tried, with learned parts fitted on the first
    problem, and ``moments`` the exact ones of the general objective, each by the names of problems.
    """

    found: list[Finding]
    refused: dict[str, str]
    taken: list[Problem]
    losses: dict[str, Loss]
    moments: dict[str, Moments]

    @property
    def enumerated(self) -> list[Problem]:
        """The problems with exact moments."""
        return [problem for problem in self.taken if problem.name in self.moments]

    def took(self, name: str) -> bool:
        """Return whether the problem of this name was taken."""
        return any(problem.name == name for problem in self.taken)


def try_all(make: Callable[[Model], Loss], problems: Sequence[Problem], seed: int) -> Tried:
    """Return the findings on problems, why some of them are refused, and those that are taken."""
    tried = Tried([], {}, [], {}, {})
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
                if tried.taken:
                    loss = at_start(loss, params, batch)
                else:
                    loss = after_fit(loss, params, batch, seed)
                enumerated = exact_moments(loss, problem)
                if enumerated is None and problem.narrow and tried.took(problem.stands_for):
                    continue  # it is there to be enumerated
                moments = enumerated(params, batch) if enumerated else None
                tried.found.extend(findings(loss, enumerated, moments, problem, seed))
                tried.losses[problem.name] = loss
                if moments is not None:
                    tried.moments[problem.name] = moments
            tried.taken.append(problem)
        except GradbenchError as error:
            tried.refused[problem.name] = str(error)
    return tried


def _needless(tried: Tried, problem: Problem) -> bool:
    """Return whether a problem stands for another one that has told what there is to know."""
    if not problem.stands_for or problem.stands_for in tried.refused:
        return False
    known = any(problem.stands_for in (p.name, p.stands_for) for p in tried.enumerated)
    settled = _settled(tried.found, problem)
    return tried.took(problem.stands_for) and (known or settled or not problem.narrow)


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

    The second is on the widest problem. An estimator that is called in a way of its own is drawn
    from on every problem, in every way.
    """
    first = tried.taken[0]
    learned = isinstance(make(first.model), Learned)  # and fitted on the first problem
    fit = [p for p in tried.enumerated if not (learned and p is first)]
    small = next(iter(fit), first)
    wide = next((p for p in tried.taken if p.deep), first)
    at_small = _place(make, tried, small, SMALL)
    if called_as_made(at_small.called):
        return [at_small, _place(make, tried, wide, WIDE)]
    rest = {p.name: p for p in (wide, *tried.enumerated)}
    rest.pop(small.name, None)
    every = [_place(make, tried, p, VARIANTS) for p in rest.values()]
    return [at_small._replace(variants=VARIANTS), *every]


def _place(
    make: Callable[[Model], Loss], tried: Tried, problem: Problem, variants: tuple[Variant, ...]
) -> Place:
    called = make(problem.model)
    loss, moments = tried.losses.get(problem.name), tried.moments.get(problem.name)
    if loss is None or (isinstance(called, Learned) and problem is tried.taken[0]):
        # Nothing was tried of it as it is called.
        loss, moments = at_start(called, problem.params, problem.batches["any"]), None
    return Place(problem, called, loss, moments, variants)


def real_draws(where: Sequence[Place], seed: int) -> list[Check]:
    """Check real draws at some places, and far out at the first two, smallest and widest.

    A requirement is met if it is at all of them.
    """
    every = [check_draws(p.called, p.loss, p.moments, p.problem, p.variants, seed) for p in where]
    far = [
        saturation(p.called, p.problem, next(v for v in p.variants if v.single), seed)
        for p in where[:2]
    ]
    return [
        next((check for check in same if not check.passed), same[0])
        for same in (*zip(*every, strict=True), far)
    ]
