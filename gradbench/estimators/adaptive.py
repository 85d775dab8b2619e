"""Estimators with learned parts: ``init``, ``loss`` and ``adapt`` beside the common contract."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Example, Loss, Model, Params, Randomness, scalar_of
from gradbench.core.inputs import checked
from gradbench.core.programs import share
from gradbench.core.pytrees import real_type
from gradbench.core.surrogate import SurrogateLoss

Network = dict[str, Array]  # one hidden layer
STEPS = 500  # of a fit, by default
State: TypeAlias = Any  # a pytree of arrays: the learned parts and the state of their optimiser


@dataclass(frozen=True, eq=False)
class Learned:
    """An estimator whose gradient depends on a state that is adapted along the training.

    Called as any other estimator, it is the estimator at the initial state. ``fit`` adapts the
    state at fixed parameters, which is done before an estimator is measured: a state that moves
    while bias is measured would be a bias itself.

    Attributes:
        model: the model.
        init: ``init(params, batch)`` gives the initial state.
        frozen: ``frozen(state)`` is the estimator at a state, an ordinary surrogate loss.
        adapt: ``adapt(state, params, key, batch)`` gives the state after one step.
        randomness: what draws of a frozen estimator depend on, see ``SurrogateLoss``.
        within: ``within(change)`` is the estimator with its frozen form changed. Parts that
            minimise the variance have to know of it; None for others.
    """

    model: Model
    init: Callable[[Params, Batch], State]
    frozen: Callable[[State], SurrogateLoss]
    adapt: Callable[[State, Params, Array, Batch], State]
    randomness: Randomness = "states"
    within: "Callable[[Callable[[SurrogateLoss], SurrogateLoss]], Learned] | None" = None

    def inside(self, change: Callable[[SurrogateLoss], SurrogateLoss]) -> "Learned":
        """Return what adapts the learned parts to a change of the frozen estimator."""
        return self.within(change) if self.within else self

    def loss(self, params: Params, key: Array, batch: Batch, state: State) -> Float[Array, ""]:
        """Return the surrogate loss at a state."""
        return self.frozen(state)(params, key, batch)

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """Return the surrogate loss at the initial state."""
        checked(self.model, params, batch, key)
        return self.loss(params, key, batch, self.init(params, batch))

    def fit(self, params: Params, key: Array, batch: Batch, steps: int = STEPS) -> SurrogateLoss:
        """Return the estimator after ``steps`` steps of ``adapt`` at fixed parameters."""
        state = adapted(self, steps, params, key, batch) if steps else self.init(params, batch)
        # So that the estimator at the parameters of other checkpoints is compiled with this one.
        loss: SurrogateLoss = share(self.frozen(state), self.frozen, state)
        return loss


@partial(jax.jit, static_argnums=(0, 1))
def adapted(learned: Learned, steps: int, params: Params, key: Array, batch: Batch) -> State:
    """Return the state after so many steps of ``adapt`` at fixed parameters."""

    def step(state: State, key: Array) -> tuple[State, None]:
        return learned.adapt(state, params, key, batch), None

    return jax.lax.scan(step, learned.init(params, batch), jax.random.split(key, steps))[0]


def fitted(loss: Loss, params: Params, key: Array, batch: Batch, steps: int = STEPS) -> Loss:
    """Return the estimator to be measured at ``params``: learned parts are fitted and frozen."""
    return loss.fit(params, key, batch, steps) if isinstance(loss, Learned) else loss


def least_variance(model: Model, rate: float, start: Any, frozen: Any) -> Learned:
    """Return an unbiased estimator whose learned parts minimise its variance by Adam.

    They minimise |draw|^2: the mean of draws does not depend on them.

    Args:
        model: the model.
        rate: the rate of Adam.
        start: ``start(params, batch)`` gives the initial parts.
        frozen: ``frozen(parts)`` gives the estimator.
    """

    def squared_norm(theta: Any, params: Params, key: Array, batch: Batch) -> Array:
        g = jax.grad(lambda *args: scalar_of(frozen(theta)(*args)))(params, key, batch)
        return jnp.sum(jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(g)]))

    begin, step = descent(rate, squared_norm)

    def at(state: Any) -> SurrogateLoss:
        return frozen(state[0])

    def within(change: Callable[[SurrogateLoss], SurrogateLoss]) -> Learned:
        return least_variance(model, rate, start, lambda parts: change(frozen(parts)))

    return Learned(
        model, lambda params, batch: begin(start(params, batch)), at, step, within=within
    )


def start_network(
    key: Array, inputs: int, hidden: int, outputs: int, params: Params
) -> dict[str, Array]:
    """Return a network whose layers have weights of variance 2 / (inputs + outputs) and no biases.

    Source: Glorot & Bengio 2010.
    """
    dtype = real_type(params)
    first, second = jax.random.split(key)

    def weights(key: Array, m: int, n: int) -> Array:
        return jax.random.normal(key, (m, n), dtype) * (2 / (m + n)) ** 0.5

    return {
        "first": weights(first, inputs, hidden),
        "bias": jnp.zeros(hidden, dtype),
        "second": weights(second, hidden, outputs),
        "output": jnp.zeros(outputs, dtype),
    }


def network(
    theta: Network, inputs: Float[Array, "... n"], activation: Callable[[Array], Array] = jnp.tanh
) -> Float[Array, "... m"]:
    """Return the outputs of a network with one hidden layer."""
    hidden = activation(inputs @ theta["first"] + theta["bias"])
    return hidden @ theta["second"] + theta["output"]


def descent(rate: float, criterion: Callable[..., Array]) -> tuple[Callable, Callable]:
    """Return ``start(theta) -> state`` and ``step(state, *args) -> state`` of Adam on a criterion.

    The criterion is ``criterion(theta, *args)``. The state is theta and the state of the optimiser.
    """
    import optax  # here, since most estimators do without

    optimiser = optax.adam(rate)

    def step(state, *args):
        theta, moments = state
        change, moments = optimiser.update(jax.grad(criterion)(theta, *args), moments, theta)
        return optax.apply_updates(theta, change), moments

    return lambda theta: (theta, optimiser.init(theta)), step


def reals(example: Example) -> Float[Array, " n"]:
    """Return all real numbers of an example as one vector."""
    leaves = [leaf for leaf in jax.tree.leaves(example) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]) if leaves else jnp.zeros(0)
