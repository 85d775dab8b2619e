"""Ground truth by enumeration: the expected loss, its gradient, and exact moments of estimators.

Two routes give the expected loss, both differentiable and both under the estimator contract:
``recursion`` pushes the distribution over the states of a layer to the next (an ``SBN``, cost
sum_k 2^(n_k + n_{k+1})), ``brute_force`` sums over all paths of any model (cost 2^(sum_k n_k)).
An objective of one layer may know its expectation, a route of its own (``closed_form``).
Binary weights are enumerated by ``brute_force``, and within it the activations by ``recursion``.
``reference`` computes the exact gradient in float64 and records how well the routes agree.
None takes more than ``memory`` in bytes, ``MEMORY`` unless given.
"""

from gradbench.exact.enumeration import (
    all_states,
    brute_force,
    closed_form,
    expected_loss,
    over_weights,
    recursion,
    route_of,
)
from gradbench.exact.moments import Moments, moments, moments_work
from gradbench.exact.size import MEMORY, check_size, is_small

__all__ = [
    "MEMORY",
    "Moments",
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
