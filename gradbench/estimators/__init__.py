"""Gradient estimators: pure functions ``loss(params, key, batch)`` whose gradient is one draw.

Each ``name(model, *, hyper-parameters)`` returns such a loss, whose value is a scalar []. A file
has one family. Estimators with learned parts return a ``Learned``, which is such a loss too.
``ESTIMATORS`` has the ``Entry`` of each by name.

In formulas f is the objective, b = (x + 1) / 2 the state in {0, 1}, p = F(a) the probability that b
is 1, P(x) = F(x a) the probability of the state x, u a uniform number and sig the logistic
function. A formula is the gradient in a, or in the logit of p where it says so: then the derivative
of the logit in a is a further factor. A formula for J = db/da is a rule that multiplies the
gradient of f in the states. The model is as in ``gradbench.core.contract.Model``, the cost per draw
as in ``Cost``, in ``L`` layers of ``D`` units. The loss raises a ``GradbenchError`` when it is
called on a model that breaks the contract.

Each file of this folder registers its estimators: a new one needs no entry here. Estimators of
plugins are attributes of this module too, and so are the aliases of all: ``u2g`` is ``disarm``.
"""

import importlib
from collections.abc import Callable
from functools import partial

from gradbench.core.contract import Loss
from gradbench.core.origins import modules_of
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.cost import Cost, D, L
from gradbench.estimators.registry import (
    ESTIMATORS,
    Entry,
    check_spec,
    get_estimator,
    make_estimator,
    register,
)

__all__ = [
    "ESTIMATORS",
    "Cost",
    "D",
    "Entry",
    "L",
    "Learned",
    "check_spec",
    "get_estimator",
    "make_estimator",
    "register",
]

for _module in modules_of(__name__):
    importlib.import_module(_module)
# A file may be called as its estimator is: the function is what users mean.
globals().update({name: entry.make for name, entry in ESTIMATORS.items()})

__all__ += sorted(ESTIMATORS)


def __getattr__(name: str) -> Callable[..., Loss]:
    if not name.startswith("_") and (known := ESTIMATORS.resolve(name)):
        entry = ESTIMATORS[known]
        preset = entry.presets.get(name)
        return partial(entry.make, **preset) if preset else entry.make
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *ESTIMATORS})
