"""Combinations of losses: draws of one averaged, several on the same noise joined.

A combination has what its parts have: learned parts, exact moments, coupled examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.autodiff import first_order
from gradbench.core.contract import (
    Batch,
    ExampleLoss,
    Loss,
    Model,
    Params,
    Randomness,
    Trace,
    is_deterministic,
    scalar_of,
)
from gradbench.core.errors import GradbenchError
from gradbench.core.keys import is_evaluating
from gradbench.core.run import batch_size
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss, with_aux
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.registry import make_estimator
from gradbench.estimators.sampling import is_lattice, lattice, lattice_breakpoints

_DRAW = 0xD2A3  # folded into the keys of further draws; streams of uniforms are folded in from 0

# ------------------------------------------------------------------------- how losses are combined
_OfParams: TypeAlias = Callable[[Params], Array]
_Rule: TypeAlias = Callable[[Sequence[_OfParams], Params], Array]  # a loss, from those of its parts


@dataclass(frozen=True, eq=False)
class _Combined:
    """A combination with parts that ``surrogate_loss`` has not made, such as the exact loss."""

    model: Model
    loss: Callable[[Params, Array, Batch], Array]
    randomness: Randomness

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """Return the value of the surrogate loss."""
        if not is_evaluating():
            (params, batch), _ = first_order((params, batch))
        return with_aux(self.loss(params, key, batch), self.model, params, key, batch)


def _combine(
    model: Model, specs: Sequence[str], make: Callable[[Sequence[Loss]], Any]
) -> Loss | Learned:
    """Make one estimator of several; it has their learned parts, if there are any, as a tuple.

    Args:
        model: the model.
        specs: the estimators.
        make: makes the combined loss of the losses.
    """
    parts = [make_estimator(spec, model) for spec in specs]
    learned = [part if isinstance(part, Learned) else None for part in parts]
    if not any(learned):
        return make(parts)

    def init(params: Params, batch: Batch) -> tuple[Any, ...]:
        return tuple(part.init(params, batch) if part else () for part in learned)

    def frozen(states: tuple[Any, ...]) -> Any:
        triples = zip(parts, learned, states, strict=True)
        return make([part.frozen(state) if part else loss for loss, part, state in triples])

    def adapt(states: tuple[Any, ...], params: Params, key: Array, batch: Batch) -> tuple[Any, ...]:
        return tuple(
            part.adapt(state, params, key, batch) if part else ()
            for part, state in zip(learned, states, strict=True)
        )

    randomness = [getattr(part, "randomness", "uniforms") for part in parts]
    return Learned(model, init, frozen, adapt, _worst(_RANDOMNESS, randomness))


def _repeat(model: Model, part: Loss, draws: int, sampling: str = "independent") -> Loss:
    """Return the mean of several draws, each with its own streams or, failing that, its own key.

    Raises:
        GradbenchError: draws from a lattice of an estimator that is not driven by uniforms.
    """
    if draws == 1 or is_deterministic(part):
        return part
    if is_lattice(sampling):
        return _lattice_mean(part, draws)
    if isinstance(part, SurrogateLoss) and not getattr(part.model, "random", False):
        inner, streams = part, part.streams

        def example_loss(params: Params, u: Any, example: Any) -> Array:
            groups = [u[k * streams : (k + 1) * streams] for k in range(draws)]
            stacked = jax.tree.map(lambda *v: jnp.stack(v), *groups)
            return jnp.mean(jax.vmap(lambda own: inner.example_loss(params, own, example))(stacked))

        def breakpoints(stream: int, run: Trace) -> Sequence[Array]:
            return (
                inner.breakpoints(stream % streams, run)
                if inner.breakpoints
                else _no_breakpoints(run)
            )

        return replace(
            inner,
            example_loss=example_loss,
            streams=streams * draws,
            breakpoints=breakpoints,
            scored=None,
        )

    def loss(params: Params, key: Array, batch: Batch) -> Array:
        keys = [key, *(jax.random.fold_in(key, _DRAW + k) for k in range(1, draws))]
        return jnp.mean(jax.vmap(lambda own: scalar_of(part(params, own, batch)))(jnp.stack(keys)))

    return _Combined(model, loss, "uniforms")


def _lattice_mean(part: Loss, draws: int) -> Loss:
    """Return the mean of draws whose uniforms are the points of a lattice."""
    if not isinstance(part, SurrogateLoss) or getattr(part.model, "random", False):
        raise GradbenchError(
            "sampling='lattice' shifts the uniforms of an estimator, and this one draws from keys; "
            "give sampling='independent'"
        )
    inner = part

    def example_loss(params: Params, u: Any, example: Any) -> Array:
        points = lattice(u, draws)
        return jnp.mean(jax.vmap(lambda own: inner.example_loss(params, own, example))(points))

    return replace(
        inner,
        example_loss=example_loss,
        randomness="uniforms",
        smoothness="constant" if inner.randomness == "states" else inner.smoothness,
        breakpoints=lattice_breakpoints(inner, draws),
        branches=None,
        scored=None,
    )


def _join(model: Model, parts: Sequence[Loss], rule: _Rule) -> Loss:
    """Return the loss that a rule makes of several losses on the same noise."""
    lifted = [part for part in parts if isinstance(part, SurrogateLoss)]
    if len(lifted) == len(parts) and all(part.model is lifted[0].model for part in lifted):
        couples_batch = any(part.couples_batch for part in lifted)
        of_example = [_of_batch(part) if couples_batch else part.example_loss for part in lifted]
        by_uniforms = [part.smoothness for part in lifted if part.randomness == "uniforms"]

        def example_loss(params: Params, u: Any, example: Any) -> Array:
            own = [u[: part.streams] for part in lifted]
            return rule(
                [_fixed(f, v, example) for f, v in zip(of_example, own, strict=True)], params
            )

        def breakpoints(stream: int, run: Trace) -> Sequence[Array]:
            found = [
                p.breakpoints(stream, run) for p in lifted if p.breakpoints and stream < p.streams
            ]
            return [
                jnp.concatenate([jnp.reshape(part, (-1, *site.shape)) for part in own])
                for site, *own in zip(run.sites, _no_breakpoints(run), *found, strict=True)
            ]

        return surrogate_loss(
            lifted[0].model,
            example_loss,
            streams=max(part.streams for part in lifted),
            randomness=_worst(_RANDOMNESS, [part.randomness for part in lifted]),
            smoothness=_worst(_SMOOTHNESS, by_uniforms or ["linear"]),
            breakpoints=breakpoints,
            couples_batch=couples_batch,
        )

    def loss(params: Params, key: Array, batch: Batch) -> Array:
        return rule([_fixed(part, key, batch) for part in parts], params)

    return _Combined(model, loss, "none" if all(map(is_deterministic, parts)) else "uniforms")


def _fixed(loss: Callable[..., Array], *others: Any) -> _OfParams:
    """Return a loss as a function of the parameters alone."""
    return lambda params: scalar_of(loss(params, *others))


def _of_batch(part: SurrogateLoss) -> ExampleLoss:
    """Return the loss of a whole batch, in the form of losses that couple the examples."""
    if part.couples_batch:
        return part.example_loss

    def mean(params: Params, u: tuple[Uniforms, ...], batch: Batch) -> Array:
        of_each = jax.vmap(part.example_loss, (None, -1, 0), axis_size=batch_size(batch))
        return jnp.mean(of_each(params, u, batch))

    return mean


def _no_breakpoints(run: Trace) -> list[Array]:
    return [jnp.zeros((0, *site.shape)) for site in run.sites]


_RANDOMNESS = ("none", "states", "uniforms")
_SMOOTHNESS = ("constant", "linear", "smooth")


def _worst(order: Sequence[str], names: Sequence[str]) -> Any:
    """Return the name that comes last in an order."""
    return max(names, key=order.index)
