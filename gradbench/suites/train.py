"""Training by stochastic gradient descent with any estimator, as one compiled loop."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import jax
import numpy as np
import optax
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.errors import GradbenchError
from gradbench.core.registry import Registry
from gradbench.core.run import batch_size
from gradbench.core.specs import parse_spec
from gradbench.models.optimisers import (
    bop,
    exponentiated_gradient,
    for_weights,
    mirror_descent,
    proximal_kl,
)
from gradbench.suites.problem import Network, Training, WeightTraining

Optimiser: TypeAlias = optax.GradientTransformation
OPTIMISERS: Registry[Callable[[float, float], Optimiser]] = Registry("optimiser")
WEIGHT_OPTIMISERS: Registry["WeightOptimiser"] = Registry("weight optimiser")


@OPTIMISERS.register()
def sgd(rate: float, momentum: float) -> Optimiser:
    """Stochastic gradient descent, with momentum."""
    return optax.sgd(rate, momentum if _given(momentum) else None)


@OPTIMISERS.register()
def nesterov(rate: float, momentum: float) -> Optimiser:
    """Stochastic gradient descent with momentum as Nesterov has it: g + m (m v + g)."""
    return optax.sgd(rate, momentum if _given(momentum) else None, nesterov=True)


@OPTIMISERS.register()
def adam(rate: float, momentum: float) -> Optimiser:
    """Adam; its first decay rate is the momentum, 0.9 unless given."""
    return optax.adam(rate, b1=momentum if _given(momentum) else 0.9)


def _given(momentum: Any) -> bool:
    """Return whether there is a momentum: an array is one, whatever its value."""
    return not isinstance(momentum, int | float) or momentum != 0


@dataclass(frozen=True)
class WeightOptimiser:
    """An optimiser of the latent weights of binary weights.

    ``make(rate, noise)`` returns it, where ``noise`` is the name of the noise of the weights; with
    ``proximal`` it is ``make(rate, noise, strength)``, and with ``flips``, an optimiser of states,
    it has the optional argument ``threshold``. It reads dE/dw, the gradient of
    ``straight_through`` with the identity as its proxy, unless ``reads_latent``: then dE/deta.
    ``noises`` are those that it is made for, any if there are none.
    """

    make: Callable[..., Optimiser]
    reads_latent: bool = False
    proximal: bool = False
    noises: tuple[str, ...] = ()
    flips: bool = False


def weight_optimiser(
    name: str | None = None,
    *,
    reads_latent: bool = False,
    proximal: bool = False,
    noises: tuple[str, ...] = (),
    flips: bool = False,
) -> Callable[[Callable[..., Optimiser]], Callable[..., Optimiser]]:
    """Return a decorator that registers a ``WeightOptimiser``, under its own name by default."""

    def enter(make: Callable[..., Optimiser]) -> Callable[..., Optimiser]:
        found = WeightOptimiser(make, reads_latent, proximal, noises, flips)
        WEIGHT_OPTIMISERS.add(name or make.__name__, found, source=make)
        return make

    return enter


@weight_optimiser("sgd", reads_latent=True)
def _latent_sgd(rate: float, noise: str) -> Optimiser:
    """Plain gradient descent on latent weights."""
    return optax.sgd(rate)


weight_optimiser()(mirror_descent)
weight_optimiser()(exponentiated_gradient)


@weight_optimiser("proximal_kl", proximal=True, noises=("logistic",))
def _proximal_kl(rate: float, noise: str, strength: float) -> Optimiser:
    """Mirror descent with a proximal term, the divergence of p from 1/2."""
    return proximal_kl(rate, strength)


@weight_optimiser("bop", flips=True)
def _bop(rate: float, noise: str, **threshold: float) -> Optimiser:
    """Flips of states against an average gradient beyond a threshold (Helwegen et al. 2019)."""
    return bop(rate, **threshold)


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
    identity = _reads_identity(training.estimator)
    if found.reads_latent == identity:
        reads, use = ("dE/deta", "without") if identity else ("dE/dw", "with")
        raise GradbenchError(
            f"the optimiser {name!r} of weights reads {reads} but the estimator is "
            f"{training.estimator!r}; take straight_through {use} proxy='identity'"
        )
    for key, fact in (("strength", "proximal"), ("threshold", "flips")):
        if (value := getattr(weights, key)) and not getattr(found, fact):
            others = [other for other, known in WEIGHT_OPTIMISERS.items() if getattr(known, fact)]
            raise GradbenchError(
                f"the optimiser {name!r} of weights got {key} = {value:g}; take it out, or take "
                f"{' or '.join(others)}"
            )
    if found.noises and network.weights.noise not in found.noises:
        raise GradbenchError(
            f"{name} got weights with {network.weights.noise} noise; take "
            f"{' or '.join(found.noises)} noise"
        )
    _latent_optimiser(weights, network.weights.noise)  # refuses numbers that it cannot have


def _latent_optimiser(weights: WeightTraining, noise: Any) -> Optimiser:
    found = WEIGHT_OPTIMISERS.find(weights.optimiser)
    more: dict[str, float] = {"strength": weights.strength} if found.proximal else {}
    if found.flips and weights.threshold is not None:
        more["threshold"] = weights.threshold
    return found.make(weights.rate, noise, **more)


def _reads_identity(spec: str) -> bool:
    """Return whether an estimator gives dE/dw for weights."""
    name, arguments = parse_spec(spec)
    if name == "nested":
        return _reads_identity(str(arguments.get("weights", "straight_through")))
    return arguments.get("proxy") == "identity"


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


def train(
    loss: Loss,
    params: Params,
    data: Batch,
    key: Array,
    optimiser: Optimiser,
    batch: int,
    checkpoints: tuple[int, ...],
) -> Iterator[tuple[int, Params]]:
    """Yield the parameters after each number of epochs in ``checkpoints``, which ascend from 0.

    An epoch goes once through the data in random order, in batches; examples that do not fill a
    batch are left out. The keys of an epoch depend on its number alone, so that the checkpoints do
    not change the course.

    Raises:
        GradbenchError: a batch is larger than the data.
        Diverged: parameters are not finite, or have grown and the loss is ten times the initial.
    """
    check_batch(batch, data)
    state, epoch, initial = optimiser.init(params), 0, params
    for checkpoint in checkpoints:
        params, state = _epochs(loss, optimiser, batch, params, state, data, key, epoch, checkpoint)
        epoch = checkpoint
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
