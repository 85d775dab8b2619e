"""Straight-through estimators: sampled states with a derivative that the sign does not have."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import positive
from gradbench.core.autodiff import surrogate_gradient
from gradbench.core.contract import Loss, Model
from gradbench.core.noise import Noise
from gradbench.core.run import draw_state
from gradbench.core.surrogate import unitwise
from gradbench.estimators.proxies import Slope, find_proxy
from gradbench.estimators.registry import register_backprop


def with_derivative(
    model: Model, slope: Callable[..., Array], streams: int = 1, **options: Any
) -> Loss:
    """Return the estimator of sampled states x with the derivative ``slope(noise, x, a)``.

    ``options`` are those of ``surrogate_loss``. With ``randomness="uniforms"`` among them, the
    derivative is ``slope(noise, x, a, *u)``, u the uniforms of the site in each stream.
    """
    driven = options.get("randomness") == "uniforms"

    def rule(site, a, *u):
        x, own = draw_state(site, a, u[0]), u if driven else ()
        return surrogate_gradient(lambda x, a, *own: slope(site.noise, x, a, *own), x, a, *own)

    return unitwise(model, rule, streams, **options)


def _derivative(proxy: str | Slope, slope: float) -> Callable[[Noise, Array, Array], Array]:
    """Return the derivative of the proxy with slope m."""
    found, m = find_proxy(proxy), positive("slope", slope)
    return lambda noise, x, a: found(noise, a, m)


@register_backprop(
    family="straight_through",
    exactness=lambda proxy, slope: "multilinear" if proxy == "density" and slope == 1 else "biased",
    depth_claims=lambda proxy, slope: (
        ("linear uniform",) if proxy == "density" and slope == 1 else ()
    ),
    full_name="straight-through",
    display_name="ST",
    paper="https://arxiv.org/abs/1308.3432",
    as_published="proxy='identity' in Bengio et al.",
    source="Bengio et al. 2013; Shekhovtsov & Yanush 2021",
    formula=r"\frac{\partial x}{\partial a} := 2F'(a)",
    aliases=("st", "ste"),
)
def straight_through(model: Model, *, proxy: str | Slope = "density", slope: float = 1.0) -> Loss:
    """dx/da = 2F'(a) at sampled states, twice the density of the injected noise.

    ``proxy="identity"`` has the derivative 1 instead (Hinton 2012). It is exact for nothing; for
    binary weights it is the gradient that ``gradbench.optimisers`` turn into mirror descent. The
    other proxies are empirical and do not depend on the noise: "sigmoid", "tanh", "hardtanh" (the
    clipped identity, 1 for abs(a) <= 1, Hubara 2016), "approxsign" (Liu 2018), "erf", "ede"
    (IR-Net), "reste", and, from spiking networks, "exponential", "arctan" and "fast_sigmoid"
    (SuperSpike). Most are 2F' of one noise, and exact for multilinear objectives only with that
    noise. "swish" is no density: it is negative where abs(a) > 2.4 (Darabi 2018). A function of a,
    or the place of one as "module:function", is a proxy too; ``gradbench list proxies`` has all
    names.

    A ``slope`` m makes the derivative m proxy(m a) and leaves the states; "ede" and "reste" have it
    in a form of their own. Slope annealing (Chung 2017, with "hardtanh" on units without noise)
    raises it along the training. With m the ratio of the forward to the backward temperature it is
    decoupled straight-through (Shah 2024) in a that is divided by the forward temperature; see
    ``decoupled_st``.

    Raises:
        GradbenchError: an unknown proxy, a function that is none, or a slope that is not positive.
    """
    return with_derivative(model, _derivative(proxy, slope))


@register_backprop(
    family="straight_through",
    exactness="biased",
    value_unbiased=False,
    full_name="straight-through of the deterministic sign",
    display_name="deterministic ST",
    paper="https://arxiv.org/abs/1602.02830",
    source="Courbariaux et al. 2016, Binarized neural networks",
    formula=(
        r"x := \operatorname{sign}(a), \quad \frac{\partial x}{\partial a} := m\,h(m a) \quad "
        r"\text{with the proxy } h \text{ and the slope } m"
    ),
    aliases=("hubara",),
    presets={
        "binaryconnect": {"proxy": "identity"},
        "swish_sign": {"proxy": "swish", "slope": 5.0},
    },
)
def deterministic_straight_through(
    model: Model, *, proxy: str | Slope = "hardtanh", slope: float = 1.0
) -> Loss:
    """States x = sign(a) without noise, with the derivative of a proxy as ``straight_through``.

    ``proxy`` and ``slope`` are as there. It trains another network than the model: the value is
    that of a single path. With the proxy "density" the gradient in a is exact for one layer under a
    linear objective; the gradient in the objective's own parameters is not.

    The swish sign of BNN+ (Darabi et al. 2018) has the proxy "swish" and the slope beta, which is 5
    or 10, or learned.

    Raises:
        GradbenchError: an unknown proxy, or a slope that is not positive.
    """
    derivative = _derivative(proxy, slope)

    def rule(site, a, *u):
        x = jnp.where(a > 0, 1, -1).astype(a.dtype)
        return surrogate_gradient(lambda x, a: derivative(site.noise, x, a), x, a)

    return unitwise(model, rule, streams=0, randomness="none")
