"""ZGR and its kin: straight-through rules whose slope depends on the sampled state.

In the coding b = (x + 1) / 2 a rule is a derivative J = db/da; the slope of x is 2J.
"""

import jax

from gradbench.estimators.registry import Cost, finite, positive, register
from gradbench.estimators.straight_through import with_derivative
from gradbench.model import Loss, Model


@register(
    family="zgr",
    exactness="quadratic",
    cost=Cost(gradient="1"),
    differentiable=True,
    source="Shekhovtsov 2023; Liu et al. 2023 (ReinMax)",
)
def zgr(model: Model) -> Loss:
    """J = F'(a) / 2P(x): the limit of Gumbel-Rao at temperature 0, DARN with phi = 1/2.

    Unbiased in one layer for objectives of degree up to 2 in each unit.
    """
    return with_derivative(model, lambda noise, x, a: noise.hazard(x * a))


@register(
    family="zgr",
    exactness=lambda phi: "quadratic" if phi == 0.5 else "multilinear",
    cost=Cost(gradient="1"),
    differentiable=True,
    source="Gregor et al. 2014, Deep autoregressive networks",
)
def darn(model: Model, *, phi: float = 0.5) -> Loss:
    """J = (b - phi) d log P(b) / da, for logistic noise (b - p)(b - phi)."""
    phi = finite("phi", phi)
    return with_derivative(model, lambda noise, x, a: noise.score(x, a) * (x + 1 - 2 * phi))


@register(
    family="zgr",
    exactness=lambda temperature: "quadratic" if temperature == 1 else "biased",
    cost=Cost(gradient="1"),
    differentiable=True,
    source="Liu et al. 2023, Bridging discrete and backpropagation",
)
def reinmax(model: Model, *, temperature: float = 1.0) -> Loss:
    """J = 2 J0((p_t + b) / 2) - J0(p) / 2, with J0(q) = q(1 - q) and p_t = sig(logit(p) / t).

    At temperature 1 it is ZGR; at others exact for no class of objectives. In the logit of p, times
    its derivative in a.
    """
    temperature = positive("temperature", temperature)

    def slope(noise, x, a):
        p, b = noise.cdf(a), (x + 1) / 2
        logit = noise.log_cdf(a) - noise.log_cdf(-a)
        middle = (jax.nn.sigmoid(logit / temperature) + b) / 2
        j = 2 * middle * (1 - middle) - p * noise.cdf(-a) / 2
        return 2 * j * noise.logit_slope(a)

    return with_derivative(model, slope)
