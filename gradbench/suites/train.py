"""Training by stochastic gradient descent with any estimator, as one compiled loop."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.run import batch_size
from gradbench.core.specs import parse_spec
from gradbench.models.optimisers import (
    exponentiated_gradient,
    for_weights,
    mirror_descent,
    proximal_kl,
)
from gradbench.suites.problem import Network, Training, WeightTraining

Optimiser: TypeAlias = optax.GradientTransformation
OPTIMISERS: dict[str, Callable[[float, float], Optimiser]] = {
    "sgd": lambda rate, momentum: optax.sgd(rate, momentum or None),
    "adam": lambda rate, momentum: optax.adam(rate, b1=momentum or 0.9),
}

# Optimisers of latent weights, from their training and their noise. All but "sgd" read dE/dw.
WEIGHT_OPTIMISERS: dict[str, Callable[[WeightTraining, str], Optimiser]] = {
    "sgd": lambda weights, noise: optax.sgd(weights.rate),
    "mirror_descent": lambda weights, noise: mirror_descent(weights.rate, noise),
    "exponentiated_gradient": lambda weights, noise: exponentiated_gradient(weights.rate, noise),
    "proximal_kl": lambda weights, noise: proximal_kl(weights.rate, weights.strength),
}


def check_training(training: Training, network: Network) -> None:
    """Refuses optimisers that are not known or do not fit the network and the estimator.

    Raises:
        GradbenchError: names what is wrong and the remedy.
    """
    if training.optimiser not in OPTIMISERS:
        remedy = did_you_mean(training.optimiser, OPTIMISERS)
        raise GradbenchError(f"unknown optimiser {training.optimiser!r}; {remedy}")
    weights = training.weights
    if weights is None:
        return
    if network.weights is None:
        raise GradbenchError("training.weights is there without network.weights; take it out")
    if weights.optimiser not in WEIGHT_OPTIMISERS:
        remedy = did_you_mean(weights.optimiser, WEIGHT_OPTIMISERS)
        raise GradbenchError(f"unknown optimiser {weights.optimiser!r} of weights; {remedy}")
    identity = _reads_identity(training.estimator)
    if (weights.optimiser == "sgd") == identity:
        reads = "dE/deta" if identity else "dE/dw"
        use = "without" if identity else "with"
        raise GradbenchError(
            f"the optimiser {weights.optimiser!r} of weights reads {reads} but the estimator is "
            f"{training.estimator!r}; take straight_through {use} proxy='identity'"
        )
    if weights.strength and weights.optimiser != "proximal_kl":
        raise GradbenchError(
            f"the optimiser {weights.optimiser!r} of weights got strength = {weights.strength:g}; "
            "take it out, or take proximal_kl"
        )
    if weights.optimiser == "proximal_kl" and network.weights.noise != "logistic":
        raise GradbenchError(
            f"proximal_kl got weights with {network.weights.noise} noise; take logistic noise"
        )


def _reads_identity(spec: str) -> bool:
    """Whether an estimator gives dE/dw for weights."""
    name, arguments = parse_spec(spec)
    if name == "nested":
        return _reads_identity(str(arguments.get("weights", "straight_through")))
    return arguments.get("proxy") == "identity"


@lru_cache
def make_optimiser(training: Training, network: Any) -> Optimiser:
    """The optax optimiser of a training: of binary weights their own, where there is one.

    The same object for the same training and network: compiled once.
    """
    real = OPTIMISERS[training.optimiser](training.rate, training.momentum)
    weights = training.weights
    if weights is None:
        return real
    latent = WEIGHT_OPTIMISERS[weights.optimiser](weights, network.noise)
    return for_weights(network, latent, real)


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
