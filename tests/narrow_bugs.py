"""Planted bugs that only some networks, batches, types or transformations show."""

import traceback
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from bugs import scores
from jax.lax import stop_gradient

from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Trace
from gradbench.core.pytrees import real_type
from gradbench.core.run import flip, run_at_states, sampled
from gradbench.core.surrogate import SurrogateLoss, surrogate_loss
from gradbench.estimators import psa, reinforce


def weighted(factor):
    """REINFORCE with the score of each site times ``factor(model, site, run)``."""

    def make(model):
        def example_loss(params, u, example):
            run = sampled(model, params, u[0], example)
            parts = zip(run.sites, scores(run), strict=True)
            signals = [factor(model, site, run) * run.f * g for site, g in parts]
            return run.f + sum(gradient_term(s, a) for s, a in zip(signals, run.a, strict=True))

        return surrogate_loss(model, example_loss)

    return make


def _units(site, wrong):
    """0 for the units whose number is ``wrong``, 1 for the others."""
    return jnp.where(wrong(jnp.arange(site.size)), 0.0, 1.0).reshape(site.shape)


# Hidden layers below the last give a gradient to their first unit only.
first_unit_only = weighted(
    lambda model, site, run: _units(site, lambda i: (i > 0) & (site.index < len(run.x) - 1))
)
no_fifth_unit = weighted(lambda model, site, run: _units(site, lambda i: i == 4))
no_fourth_layer = weighted(lambda model, site, run: float(site.index != 3))
wrong_for_bits = weighted(
    lambda model, site, run: 0.5 if getattr(model, "states", None) == (0, 1) else 1.0
)
wrong_for_convolutions_above = weighted(
    lambda model, site, run: 0.8 if site.index and len(site.shape) > 1 else 1.0
)


wrong_for_four_units = weighted(lambda model, site, run: 0.9 if site.size >= 4 else 1.0)


def clipped_at(least):
    """A score whose probabilities are clipped."""

    def make(model):
        def example_loss(params, u, example):
            run = sampled(model, params, u[0], example)
            loss = run.f
            for site, x, a in zip(run.sites, run.x, run.a, strict=True):
                p = jnp.clip(site.noise.probability(x, a), least, 1)
                loss += gradient_term(run.f * x * site.noise.pdf(a) / p, a)
            return loss

        return surrogate_loss(model, example_loss)

    return make


clipped_score = clipped_at(1e-3)
clipped_far_out = clipped_at(1e-11)


def direct(change):
    """REINFORCE whose direct gradient of the objective is that at ``change(params)``."""

    def make(model):
        def example_loss(params, u, example):
            run = sampled(model, params, u[0], example)
            f = run_at_states(model, change(params), example, run.x).f
            parts = zip(run.a, scores(run), strict=True)
            return f + sum(gradient_term(run.f * score, a) for a, score in parts)

        return surrogate_loss(model, example_loss)

    return make


def _half(x):
    return x / 2 + stop_gradient(x / 2)


half_of_the_objectives_own = direct(lambda params: (*params[:-1], jax.tree.map(_half, params[-1])))
no_direct_terms = direct(lambda params: (*stop_gradient(params[:-1]), params[-1]))


def _local_expectations(model, objective, likelihood):
    """LEG, with parts of f and of log P of the path after a flip."""

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        fixed, loss = stop_gradient(params), run.f
        for k, (site, a, x) in enumerate(zip(run.sites, run.a, run.x, strict=True)):

            def both(i, k=k):
                states = (*run.x[:k], flip(run.x[k], i), *run.x[k + 1 :])
                other = run_at_states(model, fixed, example, states)
                return objective(run, other, k), likelihood(other, k) - likelihood(run, k)

            f, odds = (v.reshape(site.shape) for v in jax.vmap(both)(jnp.arange(site.size)))
            kept, flipped = jax.nn.sigmoid(-odds), jax.nn.sigmoid(odds)
            score = site.noise.score
            loss += gradient_term(kept * run.f * score(x, a) + flipped * f * score(-x, a), a)
        return loss

    return surrogate_loss(model, example_loss)


def _log_probability(run: Trace, sites):
    return sum(jnp.sum(run.sites[k].noise.log_cdf(run.x[k] * run.a[k])) for k in sites)


def objective_of_the_last_layer(model):
    """LEG that takes the objective to be a function of the last states alone."""

    def objective(run, other, k):
        return other.f if k == len(run.x) - 1 else run.f

    def whole(run, k):
        return _log_probability(run, range(len(run.x)))

    return _local_expectations(model, objective, whole)


def only_the_next_layer(model):
    """LEG that takes a flip to reach no other layer than the next: wrong where one is skipped."""

    def next_two(run, k):
        return _log_probability(run, range(k, min(k + 2, len(run.x))))

    return _local_expectations(model, lambda run, other, k: other.f, next_two)


@dataclass(frozen=True, eq=False)
class Called(SurrogateLoss):
    """The loss of one example of REINFORCE is right, and the loss as it is called is not.

    ``factor(params, key, batch)`` is what the gradient is multiplied by.
    """

    factor: object = None

    def __call__(self, params, key, batch):
        value = super().__call__(params, key, batch)
        c = self.factor(params, key, batch)
        return c * value + stop_gradient((1 - c) * value)


def called(factor):
    def make(model):
        return Called(model, reinforce(model).example_loss, factor=factor)

    return make


def _examples(batch):
    return len(jax.tree.leaves(batch)[0])


def in_scan():
    """Whether it is traced as the body of a scan."""
    return any(frame.name == "scan" for frame in traceback.extract_stack())


half_when_called = called(lambda *_: 0.5)
less_in_single_precision = called(
    lambda params, *_: 0.9 if real_type(params) == jnp.float32 else 1.0
)
wrong_for_five = called(lambda params, key, batch: 0.9 if _examples(batch) == 5 else 1.0)
wrong_for_one = called(lambda params, key, batch: 0.9 if _examples(batch) == 1 else 1.0)
less_in_single_batches = called(
    lambda params, key, batch: (
        0.9 if real_type(params) == jnp.float32 and _examples(batch) > 1 else 1.0
    )
)
wrong_under_jit = called(lambda p, key, b: 0.9 if isinstance(key, jax.core.Tracer) else 1.0)
wrong_under_scan = called(lambda *_: 0.9 if in_scan() else 1.0)


def half_for_bits_when_called(model):
    """Right for states -1 and +1 however it is called, and for 0 and 1 only by example."""
    return called(lambda *_: 0.5 if getattr(model, "states", None) == (0, 1) else 1.0)(model)


def noisier_when_called(model):
    """Right in the mean, with more variance than what is enumerated."""

    def factor(params, key, batch):
        return 1 + jax.random.rademacher(jax.random.fold_in(key, 7), (), jnp.float32) / 2

    return called(factor)(model)


def rare_and_large(model):
    """A draw that is 5e5 times too large with the probability 2e-6."""
    loss = reinforce(model)

    def drawn(params, key, batch):
        value = loss(params, key, batch)
        rare = jax.random.uniform(jax.random.fold_in(key, 7)) < 2e-6
        c = jnp.where(rare, 5e5, 1)
        return c * value + stop_gradient((1 - c) * value)

    return drawn


def seldom(model, probability=1e-4):
    """The gradient comes with this probability, and then so much larger: right in the mean."""
    loss = reinforce(model)

    def drawn(params, key, batch):
        value = loss(params, key, batch)
        now = jax.random.uniform(jax.random.fold_in(key, 7)) < probability
        c = jnp.where(now, 1 / probability, 0)
        return c * value + stop_gradient((1 - c) * value)

    return drawn


def doubled_below(model):
    """PSA whose layers below the last get twice their gradient: its deep part is doubled."""
    loss = psa(model)

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        right = partial(loss.example_loss, u=u, example=example)
        value = right(params)
        if len(run.x) == 1:
            return value
        below = right((*params[:-2], *stop_gradient(params[-2:])))
        return value + below - stop_gradient(below)

    return surrogate_loss(model, example_loss)
