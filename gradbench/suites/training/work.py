"""The work of a run of a network, which decides how runs are trained and how long that takes."""

from functools import lru_cache
from typing import Any

import jax

from gradbench.suites.instance import ProblemInstance, estimator

_SMALL = 50_000  # operations: a network of more keeps all cores busy alone


def operations(built: ProblemInstance) -> float:
    """Return the arithmetic operations of one run of one example, random numbers among them."""
    leaves, form = jax.tree.flatten(built.data)
    return _operations(built.network, form, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves))


def is_small(built: ProblemInstance) -> bool:
    """Return whether a network is so small that its runs are trained side by side.

    Runs of a larger one follow each other: that takes less memory, and no more time.
    """
    return operations(built) <= _SMALL


@lru_cache(maxsize=512)
def _operations(network: Any, form: Any, example: tuple[tuple[tuple[int, ...], Any], ...]) -> float:
    """Return the operations that the compiler counts in the program, which is not run."""
    leaves = [jax.ShapeDtypeStruct((1, *shape), kind) for shape, kind in example]
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(network.init, key)
    program = jax.jit(estimator("reinforce", network)).lower(params, key, form.unflatten(leaves))
    counted: Any = program.cost_analysis() or {}
    return float(counted.get("flops", 2 * sum(leaf.size for leaf in jax.tree.leaves(params))))
