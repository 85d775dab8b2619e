"""The coordinate path integral: the difference of two states as an integral of the derivative."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model
from gradbench.core.misfits import one_layer
from gradbench.core.run import run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, D
from gradbench.estimators.registry import register
from gradbench.models.flips import one_by_one


@register(
    family="path_integral",
    exactness="unbiased",
    cost=Cost(D + 1, D, layers=D + 1),
    differentiable=True,
    full_name="coordinate path integral",
    display_name="path integral",
    source="the fundamental theorem of calculus, unit by unit",
    formula=r"g_i = F'(a_i)\,\frac{\partial f}{\partial b_i}\Big|_{b_i = u}, \quad u \sim U(0, 1)",
    layers="one",
)
def path_integral(model: Model) -> Loss:
    """F'(a_i) df/db_i at a uniform random b_i in (0, 1), the other units as sampled.

    f(b_i = 1) - f(b_i = 0) is the integral of the derivative between the two, so that the estimator
    is unbiased for every objective that is differentiable between the states. It takes a gradient
    for each unit: one uniform point for all units together is exact for linear objectives only.

    Raises:
        GradbenchError: when called, a model of several stochastic layers.
    """

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        site, x = one_layer("path_integral", run.sites), run.x[0]
        fixed, number = stop_gradient(params), jnp.arange(x.size).reshape(x.shape)

        def slope(i):
            between = jnp.where(number == i, 2 * u[1][0] - 1, x)
            g = jax.grad(lambda x: run_at_states(model, fixed, example, (x,)).f)(between)
            return g.ravel()[i]

        g = 2 * one_by_one(slope, site.size, site.size).reshape(site.shape)
        return run.f + gradient_term(site.noise.pdf(run.a[0]) * g, run.a[0])

    return surrogate_loss(model, example_loss, 2, randomness="uniforms", smoothness="smooth")
