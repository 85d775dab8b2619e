"""Which estimators of a suite of training are trained with which optimiser."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

Method: TypeAlias = tuple[str, str, str]  # problem, optimiser and estimator


def estimators_with(
    only: Mapping[str, Sequence[str]] | None, optimiser: str, estimators: Sequence[str]
) -> list[str]:
    """Return those of some estimators that train with an optimiser: all, if nothing else is said.

    Args:
        only: the estimators of optimisers that train with these alone.
        optimiser: the optimiser.
        estimators: those of the suite.
    """
    chosen = (only or {}).get(optimiser, estimators)
    return [name for name in estimators if name in chosen]


def methods_of(suite: Mapping[str, Any]) -> Iterator[Method]:
    """Yield problem, optimiser and estimator of all methods of a suite, as a manifest has it."""
    plan = suite["plan"]
    for problem in suite["problems"]:
        for optimiser in plan["optimisers"]:
            for name in estimators_with(plan.get("only"), optimiser, suite["estimators"]):
                yield problem["name"], optimiser, name


def are_paired(plan: Mapping[str, Any]) -> bool:
    """Return whether a plan pairs estimators and optimisers, so that all methods are compared."""
    return bool(plan.get("only"))
