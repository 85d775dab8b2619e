"""Estimators made of others: the mean of several draws, an average of two, one for each layer.

What they are made of is given as specs. Exact moments, learned parts and coupled examples come
through: a combination of lifted estimators is one, a combination with learned parts has these.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError
from gradbench.estimators.learned import Learned
from gradbench.estimators.registry import (
    Cost,
    at_least,
    derivative_of,
    fraction,
    get_estimator,
    less_exact,
    make_estimator,
    price_of,
    register,
    value_of,
)
from gradbench.model import (
    Batch,
    ExampleLoss,
    Lifted,
    Loss,
    Model,
    Params,
    Randomness,
    Visit,
    is_deterministic,
    lift,
)
from gradbench.parameters import entries_of
from gradbench.spec import parse_specs

_DRAW = 0xD2A3  # what the keys of further draws are folded with; streams of uniforms count from 0


def _price_of_draws(estimator: str, draws: Any) -> Cost:
    deterministic = get_estimator(estimator)[0].randomness == "none"
    return price_of(estimator) if deterministic else price_of(estimator).times("draws")


@register(
    family="combination",
    exactness=lambda estimator, draws: less_exact(estimator),
    cost=_price_of_draws,
    differentiable=lambda estimator, draws: derivative_of(estimator),
    value_unbiased=lambda estimator, draws: value_of(estimator),
    source="the sample mean",
)
def mean_of(model: Model, *, estimator: str = "reinforce", draws: int = 2) -> Loss:
    """(g_1 + ... + g_K) / K: the mean of K independent ``draws`` of another estimator.

    ``estimator`` is its spec. Its mean is that of one draw, its variance a K-th, its first draw
    that of the same key. Where all draws are equal, one is made.

    Raises:
        GradbenchError: ``draws`` below 1, or a spec that no estimator can be made from.
    """
    count = at_least(1, "draws", draws)
    return _combine(model, [estimator], lambda parts: _repeat(model, parts[0], count))


@register(
    family="combination",
    exactness=lambda first, second, weight: less_exact(first, second),
    cost=lambda first, second, weight: price_of(first) + price_of(second),
    differentiable=lambda first, second, weight: derivative_of(first, second),
    value_unbiased=lambda first, second, weight: value_of(first, second),
    source="Shekhovtsov 2023, of straight-through and ZGR in one layer",
)
def average(
    model: Model, *, first: str = "straight_through", second: str = "zgr", weight: float = 0.5
) -> Loss:
    """(1 - w) g_1 + w g_2: two estimators on the same noise, w the ``weight`` of the second.

    ``first`` and ``second`` are their specs. As exact as the less exact of the two. In one layer
    the default is ``st_zgr``, which in several averages the derivatives of every layer and not the
    gradients.

    Raises:
        GradbenchError: a weight outside [0, 1], or a spec that no estimator can be made from.
    """
    w = fraction("weight", weight)

    def rule(losses: Sequence[_OfParams], params: Params) -> Array:
        one, other = (loss(params) for loss in losses)
        return (1 - w) * one + w * other

    return _combine(model, [first, second], lambda parts: _join(model, parts, rule))


@register(
    family="combination",
    exactness=lambda layers: less_exact(*parse_specs(layers)),
    differentiable=lambda layers: derivative_of(*parse_specs(layers)),
    value_unbiased=lambda layers: value_of(*parse_specs(layers)),
    cost=lambda layers: reduce(add, map(price_of, dict.fromkeys(parse_specs(layers)))),
    source="mixed estimators as in Shekhovtsov & Yanush 2021",
)
def per_layer(model: Model, *, layers: str = "reinforce, psa") -> Loss:
    """g = (g_1, g_2, ...), g_k of the k-th of several estimators, all on the same noise.

    ``layers`` are their specs with commas, for the entries of the parameters from the first layer
    on; the last one serves all further entries, that of the objective included. Of other parameters
    than a tuple it goes by their order in JAX: names in dictionaries and in Flax are sorted. As
    exact as the least exact of them. The value is the mean of their values. Its gradient is no
    gradient of one function: differentiated once more, what a layer's estimator owes to the
    parameters of other layers is left out.

    Raises:
        GradbenchError: malformed specs; when called, more estimators than entries of parameters.
    """
    specs = parse_specs(layers)
    distinct = list(dict.fromkeys(specs))

    def rule(losses: Sequence[_OfParams], params: Params) -> Array:
        leaves, form = jax.tree.flatten(params)
        entries = entries_of(params)
        count = len(params) if type(params) is tuple else max(entries, default=-1) + 1
        if len(specs) > count:
            raise GradbenchError(
                f"layers has {len(specs)} estimators for {count} entries of parameters; give "
                "at most one for each layer and one for the objective"
            )
        # The gradient of each loss in its own entries; the value is that of their mean.
        padded = specs + specs[-1:] * (count - len(specs))
        owned = [
            jax.tree.unflatten(
                form,
                [
                    theta if padded[entry] == spec else stop_gradient(theta)
                    for theta, entry in zip(leaves, entries, strict=True)
                ],
            )
            for spec in distinct
        ]
        values = jnp.stack([loss(theta) for loss, theta in zip(losses, owned, strict=True)])
        return stop_gradient(jnp.mean(values)) + jnp.sum(values - stop_gradient(values))

    return _combine(model, distinct, lambda parts: _join(model, parts, rule))


# ------------------------------------------------------------------------- how losses are combined

_OfParams: TypeAlias = Callable[[Params], Array]
_Rule: TypeAlias = Callable[[Sequence[_OfParams], Params], Array]  # a loss, of losses on one noise


@dataclass(frozen=True, eq=False)
class _Combined:
    """A combination of losses not all of which are made by ``lift``, such as the exact one."""

    model: Model
    loss: Callable[[Params, Array, Batch], Array]
    randomness: Randomness

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The value of the surrogate loss."""
        return self.loss(params, key, batch)


def _combine(
    model: Model, specs: Sequence[str], make: Callable[[Sequence[Loss]], Any]
) -> Loss | Learned:
    """``make`` of the estimators; where some have learned parts, it has these, as a tuple."""
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


def _repeat(model: Model, part: Loss, draws: int) -> Loss:
    """The mean of so many draws: each has streams of its own, or else a key of its own."""
    if draws == 1 or is_deterministic(part):
        return part
    if isinstance(part, Lifted) and not getattr(part.model, "random", False):
        inner, streams = part, part.streams

        def example_loss(params: Params, u: Any, example: Any) -> Array:
            groups = [u[k * streams : (k + 1) * streams] for k in range(draws)]
            stacked = jax.tree.map(lambda *v: jnp.stack(v), *groups)
            return jnp.mean(jax.vmap(lambda own: inner.example_loss(params, own, example))(stacked))

        def breaks(stream: int, run: Visit) -> Sequence[Array]:
            return inner.breaks(stream % streams, run) if inner.breaks else _no_breaks(run)

        return replace(inner, example_loss=example_loss, streams=streams * draws, breaks=breaks)

    def loss(params: Params, key: Array, batch: Batch) -> Array:
        keys = [key, *(jax.random.fold_in(key, _DRAW + k) for k in range(1, draws))]
        return jnp.mean(jax.vmap(lambda own: part(params, own, batch))(jnp.stack(keys)))

    return _Combined(model, loss, "uniforms")


def _join(model: Model, parts: Sequence[Loss], rule: _Rule) -> Loss:
    """The loss that a rule makes of some on the same noise."""
    lifted = [part for part in parts if isinstance(part, Lifted)]
    if len(lifted) == len(parts) and all(part.model is lifted[0].model for part in lifted):
        couples = any(part.couples for part in lifted)
        of_example = [_of_batch(part) if couples else part.example_loss for part in lifted]
        by_uniforms = [part.pieces for part in lifted if part.randomness == "uniforms"]

        def example_loss(params: Params, u: Any, example: Any) -> Array:
            own = [u[: part.streams] for part in lifted]
            return rule(
                [_fixed(f, v, example) for f, v in zip(of_example, own, strict=True)], params
            )

        def breaks(stream: int, run: Visit) -> Sequence[Array]:
            found = [p.breaks(stream, run) for p in lifted if p.breaks and stream < p.streams]
            return [
                jnp.concatenate([jnp.reshape(part, (-1, *site.shape)) for part in own])
                for site, *own in zip(run.sites, _no_breaks(run), *found, strict=True)
            ]

        return lift(
            lifted[0].model,
            example_loss,
            streams=max(part.streams for part in lifted),
            randomness=_worst(_RANDOMNESS, [part.randomness for part in lifted]),
            pieces=_worst(_PIECES, by_uniforms or ["linear"]),
            breaks=breaks,
            couples=couples,
        )

    def loss(params: Params, key: Array, batch: Batch) -> Array:
        return rule([_fixed(part, key, batch) for part in parts], params)

    return _Combined(model, loss, "none" if all(map(is_deterministic, parts)) else "uniforms")


def _fixed(loss: Callable[..., Array], *others: Any) -> _OfParams:
    """A loss as a function of the parameters alone."""
    return lambda params: loss(params, *others)


def _of_batch(part: Lifted) -> ExampleLoss:
    """The loss of a whole batch, as one that couples the examples has it."""
    if part.couples:
        return part.example_loss
    of_each = jax.vmap(part.example_loss, in_axes=(None, -1, 0))
    return lambda params, u, batch: jnp.mean(of_each(params, u, batch))


def _no_breaks(run: Visit) -> list[Array]:
    return [jnp.zeros((0, *site.shape)) for site in run.sites]


_RANDOMNESS = ("none", "states", "uniforms")
_PIECES = ("constant", "linear", "smooth")


def _worst(order: Sequence[str], names: Sequence[str]) -> Any:
    """The last of the names in an order."""
    return max(names, key=order.index)
