"""Straight-through estimators."""

from gradbench.estimators.registry import register
from gradbench.model import Loss, Model, draw_state, lift, visit, with_slope


@register(
    family="straight_through",
    exactness="multilinear",
    cost="1 + G",
    differentiable=True,
    source="Bengio et al. 2013; Shekhovtsov & Yanush 2021",
)
def straight_through(model: Model) -> Loss:
    """Sampled states with the derivative 2F'(a), twice the density of the injected noise."""

    def example_loss(params, u, example):
        def unit(site, a):
            x = draw_state(site, a, u[0][site.index])
            return with_slope(lambda x, a: 2 * site.noise.pdf(a), x, a)

        return visit(model, params, example, unit).f

    return lift(model, example_loss)
