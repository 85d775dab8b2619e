"""Mean field: expectations in the place of states."""

from gradbench.estimators.registry import Cost, register
from gradbench.model import Loss, Model, lift, visit


@register(
    family="mean_field",
    exactness="multilinear",
    cost=Cost(gradient="1"),
    differentiable=True,
    value_unbiased=False,
    source="Shekhovtsov et al. 2018 (AP1); the 'tanh' of Shekhovtsov, Yanush & Flach 2020",
)
def mean_field(model: Model) -> Loss:
    """Every state is replaced by its mean 2F(a) - 1, for logistic noise tanh(a/2)."""

    def example_loss(params, u, example):
        return visit(model, params, example, lambda site, a: 2 * site.noise.cdf(a) - 1).f

    return lift(model, example_loss, streams=0, randomness="none")
