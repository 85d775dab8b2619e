"""The exact expected loss under the estimator contract."""

from gradbench.estimators.registry import register
from gradbench.exact import expected_loss
from gradbench.model import Loss, Model


@register(
    family="exact",
    exactness="exact",
    cost="2^D",
    source="enumeration: layer recursion on a network, else all paths",
)
def exact(model: Model) -> Loss:
    """The expected loss itself, enumerated: its gradient is the ground truth, whatever the key."""

    def loss(params, key, batch):
        return expected_loss(model, params, batch)

    return loss
