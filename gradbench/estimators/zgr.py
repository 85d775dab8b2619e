"""ZGR and other straight-through rules whose slope depends on the sampled state.

A rule is a derivative J = db/da of b = (x + 1) / 2; the slope of x is 2J.
"""

import jax

from gradbench.core.arguments import finite, not_negative, positive
from gradbench.core.contract import Loss, Model
from gradbench.estimators.registry import register_backprop
from gradbench.estimators.straight_through import with_derivative


@register_backprop(
    family="zgr",
    exactness="quadratic",
    full_name="zero-temperature Gumbel-Rao",
    display_name="ZGR",
    paper="https://proceedings.mlr.press/v202/shekhovtsov23a.html",
    source="Shekhovtsov 2023; Liu et al. 2023 (ReinMax)",
    formula=r"\frac{\partial b}{\partial a} := \frac{F'(a)}{2 P(x)}",
)
def zgr(model: Model) -> Loss:
    """J = F'(a) / 2P(x): the limit of Gumbel-Rao at temperature 0, DARN with phi = 1/2.

    It is unbiased in one layer for objectives of degree up to 2 in each unit.
    """
    return with_derivative(model, lambda noise, x, a: noise.hazard(x * a))


@register_backprop(
    family="zgr",
    exactness=lambda phi: "quadratic" if phi == 0.5 else "multilinear",
    full_name="deep autoregressive network's straight-through",
    display_name="DARN",
    paper="https://arxiv.org/abs/1310.8499",
    source="Gregor et al. 2014, Deep autoregressive networks",
    formula=r"\frac{\partial b}{\partial a} := (b - \phi)\,\frac{\partial \log P(b)}{\partial a}",
)
def darn(model: Model, *, phi: float | str = 0.5) -> Loss:
    """J = (b - phi) d log P(b) / da, for logistic noise (b - p)(b - phi).

    ``phi`` is a number, or "p" for the mean of the unit.

    Raises:
        GradbenchError: a phi that is neither "p" nor a finite number.
    """
    if phi == "p":  # b - p, without cancellation
        return with_derivative(
            model, lambda noise, x, a: noise.score(x, a) * 2 * x * noise.cdf(-x * a)
        )
    number = finite("phi", phi)
    return with_derivative(model, lambda noise, x, a: noise.score(x, a) * (x + 1 - 2 * number))


@register_backprop(
    family="zgr",
    exactness=lambda alpha: "quadratic" if alpha == 1 else "multilinear",
    full_name="mixture of straight-through and ZGR",
    display_name="ST-ZGR",
    paper="https://proceedings.mlr.press/v202/shekhovtsov23a.html",
    source="Shekhovtsov 2023, Cold analysis of Rao-Blackwellized straight-through",
    formula=r"\frac{\partial b}{\partial a} := (1 - \alpha)\,F'(a) + \alpha\,\frac{F'(a)}{2 P(x)}",
)
def st_zgr(model: Model, *, alpha: float = 0.5) -> Loss:
    """J = (1 - alpha) F'(a) + alpha F'(a) / 2P(x): a mixture of straight-through and ZGR.

    ``alpha`` is the weight of ZGR. Straight-through has no variance from the unit's own state on
    linear objectives, ZGR no bias on quadratic ones.

    Raises:
        GradbenchError: an alpha that is no finite number.
    """
    alpha = finite("alpha", alpha)
    return with_derivative(
        model,
        lambda noise, x, a: (1 - alpha) * 2 * noise.pdf(a) + alpha * noise.hazard(x * a),
    )


@register_backprop(
    family="zgr",
    exactness="multilinear",
    full_name="minimum-variance straight-through",
    display_name="MVE",
    paper="https://openreview.net/forum?id=5LZQfHUVER",
    as_published="half of this tau for one-hot states",
    source="Hooper & Shekhovtsov 2026, Generalized and optimal straight-through estimators",
    formula=(
        r"\frac{\partial b}{\partial a} := F'(a)\,\frac{1 + \tau\,(1 - P(x))}{1 + 2 \tau\,p (1 - "
        r"p)}"
    ),
)
def mve(model: Model, *, tau: float = 1.0) -> Loss:
    """J = F'(a) (1 + tau (1 - P(x))) / (1 + 2 tau p(1 - p)): of minimum variance, given its bias.

    It is straight-through at ``tau=0`` and ZGR at infinity, and ST-ZGR whose weight alpha depends
    on the unit, 2 tau p(1 - p) / (1 + 2 tau p(1 - p)). Of all rules that are exact on linear
    objectives it has the least sum of the variance on b and tau/2 times the squared bias on
    (b - 1/2)^2. ``tau`` is the one for an integer state in {0, 1}; the paper's form for one-hot
    states has half of it.

    Raises:
        GradbenchError: a tau that is negative or not finite.
    """
    tau = not_negative("tau", tau)

    def slope(noise, x, a):
        p, other = noise.cdf(x * a), noise.cdf(-x * a)
        return 2 * noise.pdf(a) * (1 + tau * other) / (1 + 2 * tau * p * other)

    return with_derivative(model, slope)


@register_backprop(
    family="zgr",
    exactness=lambda temperature, alpha: (
        "quadratic" if temperature == 1 and alpha == 1 else "biased"
    ),
    full_name="second-order straight-through, by Heun's method",
    display_name="ReinMax",
    paper="https://arxiv.org/abs/2304.08612",
    source="Liu et al. 2023, Bridging discrete and backpropagation",
    formula=(
        r"\frac{\partial b}{\partial \ell} := 2 q (1 - q) - \frac{1}{2}\,p (1 - p), \quad q = (1 - "
        r"c)\,\sigma(\ell / t) + c\,b, \quad c = \frac{1}{2 \alpha}"
    ),
)
def reinmax(model: Model, *, temperature: float = 1.0, alpha: float = 1.0) -> Loss:
    """J = 2 J0(q) - J0(p) / 2, J0(q) = q(1 - q), q = (1 - c) p_t + c b, p_t = sig(logit(p) / t).

    t is the ``temperature`` and c = 1 / (2 ``alpha``). At t = 1 and alpha = 1, where q = (p + b) /
    2, it is ZGR. Other alphas are the generalised ReinMax, whose weights are those of all methods
    of Runge and Kutta of second order; alpha = 1 is the one of Heun. At all others of both it is
    exact for no class of objectives. With t = 1 its mean on linear objectives is (3 - 4c^2) / 2
    times the right one. The formula is for the logit of p.

    Raises:
        GradbenchError: a temperature or an alpha that is not positive.
    """
    temperature, c = positive("temperature", temperature), 1 / (2 * positive("alpha", alpha))

    def slope(noise, x, a):
        p, b = noise.cdf(a), (x + 1) / 2
        logit = noise.log_cdf(a) - noise.log_cdf(-a)
        middle = (1 - c) * jax.nn.sigmoid(logit / temperature) + c * b
        j = 2 * middle * (1 - middle) - p * noise.cdf(-a) / 2
        return 2 * j * noise.logit_slope(a)

    return with_derivative(model, slope)
