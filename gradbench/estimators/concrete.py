"""The Concrete relaxation, also known as Gumbel-Softmax of two classes, and its hard form."""

import jax
import jax.numpy as jnp

from gradbench.estimators.registry import Cost, positive, register
from gradbench.model import Loss, Model, draw_state, lift, visit, with_slope


@register(
    family="concrete",
    exactness="biased",
    cost=Cost(gradient="1"),
    differentiable=True,
    value_unbiased=False,
    source="Maddison et al. 2017; Jang et al. 2017",
)
def concrete(model: Model, *, temperature: float = 1.0) -> Loss:
    """Soft states x = tanh((a - z) / 2t) in the place of sign(a - z), differentiated."""
    temperature = positive("temperature", temperature)

    def example_loss(params, u, example):
        def relaxed(site, a):
            z = site.noise.quantile(u[0][site.index])
            return jnp.tanh((a - z) / (2 * temperature))

        return visit(model, params, example, relaxed).f

    return lift(model, example_loss, randomness="uniforms", pieces="smooth")


@register(
    family="concrete",
    exactness="biased",
    cost=Cost(gradient="1"),
    differentiable=True,
    source="Jang et al. 2017, Categorical reparameterization with Gumbel-Softmax",
)
def st_gumbel_softmax(model: Model, *, temperature: float = 1.0) -> Loss:
    """Hard states x = sign(a - z) with the derivative of the soft ones, tanh((a - z) / 2t).

    As the temperature goes to 0, its mean tends to that of ZGR, not to the truth.
    """
    temperature = positive("temperature", temperature)

    def example_loss(params, u, example):
        def unit(site, a):
            def slope(x, a):
                y = jax.nn.sigmoid((a - site.noise.quantile(u[0][site.index])) / temperature)
                return 2 * y * (1 - y) / temperature

            return with_slope(slope, draw_state(site, a, u[0][site.index]), a)

        return visit(model, params, example, unit).f

    return lift(model, example_loss, randomness="uniforms", pieces="smooth")
