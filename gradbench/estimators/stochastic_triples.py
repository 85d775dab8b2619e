"""Stochastic triples: flips of the sampled path, weighted by the rate at which p makes them."""

from collections.abc import Iterator
from functools import partial
from itertools import accumulate

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params, Site, Trace
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.run import (
    branch_noise,
    branch_streams,
    draw_state,
    flip,
    run_model,
    sampled,
)
from gradbench.core.surrogate import surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.choice import choice_breaks, choose, first_breaks
from gradbench.estimators.cost import Cost, D, L
from gradbench.estimators.registry import register
from gradbench.models.flips import each_unit

SIDES = ("one", "two")


@register(
    family="flips",
    exactness="unbiased",
    cost=lambda pruned, side, descendants: (
        Cost(2, layers=2 * L) if pruned else Cost(D + 1, layers=L * (D + 1))
    ),
    full_name="stochastic triples",
    display_name="stochastic triples",
    paper="https://arxiv.org/abs/2210.08572",
    as_published="pruned within one directional derivative",
    source="Arya et al. 2022, Automatic differentiation of programs with discrete randomness",
    formula=(
        r"g_i = w_i\,\bigl(f(x) - f(x^{(i)})\bigr)\,x_i, \quad w_i = [b_i = "
        r"0]\,\frac{F'(a_i)}{F(-a_i)}"
    ),
)
def stochastic_triples(
    model: Model, *, pruned: bool = False, side: str = "one", descendants: str = "shared"
) -> Loss:
    """w_i (f(x) - f(x with i flipped)) x_i, with w_i the rate at which a change of a_i flips x_i.

    ``side="one"``: as a_i grows, b_i = 0 becomes 1 at the rate w_i = F'(a_i)/F(-a_i), which is p_i
    for logistic noise, and b_i = 1 stays. ``side="two"``: the average with the flips from 1 to 0 as
    a_i falls, so that w_i = F'(a_i)/2P(x_i).

    After a flip the layers above are run again, with the noise that ``descendants`` names: that of
    the path, "shared" (common random numbers), or an "independent" or "antithetic" one.

    ``pruned``: only one flip of the whole network, chosen with probability proportional to its
    weight, which is then the sum of all weights. The paper prunes like this within one directional
    derivative, so that its derivative in a single a_i is the one that is not pruned.

    Raises:
        GradbenchError: an unknown side or ``descendants``, or a ``pruned`` that is no bool.
    """
    if side not in SIDES:
        raise GradbenchError(f"side is {side!r}; {did_you_mean(side, SIDES)}")
    if not isinstance(pruned, bool):
        raise GradbenchError(f"pruned is {pruned!r}; give True or False")

    def breakpoints(stream, run):
        points = choice_breaks(_flat_weights(side, run)) if stream else jnp.zeros(0)
        return [
            first_breaks(points if site.index == 0 else jnp.zeros(0), site.shape)
            for site in run.sites
        ]

    # The flip is chosen by the first uniform of stream 1, which no layer above a flip sees.
    streams = branch_streams(descendants)
    return surrogate_loss(
        model,
        partial(_one_flip if pruned else _all_flips, model, side, descendants),
        2 if pruned else streams,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints if pruned else None,
    )


def _weights(side: str, run: Trace) -> Iterator[Array]:
    """Give w of each site in turn."""
    for site, a, x in zip(run.sites, run.a, run.x, strict=True):
        share = 0.5 if side == "two" else (1 - x) / 2
        yield share * site.noise.hazard(x * a)


def _flat_weights(side: str, run: Trace) -> Float[Array, " units"]:
    return jnp.concatenate([w.ravel() for w in _weights(side, run)])


def _all_flips(
    model: Model,
    side: str,
    descendants: str,
    params: Params,
    u: tuple[Uniforms, ...],
    example: Example,
) -> Float[Array, ""]:
    """Return the surrogate loss of one example with the flips of all units."""
    run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
    loss = run.f
    for site, a, x, w in zip(run.sites, run.a, run.x, _weights(side, run), strict=True):
        f = each_unit(model, params, example, run, site.index, jnp.negative, above)
        loss += gradient_term(w * x * (run.f - f), a)
    return loss


def _one_flip(
    model: Model,
    side: str,
    descendants: str,
    params: Params,
    u: tuple[Uniforms, ...],
    example: Example,
) -> Float[Array, ""]:
    """Return the surrogate loss of one example with one flip in the whole network."""
    run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
    first = [0, *accumulate(site.size for site in run.sites)]
    w = _flat_weights(side, run)
    chosen = choose(w, u[1][0])
    flipped = [flip(x, chosen - k) for x, k in zip(run.x, first, strict=False)]

    def unit(site: Site, a: Array) -> Array:
        """Keep the states up to the layer of the flip, and draw those above again."""
        anew = draw_state(site, a, above[site.index])
        return jnp.where(chosen < first[site.index], anew, flipped[site.index])

    f = run_model(model, stop_gradient(params), example, unit).f
    loss = run.f
    for a, x, other in zip(run.a, run.x, flipped, strict=True):
        loss += gradient_term(jnp.sum(w) * (run.f - f) * (x - other) / 2, a)
    return loss
