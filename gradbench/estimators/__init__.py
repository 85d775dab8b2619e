"""Gradient estimators: pure functions ``loss(params, key, batch)`` whose gradient is one draw.

Each ``name(model, *, hyper-parameters)`` returns such a loss; one family a file.
"""

from gradbench.estimators.arm import arm, disarm
from gradbench.estimators.concrete import concrete, st_gumbel_softmax
from gradbench.estimators.exact import exact
from gradbench.estimators.mean_field import mean_field
from gradbench.estimators.nested import nested
from gradbench.estimators.psa import psa
from gradbench.estimators.registry import (
    ESTIMATORS,
    Entry,
    check_spec,
    get_estimator,
    make_estimator,
    register,
)
from gradbench.estimators.reinforce import reinforce
from gradbench.estimators.straight_through import straight_through
from gradbench.estimators.zgr import darn, reinmax, zgr

__all__ = [
    "ESTIMATORS",
    "Entry",
    "arm",
    "check_spec",
    "concrete",
    "darn",
    "disarm",
    "exact",
    "get_estimator",
    "make_estimator",
    "mean_field",
    "nested",
    "psa",
    "register",
    "reinforce",
    "reinmax",
    "st_gumbel_softmax",
    "straight_through",
    "zgr",
]
