"""Surrogate losses: from the loss of one example to the loss of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.autodiff import first_order
from gradbench.core.branches import Branches
from gradbench.core.contract import (
    Batch,
    Breakpoints,
    Example,
    ExampleLoss,
    Model,
    Params,
    Randomness,
    Rule,
    Scored,
    Site,
    Smoothness,
)
from gradbench.core.inputs import checked
from gradbench.core.keys import is_evaluating
from gradbench.core.modules import keyed
from gradbench.core.pytrees import real_type
from gradbench.core.run import batch_size, run_model, sampled
from gradbench.core.uniforms import Uniforms, draw_uniforms


@dataclass(frozen=True, eq=False)
class SurrogateLoss:
    """The surrogate loss of a batch, made by ``surrogate_loss`` from the loss of one example.

    Attributes:
        model: the model.
        example_loss: the loss of one example, a deterministic function of parameters, uniforms and
            example.
        streams: how many uniforms it needs for each unit.
        randomness: what a draw depends on: nothing, only the sampled states of one path per stream,
            or the uniforms themselves. This and the next two are for exact moments.
        smoothness: how a draw depends on one uniform between its breakpoints.
        breakpoints: ``breakpoints(stream, run)`` gives for each site, as ``[..., *shape]``, where a
            draw may jump in the uniforms of a stream besides F(a) and 1 - F(a).
        couples_batch: whether ``example_loss`` takes the whole batch, and uniforms with a last axis
            of examples.
        rule: ``rule(site, a, *u)`` gives the states of a site if the estimator is nothing else than
            such a rule, see ``unitwise``.
        soft: whether the states of the rule are real numbers, not -1 and +1.
        branches: the law of the branches that a draw compares, if it is nothing else than that.
        scored: ``scored(params, u, example)`` gives the parts of a draw, if it multiplies signals
            with the score; a baseline may be subtracted from these.
        second_order: whether second derivatives of a draw are right too, in the mean and of what
            the draw estimates: where real states are smooth functions of the parameters. Others
            are refused.
        route: says in words how the estimator computes on a model with some sites, for these and
            the parameters, for ``gradbench.explain``.
    """

    model: Model
    example_loss: ExampleLoss
    streams: int = 1
    randomness: Randomness = "states"
    smoothness: Smoothness = "linear"
    breakpoints: Breakpoints | None = None
    couples_batch: bool = False
    rule: Rule | None = None
    soft: bool = False
    branches: Branches | None = None
    scored: Callable[[Params, tuple[Uniforms, ...], Example], Scored] | None = None
    second_order: bool = False
    route: Callable[[Sequence[Site], Params], Sequence[str]] | None = None

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """Return the mean of the losses of the examples, see ``gradbench.core.contract.Loss``."""
        params, batch, sites, has_aux = checked(self.model, params, batch, key)
        right = self.second_order and not getattr(self.model, "random", False)
        if not right and not is_evaluating():  # what evaluates an objective has marked all of it
            (params, batch), _ = first_order((params, batch))
        examples = batch_size(batch)
        batch = keyed(params, key, batch, examples)
        shapes = [site.shape for site in sites]
        u = draw_uniforms(key, shapes, self.streams, examples, real_type(params))
        if self.couples_batch:
            value = self.example_loss(params, u, batch)
        else:
            axes = (None, -1, 0)  # of which there may be none: no uniforms, and no inputs
            losses = jax.vmap(self.example_loss, axes, axis_size=examples)(params, u, batch)
            value = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), losses)
        found: Any = (value, _aux(self.model, params, key, batch, sites)) if has_aux else value
        return found


def with_aux(value: Array, model: Model, params: Params, key: Array, batch: Batch) -> Any:
    """Return the value of a loss, with the aux of its model where that returns any."""
    params, examples, sites, has_aux = checked(model, params, batch)
    if not has_aux:
        return value
    examples = keyed(params, jax.random.clone(key), examples, batch_size(examples))
    return value, _aux(model, params, key, examples, sites)


def _aux(model: Model, params: Params, key: Array, examples: Batch, sites: Sequence[Site]) -> Any:
    """Return the aux of N examples, leaves ``[N, ...]``, of the path that ``key`` samples.

    Every estimator that draws anything samples this path first, so that compiled code runs it once.
    """
    shapes, count = [site.shape for site in sites], batch_size(examples)
    (u,) = draw_uniforms(jax.random.clone(key), shapes, 1, count, real_type(params))
    return jax.vmap(lambda u, one: sampled(model, params, u, one).aux[0], (-1, 0))(u, examples)


def surrogate_loss(
    model: Model,
    example_loss: ExampleLoss,
    streams: int = 1,
    randomness: Randomness = "states",
    **options: Any,
) -> SurrogateLoss:
    """Return the loss of a batch that draws the noise, maps over the examples and averages.

    Args:
        model: the model.
        example_loss: ``example_loss(params, u, example)`` is the surrogate loss of one example,
            where ``u[s][k]`` are the uniforms of stream s and site k.
        streams: the number of streams.
        randomness: see ``SurrogateLoss``.
        options: further fields of ``SurrogateLoss``.
    """
    return SurrogateLoss(model, example_loss, streams, randomness, **options)


def unitwise(model: Model, rule: Rule, streams: int = 1, **options: Any) -> SurrogateLoss:
    """Return the estimator whose states are ``rule(site, a, *u)``, u the uniforms of each stream.

    The objective is run on these states and differentiated through them. ``gradbench.binarize``
    takes such estimators without a model. ``streams`` and ``options`` are as in ``surrogate_loss``.
    """

    def example_loss(params: Params, u: tuple[Uniforms, ...], example: Example) -> Array:
        def unit(site: Site, a: Array) -> Array:
            return rule(site, a, *(stream[site.index] for stream in u))

        return run_model(model, params, example, unit).f

    return surrogate_loss(model, example_loss, streams, rule=rule, **options)
