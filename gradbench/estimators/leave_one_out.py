"""RLOO, several sampled paths that are each other's baselines, and control variates built on it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float, PyTree

from gradbench.core.arguments import at_least, finite, positive
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Batch, Example, Loss, Model, Params, Scored, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.misfits import one_layer
from gradbench.core.pytrees import real_type
from gradbench.core.run import (
    as_examples,
    draw_state,
    find_sites,
    run_model,
    sampled,
)
from gradbench.core.surrogate import surrogate_loss
from gradbench.core.uniforms import Uniforms
from gradbench.estimators.adaptive import (
    Learned,
    Network,
    least_variance,
    network,
    start_network,
)
from gradbench.estimators.cost import Cost, Formula, L
from gradbench.estimators.registry import register
from gradbench.estimators.sampling import is_lattice, lattice, lattice_breakpoints
from gradbench.estimators.score import returns, score_loss, stacked, with_terms

SAMPLES = Formula("samples")


def others(values: Float[Array, "samples ..."]) -> Float[Array, "samples ..."]:
    """Return for each sample the mean over the others."""
    return jnp.tensordot(_leave_one_out(len(values), values.dtype), values, 1)


def _leave_one_out(samples: int, dtype: Any) -> Float[Array, "samples samples"]:
    """Return weights of a mean, whose row k leaves out sample k."""
    return (1 - jnp.eye(samples, dtype=dtype)) / (samples - 1)


@register(
    family="multisample",
    exactness="unbiased",
    cost=Cost(SAMPLES, layers=SAMPLES * L),
    full_name="REINFORCE, leave-one-out over samples",
    display_name="RLOO",
    paper="https://openreview.net/forum?id=r1lgTGL5DE",
    source="Kool et al. 2019, Buy 4 REINFORCE samples, get a baseline for free!",
    formula=(
        r"g = \frac{1}{K} \sum_{k=1}^{K} \Bigl(f_k - \frac{1}{K - 1} \sum_{j \neq k} "
        r"f_j\Bigr)\,\frac{\partial \log P(x_k)}{\partial a}"
    ),
    aliases=("loorf", "vargrad"),
)
def rloo(
    model: Model, *, samples: int = 2, signals: str = "local", sampling: str = "independent"
) -> Loss:
    """1/K sum_k (f_k - mean_{j != k} f_j) d log P(x_k) / da over K whole paths.

    K is the number of ``samples``. The value and the objective's own gradient are means too. It is
    also known as LOORF. ``signals`` are those of ``reinforce``: f is the return of a layer.

    The samples have to be independent: among the points of one lattice the others would know of
    sample k, which is a bias. So ``sampling="lattice"`` draws two lattices of K/2 points that are
    independent of each other, and the baseline of each is the mean over the other one.

    Raises:
        GradbenchError: ``samples`` below 2, other ``signals`` than "local" and "whole", other
            ``sampling`` than "independent" and "lattice", or lattices for fewer than 4 or for an
            odd number of samples.
    """
    samples, split = at_least(2, "samples", samples), with_terms(model, signals)

    def scored(together, baseline, params, u, example):
        run = stacked(lambda v: sampled(split, params, v, example), 0, together(u))
        own = returns(run)
        return Scored(jnp.mean(own[0]), run, [r - baseline(r) for r in own])

    if not is_lattice(sampling):
        return score_loss(model, partial(scored, _together, others), streams=samples)
    if samples < 4 or samples % 2:
        raise GradbenchError(
            f"samples is {samples}; give an even number of at least 4 for sampling='lattice', "
            "since the baseline of the points of one lattice has to be the mean over another"
        )
    half = samples // 2

    def two_lattices(u: tuple[Uniforms, ...]) -> Uniforms:
        both = [lattice(shift, half) for shift in u]
        return jax.tree.map(lambda *v: jnp.concatenate(v), *both)

    def other_half(values: Array) -> Array:
        means = jnp.mean(values.reshape(2, half, *values.shape[1:]), axis=1)
        return jnp.repeat(means[::-1], half, axis=0)

    path = surrogate_loss(model, lambda params, u, example: jnp.zeros(()))  # of one sample
    return score_loss(
        model,
        partial(scored, two_lattices, other_half),
        streams=2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=lattice_breakpoints(path, half),
    )


@register(
    family="multisample",
    exactness="unbiased",
    cost=Cost(SAMPLES, SAMPLES, SAMPLES * L),
    differentiable=True,
    layers="one",
    full_name="double control variates",
    display_name="Double CV",
    paper="https://arxiv.org/abs/2111.05300",
    source="Titsias & Shi 2022, Double control variates for gradient estimation",
    formula=(
        r"g = \frac{1}{K} \sum_k \Bigl(h_k - \frac{1}{K - 1} \sum_{j \neq k} h_j\Bigr) "
        r"\frac{\partial \log P(x_k)}{\partial a} - 2 \alpha \overline{f'}\,F'(a), \quad h_k = f_k "
        r"+ \alpha f'_{-k} \cdot (x_k - m)"
    ),
)
def double_cv(
    model: Model, *, samples: int = 2, alpha: float | None = None, rate: float = 0.001
) -> Loss:
    """RLOO on f_k + alpha g_-k.(x_k - m), less 2 alpha g F'(a): m the means, g mean gradients of f.

    g_-k is the mean of the gradients of the other samples, so that the first control variate is
    also part of the baselines. alpha is fixed if it is given. Else it starts from 0, which is RLOO,
    and Adam minimises |draw|^2 at the ``rate``. On a linear objective alpha = -1 leaves no
    variance.

    Raises:
        GradbenchError: ``samples`` below 2, a rate that is not positive, an alpha that is no finite
            number; when called, a model of several stochastic layers.
    """
    samples, rate = at_least(2, "samples", samples), positive("rate", rate)

    def frozen(alpha):
        def scored(params, u, example):
            run, gradients = _with_gradients(model, params, u, example)
            site = one_layer("double_cv", run.sites)
            x, a, g = run.x[0], run.a[0], others(gradients[0])
            shift = alpha * g * (x - (2 * site.noise.cdf(a) - 1))
            corrected = run.f + jnp.sum(shift.reshape(samples, -1), axis=1)
            mean = 2 * alpha * g * site.noise.pdf(a) / samples
            rest = jnp.mean(run.f) - gradient_term(mean, a)
            return Scored(rest, run, [corrected - others(corrected)])

        return score_loss(model, scored, streams=samples)

    if alpha is not None:
        return frozen(finite("alpha", alpha))

    def start(params: Params, batch: Batch) -> Array:
        return jnp.zeros((), real_type(params))

    return least_variance(model, rate, start, frozen)


@register(
    family="multisample",
    exactness="unbiased",
    cost=Cost(SAMPLES, SAMPLES, SAMPLES * L),
    differentiable=True,
    full_name="REINFORCE with discrete Stein operators",
    display_name="RODEO",
    paper="https://arxiv.org/abs/2202.09497",
    source="Shi et al. 2022, Gradient estimation with discrete Stein operators (RODEO)",
    formula=(
        r"g = \frac{1}{K} \sum_k \Bigl[\Bigl(f_k - \frac{1}{K - 1} \sum_{j \neq k} \bigl(f_j + "
        r"\alpha (A h_j)(x_j)\bigr)\Bigr) s_k + \beta\,(A \tilde{h}_k s)(x_k)\Bigr], \quad s_k = "
        r"\frac{\partial \log P(x_k)}{\partial a}"
    ),
)
def rodeo(
    model: Model,
    *,
    samples: int = 2,
    hidden: int = 100,
    rate: float = 0.001,
    signals: str = "local",
) -> Learned:
    """RLOO with Stein control variates, (Ah)(x) = 1/D sum_i P(flip i | rest) (h(flip_i x) - h(x)).

    (A h)(x) has the mean 0 whatever h is. A draw over K ``samples``, whole paths, with s the score
    and surrogates h_k of f made from the samples other than k, is

        1/K sum_k [(f_k - mean_{j != k} (f_j + alpha (A h_j)(x_j))) s_k + beta (A h~_k s)(x_k)],
        (h_k, h~_k)(x) = mean_{j != k} net(f'(x_j).(x - x_j), f_j).

    Adam minimises |draw|^2 at the ``rate`` in alpha and beta, which start from 0 (RLOO), and in the
    network, which has one layer of ``hidden`` leaky rectifiers; each layer has its own. f' holds
    the states above fixed, as in the authors' code: if the objective does not read a layer, its h
    is constant. ``signals`` are those of ``reinforce``: f is the return of a layer.

    Raises:
        GradbenchError: ``samples`` below 2, ``hidden`` below 1, a rate that is not positive, or
            other ``signals`` than "local" and "whole".
    """
    samples, hidden = at_least(2, "samples", samples), at_least(1, "hidden", hidden)
    rate, split = positive("rate", rate), with_terms(model, signals)

    def frozen(parts):
        def scored(params, u, example):
            run, gradients = _with_gradients(split, params, u, example)
            own, weights = returns(run), []
            for site, x, a, g, f, part in zip(
                run.sites, run.x, run.a, gradients, own, parts, strict=True
            ):
                rows = (samples, site.size)
                h = _surrogates(part["net"], f, x.reshape(rows), g.reshape(rows))
                flips = site.noise.cdf(-x * a).reshape(rows)[..., None]  # P(flip i | rest)
                stein = jnp.mean(flips * (h[:, 1:] - h[:, :1]), axis=1)
                signal = f - others(f + part["alpha"] * stein[:, 0])
                # A(h~ s) for a score s of independent units: s (A h~ - h~(flip) / D), unit by unit.
                product = stein[:, 1:] - h[:, 1:, 1] / site.size
                weight = signal[:, None] + part["beta"] * product
                weights.append(weight.reshape(x.shape))
            return Scored(jnp.mean(own[0]), run, weights)

        return score_loss(model, scored, streams=samples)

    def start(params: Params, batch: Batch) -> list[Any]:
        examples = as_examples(model, jax.random.key(0), batch)
        sites = find_sites(model, params, jax.tree.map(lambda leaf: leaf[0], examples))
        nets = [start_network(jax.random.key(s.index), 2, hidden, 2, params) for s in sites]
        zero = jnp.zeros_like(nets[0]["output"][0])
        return [{"alpha": zero, "beta": zero, "net": net} for net in nets]

    return least_variance(model, rate, start, frozen)


def _surrogates(
    net: Network, f: Float[Array, " K"], x: Float[Array, "K D"], g: Float[Array, "K D"]
) -> Float[Array, "K D+1 2"]:
    """Return both surrogates of each sample, at its states and at all their flips."""
    here = jnp.sum(g * (x[:, None] - x), axis=-1, keepdims=True)  # of sample k by sample j
    expansions = jnp.concatenate([here, here - 2 * x[:, None] * g], axis=-1)
    inputs = jnp.stack(jnp.broadcast_arrays(expansions, f[:, None]), axis=-1)
    h = network(net, inputs, lambda z: jax.nn.leaky_relu(z, 0.3))
    return jnp.einsum("kj,kj...->k...", _leave_one_out(len(f), f.dtype), h)


def _together(u: tuple[Uniforms, ...]) -> Uniforms:
    """Return all streams as one, with a first axis of samples."""
    return jax.tree.map(lambda *v: jnp.stack(v), *u)


def _with_gradients(
    model: Model, params: Params, u: tuple[Uniforms, ...], example: Example
) -> tuple[Trace, PyTree]:
    """Return a sampled path per stream, and the gradients of f in states, other states fixed."""
    together = _together(u)
    sites: list[Any] = []

    def total(offsets):
        def one(v, offset):
            def unit(site, a):
                return draw_state(site, a, v[site.index]) + offset[site.index]

            return run_model(model, params, example, unit)

        runs = stacked(one, 0, together, offsets)
        sites[:] = runs.sites
        return jnp.sum(returns(runs)[0]), runs[:3]

    zeros = jax.tree.map(jnp.zeros_like, together)
    gradients, (f, x, a) = jax.grad(total, has_aux=True)(zeros)
    return Trace(f, x, a, tuple(sites)), stop_gradient(gradients)
