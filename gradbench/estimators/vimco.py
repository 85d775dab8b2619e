"""VIMCO, OVIS and local DisARM: a signal for each sample of a multi-sample bound.

The signal of sample k is f - c_k, with f = -log mean_j w_j the objective of a ``MultiSample`` and a
baseline c_k from the other samples; local DisARM has the weight of an antithetic twin there. If
the weights depend on the parameters, the gradient contains their own derivative too, sum_k (w_k /
sum_j w_j) dlog w_k, as the derivative of the objective itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradbench.core.arguments import at_least, finite
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Example, Loss, Model, Params
from gradbench.core.errors import GradbenchError
from gradbench.core.run import branch_noise, branch_streams, draw_state, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.cost import Cost, Formula, L
from gradbench.estimators.registry import any_model, register
from gradbench.estimators.score import scores
from gradbench.models.multisample import bound
from gradbench.models.structure import Samples, has_samples

NEEDS = "a MultiSample model"

RUNS = Formula("runs")


@register(
    family="vimco",
    exactness="unbiased",
    full_name="variational inference for Monte Carlo objectives",
    display_name="VIMCO",
    paper="https://arxiv.org/abs/1602.06725",
    source="Mnih & Rezende 2016, Variational inference for Monte Carlo objectives",
    formula=(
        r"g_k = (f - c_k)\,\frac{\partial \log P(x_k)}{\partial a}, \quad c_k = -\log \frac{1}{K} "
        r"\Bigl(\sum_{j \neq k} w_j + \prod_{j \neq k} w_j^{1 / (K - 1)}\Bigr)"
    ),
    needs=NEEDS,
)
def vimco(model: Model) -> Loss:
    """c_k = f with w_k replaced by the geometric mean of the other weights.

    Raises:
        GradbenchError: a model that is no MultiSample of at least 2 samples.
    """

    def signals(losses):
        others = (jnp.sum(losses) - losses) / (losses.size - 1)
        return bound(losses) - bound(_replaced(losses, others))

    return _lifted("vimco", model, signals)


@register(
    family="vimco",
    exactness=lambda gamma: "unbiased" if gamma == 0 else "biased",
    full_name="optimal variance, importance sampling: asymptotic",
    display_name="OVIS",
    paper="https://arxiv.org/abs/2008.01998",
    source="Lievin et al. 2020 (OVIS), equation 17",
    formula=(
        r"c_k = -\log \frac{1}{K - 1} \sum_{j \neq k} w_j + \gamma v_k - (1 - \gamma) \log\Bigl(1 "
        r"- \frac{1}{K}\Bigr), \quad v_k = \frac{w_k}{\sum_j w_j}"
    ),
    needs=NEEDS,
)
def ovis(model: Model, *, gamma: float = 1.0) -> Loss:
    """-c_k = log mean_{j != k} w_j - gamma v_k + (1 - gamma) log(1 - 1/K), v_k = w_k / sum_j w_j.

    This is an asymptotic form of the optimal baseline for weights w = p/q, with gamma = 1 for a
    large effective sample size and gamma = 0 for one near 1. Since v_k contains sample k, it is
    biased unless gamma is 0, by gamma sum_k v_k d log P(x_k), a step of wake-phase learning;
    ``ovis_mc`` is not.

    Raises:
        GradbenchError: a model that is no MultiSample of at least 2 samples, or a gamma that is no
            finite number.
    """
    gamma = finite("gamma", gamma)

    def signals(losses):
        mean = bound(_replaced(losses, jnp.inf)) + jnp.log1p(-1 / losses.size)
        c = mean + gamma * jax.nn.softmax(-losses) - (1 - gamma) * jnp.log1p(-1 / losses.size)
        return bound(losses) - c

    return _lifted("ovis", model, signals)


@register(
    family="vimco",
    exactness="unbiased",
    cost=Cost(1 + RUNS, layers=(1 + RUNS) * L),
    full_name="optimal variance, importance sampling: Monte Carlo",
    display_name="OVIS-MC",
    paper="https://arxiv.org/abs/2008.01998",
    as_published="runs=S/K for S auxiliary samples",
    source="Lievin et al. 2020 (OVIS), equation 12",
    formula=(
        r"c_k = -\frac{1}{S} \sum_{s=1}^{S} \Bigl(\log \frac{1}{K} \sum_j w_j^{(s)} - "
        r"v_k^{(s)}\Bigr), \quad v_k = \frac{w_k}{\sum_j w_j}"
    ),
    needs=NEEDS,
)
def ovis_mc(model: Model, *, runs: int = 1) -> Loss:
    """-c_k = the mean of log mean_j w_j - v_k over auxiliary samples in the place of sample k.

    Each of the ``runs`` of the model beside the first gives K auxiliary samples: the paper's number
    S of them is ``runs`` times K. It is made for weights w = p/q, whose own derivative adds v_k d
    log q to the gradient.

    Raises:
        GradbenchError: a model that is no MultiSample of at least 2 samples, or ``runs`` below 1.
    """
    runs = at_least(1, "runs", runs)

    def signals(losses, *further):
        replaced = jax.vmap(lambda f: _replaced(losses, f))(jnp.concatenate(further))
        v = jnp.diagonal(jax.nn.softmax(-replaced), axis1=-2, axis2=-1)
        return bound(losses) - jnp.mean(bound(replaced) + v, axis=0)

    return _lifted("ovis_mc", model, signals, 1 + runs)


@register(
    family="vimco",
    exactness="unbiased",
    cost=Cost(2, layers=2 * L),
    full_name="DisARM for multi-sample bounds",
    display_name="local DisARM",
    paper="https://arxiv.org/abs/2006.10680",
    source="Dong et al. 2020, DisARM: the local form for multi-sample bounds",
    formula=(
        r"g_{\ell,k} = \frac{1}{2}\,\bigl(L - L_{w_k \to \tilde{w}_k}\bigr)\,(b_k - "
        r"\tilde{b}_k)\,\max(p, 1 - p), \quad L = -\log \frac{1}{K} \sum_j w_j"
    ),
    needs=NEEDS,
)
def local_disarm(model: Model, *, descendants: str = "shared") -> Loss:
    """(L - L with w_k replaced by w~_k) (b_k - b~_k) max(p, 1-p) / 2, L = -log mean_j w_j.

    b~_k is the antithetic twin of the states b_k of sample k, which 1 - u makes, and w~_k its
    weight; the other samples stay. The formula is for the logit of p. In the twin the layers above
    have the noise that ``descendants`` names, as in ``disarm``, which this is for one sample. The
    cost is that of one layer in each sample; every further one takes a run more.

    Raises:
        GradbenchError: a model that is no MultiSample, or unknown ``descendants``.
    """
    streams = branch_streams(descendants)
    if model is any_model:
        return surrogate_loss(model, _nothing, streams, randomness="uniforms")
    several = _with_samples("local_disarm", model, 1)

    def example_loss(params, u, example):
        run, above = sampled(several.losses, params, u[0], example), branch_noise(descendants, u)
        fixed, layers = jax.lax.stop_gradient(params), len(run.sites) // several.samples
        loss = bound(run.f)

        for layer in range(layers):

            def unit(site, a, layer=layer):
                own, n = site.index % layers, site.index
                if own < layer:
                    return run.x[n]
                return draw_state(site, a, 1 - u[0][n] if own == layer else above[n])

            other = run_model(several.losses, fixed, example, unit)
            signal = bound(run.f) - bound(_replaced(run.f, other.f))
            for k in range(several.samples):
                n = k * layers + layer
                noise, a, change = run.sites[n].noise, run.a[n], run.x[n] - other.x[n]
                most = noise.cdf(jnp.abs(a)) * noise.logit_slope(a)
                loss += gradient_term(signal[k] * change / 4 * most, a)
        return loss

    return surrogate_loss(
        model, example_loss, streams, randomness="uniforms", smoothness="constant"
    )


def _replaced(losses: Array, other: float | Array) -> Array:
    """Return ``[samples, samples]``, whose row k has another loss in the place of f_k."""
    rows = jnp.broadcast_to(other, losses.shape)[:, None]
    return jnp.where(jnp.eye(losses.size, dtype=bool), rows, losses)


def _lifted(name: str, model: Model, signals: Callable[..., Array], streams: int = 1) -> Loss:
    """Return the bound with ``signals(losses of stream 0, of stream 1, ...)``, one per sample."""
    if model is any_model:
        return surrogate_loss(model, _nothing, streams)
    several = _with_samples(name, model)

    def example_loss(params, u, example):
        fixed = jax.lax.stop_gradient(params)
        further = [sampled(several.losses, fixed, v, example).f for v in u[1:]]
        run = sampled(several.losses, params, u[0], example)
        signal = signals(run.f, *further)
        layers = len(run.sites) // several.samples
        return bound(run.f) + scores(run, [signal[site.index // layers] for site in run.sites])

    return surrogate_loss(model, example_loss, streams)


def _nothing(params: Params, u: Any, example: Example) -> Array:
    """Stand for the draws of an estimator that is made and not run."""
    return jnp.zeros(())


def _with_samples(name: str, model: Model, least: int = 2) -> Samples:
    """Return the model, which has to be a MultiSample."""
    if not has_samples(model) or model.samples < least:
        what = f"{model.samples} sample" if has_samples(model) else "no MultiSample"
        raise GradbenchError(
            f"{name} got a model that is {what}; give a MultiSample"
            + (f" of at least {least} samples" if least > 1 else "")
        )
    return model
