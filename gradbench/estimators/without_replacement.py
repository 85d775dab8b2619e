"""Estimators of one layer that evaluate distinct states, from a table of all 2^D of them."""

from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from gradbench.core.arguments import at_least
from gradbench.core.autodiff import gradient_term
from gradbench.core.contract import Loss, Model, Site, Trace
from gradbench.core.errors import GradbenchError
from gradbench.core.misfits import one_layer
from gradbench.core.run import draw_state, run_at_states, run_model, sampled
from gradbench.core.surrogate import surrogate_loss
from gradbench.estimators.choice import choice_breaks, choose, first_breaks
from gradbench.estimators.cost import Cost, Formula, L
from gradbench.estimators.registry import register
from gradbench.exact.enumeration import all_states

_MOST_UNITS = 16
_LEAST = -1e4  # the logarithm of a probability of 0, such that differences have digits
_MOST_SAMPLES = 6  # 3^samples probabilities of subsets

SAMPLES = Formula("samples")
STATES = Formula("states")


@register(
    family="without_replacement",
    exactness="unbiased",
    cost=Cost(SAMPLES, layers=SAMPLES * L),
    full_name="unordered set: sampling without replacement",
    display_name="unordered set",
    paper="https://arxiv.org/abs/2002.06043",
    source="Kool et al. 2020, Estimating gradients for discrete random variables",
    formula=r"g = \sum_{s \in S} P(s)\,R(S, s)\,f(s)\,\frac{\partial \log P(s)}{\partial a}",
    layers="one",
)
def unordered_set(model: Model, *, samples: int = 2, baseline: bool = True) -> Loss:
    """sum over a set S of distinct states of P(s) R(S, s) f(s) d log P(s) / da.

    S has so many ``samples``, drawn without replacement, the sampled state first. R(S, s) is the
    probability of the rest of S once s is taken out, divided by the probability of S. This is
    REINFORCE averaged over the orders in which S may have been drawn; the value is the same average
    of f. The ``baseline``, which the paper has built in, subtracts from f(s) the same average over
    the rest of S, an estimate of the expected loss; it needs two samples. ``baseline=False`` leaves
    it out, which may have the smaller variance where few samples make a poor estimate.

    Raises:
        GradbenchError: ``samples`` below 1 or above 6, a ``baseline`` that is no bool or has one
            sample; when called, a model of several stochastic layers, or a layer of more than 16
            units.
    """
    samples = at_least(1, "samples", samples)
    if samples > _MOST_SAMPLES:
        raise GradbenchError(f"samples is {samples}; give at most {_MOST_SAMPLES}")
    if not isinstance(baseline, bool):
        raise GradbenchError(f"baseline is {baseline!r}; give True or False")
    if baseline and samples < 2:
        raise GradbenchError(
            "the baseline is made of other samples; give at least 2, not 1, or baseline=False"
        )

    def example_loss(params, u, example):
        run = sampled(model, params, u[0], example)
        site = one_layer("unordered_set", run.sites)
        states, log = _table("unordered_set", site, stop_gradient(run.a[0]), samples)
        drawn = _drawn(log, _number(run.x[0]), [v for (v,) in u[1:]])
        f = [run.f, *(run_at_states(model, params, example, (states[i],)).f for i in drawn[1:])]
        weight = _ratios(log, drawn, frozenset())
        loss = sum(weight[s] * f[s] for s in weight)
        for s in weight:
            signal = f[s]
            if baseline:
                rest = _ratios(log, drawn, frozenset([s]))
                signal -= jnp.exp(log[drawn[s]]) * f[s] + sum(rest[r] * f[r] for r in rest)
            score = site.noise.score(states[drawn[s]], run.a[0])
            loss += gradient_term(weight[s] * signal * score, run.a[0])
        return loss

    return surrogate_loss(
        model,
        example_loss,
        samples,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=partial(_jumps, samples),
    )


def _jumps(samples: int, stream: int, run: Trace) -> list[Array]:
    """Return where a draw of a set jumps in the uniforms of a stream."""
    site = one_layer("unordered_set", run.sites)
    if stream == 0:
        return [jnp.zeros((0, *site.shape))]
    p = jnp.exp(_table("unordered_set", site, run.a[0], samples)[1])
    left = p.at[_number(run.x[0])].set(0)
    for _ in range(stream - 1):  # for all that the streams between may have drawn
        left = left[..., None, :] * (1 - jnp.eye(len(p)))
    return [first_breaks(choice_breaks(left), site.shape)]


def _drawn(log: Array, first: Array, uniforms: Sequence[Array]) -> list[Array]:
    """Return the numbers of distinct states, the first one given, the others drawn from the rest.

    Args:
        log: the log-probabilities of all states.
        first: the number of the first state.
        uniforms: for each further state, an array whose first element draws it.
    """
    left, drawn = log, [first]
    for v in uniforms:
        left = left.at[drawn[-1]].set(-jnp.inf)
        drawn.append(choose(jnp.exp(left - jnp.max(left)), v))
    return drawn


def _ratios(log: Array, drawn: list[Array], out: frozenset[int]) -> dict[int, Array]:
    """Return P(s) R(S, s) for all s of S, where the states ``out`` are taken out of everything.

    ``log`` are log-probabilities of all states, ``drawn`` the numbers of those that were drawn.
    """

    @cache
    def left(out: frozenset[int]) -> Array:
        """Return the log-probability of all states that are not taken out."""
        rest = log
        for s in out:
            rest = rest.at[drawn[s]].set(-jnp.inf)
        return logsumexp(rest)

    @cache
    def first(these: frozenset[int], out: frozenset[int]) -> Array:
        """Return the log-probability that these are drawn first, in any order."""
        if not these:
            return jnp.zeros((), log.dtype)
        orders = [log[drawn[s]] - left(out) + first(these - {s}, out | {s}) for s in these]
        return logsumexp(jnp.stack(orders))

    these = frozenset(range(len(drawn))) - out
    return {
        s: jnp.exp(log[drawn[s]] + first(these - {s}, out | {s}) - first(these, out))
        for s in sorted(these)
    }


@register(
    family="without_replacement",
    exactness="unbiased",
    cost=Cost(STATES + 1, layers=(STATES + 1) * L),
    full_name="Rao-Blackwellisation over the most probable states",
    display_name="top-c",
    paper="https://arxiv.org/abs/1810.04777",
    source="Liu et al. 2019, Rao-Blackwellized stochastic gradients for discrete distributions",
    formula=(
        r"g = \sum_{s \in C} P(s)\,f(s)\,\frac{\partial \log P(s)}{\partial a} + P(s \notin "
        r"C)\,f(s')\,\frac{\partial \log P(s')}{\partial a}, \quad s' \notin C"
    ),
    layers="one",
)
def top_c(model: Model, *, states: int = 1) -> Loss:
    """sum over the C most probable states of P(s) f(s) d log P(s) / da, plus one state of the rest.

    C is ``states``. The one state is drawn from the rest and weighted by the probability of the
    rest. It is the sampled state, or another draw if the sampled state is one of the C. The value
    is the same sum of f.

    Raises:
        GradbenchError: ``states`` below 1; when called, a model of several stochastic layers, a
            layer of more than 16 units or of fewer distinct states than C + 1.
    """
    count = at_least(1, "states", states)

    def table(site, a):
        """Return all states, their log-probabilities, the numbers of the C, and the rest alone."""
        every, log = _table("top_c", site, stop_gradient(a), count + 1)
        top = jax.lax.top_k(log, count)[1]
        return every, log, top, log.at[top].set(-jnp.inf)

    def example_loss(params, u, example):
        def of_the_rest(site, a):
            x = draw_state(site, a, u[0][site.index])
            every, _, top, rest = table(site, a)
            other = every[choose(jnp.exp(rest - jnp.max(rest)), u[1][site.index])]
            return jnp.where(jnp.any(top == _number(x)), other, x)

        run = run_model(model, params, example, of_the_rest)
        site, (a,) = one_layer("top_c", run.sites), run.a
        every, log, top, rest = table(site, a)
        f = jax.vmap(lambda x: run_at_states(model, params, example, (x,)).f)(every[top])
        f = jnp.append(f, run.f)
        x = jnp.concatenate([every[top], run.x[0][None]])
        weight = jnp.append(jnp.exp(log[top]), jnp.exp(logsumexp(rest)))
        signal = jnp.tensordot(weight * f, site.noise.score(x, a), 1)
        return jnp.dot(weight, f) + gradient_term(signal, a)

    def breakpoints(stream, run):
        site = one_layer("top_c", run.sites)
        rest = jnp.exp(table(site, run.a[0])[3])
        return [first_breaks(choice_breaks(rest) if stream else jnp.zeros(0), site.shape)]

    return surrogate_loss(
        model,
        example_loss,
        2,
        randomness="uniforms",
        smoothness="constant",
        breakpoints=breakpoints,
    )


def _table(
    name: str, site: Site, a: Array, needed: int
) -> tuple[Float[Array, "states ..."], Float[Array, " states"]]:
    """Return all states of a layer and their log-probabilities, finite for probability 0."""
    if site.size > _MOST_UNITS:
        raise GradbenchError(
            f"{name} tabulates all states and got a layer of {site.size} units; take one of at "
            f"most {_MOST_UNITS}, or disarm"
        )
    if 2**site.size < needed:
        raise GradbenchError(
            f"{name} needs {needed} distinct states and got a layer with {2**site.size}; ask for "
            "fewer"
        )
    x = all_states(site.size, a.dtype)
    bits = (x + 1) / 2
    plus, minus = (jnp.maximum(site.noise.log_cdf(s * a.ravel()), _LEAST) for s in (1, -1))
    return x.reshape(-1, *site.shape), bits @ plus + (1 - bits) @ minus


def _number(x: Array) -> Array:
    """Return the row of a state in the table of all."""
    places = 2 ** jnp.arange(x.size - 1, -1, -1)
    return jnp.sum(jnp.where(x.ravel() > 0, places, 0))
