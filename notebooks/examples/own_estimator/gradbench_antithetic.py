"""An estimator in a package of its own, known by name to gradbench wherever it is installed.

pip install ./notebooks/examples/own_estimator
gradbench check antithetic    # what it is really exact for
gradbench show estimator antithetic
"""

from gradbench.core.run import sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators import register
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.score import scores


@register(
    family="reinforce",
    exactness="unbiased",
    cost=Cost(2, layers=2 * L),
    source="antithetic variates (Hammersley & Morton 1956)",
)
def antithetic(model, *, baseline: float = 0.0):
    """(f(u) s(u) + f(1 - u) s(1 - u)) / 2: REINFORCE of a path and of its mirror image."""

    def example_loss(params, u, example):
        runs = [sampled(model, params, v, example) for v in (u[0], [1 - w for w in u[0]])]
        return sum(run.f + scores(run, [run.f - baseline] * len(run.x)) for run in runs) / 2

    # A draw depends on the uniforms, not on the states alone: without this the check fails.
    return surrogate_loss(model, example_loss, randomness="uniforms", smoothness="constant")
