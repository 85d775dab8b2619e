"""gradbench measures how accurate gradient estimators for binary stochastic units are.

The commands of the command line are here under the same names (``run``, ``show``, ``plot``, ...),
beside what other JAX code uses: ``binarize``, ``expectation``, ``reference``, the modules
``estimators``, ``models``, ``exact``, ``metrics``, ``plots``, ``testing``, ``suites`` and
``optimisers``. Everything is loaded when it is first used: ``import gradbench`` itself imports
nothing else.

The same words everywhere, with shapes in brackets, [] being one number:

- ``model``: a function ``model(params, example, binary)`` that returns the objective f [] of one
  example. It draws the states of each stochastic layer by ``binary(a, noise="logistic")``. The full
  contract is in ``gradbench.core.contract``.
- ``params``: its parameters, any pytree of real arrays. A gradient has the same form. ``theta`` are
  the parameters of one layer.
- ``batch``: a pytree whose leaves [N, ...] have N examples along the first axis. Each of them is an
  ``example``.
- ``key``: a key of ``jax.random``, from which everything random follows.
- ``a``: pre-activations [...]; ``x``: states x = sign(a - z), -1 or +1, of the same shape. The
  distribution function F of z is named by ``noise``: "logistic", "normal", "uniform",
  "triangular" or "laplace". In single flips ``flipped`` are the other values of the states, and
  ``g`` weights of the units above, of the shapes of x and a.
- ``memory``: bytes that an enumeration may take, by default ``gradbench.exact.MEMORY``.
- ``results``: the object that ``run`` returns, or the path of its directory.

Bad input raises a ``GradbenchError``, whose message says in one sentence what to do.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradbench import estimators, exact, metrics, models, plots, suites, testing
    from gradbench.advise.diagnose import diagnose
    from gradbench.advise.explain import explain
    from gradbench.advise.recommend import recommend
    from gradbench.cli.catalogue import available
    from gradbench.core.errors import GradbenchError
    from gradbench.core.precision import float64
    from gradbench.exact import expected_loss, moments
    from gradbench.measure.reference import reference
    from gradbench.metrics.directory import compare, curves, rank, summary
    from gradbench.models import optimisers
    from gradbench.models.binary_weights import BinaryWeights
    from gradbench.models.dense import Dense
    from gradbench.models.network import SBN
    from gradbench.ops.binarize import binarize
    from gradbench.ops.expectation import expectation
    from gradbench.plots.suite import plot
    from gradbench.report.html import write_report
    from gradbench.suites.runner import describe, run
    from gradbench.cli.show import show

__version__ = "0.1.0"

_MODULES = {
    "estimators": "estimators",
    "exact": "exact",
    "metrics": "metrics",
    "models": "models",
    "optimisers": "models.optimisers",
    "plots": "plots",
    "suites": "suites",
    "testing": "testing",
}
_HOMES = {
    "SBN": "models.network",
    "BinaryWeights": "models.binary_weights",
    "Dense": "models.dense",
    "GradbenchError": "core.errors",
    "available": "cli.catalogue",
    "binarize": "ops.binarize",
    "compare": "metrics.directory",
    "curves": "metrics.directory",
    "describe": "suites.runner",
    "diagnose": "advise.diagnose",
    "expectation": "ops.expectation",
    "expected_loss": "exact",
    "explain": "advise.explain",
    "float64": "core.precision",
    "moments": "exact",
    "plot": "plots.suite",
    "rank": "metrics.directory",
    "recommend": "advise.recommend",
    "reference": "measure.reference",
    "run": "suites.runner",
    "show": "cli.show",
    "summary": "metrics.directory",
    "write_report": "report.html",
}

__all__ = ["__version__", *_MODULES, *_HOMES]


def __getattr__(name: str) -> Any:
    """Load a module or a name when it is first used."""
    if name in _MODULES:
        found: Any = importlib.import_module(f"gradbench.{_MODULES[name]}")
    elif name in _HOMES:
        found = getattr(importlib.import_module(f"gradbench.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'gradbench' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
