"""MuProp: the expansion of the objective at the mean field as a control variate."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params, Scored, Trace
from gradbench.core.run import run_model, sampled
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register
from gradbench.estimators.score import returns, score_loss, with_terms


@register(
    family="muprop",
    exactness="unbiased",
    cost=Cost(2, 1, 2 * L),
    differentiable=True,
    full_name="MuProp: mean-field Taylor expansion as control variate",
    display_name="MuProp",
    paper="https://arxiv.org/abs/1511.05176",
    as_published="with an input-dependent baseline",
    source="Gu et al. 2016, MuProp: unbiased backpropagation for stochastic neural networks",
    formula=(
        r"g = \bigl(f(x) - f(m) - f'(m) \cdot (x - m)\bigr)\,\frac{\partial \log P(x)}{\partial a} "
        r"+ 2 f'(m)\,F'(a)"
    ),
)
def muprop(model: Model, *, signals: str = "local") -> Loss:
    """(f(x) - f(m) - f'(m).(x - m)) d log P(x) / da + 2 f'(m) F'(a), at the mean field m.

    m and f', the gradient through all layers above, are those of the mean-field network. a is that
    of the sampled path, also in the last factor: else deep networks would be biased. In one layer
    it has no variance for linear objectives. The objective has to be defined between the states.
    ``signals`` are those of ``reinforce``: f is the return of a layer, at x and at m.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    split = with_terms(model, signals)

    def scored(params, u, example):
        run = sampled(split, params, u[0], example)
        own = returns(run)
        f, m, slopes = _expansion(split, stop_gradient(params), example, run)
        rest, signals = own[0], []
        for k, (site, x, a) in enumerate(zip(run.sites, run.x, run.a, strict=True)):
            signals.append(own[k] - f[k] - jnp.sum(slopes[k] * (x - m[k])))
            rest += gradient_term(2 * slopes[k] * site.noise.pdf(a), a)
        return Scored(rest, run, signals)

    return score_loss(model, scored)


@register(
    family="muprop",
    exactness="unbiased",
    cost=Cost(2, layers=2 * L),
    full_name="mean-field baseline",
    display_name="simple MuProp",
    paper="https://arxiv.org/abs/1703.07370",
    as_published="with an input-dependent baseline",
    source="Tucker et al. 2017, REBAR (simple MuProp); Gu et al. 2016",
    formula=r"g = \bigl(f(x) - f(m)\bigr)\,\frac{\partial \log P(x)}{\partial a}",
)
def simple_muprop(model: Model, *, signals: str = "local") -> Loss:
    """(f(x) - f(m)) d log P(x) / da: the objective at the mean field m as a baseline.

    ``signals`` are those of ``reinforce``: f is the return of a layer, at x and at m.

    Raises:
        GradbenchError: other ``signals`` than "local" and "whole".
    """
    split = with_terms(model, signals)

    def scored(params, u, example):
        run = sampled(split, params, u[0], example)
        mean = run_model(split, stop_gradient(params), example, lambda s, a: 2 * s.noise.cdf(a) - 1)
        own = returns(run)
        return Scored(own[0], run, [r - m for r, m in zip(own, returns(mean), strict=True)])

    return score_loss(model, scored)


def _expansion(model: Model, params: Params, example: Example, run: Trace):
    """Return the returns of the mean-field network, its means, and the gradient of f in each."""

    def shifted(offsets):
        def mean(site, a):
            return 2 * site.noise.cdf(a) - 1 + offsets[site.index]

        mean_field = run_model(model, params, example, mean)
        own = returns(mean_field)
        return own[0], (own, mean_field.x)

    zeros = jax.tree.map(jnp.zeros_like, run.x)
    slopes, (own, m) = jax.grad(shifted, has_aux=True)(zeros)
    return own, m, slopes
