"""Which layers of a model are its readout: those whose parameters reach no stochastic unit."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Batch, Model, Params
from gradbench.core.dependence import sources
from gradbench.core.modules import cloned
from gradbench.core.pytrees import closed, layers_of
from gradbench.core.run import as_examples, run_at_states, sites_of


def readout_of(model: Model, params: Params, batch: Batch) -> tuple[str, ...]:
    """Return the names of the layers whose parameters reach no stochastic unit of a model.

    Such is the output layer of a classifier. At given states its gradient is exact: all that an
    estimator has to do there is to average over the states. The other layers are hidden ones, whose
    gradient goes through units. Only shapes are computed.

    Args:
        model: a function ``model(params, example, binary) -> f``.
        params: any pytree of real arrays.
        batch: examples along the first axis of its leaves.

    Raises:
        GradbenchError: the model does not run on these.
    """
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype), closed(params)
    )
    sites = sites_of(model, shapes, batch)

    def units(params: Params, batch: Batch) -> tuple[Array, ...]:
        params, batch = cloned((params, batch))
        examples = as_examples(model, jax.random.key(0), batch)  # nothing is drawn
        example = jax.tree.map(lambda leaf: leaf[0], examples)
        return run_at_states(model, params, example, [jnp.ones(site.shape) for site in sites]).a

    program = jax.make_jaxpr(units)(shapes, batch).jaxpr
    reaching = frozenset[int]().union(*sources(program))
    numbers = {id(leaf): number for number, leaf in enumerate(jax.tree.leaves(shapes))}
    return tuple(
        name
        for name, leaves in layers_of(shapes)
        if not any(numbers[id(leaf)] in reaching for leaf in leaves)
    )
