"""Estimators with learned parts: ``init``, ``loss`` and ``adapt`` beside the common contract."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
from jaxtyping import Array, Float

from gradbench.model import Batch, Lifted, Loss, Model, Params, Randomness

STEPS = 500  # of a fit
State: TypeAlias = Any  # a pytree of arrays: what is learned, and the state of its optimiser


@dataclass(frozen=True, eq=False)
class Learned:
    """An estimator whose gradient depends on a state that is adapted along the training.

    ``init(params, batch) -> state``; ``loss(params, key, batch, state)`` is an estimator for every
    state; ``adapt(state, params, key, batch) -> state`` makes one step. ``frozen(state)`` is the
    estimator at a state, under the common contract: a state that moves while bias is measured would
    be a bias itself. Called as any estimator it is the one at the initial state; ``fit`` adapts the
    state at fixed parameters, as is done before an estimator is measured. ``randomness`` is that of
    the frozen one, see ``gradbench.model.Lifted``.
    """

    model: Model
    init: Callable[[Params, Batch], State]
    frozen: Callable[[State], Lifted]
    adapt: Callable[[State, Params, Array, Batch], State]
    randomness: Randomness = "states"

    def loss(self, params: Params, key: Array, batch: Batch, state: State) -> Float[Array, ""]:
        """The surrogate loss at a state."""
        return self.frozen(state)(params, key, batch)

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The surrogate loss at the initial state."""
        return self.loss(params, key, batch, self.init(params, batch))

    def fit(self, params: Params, key: Array, batch: Batch, steps: int = STEPS) -> Lifted:
        """The estimator at the state after so many steps of ``adapt`` at fixed parameters."""
        if not steps:
            return self.frozen(self.init(params, batch))

        @jax.jit
        def final(params: Params, batch: Batch) -> State:
            def step(state: State, key: Array) -> tuple[State, None]:
                return self.adapt(state, params, key, batch), None

            return jax.lax.scan(step, self.init(params, batch), jax.random.split(key, steps))[0]

        return self.frozen(final(params, batch))


def fitted(loss: Loss, params: Params, key: Array, batch: Batch, steps: int = STEPS) -> Loss:
    """The estimator to be measured at ``params``: one with learned parts is fitted and frozen."""
    return loss.fit(params, key, batch, steps) if isinstance(loss, Learned) else loss
