"""An estimator in a package of its own, known by name to gradbench wherever it is installed.

pip install ./notebooks/examples/own_estimator
gradbench check antithetic    # what it is really exact for
gradbench show estimator antithetic
"""

from gradbench.core import gradient_term, sampled, surrogate_loss
from gradbench.estimators import Cost, L, register


@register(
    family="reinforce",
    exactness="unbiased",
    cost=Cost(2, layers=2 * L),
    source="antithetic variates (Hammersley & Morton 1956)",
)
def antithetic(model, *, baseline: float = 0.0):
    """(f(u) s(u) + f(1 - u) s(1 - u)) / 2: REINFORCE of a path and of its mirror image."""

    def example_loss(params, u, example):
        loss = 0.0
        for stream in (u[0], [1 - v for v in u[0]]):
            run = sampled(model, params, stream, example)
            loss += run.f
            signal = run.f - baseline
            for site, x, a in zip(run.sites, run.x, run.a, strict=True):
                loss += gradient_term(signal * site.noise.score(x, a), a)
        return loss / 2

    # A draw depends on the uniforms, not on the states alone: without this the check fails.
    return surrogate_loss(model, example_loss, randomness="uniforms", smoothness="constant")
