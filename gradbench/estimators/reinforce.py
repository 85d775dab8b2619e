"""REINFORCE and its simple baselines: a constant, past draws, the other examples of the batch."""

from gradbench.core.arguments import finite
from gradbench.core.contract import Loss, Model, Scored
from gradbench.core.run import sampled
from gradbench.core.surrogate import SurrogateLoss
from gradbench.estimators.adaptive import Learned
from gradbench.estimators.baselines import batch, learned, moving, subtracted
from gradbench.estimators.registry import register
from gradbench.estimators.score import returns, score_loss, with_terms


def score_function(model: Model, signals: str, baseline: float = 0.0) -> SurrogateLoss:
    """Return (r_k - baseline) d log P(x_k) / da_k in each layer k, r_k its return."""
    split = with_terms(model, signals)

    def scored(params, u, example):
        run = sampled(split, params, u[0], example)
        own = returns(run)
        return Scored(own[0], run, [r - baseline for r in own])

    return score_loss(model, scored)


@register(
    family="reinforce",
    exactness="unbiased",
    full_name="score function estimator",
    display_name="REINFORCE",
    paper="https://doi.org/10.1007/BF00992696",
    source="Williams 1992, Simple statistical gradient-following algorithms",
    formula=r"g = (f - c)\,\frac{\partial \log P(x)}{\partial a}",
    aliases=("score_function",),
)
def reinforce(model: Model, *, baseline: float = 0.0, signals: str = "local") -> Loss:
    """(f - baseline) d log P(x) / da: the return of a layer, less a constant.

    The return is f. Where f is a sum of terms, as an evidence bound is, ``signals="local"`` leaves
    those out that the layer cannot change, and ``signals="whole"`` does not.

    Raises:
        GradbenchError: a baseline that is no finite number, or other signals than these.
    """
    return score_function(model, signals, finite("baseline", baseline))


@register(
    family="reinforce",
    exactness="unbiased",
    full_name="REINFORCE, leave-one-out over the batch",
    display_name="REINFORCE, batch LOO",
    paper="https://doi.org/10.1007/BF00992696",
    source="Williams 1992; Kool et al. 2019 for samples in the place of examples",
    formula=(
        r"g_n = \Bigl(f_n - \frac{1}{N - 1} \sum_{j \neq n} f_j\Bigr)\,\frac{\partial \log "
        r"P(x_n)}{\partial a} \quad \text{for the example } n \text{ of } N"
    ),
)
def reinforce_leave_one_out(model: Model, *, signals: str = "local") -> Loss:
    """(f - c) d log P(x) / da, c the mean of f over the other examples of the batch.

    It helps as far as the examples have similar returns. The draws of the examples depend on each
    other. c is 0 for a batch of one example, and if one example is the whole batch, as with binary
    weights. ``signals`` are those of ``reinforce``: f and c are the returns of a layer.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    return subtracted(score_function(model, signals), batch())


@register(
    family="reinforce",
    exactness="unbiased",
    full_name="REINFORCE with a moving average as baseline",
    display_name="REINFORCE, moving average",
    paper="https://doi.org/10.1007/BF00992696",
    source="Williams 1992 (reinforcement comparison)",
    formula=r"g = (f - c)\,\frac{\partial \log P(x)}{\partial a}, \quad c = \text{mean of past } f",
)
def moving_average(model: Model, *, decay: float = 0.99, signals: str = "local") -> Learned:
    """(f - c) d log P(x) / da, c an exponential moving average of f over past draws.

    c never contains the current draw. It averages the values of batches, with the weight ``decay``
    a step for past ones, and is corrected for its start from nothing. Before the first step of
    ``adapt`` it is 0. ``signals`` are those of ``reinforce``: f is the return of a layer, and each
    layer has its own c.

    Raises:
        GradbenchError: a decay outside [0, 1], or other ``signals`` than "local" and "whole".
    """
    return learned(score_function(model, signals), moving(decay))
