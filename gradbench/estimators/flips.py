"""Flip differences: how f changes with single units of a layer, the rest of the layer as sampled.

The gradient in a_i is F'(a_i) times the expected difference of f between b_i = 1 and b_i = 0. In
one layer all these estimators give the same numbers; in several layers they
differ in the states that the layers above take.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model
from gradbench.core.run import branch_noise, branch_streams, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, D, L
from gradbench.estimators.registry import register
from gradbench.estimators.score import returns, with_terms
from gradbench.models.flips import _each_kept, _log_probability, each_unit


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(D + 1, layers=L * (D + 1)),
    full_name="local expectation gradients",
    display_name="LEG",
    paper="https://arxiv.org/abs/1503.01494",
    source="Titsias & Lazaro-Gredilla 2015, Local expectation gradients",
    formula=(
        r"g_i = \sum_{v \in \{0, 1\}} P(b_i = v \mid \text{all others})\,f(b_i = "
        r"v)\,\frac{\partial \log P(b_i = v)}{\partial a_i}"
    ),
)
def leg(model: Model, *, signals: str = "local") -> Loss:
    """sum over v of P(b_i = v given all other states) f(b_i = v) d log P(b_i = v) / da_i.

    Local expectation gradients are REINFORCE averaged over each unit given all others. The states
    of the layers above are kept as sampled, and count by how likely each v makes them; without
    this the difference of f with kept states would be biased. ``signals`` are those of
    ``reinforce``: terms of f that the layer cannot change are left out.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    split = with_terms(model, signals)

    def example_loss(params, u, example):
        run = sampled(split, params, u[0], example)
        own, fixed = returns(run), stop_gradient(params)
        loss = own[0]
        for site, a, x, r in zip(run.sites, run.a, run.x, own, strict=True):
            f, log = _each_kept(model, fixed, example, run, site.index)
            f -= own[0] - r
            odds = log - _log_probability(run)  # of the flipped state against the sampled one
            kept, flipped = jax.nn.sigmoid(-odds), jax.nn.sigmoid(odds)
            score = site.noise.score
            loss += gradient_term(kept * r * score(x, a) + flipped * f * score(-x, a), a)
        return loss

    return surrogate_loss(model, example_loss)


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(D + 1, layers=L * (D + 1)),
    full_name="reparameterisation and marginalisation",
    display_name="RAM",
    paper="https://proceedings.mlr.press/v70/tokui17a.html",
    source="Tokui & Sato 2017, Evaluating the variance of likelihood-ratio gradient estimators",
    formula=r"g_i = F'(a_i)\,\bigl(f(b_i = 1) - f(b_i = 0)\bigr)",
    aliases=("go", "indecater"),
)
def ram(model: Model, *, descendants: str = "shared") -> Loss:
    """F'(a_i) (f(b_i = 1) - f(b_i = 0)), the layers above run anew after the flip.

    One of the two branches is the sampled path. The layers above the other branch have the noise
    that ``descendants`` names: that of the path, "shared" (common random numbers, as in the paper's
    reparameterisation and marginalisation), or an "independent" or "antithetic" one. In one layer
    this is also GO (Cong et al. 2019).

    Raises:
        GradbenchError: unknown ``descendants``.
    """

    def example_loss(params, u, example):
        run, above = sampled(model, params, u[0], example), branch_noise(descendants, u)
        loss = run.f
        for site, a, x in zip(run.sites, run.a, run.x, strict=True):
            f = each_unit(model, params, example, run, site.index, jnp.negative, above)
            loss += gradient_term(site.noise.pdf(a) * x * (run.f - f), a)
        return loss

    return surrogate_loss(
        model,
        example_loss,
        branch_streams(descendants),
        randomness="uniforms",
        smoothness="constant",
    )


@register(
    family="flips",
    exactness="unbiased",
    cost=Cost(2 * D + 1, layers=L * (2 * D + 1)),
    full_name="measure-valued derivative",
    display_name="MVD",
    paper="https://arxiv.org/abs/1906.10652",
    source="Mohamed et al. 2020, Monte Carlo gradient estimation in machine learning",
    formula=r"g_i = F'(a_i)\,\bigl(f(b_i = 1) - f(b_i = 0)\bigr)",
    aliases=("mvd",),
)
def measure_valued(model: Model, *, descendants: str = "independent") -> Loss:
    """F'(a_i) (f(b_i = 1) - f(b_i = 0)), both parts run anew through the layers above.

    The measure-valued derivative takes b_i = 1 and b_i = 0 as the positive and the negative part of
    the derivative of a Bernoulli distribution, each of weight F'(a_i). ``descendants`` says how the
    noise of the layers above is coupled between the two: "shared" (common random numbers),
    "independent" or "antithetic".

    Raises:
        GradbenchError: unknown ``descendants``.
    """

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        parts = ((jnp.ones_like, u[1]), (_minus_one, branch_noise(descendants, u[1:])))
        loss = run.f
        for site, a in zip(run.sites, run.a, strict=True):
            positive, negative = (
                each_unit(model, params, example, run, site.index, state, above)
                for state, above in parts
            )
            loss += gradient_term(site.noise.pdf(a) * (positive - negative), a)
        return loss

    streams = 1 + branch_streams(descendants)
    return surrogate_loss(
        model, example_loss, streams, randomness="uniforms", smoothness="constant"
    )


def _minus_one(x: Array) -> Array:
    return jnp.full_like(x, -1)
