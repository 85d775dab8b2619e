"""PSA, the path sample-analytic estimator."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array

from gradbench.core.arguments import not_negative
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params, Site, Trace, is_chain
from gradbench.core.run import flip, run_at_states, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L, n
from gradbench.estimators.registry import register
from gradbench.models.flips import generic_route, one_by_one


@register(
    family="psa",
    exactness="one layer",
    cost=Cost(n + 1, layers=2 * L - 1),
    depth_claims=("value", "last layer", "in-trees", "width-1 tails", "linear uniform"),
    full_name="path sample-analytic",
    display_name="PSA",
    paper="https://arxiv.org/abs/2006.03143",
    source="Shekhovtsov, Yanush & Flach 2020, Path sample-analytic gradient estimators",
    formula=(
        r"g_j = -x_j\,\delta_j\,F'(a_j), \quad \delta_i = f(x^{(i)}) - f(x) - \sum_{j \text{ "
        r"above}} x_j\,\delta_j\,\bigl(F(a_j^{(i)}) - F(a_j)\bigr)"
    ),
    aliases=("sah",),
)
def psa(model: Model, *, tolerance: float = 0.001) -> Loss:
    """-x_j delta_j F'(a_j): effects of single flips, carried down one sampled path analytically.

    With delta_i the effect of flipping unit i, all other states kept,

        delta_i = f(x with i flipped) - f(x)
                  + sum over units j above of -x_j delta_j (F(a_j with i flipped) - F(a_j)),

    the gradient in a_j is -x_j delta_j F'(a_j): sums of products of differences of F along all
    paths of single flips. It is unbiased for one layer and any objective, for the last layer and
    the parameters of the objective of any network, and if each unit feeds at most one unit above.
    The objective and its own parameters are averaged over flips of the last states, which is exact
    and lowers the variance.

    A chain, with the methods ``flip_objective``, ``flip_pullback`` and ``flip_route`` of ``SBN``,
    gives both parts of delta from its structure. In any other model each unit is flipped and the
    model run again. ``gradbench.explain`` says which.

    Sums over j of F are exact where a layer has at most 32 units, as in all networks that can be
    enumerated. Between larger dense layers and convolutions with logistic or normal noise they are
    of low rank: each layer takes the least rank whose bound, computed from its largest weight,
    meets the ``tolerance``, and the exact sum where none below its cost does. The error of a sum is
    then at most ``tolerance`` times the sum of |x_j delta_j| max F' |v_j|, with v_j the change of
    a_j: see ``gradbench.models.low_rank_bound``. With ``tolerance=0`` all sums are exact.

    Raises:
        GradbenchError: a tolerance that is negative or not finite.
    """
    tolerance = not_negative("tolerance", tolerance)
    flips: Any = model.with_tolerance(tolerance) if hasattr(model, "with_tolerance") else model

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        constant = Trace(*stop_gradient((run.f, run.x, run.a)), run.sites)
        fixed = stop_gradient(params)
        last = len(run.x) - 1

        # Each unit of the last layer, drawn anew given the rest, takes its other state with 1 - P.
        change = _flipped_objective(flips, params, example, run) - run.f
        other = 1 - run.sites[last].noise.probability(constant.x[last], constant.a[last])
        loss = run.f + jnp.mean(other.ravel() * change)

        delta = stop_gradient(change).reshape(run.sites[last].shape)
        signals: tuple[Array, ...] = ()  # -x_j delta_j of the layers from k on
        for k in reversed(range(last + 1)):
            if k < last:
                delta = _delta_below(flips, fixed, example, constant, k, signals)
            signals = (-constant.x[k] * delta, *signals)
            loss += gradient_term(signals[0] * run.sites[k].noise.pdf(constant.a[k]), run.a[k])
        return loss

    return surrogate_loss(model, example_loss, route=partial(_route, flips))


def _flipped_objective(model: Any, params: Params, example: Example, run: Trace) -> Array:
    """Return f with each unit of the last site flipped in turn."""
    last = len(run.x) - 1
    if is_chain(model):
        return model.flip_objective(params, example, run, last)
    return _each_flip(model, params, example, run, last, lambda other: other.f)


def _delta_below(
    model: Any, params: Params, example: Example, run: Trace, k: int, signals: tuple[Array, ...]
) -> Array:
    """Return delta of site k below the last, from the signals -x_j delta_j of the sites above."""
    if is_chain(model):
        f = model.flip_objective(params, example, run, k).reshape(run.sites[k].shape)
        return f - run.f + model.flip_pullback(params, run, k, signals[0])

    def change(other: Trace) -> Array:
        above = zip(run.sites[k + 1 :], other.a[k + 1 :], signals, strict=True)
        return (other.f - run.f) + sum(
            jnp.sum(g * (site.noise.cdf(a) - site.noise.cdf(run.a[site.index])))
            for site, a, g in above
        )

    return _each_flip(model, params, example, run, k, change).reshape(run.sites[k].shape)


def _each_flip(
    model: Model,
    params: Params,
    example: Example,
    run: Trace,
    k: int,
    what: Callable[[Trace], Array],
) -> Array:
    """Return ``what`` of the run with each unit of site k flipped in turn."""

    def one(i: Array) -> Array:
        x_k = flip(run.x[k], i)
        return what(run_at_states(model, params, example, (*run.x[:k], x_k, *run.x[k + 1 :])))

    return one_by_one(one, run.x[k].size, sum(x.size for x in run.x))


def _route(model: Any, sites: Sequence[Site], params: Params) -> list[str]:
    """Return in words how flips are computed in a model with these sites."""
    if is_chain(model):
        return [model.flip_route(site.index, params) for site in sites]
    return generic_route(sites)
