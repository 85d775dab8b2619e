"""Rules for the latent weights of ``BinaryWeights`` models, for use with an optimiser.

The identity rule is ``straight_through(proxy="identity")``. The optimisers are in
``gradbench.optimisers``.
"""

import jax
import jax.numpy as jnp

from gradbench.core.arguments import positive
from gradbench.core.autodiff import surrogate_gradient
from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.core.run import run_model
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.registry import any_model, register_backprop
from gradbench.models.structure import has_latent_weights


def _check_weights(name: str, model: Model) -> None:
    if model is not any_model and not has_latent_weights(model):
        raise GradbenchError(
            f"{name}() is a rule for binary weights and got a model of type "
            f"{type(model).__name__}; put its network into BinaryWeights"
        )


@register_backprop(
    family="weights",
    exactness="biased",
    value_unbiased=False,
    full_name="Bayesian learning rule for binary networks",
    display_name="BayesBiNN",
    paper="https://arxiv.org/abs/2002.10778",
    as_published="mean of the step before",
    source="Meng, Bachmann & Khan 2020, Training binary neural networks using the Bayesian "
    "learning rule",
    formula=(
        r"w = \tanh \frac{\lambda - \frac{1}{2} \operatorname{logit} u}{t}, \quad \frac{\partial "
        r"E}{\partial \eta} := \frac{\partial E}{\partial w} \cdot \frac{1 - w^2 + \epsilon}{t\,(1 "
        r"- \mu^2 + \epsilon)}"
    ),
    needs="binary weights",
)
def bayesbinn(model: Model, *, temperature: float = 1.0, epsilon: float = 1e-10) -> Loss:
    """w = tanh((lam - logit(u)/2) / t) with dE/deta := dE/dw (1 - w^2 + e) / (t (1 - mu^2 + e)).

    lam = logit(p) / 2 is the natural parameter of w with P(w = +1) = p = F(eta), for logistic noise
    eta / 2, and mu = tanh(lam) is the mean. The rule is the derivative in mu of the Concrete
    relaxation, which is the natural gradient in lam: the derivative of ``concrete`` divided by
    2F'(eta), but for e. Like the identity rule, it is the dE/dw that the optimisers of latent
    weights take. The step with decay of the paper, lam' = (1 - r) lam - r N g for N training
    examples, is

        optax.chain(optax.add_decayed_weights(1 / (2 * N)), optax.sgd(2 * N * r)).

    t is the ``temperature``, e is ``epsilon``. At the temperature 1e-10 of the paper's
    classification, w is -1 or +1 and the factor is 1 / (1 - mu^2 + e) = cosh(lam)^2 for every draw:
    this is the identity rule with its own step for each weight. (The exception is an event of
    probability 1e-10, which has all of the natural gradient.) The authors' code takes mu from the
    step before lam; here both are of the same step.

    Raises:
        GradbenchError: a model without binary weights, a temperature or epsilon that is not
            positive.
    """
    _check_weights("bayesbinn", model)
    t, e = positive("temperature", temperature), positive("epsilon", epsilon)

    def example_loss(params, u, example):
        def unit(site, eta):
            noise, v = site.noise, u[0][site.index]
            logit = noise.log_cdf(eta) - noise.log_cdf(-eta)
            h = (logit - jnp.log(v) + jnp.log1p(-v)) / t

            def slope(w, eta, h):
                # 1 - w^2 and 1 - mu^2 with their digits near 0: e is smaller than those of 1
                above = 4 * jax.nn.sigmoid(h) * jax.nn.sigmoid(-h)
                below = 4 * noise.cdf(eta) * noise.cdf(-eta)
                return (above + e) / (t * (below + e))

            return surrogate_gradient(slope, jnp.tanh(h / 2), eta, h)

        return run_model(model, params, example, unit).f

    return surrogate_loss(model, example_loss, randomness="uniforms", smoothness="smooth")


@register_backprop(
    family="weights",
    exactness="biased",
    value_unbiased=False,
    full_name="magnitude-aware sign",
    display_name="magnitude-aware sign",
    paper="https://arxiv.org/abs/1808.00278",
    as_published="scaled=True in the text and in larq",
    source="Liu et al. 2018, Bi-Real Net",
    formula=(
        r"w := \overline{|\eta|}\,\operatorname{sign}(\eta), \quad \frac{\partial w}{\partial "
        r"\eta} := [\,|\eta| \leq 1\,]"
    ),
    needs="binary weights",
)
def magnitude_aware(model: Model, *, scaled: bool = False) -> Loss:
    """w = m sign(eta) without noise, m = mean|eta| of a channel; dw/deta = 1 for |eta| <= 1, or 0.

    This is what the code of Bi-Real Net does. In the text of the paper the derivative has the
    factor m too, which is ``scaled=True`` and what the library larq does. m itself is not
    differentiated; infinite eta, which mask a weight, do not count in it. The value is the loss of
    the scaled weights, no estimate of the loss of random ones.

    Raises:
        GradbenchError: a model without binary weights, or a ``scaled`` that is no bool.
    """
    _check_weights("magnitude_aware", model)
    if not isinstance(scaled, bool):
        raise GradbenchError(f"scaled is {scaled!r}; give True or False")

    def example_loss(params, u, example):
        def unit(site, eta):
            finite, axes = jnp.isfinite(eta), tuple(range(1, eta.ndim))
            m = jnp.mean(jnp.abs(eta), axis=axes, keepdims=True, where=finite)
            m = jnp.where(jnp.any(finite, axis=axes, keepdims=True), m, 1)
            inside = jnp.abs(eta) <= 1
            slope = jnp.where(inside, m if scaled else 1, 0).astype(eta.dtype)
            w = m * jnp.where(eta > 0, 1, -1)
            return surrogate_gradient(lambda w, eta, slope: slope, w, eta, slope)

        return run_model(model, params, example, unit).f

    return surrogate_loss(model, example_loss, streams=0, randomness="none")
