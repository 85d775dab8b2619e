"""The work of a run of a network, which decides how runs are trained and how long that takes."""

from functools import lru_cache
from typing import Any

import jax

from gradbench.core.contract import Loss
from gradbench.estimators.reinforce import reinforce
from gradbench.models.structure import has_latent_weights
from gradbench.suites.instance import ProblemInstance, estimator

_SMALL = 50_000  # operations: a network of more keeps all cores busy alone
_SHARING = 32  # examples of a batch, which share the draw of binary weights


def operations(built: ProblemInstance) -> float:
    """Return the arithmetic operations of one run of one example, random numbers among them."""
    leaves, form = jax.tree.flatten(built.data)
    return _operations(built.network, form, tuple((leaf.shape[1:], leaf.dtype) for leaf in leaves))


def is_small(built: ProblemInstance) -> bool:
    """Return whether a network is so small that its runs are trained side by side.

    Runs of a larger one follow each other: that takes less memory, and no more time.
    """
    return operations(built) <= _SMALL


def sampled_loss(network: Any) -> Loss:
    """Return the loss of a network by sampling: of its states, and of binary weights."""
    if has_latent_weights(network) and network.inner_model is not None:
        network = network.with_activations(reinforce)
    return estimator("reinforce", network)


@lru_cache(maxsize=512)
def _operations(network: Any, form: Any, example: tuple[tuple[tuple[int, ...], Any], ...]) -> float:
    """Return the operations that the compiler counts in the program, which is not run."""
    count = _SHARING if has_latent_weights(network) else 1
    leaves = [jax.ShapeDtypeStruct((count, *shape), kind) for shape, kind in example]
    key = jax.eval_shape(lambda: jax.random.key(0))
    params = jax.eval_shape(network.init, key)
    program = jax.jit(sampled_loss(network)).lower(params, key, form.unflatten(leaves))
    counted: Any = program.cost_analysis() or {}
    plain = 2 * count * sum(leaf.size for leaf in jax.tree.leaves(params))
    return float(counted.get("flops", plain)) / count
