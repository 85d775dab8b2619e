"""A surrogate loss of one example becomes that of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import (
    Batch,
    Breakpoints,
    Example,
    ExampleLoss,
    Model,
    Params,
    Randomness,
    Rule,
    Site,
    Smoothness,
)
from gradbench.core.pytrees import closed, real_type
from gradbench.core.run import as_examples, batch_size, find_sites, run_model
from gradbench.core.uniforms import Uniforms, draw_uniforms


@dataclass(frozen=True, eq=False)
class SurrogateLoss:
    """The surrogate loss of a batch, made from that of one example: see ``surrogate_loss``.

    ``randomness`` is what a draw depends on: nothing, the sampled states alone, one path a stream,
    or the uniforms themselves. The last three fields say what exact moments need to know of it.

    ``smoothness``: what a draw is as a function of one uniform between its breaks: "constant",
    "linear" or "smooth". ``breakpoints(stream, run)`` gives per site, as ``[..., *shape]``, where
    a draw may jump in the uniforms of a stream besides F(a) and 1 - F(a). ``couples_batch``:
    ``example_loss`` sees the whole batch, and uniforms with a last axis of examples.

    ``rule``: the states of a site, ``rule(site, a, *u)``, of an estimator that is nothing else, see
    ``unitwise``. ``soft``: these states are real numbers, not -1 and +1. ``route``: how it gets at
    what it needs of a model with some sites, in words, see ``gradbench.explain``.
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
    route: Callable[[Sequence[Site]], Sequence[str]] | None = None

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """The mean of the losses of the examples."""
        params = closed(params)
        batch = as_examples(self.model, key, batch)
        examples = batch_size(batch)
        sites = find_sites(self.model, params, jax.tree.map(lambda leaf: leaf[0], batch))
        dtype = real_type(params)
        u = draw_uniforms(key, [site.shape for site in sites], self.streams, examples, dtype)
        if self.couples_batch:
            return self.example_loss(params, u, batch)
        losses = jax.vmap(self.example_loss, in_axes=(None, -1, 0))(params, u, batch)
        return jnp.mean(losses)


def surrogate_loss(
    model: Model,
    example_loss: ExampleLoss,
    streams: int = 1,
    randomness: Randomness = "states",
    **options: Any,
) -> SurrogateLoss:
    """From one example to the contract: draws the noise, maps over the examples, averages.

    ``example_loss(params, u, example)`` is a deterministic function of ``streams x sites``
    uniforms. ``options`` are further fields of ``SurrogateLoss``.
    """
    return SurrogateLoss(model, example_loss, streams, randomness, **options)


def unitwise(model: Model, rule: Rule, streams: int = 1, **options: Any) -> SurrogateLoss:
    """The estimator whose states are ``rule(site, a, *u)``, u the uniforms of the site per stream.

    The objective is run on these states and differentiated through them: what is local to a unit
    is a rule, which ``gradbench.binarize`` takes without a model. ``options`` as those of
    ``surrogate_loss``.
    """

    def example_loss(params: Params, u: tuple[Uniforms, ...], example: Example) -> Array:
        def unit(site: Site, a: Array) -> Array:
            return rule(site, a, *(stream[site.index] for stream in u))

        return run_model(model, params, example, unit).f

    return surrogate_loss(model, example_loss, streams, rule=rule, **options)
