"""Training by stochastic gradient descent with any estimator, as one compiled loop."""

import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
import optax
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry
from gradbench.core.run import batch_size
from gradbench.models.optimisers import for_weights, is_given
from gradbench.suites.problem import Network, Training, WeightTraining
from gradbench.suites.weight_optimisers import WEIGHT_OPTIMISERS, check_fit

Optimiser: TypeAlias = optax.GradientTransformation
OPTIMISERS: Registry[Callable[[float, float], Optimiser]] = Registry("optimiser")


@OPTIMISERS.register()
def sgd(rate: float, momentum: float) -> Optimiser:
    """Stochastic gradient descent, with momentum."""
    return optax.sgd(rate, momentum if is_given(momentum) else None)


@OPTIMISERS.register()
def nesterov(rate: float, momentum: float) -> Optimiser:
    """Stochastic gradient descent with momentum as Nesterov has it: g + m (m v + g)."""
    return optax.sgd(rate, momentum if is_given(momentum) else None, nesterov=True)


@OPTIMISERS.register()
def adam(rate: float, momentum: float) -> Optimiser:
    """Adam; its first decay rate is the momentum, 0.9 unless given."""
    return optax.adam(rate, b1=momentum if is_given(momentum) else 0.9)


def check_training(training: Training, network: Network) -> None:
    """Refuse optimisers that are not known or do not fit the network and the estimator.

    Raises:
        GradbenchError: names what is wrong and the remedy.
    """
    OPTIMISERS.find(training.optimiser)
    weights = training.weights
    if weights is None:
        return
    if network.weights is None:
        raise GradbenchError("training.weights is there without network.weights; take it out")
    name, found = weights.optimiser, WEIGHT_OPTIMISERS.find(weights.optimiser)
    for key in _NUMBERS:
        if (value := getattr(weights, key)) and key not in found.numbers:
            others = [other for other, known in WEIGHT_OPTIMISERS.items() if key in known.numbers]
            raise GradbenchError(
                f"the optimiser {name!r} of weights got {key} = {value:g}; take it out, or take "
                f"{' or '.join(others)}"
            )
    check_fit(name, training.estimator, network.weights.noise)
    _latent_optimiser(weights, network.weights.noise)  # refuses numbers that it cannot have


_NUMBERS = ("strength", "threshold")  # of ``WeightTraining``


def _latent_optimiser(weights: WeightTraining, noise: Any) -> Optimiser:
    found = WEIGHT_OPTIMISERS.find(weights.optimiser)
    given = {key: getattr(weights, key) for key in _NUMBERS if key in found.numbers}
    more = {key: value for key, value in given.items() if value is not None}
    if lacking := found.lacking(more):
        raise GradbenchError(
            f"the optimiser {weights.optimiser!r} of weights has no {lacking[0]} here; take it in "
            "a suite with [training], as "
            f"'{weights.optimiser}({lacking[0]}=1000)', or take another one"
        )
    return found.make(weights.rate, noise, **more)


@lru_cache
def make_optimiser(training: Training, network: Any) -> Optimiser:
    """Return the optimiser of a training, in which binary weights may have one of their own.

    It is the same object for the same training and network, so that training is compiled once.
    """
    real = OPTIMISERS.find(training.optimiser)(training.rate, training.momentum)
    weights = training.weights
    if weights is None:
        return real
    return for_weights(network, _latent_optimiser(weights, network.noise), real)


def check_batch(batch: int, data: Batch) -> None:
    """Refuse a batch that is larger than the data.

    Raises:
        GradbenchError: names both numbers.
    """
    if batch > batch_size(data):
        raise GradbenchError(
            f"the training batch of {batch} is larger than the {batch_size(data)} examples; "
            "make it smaller"
        )


class Diverged(GradbenchError):
    """Training that ended in parameters which are not finite, or worse than those it began with."""


SUSPICIOUS = 100  # times the initial parameters; beyond it the loss is looked at
SAVE_SECONDS = 15.0  # between two states on disk
CALL_SECONDS = 3.0  # of one call of compiled code: Ctrl-C and the disk wait no longer


class TrainingState(NamedTuple):
    """A training after so many epochs, the state of its optimiser included."""

    epoch: int
    params: Params
    optimiser: Any


def train(
    loss: Loss,
    params: Params,
    data: Batch,
    key: Array,
    optimiser: Optimiser,
    batch: int,
    checkpoints: tuple[int, ...],
    resumed: TrainingState | None = None,
    save: Callable[[TrainingState], None] | None = None,
) -> Iterator[tuple[int, Params]]:
    """Yield the parameters after each number of epochs in ``checkpoints``, which ascend from 0.

    An epoch goes once through the data in random order, in batches; examples that do not fill a
    batch are left out. The keys of an epoch depend on its number alone, so that neither checkpoints
    nor interruptions change the course.

    Args:
        loss: the estimator.
        params: the initial parameters.
        data: all examples.
        key: of all random numbers.
        optimiser: the optimiser.
        batch: the examples of a step.
        checkpoints: numbers of epochs.
        resumed: a state that was saved, to go on from; later checkpoints alone are yielded then.
        save: is called with a state every 15 seconds, between epochs.

    Raises:
        GradbenchError: a batch is larger than the data.
        Diverged: parameters are not finite, or have grown and the loss is ten times the initial.
    """
    check_batch(batch, data)
    initial = params
    epoch, params, state = resumed or TrainingState(0, params, optimiser.init(params))
    saved, pace = time.monotonic(), 1.0  # epochs of a call
    for checkpoint in checkpoints:
        if resumed is not None and checkpoint <= resumed.epoch:
            continue
        while epoch < checkpoint:
            last, began = min(checkpoint, epoch + max(int(pace), 1)), time.monotonic()
            params, state = jax.block_until_ready(
                _epochs(loss, optimiser, batch, params, state, data, key, epoch, last)
            )
            now = time.monotonic()
            pace = min(2 * pace, CALL_SECONDS * (last - epoch) / max(now - began, 1e-9))
            epoch = last
            if save is not None and now - saved > SAVE_SECONDS:
                save(TrainingState(epoch, params, state))
                saved = now
        if not np.isfinite(_largest(params)):
            raise Diverged(
                f"training gave parameters that are not finite by epoch {epoch}; lower the rate"
            )
        if _largest(params) > SUSPICIOUS * max(_largest(initial), 1.0):  # else it costs nothing
            before, after = (
                float(scalar_of(jax.jit(loss)(own, key, data))) for own in (initial, params)
            )
            if not abs(after) <= 10 * abs(before):
                raise Diverged(
                    f"training diverged by epoch {epoch}, from a loss of {before:.3g} to "
                    f"{after:.3g}; lower the rate"
                )
        yield epoch, params


def _largest(params: Params) -> float:
    """Return the largest size of a parameter, NaN or infinite if one is."""
    sizes = [np.max(np.abs(np.asarray(leaf)), initial=0.0) for leaf in jax.tree.leaves(params)]
    return float(np.max(sizes))  # which keeps NaN, unlike max


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
    """Return parameters and the optimiser's state after the epochs ``first`` to ``last`` - 1."""
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
