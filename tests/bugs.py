"""Planted bugs of the kinds that public code has: tests must see every one of them."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from gradbench.core.autodiff import gradient_term, surrogate_gradient
from gradbench.core.run import draw_state, flip, rollout, run_at_states, run_model, sampled
from gradbench.core.surrogate import surrogate_loss


def scores(run):
    return [s.noise.score(x, a) for s, x, a in zip(run.sites, run.x, run.a, strict=True)]


def wrong_reinforce(model):
    """Twice the score."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        signals = [2 * run.f * g for g in scores(run)]
        return run.f + sum(gradient_term(s, a) for s, a in zip(signals, run.a, strict=True))

    return surrogate_loss(model, example_loss)


def own_sample_in_the_baseline(model):
    """The mean over both samples, in the place of the other one."""

    def example_loss(params, u, example):
        runs = [sampled(model, params, v, example) for v in u]
        mean = stop_gradient(sum(run.f for run in runs) / 2)
        loss = sum(run.f for run in runs) / 2
        for run in runs:
            signals = [(stop_gradient(run.f) - mean) * g / 2 for g in scores(run)]
            loss += sum(gradient_term(s, a) for s, a in zip(signals, run.a, strict=True))
        return loss

    return surrogate_loss(model, example_loss, streams=2)


def wrong_straight_through(model):
    """The slope of {0, 1} states for states of {-1, +1}: a dropped factor 2."""

    def example_loss(params, u, example):
        def unit(site, a):
            x = draw_state(site, a, u[0][site.index])
            return surrogate_gradient(
                lambda x, a: site.noise.pdf(a), x, a
            )  # the slope of {0,1} states

        return run_model(model, params, example, unit).f

    return surrogate_loss(model, example_loss)


def wrong_logit(model):
    """A probability through log p + log1p(p), where log1p(-p) is meant."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, x, a in zip(run.sites, run.x, run.a, strict=True):
            p = site.noise.cdf(a)
            wrong = jax.nn.sigmoid(jnp.log(p) - jnp.log1p(p))
            loss += gradient_term(run.f * ((x + 1) / 2 - wrong) * site.noise.logit_slope(a), a)
        return loss

    return surrogate_loss(model, example_loss)


def kept_descendants(model):
    """The flip difference with the descendants of the sampled state."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        fixed, loss = stop_gradient(params), run.f
        for k, (site, a) in enumerate(zip(run.sites, run.a, strict=True)):

            def difference(i, k=k):
                other = (*run.x[:k], flip(run.x[k], i), *run.x[k + 1 :])
                return run.f - run_at_states(model, fixed, example, other).f

            delta = jnp.stack([difference(i) for i in range(site.size)]).reshape(site.shape)
            loss += gradient_term(run.x[k] * delta * site.noise.pdf(a), a)
        return loss

    return surrogate_loss(model, example_loss)


def layer_scaled(model):
    """A factor of 0.9 in the first layer."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        factors = [0.9, *[1.0] * (len(run.a) - 1)]
        signals = [c * run.f * g for c, g in zip(factors, scores(run), strict=True)]
        return run.f + sum(gradient_term(s, a) for s, a in zip(signals, run.a, strict=True))

    return surrogate_loss(model, example_loss)


def wrong_arm(model):
    """ARM with the sign of its uniforms turned."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, a, v in zip(run.sites, run.a, u[0], strict=True):
            f = rollout(model, params, example, run, site.index, draw_state(site, a, 1 - v), u[0])
            loss += gradient_term((run.f - f) * (v - 0.5) * site.noise.logit_slope(a), a)
        return loss

    return surrogate_loss(model, example_loss)


def wrong_disarm(model):
    """The sign of b - b~ is lost."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        loss = run.f
        for site, a, v, x in zip(run.sites, run.a, u[0], run.x, strict=True):
            other = draw_state(site, a, 1 - v)
            f = rollout(model, params, example, run, site.index, other, u[0])
            weight = jnp.abs(x - other) / 4 * site.noise.cdf(jnp.abs(a))
            loss += gradient_term((run.f - f) * weight * site.noise.logit_slope(a), a)
        return loss

    return surrogate_loss(model, example_loss)
