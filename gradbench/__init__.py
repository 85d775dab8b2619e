"""gradbench measures how accurate gradient estimators for binary stochastic units are.

The commands of the command line are here under the same names (``list``, ``run``, ``show``,
``plot``), beside what other JAX code uses: ``estimators``, ``SBN``, ``reference``, ... Names are
loaded when they are first used: ``import gradbench`` itself imports nothing else.

The same everywhere, with shapes in brackets, [] being one number:

- ``model``: a function ``model(params, example, binary)`` that returns the objective f [] of one
  example. It draws the states of each stochastic layer by ``binary(a, noise="logistic")``. The
  contract in full: ``gradbench.model``.
- ``params``: its parameters, any pytree of real arrays, see ``gradbench.parameters``. A gradient
  has the same form. ``theta`` are those of one layer.
- ``batch``: a pytree whose leaves [N, ...] have N examples along the first axis, each of them an
  ``example``.
- ``key``: a key of ``jax.random``, from which everything random follows.
- ``a``: pre-activations [...]; ``x``: states x = sign(a - z), -1 or +1, of the same shape. The
  distribution function F of z is named by ``noise``: "logistic", "normal", "uniform",
  "triangular" or "laplace". In single flips ``flipped`` are the other values of the states, and
  ``g`` weights of the units above, of the shapes of x and a.
- ``memory``: bytes that an enumeration may take, ``gradbench.exact.MEMORY`` unless given.
- ``results``: what ``run`` returns, or the path of its directory.

Bad input is a ``GradbenchError`` that says what to do, in one sentence.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradbench import estimators
    from gradbench.advise.diagnose import diagnose
    from gradbench.advise.explain import explain
    from gradbench.advise.recommend import recommend
    from gradbench.cli import catalogue as listing
    from gradbench.cli.catalogue import list
    from gradbench.cli.show import show
    from gradbench.core import plugins
    from gradbench.core.errors import GradbenchError
    from gradbench.core.precision import float64
    from gradbench.exact.enumeration import expected_loss
    from gradbench.exact.moments import moments
    from gradbench.measure.reference import reference
    from gradbench.metrics import (
        compare,
        crossovers,
        curves,
        rank,
        sample_complexity,
        summary,
        unbiasedness,
    )
    from gradbench.models import optimisers
    from gradbench.models.binary_weights import BinaryWeights
    from gradbench.models.compose import Add, Compose, Concatenate, Function
    from gradbench.models.conv import AveragePool, Conv
    from gradbench.models.dense import Dense
    from gradbench.models.elbo import ELBO
    from gradbench.models.losses import Readout
    from gradbench.models.multisample import MultiSample
    from gradbench.models.network import SBN, RealNetwork, dense_network
    from gradbench.ops.binarize import binarize
    from gradbench.ops.expectation import expectation
    from gradbench.plots.suite import plot
    from gradbench.report.html import report
    from gradbench.suites.runner import describe, run


__all__ = [
    "ELBO",
    "SBN",
    "Add",
    "AveragePool",
    "BinaryWeights",
    "Compose",
    "Concatenate",
    "Conv",
    "Dense",
    "Function",
    "GradbenchError",
    "MultiSample",
    "Readout",
    "RealNetwork",
    "binarize",
    "compare",
    "crossovers",
    "curves",
    "dense_network",
    "describe",
    "diagnose",
    "estimators",
    "expectation",
    "expected_loss",
    "explain",
    "float64",
    "list",
    "listing",
    "moments",
    "optimisers",
    "plot",
    "plugins",
    "rank",
    "recommend",
    "reference",
    "report",
    "run",
    "sample_complexity",
    "show",
    "summary",
    "unbiasedness",
]
_HOMES = {
    "binarize": "ops.binarize",
    "diagnose": "advise.diagnose",
    "expectation": "ops.expectation",
    "explain": "advise.explain",
    "GradbenchError": "core.errors",
    "expected_loss": "exact.enumeration",
    "moments": "exact.moments",
    "reference": "measure.reference",
    "list": "cli.catalogue",
    "Add": "models.compose",
    "MultiSample": "models.multisample",
    "AveragePool": "models.conv",
    "Compose": "models.compose",
    "Concatenate": "models.compose",
    "Conv": "models.conv",
    "Dense": "models.dense",
    "Function": "models.compose",
    "SBN": "models.network",
    "RealNetwork": "models.network",
    "dense_network": "models.network",
    "ELBO": "models.elbo",
    "Readout": "models.losses",
    "float64": "core.precision",
    "report": "report.html",
    "compare": "metrics",
    "crossovers": "metrics",
    "rank": "metrics",
    "sample_complexity": "metrics",
    "unbiasedness": "metrics",
    "curves": "metrics",
    "plot": "plots.suite",
    "show": "cli.show",
    "summary": "metrics",
    "recommend": "advise.recommend",
    "describe": "suites.runner",
    "run": "suites.runner",
    "BinaryWeights": "models.binary_weights",
}
_MODULES = {
    "estimators": "estimators",
    "listing": "cli.catalogue",
    "optimisers": "models.optimisers",
    "plugins": "core.plugins",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"gradbench.{_MODULES[name]}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"gradbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gradbench' has no attribute {name!r}")


def __dir__() -> "list[str]":  # type: ignore[valid-type]
    return __all__
