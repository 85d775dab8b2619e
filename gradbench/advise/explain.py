"""Explain an estimator on a model: its layers, its cost, and the route that it takes."""

from gradbench.core.callables import check_model
from gradbench.core.contract import Batch, Model, Params, is_chain
from gradbench.core.inputs import checked
from gradbench.core.misfits import one_layer
from gradbench.core.text import aligned
from gradbench.estimators.exactness import EXACTNESS
from gradbench.estimators.registry import evaluations, get_estimator


def explain(estimator: str, model: Model, params: Params, batch: Batch) -> str:
    """Return what an estimator does on a model and what a draw costs, without running it.

    Args:
        estimator: a spec such as "psa" or "concrete(temperature=0.1)".
        model: a function ``model(params, example, binary) -> f``, or a network.
        params: its parameters, any pytree.
        batch: examples along the first axis of its leaves.

    Returns:
        Lines of text: what the estimator is exact for here; the stochastic layers in the order of
        the calls of ``binary``; the evaluations of the objective per draw and example, where its
        gradient in the states counts as one more; and, for estimators whose route depends on the
        model, the route. PSA is fast where layers offer ``flip_pullback``; where
        they do not, and in SA, units are flipped one by one.

    Raises:
        GradbenchError: an unknown estimator, one that does not take the model, or a model that
            breaks the contract.
    """
    entry, arguments = get_estimator(estimator)
    check_model(model)
    loss = entry.make(model, **arguments)
    sites = checked(model, params, batch).sites
    if entry.layers == "one":
        one_layer(estimator, sites)
    units = [site.size for site in sites]
    claim = entry.claim(**arguments)
    exact = "unbiased" if claim == "one layer" and len(sites) == 1 else EXACTNESS[claim]
    rows = [
        ("estimator", estimator),
        ("exact for", exact),
        *(
            (f"layer {site.index + 1}", f"{site.size} units {list(site.shape)}, {site.noise.name}")
            for site in sites
        ),
        ("evaluations", f"{evaluations(estimator, units, is_chain(model))} per draw and example"),
    ]
    route = getattr(loss, "route", None)
    lines = route(sites, params) if route else []
    rows += [("" if n else "route", line) for n, line in enumerate(lines)]
    return "\n".join(aligned(rows))
