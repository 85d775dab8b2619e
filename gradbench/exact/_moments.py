"""Exact moments of estimators that are driven by the states alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from gradbench.errors import GradbenchError
from gradbench.exact._enumeration import path_probability, states_of_path, sum_paths
from gradbench.exact._size import (
    MEMORY,
    any_key,
    paths_size,
    refuse_large,
    sites_and_type,
)
from gradbench.model import (
    Batch,
    Example,
    Lifted,
    Loss,
    Params,
    as_examples,
    batch_size,
    visit_path,
)
from gradbench.weights import BinaryWeights


class Moments(NamedTuple):
    """Exact moments of one draw: mean value, mean and variance of the gradient (as params)."""

    value: Float[Array, ""]
    mean: PyTree[Array]
    variance: PyTree[Array]


def moments(loss: Loss, params: Params, batch: Batch) -> Moments:
    """E g and the variance of every coordinate of g, without Monte-Carlo error.

    All paths are fed instead of random ones, u = 0 for +1 and u = 1 for -1, weighted by their
    probabilities. The examples of a batch are independent, so means average and variances add. A
    pure function, to be put under ``jit``, in the precision of the parameters: call it inside
    ``gradbench.float64()``. Cost: 2^(units) draws.

    Raises:
        GradbenchError: an estimator that is not driven by the states alone, or too many paths.
    """
    model = getattr(loss, "model", None)
    random = isinstance(model, BinaryWeights) and model.random
    if not isinstance(loss, Lifted) or loss.randomness == "uniforms" or random:
        raise GradbenchError(
            "exact moments need an estimator whose only randomness is the states, such as "
            "straight_through(model) or reinforce(model); measure draws of this one"
        )
    size = paths_size(loss.model, params, batch)
    refuse_large(size._replace(work=2 * size.work), params, batch, MEMORY)
    sites, dtype = sites_and_type(loss.model, params, batch)
    batch = as_examples(loss.model, any_key(), batch)
    units, examples = sum(site.size for site in sites), batch_size(batch)
    draw = jax.value_and_grad(loss.example_loss)

    def weighted(number: Array, example: Example) -> tuple[Array, PyTree, PyTree]:
        path = states_of_path(number, sites, dtype)
        p = path_probability(visit_path(loss.model, params, example, path))
        value, g = draw(params, (tuple((1 - x) / 2 for x in path),), example)
        value, g = jax.tree.map(lambda leaf: jnp.where(p > 0, leaf, 0), (value, g))
        first = jax.tree.map(lambda leaf: p * leaf, g)
        return p * value, first, jax.tree.map(lambda leaf: p * leaf**2, g)

    zero = jax.tree.map(lambda leaf: jnp.zeros((examples, *leaf.shape), dtype), params)
    total = (jnp.zeros(examples, dtype), zero, zero)
    value, first, second = sum_paths(total, weighted, batch, units)
    return Moments(
        jnp.mean(value),
        jax.tree.map(lambda m: jnp.mean(m, axis=0), first),
        jax.tree.map(
            lambda m, s: jnp.mean(jnp.maximum(s - m**2, 0), axis=0) / examples, first, second
        ),
    )
