"""Training by stochastic gradient descent with any estimator, as one compiled loop."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gradbench.errors import GradbenchError, did_you_mean
from gradbench.model import Batch, Loss, Params, batch_size

Optimiser: TypeAlias = optax.GradientTransformation

OPTIMISERS: dict[str, Callable[[float, float], Optimiser]] = {
    "sgd": lambda rate, momentum: optax.sgd(rate, momentum or None),
    "adam": lambda rate, momentum: optax.adam(rate, b1=momentum or 0.9),
}


@lru_cache
def get_optimiser(name: str, rate: float, momentum: float) -> Optimiser:
    """The optax optimiser of that name.

    Raises:
        GradbenchError: the name is unknown.
    """
    if name not in OPTIMISERS:
        raise GradbenchError(f"unknown optimiser {name!r}; {did_you_mean(name, OPTIMISERS)}")
    return OPTIMISERS[name](rate, momentum)


def check_batch(batch: int, data: Batch) -> None:
    """Refuses a batch larger than the data.

    Raises:
        GradbenchError: see above.
    """
    if batch > batch_size(data):
        raise GradbenchError(
            f"the training batch of {batch} is larger than the {batch_size(data)} examples; "
            "make it smaller"
        )


def train(
    loss: Loss,
    params: Params,
    data: Batch,
    key: Array,
    optimiser: Optimiser,
    batch: int,
    checkpoints: tuple[int, ...],
) -> Iterator[tuple[int, Params]]:
    """Parameters after each number of epochs in ``checkpoints``, which ascend; 0: the initial ones.

    An epoch goes once through the data in random order, in batches; what does not fill a batch is
    left out. The epoch's number is in its keys: the checkpoints asked for do not change the course.

    Raises:
        GradbenchError: a batch larger than the data, or training diverged.
    """
    check_batch(batch, data)
    state, epoch = optimiser.init(params), 0
    for checkpoint in checkpoints:
        params, state = _epochs(loss, optimiser, batch, params, state, data, key, epoch, checkpoint)
        epoch = checkpoint
        if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(params)):
            raise GradbenchError(
                f"training gave parameters that are not finite by epoch {epoch}; lower the rate"
            )
        yield epoch, params


@partial(jax.jit, static_argnums=(0, 1, 2))
def _epochs(
    loss: Loss,
    optimiser: Optimiser,
    batch: int,
    params: Params,
    state: Any,
    data: Batch,
    key: Array,
    first: int,
    last: int,
) -> tuple[Params, Any]:
    """Parameters and state of the optimiser after the epochs ``first``, ..., ``last`` - 1."""
    examples = batch_size(data)
    steps = examples // batch

    def step(carry: tuple[Params, Any], chosen: tuple[Array, Array]) -> tuple[Any, None]:
        params, state = carry
        key, rows = chosen
        gradient = jax.grad(loss)(params, key, jax.tree.map(lambda leaf: leaf[rows], data))
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def epoch(number: Array, carry: tuple[Params, Any]) -> tuple[Params, Any]:
        shuffle, draws = jax.random.split(jax.random.fold_in(key, number))
        order = jax.random.permutation(shuffle, examples)[: steps * batch].reshape(steps, batch)
        return jax.lax.scan(step, carry, (jax.random.split(draws, steps), order))[0]

    return jax.lax.fori_loop(first, last, epoch, (params, state))
