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
    from gradbench import estimators, listing, optimisers, plugins
    from gradbench.binarization import binarize
    from gradbench.composed import Add, AveragePool, Compose, Concatenate, Function
    from gradbench.diagnosis import diagnose
    from gradbench.errors import GradbenchError
    from gradbench.exact import expected_loss, moments
    from gradbench.expectations import expectation
    from gradbench.explanation import explain
    from gradbench.layers import Conv, Dense
    from gradbench.listing import list
    from gradbench.multisample import MultiSample
    from gradbench.network import SBN, RealNetwork, dense_network
    from gradbench.objectives import ELBO, Readout
    from gradbench.precision import float64
    from gradbench.recommendation import recommend
    from gradbench.references import reference
    from gradbench.reporting import report
    from gradbench.results import (
        compare,
        crossovers,
        curves,
        plot,
        rank,
        sample_complexity,
        show,
        summary,
        unbiasedness,
    )
    from gradbench.runner import describe, run
    from gradbench.weights import BinaryWeights

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
    "binarize": "binarization",
    "diagnose": "diagnosis",
    "expectation": "expectations",
    "explain": "explanation",
    "GradbenchError": "errors",
    "expected_loss": "exact",
    "moments": "exact",
    "reference": "references",
    "list": "listing",
    "Add": "composed",
    "MultiSample": "multisample",
    "AveragePool": "composed",
    "Compose": "composed",
    "Concatenate": "composed",
    "Conv": "layers",
    "Dense": "layers",
    "Function": "composed",
    "SBN": "network",
    "RealNetwork": "network",
    "dense_network": "network",
    "ELBO": "objectives",
    "Readout": "objectives",
    "float64": "precision",
    "report": "reporting",
    "compare": "results",
    "crossovers": "results",
    "rank": "results",
    "sample_complexity": "results",
    "unbiasedness": "results",
    "curves": "results",
    "plot": "results",
    "show": "results",
    "summary": "results",
    "recommend": "recommendation",
    "describe": "runner",
    "run": "runner",
    "BinaryWeights": "weights",
}


def __getattr__(name: str) -> Any:
    if name in ("estimators", "listing", "optimisers", "plugins"):
        return importlib.import_module(f"gradbench.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"gradbench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'gradbench' has no attribute {name!r}")


def __dir__() -> "list[str]":  # type: ignore[valid-type]
    return __all__
