"""What there is to choose from: estimators, problems, suites and noises."""

import builtins
from typing import Any

import pandas as pd

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.problem import list_problems, load_problem
from gradbench.spec import format_spec
from gradbench.suite import list_suites, load_suite


def list(kind: str) -> pd.DataFrame:
    """What there is of a kind, one row each, with its name first.

    Args:
        kind: "estimators", "problems", "suites" or "noises".

    Raises:
        GradbenchError: an unknown kind.
    """
    if not isinstance(kind, str) or kind not in KINDS:  # type: ignore[redundant-expr]
        raise GradbenchError(f"unknown kind {kind!r}; {did_you_mean(kind, KINDS)}")
    return pd.DataFrame(KINDS[kind]())


def _estimators() -> builtins.list[dict[str, Any]]:
    from gradbench.estimators import ESTIMATORS  # imports JAX

    return [
        {
            "estimator": format_spec(entry.name, entry.hyperparameters),
            "exactness": entry.claim(),
            "cost per draw": str(entry.price()),
            "source": entry.source,
        }
        for entry in sorted(ESTIMATORS.values())
    ]


def _problems() -> builtins.list[dict[str, Any]]:
    return [{"problem": name, "title": load_problem(name).title} for name in list_problems()]


def _suites() -> builtins.list[dict[str, Any]]:
    suites = [load_suite(name) for name in list_suites()]
    return [{"suite": suite.name, "title": suite.title} for suite in suites]


def _noises() -> builtins.list[dict[str, Any]]:
    from gradbench.noise import NOISES  # imports JAX

    return [{"noise": name} for name in NOISES]


KINDS = {
    "estimators": _estimators,
    "problems": _problems,
    "suites": _suites,
    "noises": _noises,
}
