"""The compiled loop of training: runs of several rates and seeds, side by side if small."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from gradbench.core.contract import Batch, Params, scalar_of
from gradbench.core.run import batch_size
from gradbench.suites.train import Optimiser

GROWN = 10  # a loss so many times the initial one ...
PATIENCE = 100  # ... for so many steps in a row is a divergence
# Makes an optimiser of a rate, and of a momentum or other numbers, all of which may be traced.
Make = Callable[[Any, Any], Optimiser]


class State(NamedTuple):
    """All that the next steps of runs follow from, with the first axis of runs.

    Attributes:
        params: the parameters.
        optimiser: the state of the optimiser.
        learned: the state of an estimator with learned parts, else ().
        initial: the loss before the first step.
        grown: for how many steps the loss has been ``GROWN`` times the initial one.
        diverged: the step at which a run has diverged, -1 for the others. Its parameters are those
            before, and stay.
    """

    params: Params
    optimiser: Any
    learned: Any
    initial: Float[Array, " runs"]
    grown: Int[Array, " runs"]
    diverged: Int[Array, " runs"]


def begin(
    loss: Any, make: Make, numbers: Any, params: Params, initial: Array, data: Batch, batch: int
) -> State:
    """Return the state before the first step, of ``params`` with a first axis of runs."""
    first = jax.tree.map(lambda leaf: leaf[:batch], data)
    learned = jax.vmap(lambda own: loss.init(own, first))(params) if hasattr(loss, "adapt") else ()
    zero = jnp.zeros(len(initial), jnp.int32)
    optimiser = jax.vmap(lambda own: make(jnp.zeros(()), numbers).init(own))(params)
    return State(params, optimiser, learned, initial, zero, zero - 1)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def advance(
    loss: Any,
    make: Make,
    batch: int,
    side_by_side: bool,
    numbers: Any,
    rates: Float[Array, " runs"],
    keys: Array,
    state: State,
    data: Batch,
    first: int,
    last: int,
) -> State:
    """Return the state after the steps ``first`` to ``last`` - 1, however they are cut.

    An epoch goes once through the data in an order of its own; examples that do not fill a batch
    are left out. Order and draws depend on the key of the run and the step alone.

    Args:
        loss: an estimator; one with learned parts adapts them after each step.
        make: makes the optimiser.
        batch: the examples of a step.
        side_by_side: whether runs make each step together, or follow each other.
        numbers: its momentum, or a tree of all its numbers beside the rate.
        rates: of the runs.
        keys: of the runs; those with one key see the same batches and uniforms.
        state: the state before.
        data: all examples.
        first: the first step, from 0.
        last: the step at which to end.
    """
    per_epoch = batch_size(data) // batch

    def order_of(key: Array, epoch: Array) -> Array:
        shuffle = jax.random.fold_in(jax.random.fold_in(key, 0), epoch)
        order = jax.random.permutation(shuffle, batch_size(data))
        return order[: per_epoch * batch].reshape(per_epoch, batch)

    def step(state: State, rate: Array, key: Array, order: Array, number: Array) -> State:
        rows = order[number % per_epoch]
        examples = jax.tree.map(lambda leaf: leaf[rows], data)
        draw, adapt = (jax.random.fold_in(jax.random.fold_in(key, k), number) for k in (1, 2))

        def objective(params: Params) -> Array:
            more = (state.learned,) if hasattr(loss, "adapt") else ()
            call = loss.loss if more else loss
            return scalar_of(call(params, draw, examples, *more))

        value, gradient = jax.value_and_grad(objective)(state.params)
        updates, optimiser = make(rate, numbers).update(gradient, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        learned = state.learned
        if hasattr(loss, "adapt"):
            learned = loss.adapt(state.learned, state.params, adapt, examples)
        large = jnp.abs(value) > GROWN * jnp.abs(state.initial)
        grown = jnp.where(large, state.grown + 1, 0).astype(jnp.int32)
        fails = ~(jnp.isfinite(value) & _finite((params, optimiser, learned)))
        fails |= grown >= PATIENCE
        ended = (state.diverged >= 0) | fails
        diverged = jnp.where((state.diverged < 0) & fails, number + 1, state.diverged)
        new = State(params, optimiser, learned, state.initial, grown, diverged.astype(jnp.int32))
        kept = jax.tree.map(lambda old, one: jnp.where(ended, old, one), state, new)
        return kept._replace(diverged=new.diverged)

    def run(state: State, rate: Array, key: Array) -> State:
        def body(number: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
            state, order = carry
            order = jax.lax.cond(
                number % per_epoch == 0, lambda: order_of(key, number // per_epoch), lambda: order
            )
            return step(state, rate, key, order, number), order

        start = (state, order_of(key, jnp.asarray(first // per_epoch)))
        return jax.lax.fori_loop(first, last, body, start)[0]

    return over_runs(run, side_by_side)(state, rates, keys)


def over_runs(run: Callable[..., Any], side_by_side: bool) -> Callable[..., Any]:
    """Return a function of one run as a function of several, along the first axis of its arguments.

    Args:
        run: a function of what belongs to one run.
        side_by_side: whether to compute them at once, or one after the other.
    """
    return jax.vmap(run) if side_by_side else lambda *of: jax.lax.map(lambda own: run(*own), of)


def _finite(tree: Any) -> Bool[Array, ""]:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
