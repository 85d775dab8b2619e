"""The Concrete relaxation, which is Gumbel-Softmax of two classes, and estimators made from it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logit
from jaxtyping import Array

from gradbench.core.arguments import are_known, finite, positive
from gradbench.core.contract import Breakpoints, Loss, Model, Rule, Site, Trace
from gradbench.core.errors import GradbenchError, did_you_mean
from gradbench.core.surrogate import unitwise
from gradbench.estimators.registry import register_backprop
from gradbench.estimators.straight_through import with_derivative

RELAXATIONS: dict[str, Callable[[float], float]] = {  # the factor of a at a temperature
    "concrete": lambda t: 1.0,
    "rebar": lambda t: (t**2 + t + 1) / (t + 1),
}


def relaxation_factor(relaxation: str, temperature: Any) -> Any:
    """Return the factor of a in a relaxation at a temperature.

    Raises:
        GradbenchError: an unknown relaxation.
    """
    if relaxation not in RELAXATIONS:
        raise GradbenchError(
            f"relaxation is {relaxation!r}; {did_you_mean(relaxation, RELAXATIONS)}"
        )
    return RELAXATIONS[relaxation](temperature)


def _relaxed(
    model: Model, state: Rule, smoothness: str, breakpoints: Breakpoints, **options: Any
) -> Loss:
    """Replace states by real ones, ``state(site, a, u)``, and differentiate these."""
    return unitwise(
        model,
        state,
        soft=True,
        randomness="uniforms",
        smoothness=smoothness,
        breakpoints=breakpoints,
        **options,
    )


def middle(stream: int, run: Trace) -> list[Array]:
    """Return u = 1/2, where the quantiles of triangular and Laplace noise are not smooth."""
    return [jnp.full((1, *a.shape), 0.5) for a in run.a]


def _in_one_layer(name: str, jumps: Callable[[Site, Array], list[Array]]) -> Breakpoints:
    """Return the jumps of a single layer, whose pre-activations do not depend on states."""

    def breakpoints(stream, run):
        if len(run.sites) > 1:
            raise GradbenchError(
                f"exact moments of {name} are known for one stochastic layer and the model has "
                f"{len(run.sites)}; measure draws of it"
            )
        half = jnp.full_like(run.a[0], 0.5)
        return [jnp.stack([*jumps(run.sites[0], run.a[0]), half])]

    return breakpoints


@register_backprop(
    family="concrete",
    exactness="biased",
    value_unbiased=False,
    full_name="Concrete relaxation, or Gumbel-Softmax",
    display_name="Concrete",
    paper="https://arxiv.org/abs/1611.00712",
    source="Maddison et al. 2017; Jang et al. 2017",
    formula=r"x := \tanh \frac{a - z}{2t}",
    aliases=("gumbel_softmax", "gs", "relaxed_bernoulli"),
)
def concrete(model: Model, *, temperature: float = 1.0, relaxation: str = "concrete") -> Loss:
    """Soft states x = tanh((a - z) / 2t) in the place of sign(a - z), differentiated.

    t is the ``temperature``; the tau of the PSA paper's training code is twice as large.
    ``relaxation="rebar"`` (Tucker 2017) multiplies a by (t^2 + t + 1) /
    (t + 1). For logistic noise the states then tend to their means as t grows; as t goes to 0 they
    tend to the sampled states, as without it.

    Raises:
        GradbenchError: a temperature that is not positive, or an unknown relaxation.
    """
    t = positive("temperature", temperature)
    factor = relaxation_factor(relaxation, t)

    def state(site, a, u):
        return jnp.tanh((factor * a - site.noise.quantile(u)) / (2 * t))

    return _relaxed(model, state, "smooth", middle, second_order=True)


@register_backprop(
    family="concrete",
    exactness="biased",
    value_unbiased=False,
    full_name="hard Concrete relaxation",
    display_name="hard Concrete",
    paper="https://arxiv.org/abs/1712.01312",
    source="Louizos et al. 2018, Learning sparse neural networks through L0 regularization",
    formula=(
        r"b := \operatorname{clip}\Bigl(l + (h - l)\,\sigma\!\left(\frac{a - z}{t}\right),\, 0,\, "
        r"1\Bigr)"
    ),
)
def hard_concrete(
    model: Model, *, temperature: float = 2 / 3, low: float = -0.1, high: float = 1.1
) -> Loss:
    """Soft states stretched and clipped: b = clip(low + (high - low) sig((a - z) / t), 0, 1).

    t is the ``temperature``. With positive probability a state is exactly 0 or 1, and then it has
    no gradient.

    Raises:
        GradbenchError: a temperature that is not positive, a ``low`` above 0 or a ``high`` below 1;
            when exact moments are computed, a model of several stochastic layers.
    """
    t = positive("temperature", temperature)
    low, high = finite("low", low), finite("high", high)
    if are_known(low, high) and not low <= 0 < 1 <= high:
        raise GradbenchError(
            f"low is {low!r} and high {high!r}; give a low of at most 0 and a high of at least 1"
        )

    def state(site, a, u):
        y = jax.nn.sigmoid((a - site.noise.quantile(u)) / t)
        return 2 * jnp.clip(low + (high - low) * y, 0, 1) - 1

    def jumps(site, a):
        ends = [logit(jnp.asarray((b - low) / (high - low), a.dtype)) for b in (0, 1)]
        return [site.noise.cdf(a - t * end) for end in ends]

    return _relaxed(model, state, "smooth", _in_one_layer("hard_concrete", jumps))


@register_backprop(
    family="concrete",
    exactness="biased",
    value_unbiased=False,
    full_name="stochastic times smooth unit",
    display_name="STS",
    paper="https://arxiv.org/abs/1308.3432",
    source="Bengio et al. 2013, Estimating or propagating gradients",
    formula=(
        r"b = c \sqrt{p}, \quad P(c = 1) = \sqrt{p}, \quad \frac{\partial b}{\partial a} := "
        r"c\,\frac{\partial \sqrt{p}}{\partial a}"
    ),
)
def stochastic_times_smooth(model: Model) -> Loss:
    """b = c sqrt(p) with c in {0, 1}, P(c = 1) = sqrt(p), differentiated in sqrt(p) alone.

    b has the mean p, so that the value is right in one layer for multilinear objectives. The
    gradient there has half of the right mean, since c is a constant to it.

    Raises:
        GradbenchError: when exact moments are computed, a model of several stochastic layers.
    """

    def root(site, a):
        return jnp.exp(site.noise.log_cdf(a) / 2)

    def state(site, a, u):
        return 2 * jnp.where(u < root(site, a), root(site, a), 0) - 1

    breakpoints = _in_one_layer("stochastic_times_smooth", lambda site, a: [root(site, a)])
    return _relaxed(model, state, "constant", breakpoints)


@register_backprop(
    family="concrete",
    exactness="biased",
    full_name="straight-through Gumbel-Softmax",
    display_name="ST Gumbel-Softmax",
    paper="https://arxiv.org/abs/1611.01144",
    source="Jang et al. 2017, Categorical reparameterization with Gumbel-Softmax",
    formula=(
        r"x = \operatorname{sign}(a - z), \quad \frac{\partial x}{\partial a} := "
        r"\frac{\partial}{\partial a} \tanh \frac{a - z}{2t}"
    ),
    aliases=("stgs", "st_gs"),
)
def st_gumbel_softmax(model: Model, *, temperature: float = 1.0, slope: float = 1.0) -> Loss:
    """Hard states x = sign(a - z) with the derivative of the soft ones, tanh((a - z) / 2t).

    t is the ``temperature``. As t goes to 0, the mean tends to the mean of ZGR, not to the truth.
    ``slope`` m replaces a by m a in the soft states. With temperature 1 and m the ratio of the
    forward to the backward temperature this is decoupled ST-Gumbel-Softmax (Shah 2024), whose
    temperatures divide the logits and not the noise; a is then the logit divided by the forward
    temperature.

    Raises:
        GradbenchError: a temperature or slope that is not positive.
    """
    t, m = positive("temperature", temperature), positive("slope", slope)

    def derivative(noise, x, a, u):
        y = jax.nn.sigmoid((m * a - noise.quantile(u)) / t)
        return 2 * m * y * (1 - y) / t

    return with_derivative(
        model, derivative, randomness="uniforms", smoothness="smooth", breakpoints=middle
    )


@register_backprop(
    family="concrete",
    exactness="biased",
    full_name="gapped straight-through",
    display_name="GST",
    paper="https://arxiv.org/abs/2206.07235",
    source="Fan et al. 2022, Training discrete deep generative models via gapped straight-through",
    formula=(
        r"\frac{\partial b}{\partial \ell} := \frac{1}{t}\,\sigma'\!\left(\frac{m}{t}\right), "
        r"\quad m = \begin{cases} \max(|\ell|, \text{gap}) & P(x) \geq \frac{1}{2} \\ \text{gap} & "
        r"P(x) < \frac{1}{2} \end{cases}"
    ),
    aliases=("gst", "gst_1_0"),
    presets={"gst_p": {"gap": "auto"}},
)
def gapped_straight_through(
    model: Model, *, gap: float | str = 1.0, temperature: float = 1.0
) -> Loss:
    """J = sig'(m / t) / t: ST-Gumbel-Softmax with noise so fixed that the sampled state leads.

    t is the ``temperature``. The formula is for the logit l of p, with m = max(abs(l), gap) if the
    state is the more probable one, and m = gap if not. ``gap="auto"`` is the expected lead,
    -log(1 - P(x)) / P(x).

    Raises:
        GradbenchError: a gap or temperature that is not positive.
    """
    t = positive("temperature", temperature)
    fixed = None if gap == "auto" else positive("gap", gap)

    def slope(noise, x, a):
        p = noise.cdf(x * a)
        if fixed is None:
            # log F(-xa) is accurate for large p only, log1p for small
            some = jnp.where(p > 0, p, 1)
            lead = jnp.where(p < 0.5, -jnp.log1p(-jnp.minimum(p, 0.5)), -noise.log_cdf(-x * a))
            lead = jnp.where(p > 0, lead / some, 1)
        else:
            lead = jnp.asarray(fixed, a.dtype)
        ahead = noise.log_cdf(x * a) - noise.log_cdf(-x * a)
        m = jnp.maximum(ahead, lead)  # an unlikely state is behind: ahead < 0 < lead
        y = jax.nn.sigmoid(m / t)
        return 2 * y * jax.nn.sigmoid(-m / t) / t * noise.logit_slope(a)

    return with_derivative(model, slope)
