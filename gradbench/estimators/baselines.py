"""Baselines: what is subtracted from the signals of a score function.

A baseline must not contain the sample that it is subtracted from: one that contains it with the
weight w multiplies the gradient by 1 - w. It may depend on past draws, on the example, on the
states of the layers below, and on other independent samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from gradbench.core.arguments import finite, fraction
from gradbench.core.contract import (
    Batch,
    Example,
    Loss,
    Model,
    Params,
    Scored,
    Site,
    Trace,
    scalar_of,
)
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import real_type
from gradbench.core.registry import Registry
from gradbench.core.run import sites_of
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.adaptive import Learned, State
from gradbench.estimators.score import score_loss, to_units

Signals: TypeAlias = Sequence[Array]
# ``mean(f)`` is the mean over a draw of ``f(run, signals, example)``, a pytree of arrays.
Mean: TypeAlias = Callable[[Callable[[Trace, Signals, Example], PyTree]], PyTree]


@dataclass(frozen=True, eq=False)
class Baseline:
    """A baseline, with what it has learned as its state.

    Attributes:
        subtract: ``subtract(state, run, signals, example)`` gives the signals less the baseline,
            as in ``Scored``.
        init: ``init(model, params, batch)`` gives the initial state; None where nothing is learned.
        adapt: ``adapt(state, mean)`` gives the state after a draw, whose means ``mean`` gives.
        couples_batch: whether it is subtracted from the signals of a whole batch at once.
    """

    subtract: Callable[[State, Trace, Signals, Example], Signals]
    init: Callable[[Model, Params, Batch], State] | None = None
    adapt: Callable[[State, Mean], State] = lambda state, mean: state
    couples_batch: bool = False


def subtracted(loss: Loss, baseline: Baseline, state: State = ()) -> SurrogateLoss:
    """Return an estimator with a baseline at a state subtracted from its signals.

    Raises:
        GradbenchError: an estimator that multiplies nothing with the score, or one whose signals
            contain those of other examples, which leaves nothing for such a baseline.
    """
    if not isinstance(loss, SurrogateLoss) or loss.scored is None:
        raise GradbenchError(
            "a baseline is subtracted from what an estimator multiplies with the score, and this "
            "one multiplies nothing with it; give one such as reinforce, rloo, muprop or rebar"
        )
    if not baseline.couples_batch:
        scored, couples = _of_example(loss, baseline, state), loss.couples_batch
    elif not loss.couples_batch:
        scored, couples = _of_batch(loss.scored, baseline, state), True
    else:
        raise GradbenchError(
            "the signals of this estimator contain those of other examples, so that their mean "
            "over the other examples of the batch contains the own sample; give another baseline"
        )
    lifted = score_loss(loss.model, scored)
    return replace(
        loss, example_loss=lifted.example_loss, scored=scored, couples_batch=couples, branches=None
    )


def _of_example(loss: SurrogateLoss, baseline: Baseline, state: State) -> Callable[..., Scored]:
    assert loss.scored is not None
    parts, each = loss.scored, _each(loss, partial(baseline.subtract, state))

    def scored(params: Params, u: tuple[Uniforms, ...], example: Example) -> Scored:
        rest, run, signals = parts(params, u, example)
        return Scored(rest, run, each(run, signals, example))

    return scored


def _of_batch(parts: Callable[..., Scored], baseline: Baseline, state: State) -> Any:
    def scored(params: Params, u: tuple[Uniforms, ...], batch: Batch) -> Scored:
        sites: list[Site] = []

        def arrays(u: Any, example: Example) -> Any:
            rest, run, signals = parts(params, u, example)
            sites[:] = run.sites
            return rest, run[:3], signals

        rest, (f, x, a), signals = jax.vmap(arrays, (-1, 0))(u, batch)
        run = Trace(f, x, a, tuple(sites))
        return Scored(jnp.mean(rest), run, baseline.subtract(state, run, signals, batch))

    return scored


def _each(loss: SurrogateLoss, f: Callable[[Trace, Signals, Example], Any]) -> Callable[..., Any]:
    """Return ``f(run, signals, example)``, mapped over the examples where a loss couples them."""
    if not loss.couples_batch:
        return f

    def of_all(run: Trace, signals: Signals, batch: Batch) -> Any:
        def one(arrays: Any, signals: Signals, example: Example) -> Any:
            return f(run._replace(f=arrays[0], x=arrays[1], a=arrays[2]), signals, example)

        return jax.vmap(one)(run[:3], signals, batch)

    return of_all


def learned(loss: Loss, baseline: Baseline) -> Learned:
    """Return an estimator with a baseline that is learned, or with learned parts of its own.

    The state is that of whatever is learned, or the pair of both. Where the own parts minimise the
    variance, it is that with the baseline.

    Raises:
        GradbenchError: see ``subtracted``.
    """
    if not isinstance(loss, Learned):
        subtracted(loss, baseline, None)  # refuses what has no score
        assert isinstance(loss, SurrogateLoss) and baseline.init is not None
        return Learned(
            loss.model,
            partial(baseline.init, loss.model),
            lambda state: subtracted(loss, baseline, state),
            lambda state, *draw: baseline.adapt(state, _mean(loss, *draw)),
            loss.randomness,
        )
    part = loss

    def init(params: Params, batch: Batch) -> Any:
        own = baseline.init(part.model, params, batch) if baseline.init else ()
        return part.init(params, batch), own

    def adapt(states: Any, params: Params, key: Array, batch: Batch) -> Any:
        inner, own = states
        outer = part.inside(lambda loss: subtracted(loss, baseline, own))
        return (
            outer.adapt(inner, params, key, batch),
            baseline.adapt(own, _mean(part.frozen(inner), params, key, batch)),
        )

    def frozen(states: Any) -> SurrogateLoss:
        return subtracted(part.frozen(states[0]), baseline, states[1])

    return Learned(part.model, init, frozen, adapt, part.randomness)


def _mean(loss: SurrogateLoss, params: Params, key: Array, batch: Batch) -> Mean:
    """Return the function that takes means over a draw of an estimator."""
    assert loss.scored is not None
    parts = loss.scored

    def mean(f: Callable[[Trace, Signals, Example], PyTree]) -> PyTree:
        each = _each(loss, f)

        def of_example(params: Params, u: tuple[Uniforms, ...], example: Example) -> Any:
            _, run, signals = parts(params, u, example)
            found = each(run, signals, example)
            if not loss.couples_batch:
                return [found]
            return [jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), found)]

        draw = surrogate_loss(
            loss.model, of_example, loss.streams, couples_batch=loss.couples_batch
        )
        (found,) = scalar_of(draw(params, key, batch))  # a list, and perhaps the aux of the model
        return found

    return mean


# ------------------------------------------------------------------------------- the baselines

BASELINES: Registry[Callable[..., Baseline]] = Registry("baseline")

Average = tuple[PyTree, PyTree]  # decayed sums of values and of weights; their ratio has no start


def averaged(state: Average) -> PyTree:
    """Return the value of an average; that of nothing is 0."""
    return jax.tree.map(lambda total, weight: total / jnp.where(weight > 0, weight, 1), *state)


def follow(state: Average, value: PyTree, weight: PyTree, decay: float) -> Average:
    """Return an average with one more value times its weight, and this weight."""
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state, (value, weight))


def start_averages(model: Model, params: Params, batch: Batch) -> Average:
    """Return averages of nothing, one for each layer."""
    zeros = jnp.zeros(len(sites_of(model, params, batch)), real_type(params))
    return zeros, zeros[0]


def mean_signals(run: Trace, signals: Signals, example: Example) -> Array:
    """Return the means of the signals of each layer, over runs and units."""
    return jnp.stack([jnp.mean(signal) for signal in signals])


def constant(c: Any) -> Baseline:
    """Return the same number for all layers and draws.

    Raises:
        GradbenchError: it is no finite number.
    """
    c = finite("baseline", c)
    return Baseline(lambda state, run, signals, example: [signal - c for signal in signals])


@BASELINES.register("moving_average")
def moving(decay: float = 0.99) -> Baseline:
    """Return the mean over past draws, one for each layer; past ones weigh ``decay`` a step.

    Raises:
        GradbenchError: a decay outside [0, 1].
    """
    decay = fraction("decay", decay)

    def subtract(state: Average, run: Trace, signals: Signals, example: Example) -> Signals:
        return [signal - c for signal, c in zip(signals, averaged(state), strict=True)]

    def adapt(state: Average, mean: Mean) -> Average:
        return follow(state, mean(mean_signals), 1.0, decay)

    return Baseline(subtract, start_averages, adapt)


@BASELINES.register()
def per_unit(decay: float = 0.99) -> Baseline:
    """Return the constant of least variance for each unit, E[f s^2] / E[s^2] with its score s.

    The means are those over past draws, which weigh ``decay`` a step. Source: Weaver & Tao 2001,
    The optimal reward baseline for gradient-based reinforcement learning.

    Raises:
        GradbenchError: a decay outside [0, 1].
    """
    decay = fraction("decay", decay)

    def init(model: Model, params: Params, batch: Batch) -> Average:
        dtype = real_type(params)
        zeros = [jnp.zeros(site.shape, dtype) for site in sites_of(model, params, batch)]
        return zeros, zeros

    def subtract(state: Average, run: Trace, signals: Signals, example: Example) -> Signals:
        layers = zip(signals, run.a, averaged(state), strict=True)
        return [to_units(signal, a) - c for signal, a, c in layers]

    def moments(run: Trace, signals: Signals, example: Example) -> tuple[list[Array], list[Array]]:
        found: tuple[list[Array], list[Array]] = ([], [])
        for site, x, a, signal in zip(run.sites, run.x, run.a, signals, strict=True):
            square = site.noise.score(x, a) ** 2
            for part, value in zip(found, (to_units(signal, a) * square, square), strict=True):
                part.append(jnp.mean(value.reshape(-1, *site.shape), axis=0))
        return found

    def adapt(state: Average, mean: Mean) -> Average:
        value, weight = mean(moments)
        return follow(state, value, weight, decay)

    return Baseline(subtract, init, adapt)


@BASELINES.register()
def batch() -> Baseline:
    """Return the mean over the other examples of the batch; 0 for a single example."""

    def subtract(state: State, run: Trace, signals: Signals, batch: Batch) -> Signals:
        found = []
        for site, a, signal in zip(run.sites, run.a, signals, strict=True):
            count, runs = len(signal), range(1, a.ndim - len(site.shape))
            each = jnp.mean(signal, axis=tuple(runs), keepdims=True)
            found.append(signal - (jnp.sum(each, axis=0) - each) / max(count - 1, 1))
        return found

    return Baseline(subtract, couples_batch=True)
