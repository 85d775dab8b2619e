"""REINFORCE, the score-function estimator."""

from gradbench.estimators.registry import register
from gradbench.model import Loss, Model, credit, lift, sampled


@register(
    family="reinforce",
    exactness="unbiased",
    source="Williams 1992, Simple statistical gradient-following algorithms",
)
def reinforce(model: Model) -> Loss:
    """f d log P(x) / da: the same return f for all layers, no baseline."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, x, a in zip(run.sites, run.x, run.a, strict=True):
            loss += credit(run.f * site.noise.score(x, a), a)
        return loss

    return lift(model, example_loss)
