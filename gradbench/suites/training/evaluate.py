"""Losses and accuracies of trained networks, by sampling: never an estimator's own loss."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.contract import Batch, Loss, Params, scalar_of
from gradbench.core.run import batch_size
from gradbench.models.losses import Readout
from gradbench.models.structure import has_latent_weights
from gradbench.results.runs import AT_MODE, CURVES
from gradbench.suites.training.engine import over_runs

_ENSEMBLE = 10  # samples whose predictions are averaged
_AT_ONCE = 256  # examples of a large network that are worked on at a time


def curves_of(network: Any) -> tuple[str, ...]:
    """Return the names of the curves of a network: more where its weights are binary."""
    return (*CURVES, *AT_MODE) if has_latent_weights(network) else CURVES


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def evaluate(
    network: Any,
    sampled: Loss,
    samples: int,
    side_by_side: bool,
    params: Params,
    key: Array,
    data: Batch,
    test: Batch,
) -> dict[str, Array]:
    """Return the curves of ``curves_of`` at some parameters, each [runs].

    Args:
        network: the network.
        sampled: an estimator whose value is the mean of the objective over sampled states.
        samples: the samples of each example that losses are the mean of.
        side_by_side: whether to compute runs at once, or one after the other and in parts.
        params: the parameters, with a first axis of runs.
        key: the same key for all methods, so that they are compared on the same uniforms.
        data: the examples that are trained on.
        test: the examples that are not.
    """

    def mean_loss(params: Params, key: Array, batch: Batch) -> Array:
        whole = side_by_side or has_latent_weights(network)  # one draw of weights for all examples
        loss = sampled if whole else _in_parts(sampled)
        draws = jax.lax.map(
            lambda k: scalar_of(loss(params, k, batch)), jax.random.split(key, samples)
        )
        return jnp.mean(draws)

    of_weights = has_latent_weights(network)

    def one(params: Params) -> dict[str, Array]:
        own, other, single, several = jax.random.split(key, 4)
        shares = [jnp.full((), jnp.nan)] * 3
        if _classes(network):
            ways: list[tuple[Any, int]] = [(single, 1), (several, _ENSEMBLE), (None, 1)]
            shares = [accuracy(network.predict(params, test[0], k, n), test[1]) for k, n in ways]
        found = [mean_loss(params, own, data), mean_loss(params, other, test), *shares]
        if of_weights:
            likely, share = network.at_mode(params), shares[0]
            if _classes(network):
                share = accuracy(network.predict(likely, test[0], single), test[1])
            found += [mean_loss(likely, own, data), share]
        return dict(zip(curves_of(network), found, strict=True))

    return over_runs(one, side_by_side)(params)


def _in_parts(loss: Loss) -> Loss:
    """Return the mean loss of a batch, computed for some hundred examples at a time."""

    def whole(params: Params, key: Array, batch: Batch) -> Array:
        def example(pair: Any) -> Array:
            key, own = pair
            return scalar_of(loss(params, key, jax.tree.map(lambda leaf: leaf[None], own)))

        keys = jax.random.split(key, batch_size(batch))
        return jnp.mean(jax.lax.map(example, (keys, batch), batch_size=_AT_ONCE))

    return whole


def _classes(network: Any) -> bool:
    objective = getattr(network, "network", network).objective
    losses = ("softmax_cross_entropy", "logistic_loss")
    return isinstance(objective, Readout) and objective.loss in losses


def accuracy(outputs: Array, targets: Array) -> Array:
    """Return the share of ``outputs`` [n, outputs] whose class is that of ``targets`` [n]."""
    if outputs.shape[1] == 1:
        return jnp.mean(jnp.where(outputs[:, 0] < 0, -1, 1) == targets)
    return jnp.mean(jnp.argmax(outputs, axis=1) == targets)
