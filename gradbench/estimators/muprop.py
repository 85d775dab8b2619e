"""MuProp: the expansion of the objective at the mean field as a control variate."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params, Trace
from gradbench.core.run import run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, L
from gradbench.estimators.registry import register
from gradbench.estimators.reinforce import scores


@register(
    family="muprop",
    exactness="unbiased",
    cost=Cost(2, 1, 2 * L),
    differentiable=True,
    full_name="MuProp: mean-field Taylor expansion as control variate",
    paper="https://arxiv.org/abs/1511.05176",
    as_published="with an input-dependent baseline",
    source="Gu et al. 2016, MuProp: unbiased backpropagation for stochastic neural networks",
)
def muprop(model: Model) -> Loss:
    """(f(x) - f(m) - f'(m).(x - m)) d log P(x) / da + 2 f'(m) F'(a), at the mean field m.

    m and f', the gradient through all layers above, are those of the mean-field network. a is that
    of the sampled path, also in the last factor: else deep networks would be biased. In one layer
    it has no variance for linear objectives. The objective has to be defined between the states.
    """

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        f, m, slopes = _expansion(model, stop_gradient(params), example, run)
        loss = run.f
        signals = []
        for site, x, a, m_k, slope in zip(run.sites, run.x, run.a, m, slopes, strict=True):
            signals.append(run.f - f - jnp.sum(slope * (x - m_k)))
            loss += gradient_term(2 * slope * site.noise.pdf(a), a)
        return loss + scores(run, signals)

    return surrogate_loss(model, example_loss)


@register(
    family="muprop",
    exactness="unbiased",
    cost=Cost(2, layers=2 * L),
    full_name="mean-field baseline",
    paper="https://arxiv.org/abs/1703.07370",
    as_published="with an input-dependent baseline",
    source="Tucker et al. 2017, REBAR (simple MuProp); Gu et al. 2016",
)
def simple_muprop(model: Model) -> Loss:
    """(f(x) - f(m)) d log P(x) / da: the objective at the mean field m as a baseline."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        mean = run_model(model, stop_gradient(params), example, lambda s, a: 2 * s.noise.cdf(a) - 1)
        return run.f + scores(run, [run.f - mean.f] * len(run.sites))

    return surrogate_loss(model, example_loss)


def _expansion(model: Model, params: Params, example: Example, run: Trace):
    """Return the objective of the mean-field network, its means, and the gradient in each."""

    def shifted(offsets):
        def mean(site, a):
            return 2 * site.noise.cdf(a) - 1 + offsets[site.index]

        mean_field = run_model(model, params, example, mean)
        return mean_field.f, mean_field.x

    zeros = jax.tree.map(jnp.zeros_like, run.x)
    (f, m), slopes = jax.value_and_grad(shifted, has_aux=True)(zeros)
    return f, m, slopes
