"""The Concrete relaxation, also known as Gumbel-Softmax of two classes."""

import jax.numpy as jnp

from gradbench.estimators.registry import positive, register
from gradbench.model import Loss, Model, lift, visit


@register(
    family="concrete",
    exactness="biased",
    cost="1 + G",
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

    return lift(model, example_loss, randomness="uniforms")
