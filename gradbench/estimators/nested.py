"""One estimator for binary weights, another for the activations."""

from functools import partial
from typing import Any

from gradbench.core.contract import Loss, Model
from gradbench.core.errors import GradbenchError
from gradbench.core.specs import NESTED
from gradbench.estimators.registry import (
    any_model,
    check_spec,
    get_estimator,
    less_exact,
    make_estimator,
    price_of,
    register,
    value_of,
)
from gradbench.models.structure import has_latent_weights


@register(
    family="nested",
    exactness=lambda **parts: (
        "unbiased" if less_exact(*parts.values()) in ("exact", "unbiased") else "biased"
    ),
    cost=lambda weights, activations: price_of(weights),
    value_unbiased=lambda weights, activations: value_of(weights, activations),
    full_name="estimators of weights and of activations, nested",
    display_name="{weights} \N{MULTIPLICATION SIGN} {activations}",
    paper="https://arxiv.org/abs/2006.06880",
    source="Shekhovtsov & Yanush 2021",
    formula=r"g = g_{\text{weights}}\bigl[\,w \mapsto \hat{f}_{\text{activations}}(w)\,\bigr]",
    needs="binary weights and stochastic activations",
)
def nested(
    model: Model, *, weights: Any = NESTED["weights"], activations: Any = NESTED["activations"]
) -> Loss:
    """Estimate by ``weights`` in binary weights w, with a draw of ``activations`` as f(w).

    Both are specs; it is unbiased if both are. Any other estimator leaves the activations to the
    estimator that ``BinaryWeights`` was given.

    Raises:
        GradbenchError: a spec that no estimator can be made from, one that is itself nested or
            "exact" for the weights, or a model without binary weights under stochastic activations.
    """
    for part, spec in (("weights", weights), ("activations", activations)):
        check_spec(spec)
        if get_estimator(spec)[0].needs:
            raise GradbenchError(
                f"nested() got {part}={spec!r}; give an estimator that is not nested"
            )
    if get_estimator(weights)[0].name == "exact":
        raise GradbenchError(
            "nested() got weights='exact', which sums over both; take 'exact' alone"
        )
    if model is any_model:
        return make_estimator(weights, model)
    if not has_latent_weights(model) or model.inner_model is None:
        raise GradbenchError(
            "nested() got a model without binary weights under stochastic activations; "
            f"take {weights!r} or {activations!r} alone"
        )
    inner = partial(make_estimator, activations)
    return make_estimator(weights, model.with_activations(inner))
