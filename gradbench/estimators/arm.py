"""ARM, augment-REINFORCE-merge."""

from gradbench.estimators.registry import register
from gradbench.model import Loss, Model, credit, draw_state, lift, sampled, tail


@register(
    family="arm",
    exactness="unbiased",
    cost="L + 1",
    source="Yin & Zhou 2019, ARM: Augment-REINFORCE-merge gradient",
)
def arm(model: Model) -> Loss:
    """(f([u > 1-p]) - f([u < p])) (u - 1/2) per layer, in the logit of p.

    Both branches run the layers above with the same noise, so that the second branch is the sampled
    path itself for every layer. For other noise than logistic the logit's derivative is carried.
    """

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, a, u_k in zip(run.sites, run.a, u[0], strict=True):
            antithetic = draw_state(site, a, 1 - u_k)
            f = tail(model, params, example, run, site.index, antithetic, u[0])
            loss += credit((f - run.f) * (u_k - 0.5) * site.noise.logit_slope(a), a)
        return loss

    return lift(model, example_loss, randomness="uniforms")
