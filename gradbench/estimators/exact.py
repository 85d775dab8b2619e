"""The exact expected loss as an estimator, whose draws are all the truth."""

from dataclasses import dataclass

from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Loss, Model, Params
from gradbench.core.inputs import check_order
from gradbench.core.surrogate import with_aux
from gradbench.estimators.cost import Cost, D, L
from gradbench.estimators.registry import register
from gradbench.exact.enumeration import expected_loss


@dataclass(frozen=True)
class Expected:
    """The expected loss of a model, under the contract of an estimator."""

    model: Model
    randomness = "none"
    second_order = True

    def __call__(self, params: Params, key: Array, batch: Batch) -> Float[Array, ""]:
        """Return the expected loss, whatever the key; aux is of the path that the key samples."""
        check_order(key, batch)
        return with_aux(expected_loss(self.model, params, batch), self.model, params, key, batch)


@register(
    family="exact",
    exactness="exact",
    cost=Cost(2**D, layers=L * 2**D),
    full_name="exact expectation",
    display_name="exact",
    source="enumeration: layer recursion on a network, else all paths",
    formula=r"\sum_x P(x)\,f(x)",
)
def exact(model: Model) -> Loss:
    """sum_x P(x) f(x) over all states: the loss itself, whose gradient is the truth for any key.

    Raises:
        GradbenchError: when called, an enumeration that is too large, see
            ``gradbench.expected_loss``.
    """
    return Expected(model)
