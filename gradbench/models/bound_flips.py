"""Single flips of latent units in the terms of an evidence bound, all units of a layer at once.

The states x of layer k are seen by two terms of an ``ELBO``: by their own, through decoder k, and
by that of the layer above, which has their log-probability given the states above and, through the
encoder, that of the states above. Each class here makes the flips in one of these terms: by
products of low rank, see ``gradbench.models.low_rank``, or exactly, where the data are counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.noise import NOISES, get_noise
from gradbench.models.dense import Dense
from gradbench.models.layer import axes, units
from gradbench.models.losses import bernoulli_likelihood, multinomial_likelihood, softplus
from gradbench.models.low_rank import (
    Smooth,
    bound_of,
    low_rank_pull,
    slope_bound_of,
    smooth_cdf,
    smooth_pull,
)
from gradbench.models.ranks import Choice, LowRankFlips, choice, low_rank_of
from gradbench.models.term_flips import Term, TermFlips

PRIOR = NOISES["logistic"]
_SIZE = 2.0  # of the change of a state, which is -1 or +1


# ------------------------------------------------------------------------- smooth parts of a term


def _softplus_bound(k: int) -> float:
    """Return a bound of the k-th derivative of softplus, whose first is the logistic F."""
    assert PRIOR.derivative_bound is not None
    return PRIOR.derivative_bound(k - 1) if k > 1 else 1.0


def _entropy(a: Array) -> Array:
    """Return F(a) log F(a) + F(-a) log F(-a), minus the entropy of a state, for logistic noise."""
    a = jnp.abs(a)
    return -a * PRIOR.cdf(-a) - jnp.log1p(jnp.exp(-a))


def _entropy_bound(k: int) -> float:
    """Return a bound of the k-th derivative of ``_entropy``, whose first is a F'(a).

    The characteristic function c of the noise falls, so that the integral of t^(k-1) |c'(t)| is (k
    - 1) times that of t^(k-2) c(t), which bounds the derivatives of F.
    """
    assert PRIOR.derivative_bound is not None
    return (k - 1) * PRIOR.derivative_bound(k - 1) if k > 1 else 0.22394  # at a tanh(a / 2) = 1


SOFTPLUS = Smooth(softplus, PRIOR.cdf, _softplus_bound)
ENTROPY = Smooth(_entropy, lambda a: a * PRIOR.pdf(a), _entropy_bound)


# ------------------------------------------------------------------------------- in the own term


@dataclass(frozen=True)
class _ByDecoder:
    """Flips of layer k in its own term, which reads their states by a decoder."""

    bound: Any
    k: int

    @property
    def decoder(self) -> Any:
        return self.bound.decoders[self.k]

    def logits(self, term: Term) -> Array:
        return self.decoder(term.params[-1]["decoders"][self.k], term.x)

    def target(self, term: Term, logits: Array) -> Array:
        target = term.below if self.k else term.below[1]
        return jnp.reshape(target, logits.shape).astype(logits.dtype)

    def divergence(self, term: Term) -> Float[Array, " units"]:
        """Return how the divergence changes, which is affine in the states."""
        x = jnp.ravel(term.x)
        if self.bound.kl == "closed":  # it depends on the pre-activations alone
            return jnp.zeros_like(x)

        def affine(bits: Array, a: Array, prior: Array) -> Array:
            f = term.noise.log_probability(bits, a)
            last = self.k == len(self.bound.decoders) - 1
            return f - PRIOR.log_probability(bits, prior) if last else f

        return -2 * x * jax.grad(affine)(x, jnp.ravel(term.a), term.params[-1]["prior"])


@dataclass(frozen=True)
class BitFlips(_ByDecoder):
    """Flips in the own term, where the decoder is affine and gives logits of bits.

    With the logits b, targets t and v_ji the change of b_j, -log p(t | x) changes by the sum over j
    of softplus(b_j + v_ji) - softplus(b_j) - v_ji (1 + t_j) / 2.
    """

    layer: LowRankFlips
    choice: Choice

    def in_words(self, params: Params) -> str:
        """Return how the changes are computed, see ``TermFlips``."""
        return self.choice.in_words(self.weight(params))

    def changes(self, term: Term, in_turn: Callable[[], Array]) -> Float[Array, " units"]:
        """Return the changes, with derivatives."""

        def low(rank: int) -> Callable[[], Array]:
            def changes() -> Array:
                logits = self.logits(term)
                line = (1 + self.target(term, logits)) / 2
                change = -2 * jnp.reshape(term.x, axes(self.layer.inputs))
                pull = partial(smooth_pull, rank, SOFTPLUS, self.layer.transposed, _SIZE)
                f = pull(self.weight(term.params), logits, change, line)
                return f.ravel() + self.divergence(term)

            return jax.checkpoint(changes)

        return self.choice.take(self.weight(term.params), low, jax.checkpoint(in_turn))

    def weight(self, params: Params) -> Any:
        """Return the weight of the decoder; None without parameters."""
        return params and self.layer.flip_weight(params[-1]["decoders"][self.k])


@dataclass(frozen=True)
class CountFlips(_ByDecoder):
    """Flips in the own term, where a dense decoder gives the logits of words that are counted.

    With the probabilities p of words, log sum_j exp(b_j + v_ji) - log sum_j exp(b_j) is log sum_j
    p_j exp(v_ji): one product with exp(2 W), and one with exp(-2 W). It is exact. Weights so large
    that exponentials may leave the range of numbers have their flips made in turn.
    """

    def in_words(self, params: Params) -> str:
        """Return how the changes are computed, see ``TermFlips``."""
        return "all flips at once, by products with exp(2 W) and exp(-2 W)"

    def changes(self, term: Term, in_turn: Callable[[], Array]) -> Float[Array, " units"]:
        """Return the changes, with derivatives."""
        weight, x = term.params[-1]["decoders"][self.k]["weight"], jnp.ravel(term.x)

        def at_once() -> Array:
            logits = self.logits(term)
            target, p = self.target(term, logits), jax.nn.softmax(logits)
            up, down = (jnp.log(p @ jnp.exp(change * weight)) for change in (_SIZE, -_SIZE))
            partition = jnp.sum(target) * jnp.where(x < 0, up, down)
            return partition + 2 * x * (target @ weight) + self.divergence(term)

        fits = _SIZE * jnp.max(jnp.abs(weight)) <= jnp.log(jnp.finfo(weight.dtype).max) / 4
        return jax.lax.cond(fits, jax.checkpoint(at_once), jax.checkpoint(in_turn))


def own_flips(bound: Any, k: int, tolerance: float) -> TermFlips | None:
    """Return how flips of layer k in its own term are made at once; None if they are not."""
    decoder = bound.decoders[k]
    if k == 0 and bound.likelihood in ("multinomial_likelihood", multinomial_likelihood):
        return CountFlips(bound, k) if isinstance(decoder, Dense) else None
    bits = k > 0 or bound.likelihood in ("bernoulli_likelihood", bernoulli_likelihood)
    if not bits or (layer := low_rank_of(decoder)) is None:
        return None
    found = _choice(layer, partial(slope_bound_of, SOFTPLUS), tolerance)
    return found and BitFlips(bound, k, layer, found)


def _choice(
    layer: LowRankFlips, bound: Callable[[int, Any], Any], tolerance: float
) -> Choice | None:
    return choice(bound, units(layer.inputs), layer.pairs, _SIZE, tolerance)


# ------------------------------------------------------------------- in the term of the layer above


@dataclass(frozen=True)
class FlipsBelow:
    """Flips of layer k in the term of layer k + 1, whose units are logistic and affine in them.

    They change log q of the states above, or its mean and that of their prior, which are sums over
    j of functions of a_j + v_ji; log p of the flipped states given those above is affine in them.
    Their derivatives are those of the interpolant, and of use to no estimator: PSA differentiates
    flips of the last layer alone.
    """

    bound: Any
    k: int
    layer: LowRankFlips
    choice: Choice

    def in_words(self, params: Params) -> str:
        """Return how the changes are computed, see ``TermFlips``."""
        return self.choice.in_words(self.weight(params))

    def changes(self, term: Term, in_turn: Callable[[], Array]) -> Float[Array, " units"]:
        """Return the changes."""
        above = self.k + 1
        a = jnp.reshape(term.a, axes(self.layer.outputs))
        x, last = jnp.reshape(term.x, a.shape), above == len(self.bound.decoders) - 1
        prior = jnp.reshape(term.params[-1]["prior"], a.shape) if last else jnp.zeros_like(a)

        def seen(a: Array) -> Array:
            """Return what the term has of the pre-activations, elementwise."""
            if self.bound.kl == "sampled":
                return PRIOR.log_cdf(x * a)
            return _entropy(a) - prior * PRIOR.cdf(a)

        def low(rank: int) -> Callable[[], Array]:
            def changes() -> Array:
                below = jnp.reshape(term.below, axes(self.layer.inputs))
                weight, one = self.weight(term.params), jnp.ones_like(a)
                pull = partial(low_rank_pull, rank, seen, self.layer.transposed, _SIZE)
                decoder = self.bound.decoders[above]
                logits = decoder(term.params[-1]["decoders"][above], term.x)
                return (
                    pull(weight, a, -2 * below, one) + below * logits.reshape(below.shape)
                ).ravel()

            return changes

        return self.choice.take(self.weight(term.params), low, in_turn)

    def weight(self, params: Params) -> Any:
        """Return the weight of the layer above; None without parameters."""
        return params and self.layer.flip_weight(params[self.k + 1])


def flips_below(bound: Any, k: int, layer: Any, tolerance: float) -> TermFlips | None:
    """Return how flips of layer k in the term of the ``layer`` above are made at once, if so."""
    affine = low_rank_of(layer)
    if affine is None or get_noise(layer.noise) is not PRIOR:
        return None
    cdf = smooth_cdf(PRIOR)
    assert cdf is not None
    seen = (SOFTPLUS,) if bound.kl == "sampled" else (ENTROPY, cdf)

    def worst(rank: int, width: Any) -> Any:
        return jnp.max(jnp.stack([bound_of(function, rank, width) for function in seen]))

    found = _choice(affine, worst, tolerance)
    return found and FlipsBelow(bound, k, affine, found)
