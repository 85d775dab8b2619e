"""REBAR and RELAX: the score function with a relaxation as control variate, fixed or learned.

A unit is b = [z > 0] with z = a - F^{-1}(u). A control variate c(z) is taken from REINFORCE at z~,
a second value of z given b, and its mean is given back by reparameterisation:

    (f(b) - c(z~)) d log P(b) / da + d/da [c(z) - c(z~)]

is unbiased for every smooth c, and its variance is smaller the closer c(z) is to f(b). The
derivative goes through z~ too, whose distribution given b depends on a.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least, finite, positive
from gradbench.core.contract import Loss, Model, Params, Site
from gradbench.core.errors import GradbenchError
from gradbench.estimators.adaptive import Learned, network, reals, start_network
from gradbench.estimators.concrete import relaxation_factor
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register
from gradbench.estimators.reparameterised import (
    At,
    _learned,
    _learned_rebar,
    controlled,
    relaxed,
    soft,
)
from gradbench.estimators.score import with_terms

SOURCE = "Tucker et al. 2017, REBAR: Low-variance, unbiased gradient estimates"
RELAXED = Cost(2 * L + 1, 2 * L, L * (2 * L + 1))
TIED = Cost(L + 1, L, L * (L + 1))


def _cost(coupling: str, **_: Any) -> Cost:
    return TIED if coupling == "tied" else RELAXED


@register(
    family="rebar",
    exactness="unbiased",
    cost=_cost,
    differentiable=True,
    full_name="reinforced Concrete",
    display_name="REBAR",
    paper="https://arxiv.org/abs/1703.07370",
    as_published="coupling='tied', relaxation='rebar' and an input-dependent baseline",
    source=SOURCE,
    formula=(
        r"g = \Bigl(f(b) - c f\bigl(\sigma(\tilde{z} / t)\bigr)\Bigr)\,\frac{\partial \log "
        r"P(b)}{\partial a} + c\,\frac{\partial}{\partial a} \Bigl[f\bigl(\sigma(z / t)\bigr) - "
        r"f\bigl(\sigma(\tilde{z} / t)\bigr)\Bigr]"
    ),
)
def rebar(
    model: Model,
    *,
    temperature: float = 0.5,
    scale: float = 1.0,
    coupling: str = "independent",
    relaxation: str = "concrete",
    signals: str = "local",
) -> Loss:
    """(f(b) - c f(sig(z~/t))) d log P(b) / da + c d/da [f(sig(z/t)) - f(sig(z~/t))] per layer.

    c is the ``scale``, t the ``temperature``. The layers above a relaxed one are relaxed too: hard
    states there would be a bias. The objective has to be differentiable in the states, and finite
    between them. ``signals`` are those of ``reinforce``: f is the return of a layer.

    ``coupling="tied"``, as in the authors' code, draws z~ with the v that makes it z (v = u/p for b
    = 1), a constant to the derivative: the two relaxed runs are one then, which costs half.
    ``relaxation="rebar"`` is their relaxation, which adds a t^2 / (t + 1) to z and to z~, as in
    ``concrete``. They also subtract a learned baseline, see ``baselined``.

    Raises:
        GradbenchError: a temperature that is not positive, a scale that is no finite number, an
            unknown coupling or relaxation, or other ``signals`` than "local" and "whole".
    """
    t, c = positive("temperature", temperature), finite("scale", scale)
    relaxation_factor(relaxation, t)
    split = with_terms(model, signals)
    return controlled(
        model, lambda at, z: c * relaxed(split, t, at, z, relaxation), signals, coupling
    )


@register(
    family="rebar",
    exactness="unbiased",
    cost=_cost,
    differentiable=True,
    full_name="REBAR with learned temperature and scale",
    display_name="dynamic REBAR",
    paper="https://arxiv.org/abs/1703.07370",
    as_published="coupling='tied', relaxation='rebar' and an input-dependent baseline",
    source=SOURCE,
    formula=(
        r"g = g_{\text{REBAR}}(t, c) \quad \text{with } t, c \text{ that minimise } \mathbb{E}\,g^2"
    ),
)
def dynamic_rebar(
    model: Model,
    *,
    temperature: float = 0.5,
    scale: float = 1.0,
    rate: float = 0.01,
    coupling: str = "independent",
    relaxation: str = "concrete",
    signals: str = "local",
) -> Learned:
    """REBAR with learned t and c: every layer has its own, which minimise E g^2.

    t and c start from ``temperature`` and ``scale``; ``rate`` is the rate of Adam. ``coupling`` and
    ``relaxation`` are as in ``rebar``, ``signals`` as in ``reinforce``.

    Raises:
        GradbenchError: a temperature or rate that is not positive, a scale that is no finite
            number, an unknown coupling or relaxation, or other ``signals`` than "local" and
            "whole".
    """
    start, control = _learned_rebar(with_terms(model, signals), temperature, scale, relaxation)
    return _learned(model, lambda *_: start, control, rate, signals, coupling)


@register(
    family="rebar",
    exactness="unbiased",
    cost=lambda black_box, **_: Cost() if black_box else RELAXED,
    differentiable=lambda black_box, **others: not black_box,
    full_name="relaxed, learned control variate",
    display_name="RELAX",
    paper="https://arxiv.org/abs/1711.00123",
    source="Grathwohl et al. 2018, Backpropagation through the void",
    formula=(
        r"g = \bigl(f(b) - h(\tilde{z})\bigr)\,\frac{\partial \log P(b)}{\partial a} + "
        r"\frac{\partial}{\partial a} \bigl[h(z) - h(\tilde{z})\bigr], \quad h(z) = c "
        r"f\bigl(\sigma(z / t)\bigr) + r(z)"
    ),
)
def relax(
    model: Model,
    *,
    hidden: int = 10,
    black_box: bool = False,
    temperature: float = 0.5,
    scale: float = 1.0,
    rate: float = 0.01,
    signals: str = "local",
) -> Learned:
    """REBAR with c f(sig(z/t)) + r(z) in the place of c f(sig(z/t)); t, c and r minimise E g^2.

    r is a network of ``hidden`` tanh units, one network per layer, of sig(z/t), the states below
    and the example. It starts at zero, so that the initial estimator is REBAR. ``black_box=True``
    is r alone, for an objective that is costly or not differentiable: it starts as REINFORCE, and
    evaluates the objective once. t and c start from ``temperature`` and ``scale``; ``rate`` is the
    rate of Adam. ``signals`` are those of ``reinforce``.

    Raises:
        GradbenchError: ``hidden`` below 1, a ``black_box`` that is no bool, a temperature or rate
            that is not positive, or other ``signals`` than "local" and "whole".
    """
    hidden = at_least(1, "hidden", hidden)
    if not isinstance(black_box, bool):
        raise GradbenchError(f"black_box is {black_box!r}; give True or False")
    rebar_start, rebar_control = _learned_rebar(with_terms(model, signals), temperature, scale)

    def start(site: Site, seen: int, params: Params) -> dict[str, Any]:
        net = start_network(jax.random.key(site.index), seen, hidden, 1, params)
        return rebar_start | {"net": net | {"second": jnp.zeros_like(net["second"])}}

    def control(phi: Any, at: At, z: Array) -> Array:
        y = soft(z, jnp.exp(phi[at.k]["log_temperature"]))
        seen = jnp.concatenate([reals(at.example), *map(jnp.ravel, (*at.run.x[: at.k], y))])
        r = network(phi[at.k]["net"], seen)[0]
        return r if black_box else r + rebar_control(phi, at, z)

    return _learned(model, start, control, rate, signals)
