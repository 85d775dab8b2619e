"""REBAR and RELAX: the score function with a relaxation as control variate, fixed or learned.

A unit is b = [z > 0] with z = a - F^{-1}(u). A control variate c(z) is taken from REINFORCE at z~,
a second value of z given b, and its mean is given back by reparameterisation:

    (f(b) - c(z~)) d log P(b) / da + d/da [c(z) - c(z~)]

is unbiased for every smooth c, and has the less variance the closer c(z) is to f(b). The derivative
goes through z~ too, whose distribution given b depends on a.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.errors import GradbenchError
from gradbench.estimators.learned import Learned
from gradbench.estimators.multisample import least_variance
from gradbench.estimators.nvil import network, reals, start_network
from gradbench.estimators.registry import Cost, at_least, finite, positive, register
from gradbench.model import (
    Batch,
    Example,
    Lifted,
    Loss,
    Model,
    Params,
    Site,
    Visit,
    as_examples,
    credit,
    find_sites,
    lift,
    sampled,
    visit,
)
from gradbench.parameters import real_type
from gradbench.uniforms import Uniforms

SOURCE = "Tucker et al. 2017, REBAR: Low-variance, unbiased gradient estimates"
RELAXED = Cost("2 * L + 1", "2 * L", "L * (2 * L + 1)")


@register(family="rebar", exactness="unbiased", cost=RELAXED, differentiable=True, source=SOURCE)
def rebar(model: Model, *, temperature: float = 0.5, scale: float = 1.0) -> Loss:
    """(f(b) - c f(sig(z~/t))) d log P(b) / da + c d/da [f(sig(z/t)) - f(sig(z~/t))] per layer.

    The layers above a relaxed one are relaxed too: hard states there would be a bias. The objective
    has to be differentiable in the states, and finite between them. ``scale`` is c, ``temperature``
    t.

    Raises:
        GradbenchError: a temperature that is not positive, or a scale that is no finite number.
    """
    t, c = positive("temperature", temperature), finite("scale", scale)
    return controlled(model, lambda at, z: c * relaxed(model, t, at, z))


@register(family="rebar", exactness="unbiased", cost=RELAXED, differentiable=True, source=SOURCE)
def dynamic_rebar(
    model: Model, *, temperature: float = 0.5, scale: float = 1.0, rate: float = 0.01
) -> Learned:
    """REBAR with learned t and c: every layer has its own, which minimise E g^2.

    ``temperature`` and ``scale`` are where they start, ``rate`` is that of Adam.

    Raises:
        GradbenchError: a temperature or rate that is not positive, or a scale that is no finite
            number.
    """
    start, control = _learned_rebar(model, temperature, scale)
    return _learned(model, lambda *_: start, control, rate)


@register(
    family="rebar",
    exactness="unbiased",
    cost=lambda black_box, **_: Cost() if black_box else RELAXED,
    differentiable=lambda black_box, **others: not black_box,
    source="Grathwohl et al. 2018, Backpropagation through the void",
)
def relax(
    model: Model,
    *,
    hidden: int = 10,
    black_box: bool = False,
    temperature: float = 0.5,
    scale: float = 1.0,
    rate: float = 0.01,
) -> Learned:
    """REBAR with c f(sig(z/t)) + r(z) in the place of c f(sig(z/t)); t, c and r minimise E g^2.

    r is a network of ``hidden`` tanh units, one network per layer, which sees sig(z/t), the states
    below and the example. It starts at zero, so that the initial estimator is REBAR.
    ``black_box=True`` is r alone, for an objective that is costly or not differentiable: it starts
    as REINFORCE, and evaluates the objective once. ``temperature`` and ``scale`` are where t and c
    start, ``rate`` is that of Adam.

    Raises:
        GradbenchError: ``hidden`` below 1, a ``black_box`` that is no bool, a temperature or rate
            that is not positive.
    """
    hidden = at_least(1, "hidden", hidden)
    if not isinstance(black_box, bool):
        raise GradbenchError(f"black_box is {black_box!r}; give True or False")
    rebar_start, rebar_control = _learned_rebar(model, temperature, scale)

    def start(site: Site, seen: int, params: Params) -> dict[str, Any]:
        net = start_network(jax.random.key(site.index), seen, hidden, 1, params)
        return rebar_start | {"net": net | {"second": jnp.zeros_like(net["second"])}}

    def control(phi: Any, at: At, z: Array) -> Array:
        y = soft(z, jnp.exp(phi[at.k]["log_temperature"]))
        seen = jnp.concatenate([reals(at.example), *map(jnp.ravel, (*at.run.x[: at.k], y))])
        r = network(phi[at.k]["net"], seen)[0]
        return r if black_box else r + rebar_control(phi, at, z)

    return _learned(model, start, control, rate)


class At(NamedTuple):
    """Where a control variate is taken: at site k of a run, on stopped params.

    It may use the states below the site, and above it the uniforms of the run, not its states.
    """

    params: Params
    u: Uniforms
    example: Example
    run: Visit
    k: int


def controlled(model: Model, control: Callable[[At, Array], Array]) -> Lifted:
    """REINFORCE with the control variate ``control(at, z)`` of each layer's z."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, x, a in zip(run.sites, run.x, run.a, strict=True):
            at = At(stop_gradient(params), u[0], example, run, site.index)

            def c(a, at=at, site=site):
                return control(at, a - site.noise.quantile(u[0][site.index]))

            def c_given(a, at=at, site=site, x=x):
                return control(at, conditional(site, x, a, u[1][site.index]))

            given, slope_given = jax.value_and_grad(c_given)(a)
            slope = jax.grad(c)(a) - slope_given
            loss += credit((run.f - given) * site.noise.score(x, a) + slope, a)
        return loss

    return lift(
        model, example_loss, streams=2, randomness="uniforms", pieces="smooth", breaks=_kinks
    )


def conditional(
    site: Site, x: Float[Array, "..."], a: Float[Array, "..."], v: Float[Array, "..."]
) -> Float[Array, "..."]:
    """z~ of the distribution of z given its sign x, from uniforms v."""
    return x * site.noise.lead(x, a, v)


def _kinks(stream: int, run: Visit) -> list[Array]:
    """Where F^{-1} need not be smooth: at 1/2, of u and of v F(x a)."""
    sites = zip(run.sites, run.a, strict=True)
    return [
        jnp.full((1, *a.shape), 0.5) / (site.noise.cdf(abs(a)) if stream else 1)
        for site, a in sites
    ]


def soft(z: Float[Array, "..."], temperature: Any) -> Float[Array, "..."]:
    """2 sig(z/t) - 1: sign(z), relaxed."""
    return jnp.tanh(z / (2 * temperature))


def relaxed(model: Model, temperature: Any, at: At, z: Float[Array, "..."]) -> Float[Array, ""]:
    """The objective with the site and all above it relaxed, after the sampled states below."""

    def unit(site: Site, a: Array) -> Array:
        return soft(a - site.noise.quantile(at.u[site.index]), temperature)

    given = (*at.run.x[: at.k], soft(z, temperature))
    return visit(model, at.params, at.example, unit, given).f


def _learned_rebar(
    model: Model, temperature: float, scale: float
) -> tuple[dict[str, Any], Callable[[Any, At, Array], Array]]:
    """What is learned for each layer, and the control variate it gives."""
    t, c = positive("temperature", temperature), finite("scale", scale)

    def control(phi: Any, at: At, z: Array) -> Array:
        part = phi[at.k]
        return part["scale"] * relaxed(model, jnp.exp(part["log_temperature"]), at, z)

    return {"log_temperature": math.log(t), "scale": c}, control


def _learned(
    model: Model,
    start: Callable[[Site, int, Params], Any],
    control: Callable[[Any, At, Array], Array],
    rate: float,
) -> Learned:
    """``controlled`` by ``control(phi, at, z)``, phi a list of one part per site.

    ``start(site, seen, params)`` is where a part starts, ``seen`` the number of units up to the
    site and of real numbers in an example.
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

    def frozen(phi: Any) -> Lifted:
        return controlled(model, partial(control, phi))

    learned = least_variance(model, positive("rate", rate), begin, frozen)
    return replace(learned, randomness="uniforms")
