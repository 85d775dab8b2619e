"""Ground truth by enumeration: the expected loss, its gradient, and exact moments of estimators.

``expected_loss`` is differentiable and under the estimator contract. It goes by the exact route of
its model, ``route_of(model)``:

- ``recursion`` pushes the distribution over the states of a layer to the next, for chains of layers
  such as an ``SBN``, at a cost of sum_k 2^(n_k + n_{k+1});
- ``closed_form`` asks an objective over one layer that knows its own expectation;
- ``over_weights`` sums over binary weights, and for each over the activations by their own route;
- ``brute_force`` sums over all paths of the states of any model, at a cost of 2^(sum_k n_k).

A kind of model names one of these ``ROUTES``, or brings a ``Route`` of its own with its ``Size``.
None takes more than ``memory`` bytes, ``MEMORY`` by default; ``check_size`` and ``is_small``
answer before anything is computed. ``moments`` are the exact mean and variance of an estimator,
without Monte-Carlo error: by all paths, by pairs of branches for those of the ARM kind, or by an
integral over the uniforms. ``moments_work`` is what they take. The exact gradient with the
agreement of its checks is ``gradbench.reference``.
"""

from gradbench.exact.enumeration import (
    brute_force,
    closed_form,
    expected_loss,
    over_weights,
    recursion,
)
from gradbench.exact.moments import Moments, moments, moments_work
from gradbench.exact.routes import ROUTES, Route, Size, route_of
from gradbench.exact.size import MEMORY, check_size, is_small
from gradbench.exact.states import all_states

__all__ = [
    "MEMORY",
    "ROUTES",
    "Moments",
    "Route",
    "Size",
    "all_states",
    "brute_force",
    "check_size",
    "closed_form",
    "expected_loss",
    "is_small",
    "moments",
    "moments_work",
    "over_weights",
    "recursion",
    "route_of",
]
