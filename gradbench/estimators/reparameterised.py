"""The computations of REBAR and RELAX: control variates of the score function by relaxation."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.arguments import are_known, finite, positive
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Batch, Example, Model, Params, Scored, Site, Trace
from gradbench.core.pytrees import real_type
from gradbench.core.run import as_examples, find_sites, run_model, sampled
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.adaptive import Learned, least_variance, reals
from gradbench.estimators.score import returns, score_loss, with_terms


class At(NamedTuple):
    """The place of a control variate: site k of a run, on stopped parameters.

    A control variate may use the states below the site. Above the site it may use the uniforms of
    the run, but not its states.
    """

    params: Params
    u: Uniforms
    example: Example
    run: Trace
    k: int


def controlled(model: Model, control: Callable[[At, Array], Array], signals: str) -> SurrogateLoss:
    """Return REINFORCE with the control variate ``control(at, z)`` of the z of each layer.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    split = with_terms(model, signals)

    def scored(params, u, example):
        run = sampled(split, params, u[0], example)
        own, signals = returns(run), []
        rest = own[0]
        for site, x, a in zip(run.sites, run.x, run.a, strict=True):
            at = At(stop_gradient(params), u[0], example, run, site.index)

            def c(a, at=at, site=site):
                return control(at, a - site.noise.quantile(u[0][site.index]))

            def c_given(a, at=at, site=site, x=x):
                return control(at, conditional(site, x, a, u[1][site.index]))

            given, slope_given = jax.value_and_grad(c_given)(a)
            slope = jax.grad(c)(a) - slope_given
            signals.append(own[site.index] - given)
            rest += gradient_term(slope, a)
        return Scored(rest, run, signals)

    return score_loss(
        model,
        scored,
        streams=2,
        randomness="uniforms",
        smoothness="smooth",
        breakpoints=_kinks,
    )


def conditional(
    site: Site, x: Float[Array, "..."], a: Float[Array, "..."], v: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return z~, drawn from the distribution of z given its sign x by uniforms v."""
    return x * site.noise.lead(x, a, v)


def _kinks(stream: int, run: Trace) -> list[Array]:
    """Return where F^{-1} need not be smooth: where u, or v F(x a), is 1/2."""
    sites = zip(run.sites, run.a, strict=True)
    return [
        jnp.full((1, *a.shape), 0.5) / (site.noise.cdf(abs(a)) if stream else 1)
        for site, a in sites
    ]


def soft(z: Float[Array, "..."], temperature: Any) -> Float[Array, "..."]:
    """Return 2 sig(z/t) - 1, a relaxation of sign(z)."""
    return jnp.tanh(z / (2 * temperature))


def relaxed(model: Model, temperature: Any, at: At, z: Float[Array, "..."]) -> Float[Array, ""]:
    """Return f with the site and all above it relaxed, after the sampled states below.

    If the model is one of terms, it is the return of the layer.
    """

    def unit(site: Site, a: Array) -> Array:
        return soft(a - site.noise.quantile(at.u[site.index]), temperature)

    given = (*at.run.x[: at.k], soft(z, temperature))
    return returns(run_model(model, at.params, at.example, unit, given))[at.k]


def _learned_rebar(
    model: Model, temperature: float, scale: float
) -> tuple[dict[str, Any], Callable[[Any, At, Array], Array]]:
    """Return the learned parts of a layer at their start, and the control variate made of them."""
    t, c = positive("temperature", temperature), finite("scale", scale)

    def control(phi: Any, at: At, z: Array) -> Array:
        part = phi[at.k]
        return part["scale"] * relaxed(model, jnp.exp(part["log_temperature"]), at, z)

    return {"log_temperature": (math.log if are_known(t) else jnp.log)(t), "scale": c}, control


def _learned(
    model: Model,
    start: Callable[[Site, int, Params], Any],
    control: Callable[[Any, At, Array], Array],
    rate: float,
    signals: str,
) -> Learned:
    """Return ``controlled`` with learned parts phi, one per site, by ``control(phi, at, z)``.

    ``start(site, seen, params)`` is a part at its start, with ``seen`` the number of units up to
    the site plus the number of real numbers in an example.
    """

    def begin(params: Params, batch: Batch) -> list[Any]:
        examples = as_examples(model, jax.random.key(0), batch)
        example = jax.tree.map(lambda leaf: leaf[0], examples)
        dtype = real_type(params)
        seen, phi = reals(example).size, []
        for site in find_sites(model, params, example):
            seen += site.size
            phi.append(start(site, seen, params))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), phi)

    def frozen(phi: Any) -> SurrogateLoss:
        return controlled(model, partial(control, phi), signals)

    with_terms(model, signals)  # refuses an unknown name
    learned = least_variance(model, positive("rate", rate), begin, frozen)
    return replace(learned, randomness="uniforms")
