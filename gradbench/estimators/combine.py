"""Estimators made of others: the mean of several draws, an average of two, one for each layer.

Their parts are given as specs.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from gradbench.core.arguments import at_least, fraction
from gradbench.core.contract import Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.pytrees import entries_of
from gradbench.core.specs import parse_specs
from gradbench.estimators.combination import _combine, _join, _OfParams, _repeat
from gradbench.estimators.cost import Cost, Formula
from gradbench.estimators.registry import (
    derivative_of,
    get_estimator,
    less_exact,
    price_of,
    register,
    value_of,
)
from gradbench.estimators.sampling import is_lattice


def _price_of_draws(estimator: str, draws: Any, sampling: str) -> Cost:
    """Return the cost of the draws; where all draws are equal, one is made."""
    deterministic = get_estimator(estimator)[0].randomness == "none"
    return price_of(estimator).times(1 if deterministic else Formula("draws"))


@register(
    family="combination",
    exactness=lambda estimator, draws, sampling: less_exact(estimator),
    cost=_price_of_draws,
    differentiable=lambda estimator, draws, sampling: derivative_of(estimator),
    value_unbiased=lambda estimator, draws, sampling: value_of(estimator),
    full_name="mean of several draws",
    display_name="mean of {draws} \N{MULTIPLICATION SIGN} {estimator}",
    source="the sample mean",
    formula=r"g = \frac{1}{K} \sum_{k=1}^{K} g_k",
)
def mean_of(
    model: Model,
    *,
    estimator: str = "reinforce",
    draws: int = 2,
    sampling: str = "independent",
) -> Loss:
    """(g_1 + ... + g_K) / K: the mean of K independent ``draws`` of another estimator.

    ``estimator`` is its spec. The mean is that of a single draw, the variance a K-th of it; the
    first draw is the single draw of the same key. If all draws are equal, only one is made.

    With ``sampling="lattice"`` the draws depend on each other: their uniforms are the points of a
    lattice with a random shift. The mean is the same. The variance is mostly smaller, most of all
    where the objective is an even function of the states or there are many draws; with few draws of
    a nearly linear objective it may be larger.

    Raises:
        GradbenchError: ``draws`` below 1, other ``sampling``, a spec that no estimator can be made
            from, or a lattice for an estimator that is not driven by uniforms.
    """
    count = at_least(1, "draws", draws)
    is_lattice(sampling)  # refuses an unknown name
    return _combine(model, [estimator], lambda parts: _repeat(model, parts[0], count, sampling))


@register(
    family="combination",
    exactness=lambda first, second, weight: less_exact(first, second),
    cost=lambda first, second, weight: price_of(first) + price_of(second),
    differentiable=lambda first, second, weight: derivative_of(first, second),
    value_unbiased=lambda first, second, weight: value_of(first, second),
    full_name="weighted average of two estimators",
    display_name="mean of {first} and {second}",
    paper="https://proceedings.mlr.press/v202/shekhovtsov23a.html",
    source="Shekhovtsov 2023, of straight-through and ZGR in one layer",
    formula=r"g = (1 - w)\,g_1 + w\,g_2",
)
def average(
    model: Model, *, first: str = "straight_through", second: str = "zgr", weight: float = 0.5
) -> Loss:
    """(1 - w) g_1 + w g_2: two estimators on the same noise, w the ``weight`` of the second.

    ``first`` and ``second`` are their specs. The average is as exact as the less exact of the two.
    In one layer the default is ``st_zgr``; in several layers ``st_zgr`` averages the derivatives of
    every layer, and this the gradients.

    Raises:
        GradbenchError: a weight outside [0, 1], or a spec that no estimator can be made from.
    """
    w = fraction("weight", weight)

    def rule(losses: Sequence[_OfParams], params: Params) -> Array:
        one, other = (loss(params) for loss in losses)
        return (1 - w) * one + w * other

    return _combine(model, [first, second], lambda parts: _join(model, parts, rule))


@register(
    family="combination",
    exactness=lambda layers: less_exact(*parse_specs(layers)),
    differentiable=lambda layers: derivative_of(*parse_specs(layers)),
    value_unbiased=lambda layers: value_of(*parse_specs(layers)),
    cost=lambda layers: reduce(add, map(price_of, dict.fromkeys(parse_specs(layers)))),
    full_name="an estimator for each layer",
    display_name="{layers}",
    paper="https://arxiv.org/abs/2006.06880",
    source="mixed estimators as in Shekhovtsov & Yanush 2021",
    formula=r"g = (g_1, g_2, \ldots), \quad g_k \text{ of the } k\text{-th estimator}",
)
def per_layer(model: Model, *, layers: str = "reinforce, psa") -> Loss:
    """g = (g_1, g_2, ...), g_k of the k-th of several estimators, all on the same noise.

    ``layers`` has their specs, separated by commas, for the entries of the parameters from the
    first layer on; the last one serves all further entries and the objective. Parameters that are
    no tuple are taken in the order of JAX, in which names of dictionaries and of Flax are sorted.

    It is as exact as the least exact of them. Its value is the mean of their values. Its gradient
    is not the gradient of one function, so that it is not differentiated once more either.

    Raises:
        GradbenchError: malformed specs; when called, more estimators than entries of parameters.
    """
    specs = parse_specs(layers)
    distinct = list(dict.fromkeys(specs))

    def rule(losses: Sequence[_OfParams], params: Params) -> Array:
        leaves, form = jax.tree.flatten(params)
        entries = entries_of(params)
        count = len(params) if type(params) is tuple else max(entries, default=-1) + 1
        if len(specs) > count:
            raise GradbenchError(
                f"layers has {len(specs)} estimators for {count} entries of parameters; give "
                "at most one for each layer and one for the objective"
            )
        # Each loss has a gradient in its own entries only.
        padded = specs + specs[-1:] * (count - len(specs))
        owned = [
            jax.tree.unflatten(
                form,
                [
                    theta if padded[entry] == spec else stop_gradient(theta)
                    for theta, entry in zip(leaves, entries, strict=True)
                ],
            )
            for spec in distinct
        ]
        values = jnp.stack([loss(theta) for loss, theta in zip(losses, owned, strict=True)])
        return stop_gradient(jnp.mean(values)) + jnp.sum(values - stop_gradient(values))

    return _combine(model, distinct, lambda parts: _join(model, parts, rule))
