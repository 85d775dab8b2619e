"""Gradient estimators: pure functions ``loss(params, key, batch)`` whose gradient is one draw.

Each ``name(model, *, hyper-parameters)`` returns such a loss, whose value is a scalar []. A file
has one family. Estimators with learned parts return a ``Learned``, which is such a loss too.
``ESTIMATORS`` has the ``Entry`` of each by name.

In formulas f is the objective, b = (x + 1) / 2 the state in {0, 1}, p = F(a) the probability that b
is 1, P(x) = F(x a) the probability of the state x, u a uniform number and sig the logistic
function. A formula is the gradient in a, or in the logit of p where it says so: then the derivative
of the logit in a is a further factor. A formula for J = db/da is a rule that multiplies the
gradient of f in the states. The model is as in ``gradbench.core.contract.Model``, the cost per draw
as in ``Cost``. The loss raises a ``GradbenchError`` when it is called on a model that breaks the
contract.
"""

from gradbench.estimators.adaptive import Learned
from gradbench.estimators.arm import ar, arm, disarm
from gradbench.estimators.arms import arms
from gradbench.estimators.combine import average, mean_of, per_layer
from gradbench.estimators.concrete import (
    concrete,
    gapped_straight_through,
    hard_concrete,
    st_gumbel_softmax,
    stochastic_times_smooth,
)
from gradbench.estimators.cost import Cost
from gradbench.estimators.exact import exact
from gradbench.estimators.flips import leg, measure_valued, ram, random_flip
from gradbench.estimators.foust import foust
from gradbench.estimators.gumbel_rao import gumbel_rao, reinmax_rao
from gradbench.estimators.leave_one_out import double_cv, rloo, rodeo
from gradbench.estimators.mean_field import ap2, local_reparameterization, mean_field
from gradbench.estimators.muprop import muprop, simple_muprop
from gradbench.estimators.nested import nested
from gradbench.estimators.nvil import nvil
from gradbench.estimators.path_integral import path_integral
from gradbench.estimators.psa import psa
from gradbench.estimators.rebar import dynamic_rebar, rebar, relax
from gradbench.estimators.registry import (
    ESTIMATORS,
    Entry,
    check_spec,
    get_estimator,
    make_estimator,
    register,
)
from gradbench.estimators.reinforce import moving_average, reinforce, reinforce_leave_one_out
from gradbench.estimators.sa import sa
from gradbench.estimators.stochastic_triples import stochastic_triples
from gradbench.estimators.straight_through import (
    deterministic_straight_through,
    straight_through,
    swish_sign,
)
from gradbench.estimators.vimco import ovis, ovis_mc, vimco
from gradbench.estimators.weight_rules import bayesbinn, magnitude_aware
from gradbench.estimators.without_replacement import top_c, unordered_set
from gradbench.estimators.zgr import darn, mve, reinmax, st_zgr, zgr

__all__ = [
    "ESTIMATORS",
    "Cost",
    "Entry",
    "Learned",
    "ap2",
    "ar",
    "arm",
    "arms",
    "average",
    "bayesbinn",
    "check_spec",
    "concrete",
    "darn",
    "deterministic_straight_through",
    "disarm",
    "double_cv",
    "dynamic_rebar",
    "exact",
    "foust",
    "gapped_straight_through",
    "get_estimator",
    "gumbel_rao",
    "hard_concrete",
    "leg",
    "local_reparameterization",
    "magnitude_aware",
    "make_estimator",
    "mean_field",
    "mean_of",
    "measure_valued",
    "moving_average",
    "muprop",
    "mve",
    "nested",
    "nvil",
    "ovis",
    "ovis_mc",
    "path_integral",
    "per_layer",
    "psa",
    "ram",
    "random_flip",
    "rebar",
    "register",
    "reinforce",
    "reinforce_leave_one_out",
    "reinmax",
    "reinmax_rao",
    "relax",
    "rloo",
    "rodeo",
    "sa",
    "simple_muprop",
    "st_gumbel_softmax",
    "st_zgr",
    "stochastic_times_smooth",
    "stochastic_triples",
    "straight_through",
    "swish_sign",
    "top_c",
    "unordered_set",
    "vimco",
    "zgr",
]
