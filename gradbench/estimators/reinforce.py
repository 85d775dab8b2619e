"""REINFORCE and its simple baselines: a constant, past draws, the other examples of the batch.

A baseline c is subtracted from the return, (f - c) d log P(x) / da. It must not contain the sample
it is subtracted from: a baseline that contains it with weight w multiplies the gradient by 1 - w.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.arguments import finite, fraction
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model, Params, Site, Trace, scalar_of
from gradbench.core.pytrees import real_type
from gradbench.core.run import sampled
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.registry import register


def scores(run: Trace, signals: Sequence[Array]) -> Float[Array, ""]:
    """Return the value 0, with the gradient ``signals[k]`` * d log P(x_k) / da_k at every site k.

    For several runs together, see ``stacked``, a signal is a vector.
    """
    loss: Any = 0.0
    for site, x, a, signal in zip(run.sites, run.x, run.a, signals, strict=True):
        signal = jnp.expand_dims(signal, tuple(range(jnp.ndim(signal), a.ndim)))
        loss += gradient_term(signal * site.noise.score(x, a), a)
    return loss


def stacked(run: Callable[..., Trace], in_axes: Any, *args: Any) -> Trace:
    """Map ``run`` over its arguments and return one run, whose arrays have a new first axis."""
    sites: list[Site] = []

    def arrays(*args: Any) -> Any:
        one = run(*args)
        sites[:] = one.sites
        return one.f, one.x, one.a

    f, x, a = jax.vmap(arrays, in_axes)(*args)
    return Trace(f, x, a, tuple(sites))


def _with_baseline(model: Model, c: float | Array) -> SurrogateLoss:
    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        return run.f + scores(run, [run.f - c] * len(run.sites))

    return surrogate_loss(model, example_loss)


@register(
    family="reinforce",
    exactness="unbiased",
    source="Williams 1992, Simple statistical gradient-following algorithms",
    aliases=("score_function",),
)
def reinforce(model: Model, *, baseline: float = 0.0) -> Loss:
    """(f - baseline) d log P(x) / da: the same return for all layers, less a constant.

    Raises:
        GradbenchError: a baseline that is no finite number.
    """
    return _with_baseline(model, finite("baseline", baseline))


@register(
    family="reinforce",
    exactness="unbiased",
    source="Williams 1992; Kool et al. 2019 for samples in the place of examples",
)
def reinforce_leave_one_out(model: Model) -> Loss:
    """(f - c) d log P(x) / da, c the mean of f over the other examples of the batch.

    It helps as far as the examples have similar returns. The draws of the examples depend on each
    other. c is 0 for a batch of one example, and if one example is the whole batch, as with binary
    weights.
    """

    def batch_loss(params, u, batch):
        run = stacked(lambda v, example: sampled(model, params, v, example), (-1, 0), u[0], batch)
        n = run.f.size
        c = (jnp.sum(run.f) - run.f) / max(n - 1, 1)
        return jnp.mean(run.f) + scores(run, [(run.f - c) / n] * len(run.sites))

    return surrogate_loss(model, batch_loss, couples_batch=True)


Average = tuple[Array, Array]  # decayed sums of values and of ones; their ratio is not drawn to 0


def start_average(params: Params) -> Average:
    """Return the average of nothing, whose value counts as 0."""
    zero = jnp.zeros((), real_type(params))
    return zero, zero


def averaged(state: Average) -> Float[Array, ""]:
    """Return the value of an average."""
    total, weight = state
    return total / jnp.where(weight > 0, weight, 1)


def follow(state: Average, value: Array, decay: float) -> Average:
    """Return an average with one more value."""
    total, weight = state
    return decay * total + (1 - decay) * value, decay * weight + (1 - decay)


@register(
    family="reinforce",
    exactness="unbiased",
    source="Williams 1992 (reinforcement comparison)",
)
def moving_average(model: Model, *, decay: float = 0.99) -> Learned:
    """(f - c) d log P(x) / da, c an exponential moving average of f over past draws.

    c never contains the current draw. It averages the values of batches, with the weight ``decay``
    a step for past ones, and is corrected for its start from nothing. Before the first step of
    ``adapt`` it is 0.

    Raises:
        GradbenchError: a decay outside [0, 1].
    """
    decay = fraction("decay", decay)

    def frozen(state):
        return _with_baseline(model, averaged(state))

    def adapt(state, params, key, batch):
        return follow(state, scalar_of(frozen(state)(params, key, batch)), decay)

    return Learned(model, lambda params, batch: start_average(params), frozen, adapt)
