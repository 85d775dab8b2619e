"""What an estimator says of the branches that it compares, from which its exact moments follow.

Estimators of the ARM kind make of the uniforms of a layer several copies of its states, run the
layers above each copy, and compare the objectives. Given the pre-activations the units of a layer
are independent, so that the law of the copies of one unit says all of the layer. An estimator
states this law once, as ``Branches``; ``gradbench.exact.pairs`` sums over pairs of copies.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import ExampleLoss, Site

Above: TypeAlias = Callable[[Array, Array], Array]  # P(u < p and u' < p') from p and p', per unit
Weight: TypeAlias = Callable[[Site, Array, Array, Array, Array], Array]


@dataclass(frozen=True)
class Branches:
    """The copies of the states of a layer, and what a draw makes of them.

    Copy 0 is the sampled path. The states below a layer are those of the path. Copy k has the
    objective f_k, and the draw adds sum_k f_k w_k to the gradient in the pre-activations of the
    layer, where w_k depends on the uniforms of the unit alone. Beside these terms the draw has
    only the gradient of the objective of the path at fixed states.

    The copies are exchangeable; where there are several, sum_k w_k = 0 in every unit. So for units
    i and j

        E (sum_k f_k w_ki) (sum_k f_k w_kj) = - n (n - 1) / 2 E (f_0 - f_1)^2 w_0i w_1j,

    and no more than pairs of copies is needed: replace f_k f_l by -(f_k - f_l)^2 / 2, which adds
    terms that have a factor sum_k w_k.

    Attributes:
        example_loss: the draw that this describes. A loss with another one, such as a wrapped one,
            is not described by it.
        law: ``law(site, a)`` is ``[4, outcomes, *shape]``: for each outcome of a unit its
            probability, and this times the means of w_0, w_1 and w_0 w_1 on it. Outcomes are the
            states of copies 0 and 1, in the order (-, -), (-, +), (+, -), (+, +). A single copy
            has the outcomes - and +, and w_1 is w_0.
        copies: their number n.
        above: the law of the uniforms of two copies in the layers above; None where they are
            independent.
    """

    example_loss: ExampleLoss
    law: Callable[[Site, Array], Float[Array, "4 outcomes *shape"]]
    copies: int = 2
    above: Above | None = None


# P(u < p and u' < p') of the uniforms above the two branches, see ``core.run.branch_noise``.
ABOVE: dict[str, Above | None] = {
    "shared": jnp.minimum,
    "independent": None,
    "antithetic": lambda p, other: jnp.maximum(p + other - 1, 0),
}


def antithetic_law(weight: Weight) -> Callable[[Site, Array], Array]:
    """Return the law of the copies that u and 1 - u make, w_0 = -w_1 = ``weight`` times a slope.

    ``weight(site, a, u, x, other)`` is a gradient in the logit, at most linear in u where the two
    states ``x`` and ``other`` stay the same: u below q = min(p, 1 - p), above 1 - q, or in between.
    So two points of Gauss in each of the three pieces are exact. Nothing is subtracted from 1, and
    probabilities near 0 keep their digits.
    """

    def law(site: Site, a: Array) -> Array:
        q, most = site.noise.cdf(-jnp.abs(a)), site.noise.cdf(jnp.abs(a))
        plus, zero = jnp.ones_like(a), jnp.zeros_like(a)
        same, middle = jnp.where(a > 0, plus, -plus), most - q
        slope = site.noise.logit_slope(a)

        def piece(width: Array, u: Callable[[float], Array], x: Array, other: Array) -> Array:
            nodes = [0.5 - 1 / math.sqrt(12), 0.5 + 1 / math.sqrt(12)]
            w = jnp.stack([weight(site, a, u(t), x, other) * slope for t in nodes])
            first, second = jnp.mean(w, axis=0), jnp.mean(w**2, axis=0)
            return width * jnp.stack([plus, first, -first, -second])

        lower = piece(q, lambda t: q * t, plus, -plus)
        upper = piece(q, lambda t: 1 - q * t, -plus, plus)
        between = piece(middle, lambda t: q + middle * t, same, same)
        return jnp.stack(
            [
                jnp.where(a > 0, zero, between),
                upper,
                lower,
                jnp.where(a > 0, between, zero),
            ],
            axis=1,
        )

    return law


def single_law(weight: Callable[[Site, Array, Array], Array]) -> Callable[[Site, Array], Array]:
    """Return the law of a single copy, w = ``weight(site, a, u)`` times a slope, linear in u."""

    def law(site: Site, a: Array) -> Array:
        plus, minus = site.noise.cdf(a), site.noise.cdf(-a)
        slope = site.noise.logit_slope(a)

        def piece(width: Array, u: Callable[[float], Array]) -> Array:
            nodes = [0.5 - 1 / math.sqrt(12), 0.5 + 1 / math.sqrt(12)]
            w = jnp.stack([weight(site, a, u(t)) * slope for t in nodes])
            first, second = jnp.mean(w, axis=0), jnp.mean(w**2, axis=0)
            return width * jnp.stack([jnp.ones_like(a), first, first, second])

        return jnp.stack(
            [piece(minus, lambda t: 1 - minus * t), piece(plus, lambda t: plus * t)], axis=1
        )

    return law
