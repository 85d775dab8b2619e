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
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.pytrees import real_type
from gradbench.core.run import as_examples, find_sites, run_model, sampled
from gradbench.core.surrogate import SurrogateLoss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.adaptive import Learned, least_variance, reals
from gradbench.estimators.concrete import relaxation_factor
from gradbench.estimators.score import returns, score_loss, with_terms


class At(NamedTuple):
    """The place of a control variate: site k of a run, on stopped parameters.

    A control variate may use the states below the site, and ``a``, the pre-activations of the site.
    Above the site it may use the uniforms of the run, but not its states.
    """

    params: Params
    u: Uniforms
    example: Example
    run: Trace
    k: int
    a: Array


COUPLINGS = ("independent", "tied")


def controlled(
    model: Model,
    control: Callable[[At, Array], Array],
    signals: str,
    coupling: str = "independent",
) -> SurrogateLoss:
    """Return REINFORCE with the control variate ``control(at, z)`` of the z of each layer.

    The ``coupling`` is that of ``rebar``.

    Raises:
        GradbenchError: an unknown coupling, or other ``signals`` than "local" and "whole".
    """
    if coupling not in COUPLINGS:
        raise GradbenchError(f"coupling is {coupling!r}; {did_you_mean(coupling, COUPLINGS)}")
    split = with_terms(model, signals)

    def independent(site, x, at, uniforms):
        """Return c(z~), and the derivative of c(z) - c(z~) in a."""

        def c(a):
            return control(at._replace(a=a), a - site.noise.quantile(uniforms[0][at.k]))

        def c_given(a):
            return control(at._replace(a=a), conditional(site, x, a, uniforms[1][at.k]))

        given, slope_given = jax.value_and_grad(c_given)(at.a)
        return given, jax.grad(c)(at.a) - slope_given

    def tied(site, x, at, uniforms):
        """Return the same where z~ = z: a derivative in z, times that of z - z~."""
        u = uniforms[0][at.k]
        z = at.a - site.noise.quantile(u)
        given, slope = jax.value_and_grad(lambda z: control(at, z))(z)
        return given, slope * untied(site, x, at.a, u)

    pair, streams = (tied, 1) if coupling == "tied" else (independent, 2)

    def scored(params, u, example):
        run = sampled(split, params, u[0], example)
        own, signals = returns(run), []
        rest = own[0]
        for site, x, a in zip(run.sites, run.x, run.a, strict=True):
            at = At(stop_gradient(params), u[0], example, run, site.index, a)
            given, slope = pair(site, x, at, u)
            signals.append(own[site.index] - given)
            rest += gradient_term(slope, a)
        return Scored(rest, run, signals)

    return score_loss(
        model,
        scored,
        streams=streams,
        randomness="uniforms",
        smoothness="smooth",
        breakpoints=_kinks,
    )


def conditional(
    site: Site, x: Float[Array, "..."], a: Float[Array, "..."], v: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return z~, drawn from the distribution of z given its sign x by uniforms v."""
    return x * site.noise.lead(x, a, v)


def untied(
    site: Site, x: Float[Array, "..."], a: Float[Array, "..."], u: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Return d(z - z~)/da where z~ is drawn by the v that makes it z.

    That v is u/p for x = 1 and (1 - u)/(1 - p) for x = -1, a constant to the derivative. With n =
    F^{-1}(u), dz~/da is 1 - v F'(a)/F'(n), and v = F(xn)/F(xa).
    """
    other = site.noise.hazard(x * site.noise.quantile(u))
    return site.noise.hazard(x * a) / jnp.maximum(other, jnp.finfo(a.dtype).tiny)


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


def relaxed(
    model: Model,
    temperature: Any,
    at: At,
    z: Float[Array, "..."],
    relaxation: str = "concrete",
) -> Float[Array, ""]:
    """Return f with the site and all above it relaxed, after the sampled states below.

    If the model is one of terms, it is the return of the layer.

    Raises:
        GradbenchError: an unknown relaxation.
    """
    factor = relaxation_factor(relaxation, temperature)

    def unit(site: Site, a: Array) -> Array:
        return soft(factor * a - site.noise.quantile(at.u[site.index]), temperature)

    # Infinite pre-activations are not multiplied by 0.
    lead = z if relaxation == "concrete" else z + (factor - 1) * at.a
    given = (*at.run.x[: at.k], soft(lead, temperature))
    return returns(run_model(model, at.params, at.example, unit, given))[at.k]


def _learned_rebar(
    model: Model, temperature: float, scale: float, relaxation: str = "concrete"
) -> tuple[dict[str, Any], Callable[[Any, At, Array], Array]]:
    """Return the learned parts of a layer at their start, and the control variate made of them."""
    t, c = positive("temperature", temperature), finite("scale", scale)
    relaxation_factor(relaxation, t)

    def control(phi: Any, at: At, z: Array) -> Array:
        part = phi[at.k]
        learned_t = jnp.exp(part["log_temperature"])
        return part["scale"] * relaxed(model, learned_t, at, z, relaxation)

    return {"log_temperature": (math.log if are_known(t) else jnp.log)(t), "scale": c}, control


def _learned(
    model: Model,
    start: Callable[[Site, int, Params], Any],
    control: Callable[[Any, At, Array], Array],
    rate: float,
    signals: str,
    coupling: str = "independent",
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
        return controlled(model, partial(control, phi), signals, coupling)

    frozen([])  # unknown signals or couplings are refused at once
    learned = least_variance(model, positive("rate", rate), begin, frozen)
    return replace(learned, randomness="uniforms")
