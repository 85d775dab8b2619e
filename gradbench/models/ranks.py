"""Which rank the flips of a layer take, by what a tolerance allows, and in words.

Layers of at most ``FEW_UNITS`` inputs, among them all that can be enumerated, and those of few
pairs take the exact pull. Others take the least of ``RANKS`` whose bound meets the tolerance, and
the exact pull if there is none.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradbench.core.arguments import are_known
from gradbench.core.contract import Params
from gradbench.core.noise import get_noise
from gradbench.models.layer import axes, units
from gradbench.models.low_rank import bound_of, low_rank_pull, smooth_cdf

RANKS = (2, 4, 8)  # each is compiled, and cheaper than the exact pull
FEW_UNITS = 32  # inputs
FEW_PAIRS = 1 << 12  # pairs of an input and a unit that reads it


class Choice(NamedTuple):
    """What a tolerance lets a layer do with a function of its pre-activations.

    Attributes:
        bound: the bound of the error at a rank and a width V, as ``low_rank_bound``.
        size: the size of the changes of the inputs.
        tolerance: what the bound has to meet.
    """

    bound: Callable[[int, Any], Any]
    size: float
    tolerance: float

    def take(
        self,
        weight: Array,
        low: Callable[[int], Callable[..., Array]],
        exact: Callable[..., Array],
        *operands: Any,
    ) -> Array:
        """Return ``low(rank)(*operands)`` of the least rank that will do, or ``exact(*operands)``.

        The weight may be traced, so all are compiled, and one is run. Under ``vmap`` over the
        weight all are run.
        """
        met = [*self._met(weight), True]
        return jax.lax.switch(jnp.argmax(jnp.stack(met)), [*map(low, RANKS), exact], *operands)

    def in_words(self, weight: Any) -> str:
        """Return what ``take`` does, for a weight whose values may not be known."""
        tolerance = f"the tolerance {self.tolerance:g}"
        if not isinstance(weight, jax.Array | np.ndarray) or isinstance(weight, jax.core.Tracer):
            return f"all flips at once, of the least rank whose bound meets {tolerance}"
        weight = jnp.asarray(weight)
        met = [bool(one) for one in self._met(weight)]
        if not any(met):
            return f"the exact pull: no rank below its cost meets {tolerance}"
        rank = RANKS[met.index(True)]
        share = float(self.bound(rank, self._width(weight)))
        return (
            f"all flips at once, of rank {rank}, wrong by at most {share:.1e} of the largest slope"
        )

    def _width(self, weight: Array) -> Array:
        return self.size * jnp.max(jnp.abs(weight))

    def _met(self, weight: Array) -> list[Any]:
        """Return of each rank whether it will do; not where the weight is not finite."""
        return [self.bound(rank, self._width(weight)) <= self.tolerance for rank in RANKS]


def choice(
    bound: Callable[[int, Any], Any], inputs: int, pairs: int, size: float, tolerance: float
) -> Choice | None:
    """Return the choice of a rank; None where the exact pull is taken whatever the weights.

    Args:
        bound: see ``Choice``.
        inputs: the number of inputs.
        pairs: the number of pairs of an input and a unit that reads it.
        size: see ``Choice``.
        tolerance: likewise.
    """
    none = are_known(tolerance) and tolerance == 0
    small = inputs <= FEW_UNITS or pairs < FEW_PAIRS
    return None if none or small else Choice(bound, size, tolerance)


class LowRankFlips(ABC):
    """A layer a = W x + b whose flips may be of low rank: ``Dense``, ``Conv``, and made of them."""

    noise: Any
    inputs: Any
    outputs: Any

    @property
    @abstractmethod
    def pairs(self) -> int:
        """The number of pairs of an input and a unit that reads it."""

    def flip_weight(self, theta: Params) -> Array:
        """Return W, from the parameters."""
        return theta["weight"]

    @abstractmethod
    def transposed(self, weight: Array, g: Array) -> Array:
        """Return W^T g, [*inputs], for a weight and g [*outputs] of any number of channels."""

    @abstractmethod
    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """Return the exact pull, see ``gradbench.models.flips.flip_each``."""

    def low_rank_choice(self, size: float, tolerance: float) -> Choice | None:
        """Return which ranks may be taken where inputs change by ``size``; None if none may.

        The bound of their error has to meet the ``tolerance``.
        """
        if (function := smooth_cdf(self.noise)) is None:
            return None
        bound = partial(bound_of, function)
        return choice(bound, units(self.inputs), self.pairs, size, tolerance)

    def low_rank_pullback(
        self,
        theta: Params,
        x: Array,
        flipped: Array,
        a: Array,
        g: Array,
        size: float,
        tolerance: float,
    ) -> Array:
        """Return ``flip_pullback``, or what is so close to it.

        Args:
            theta: the parameters, as all further arguments those of ``flip_pullback``.
            x: the inputs.
            flipped: the inputs after a flip, which differ from x by ``size``, 0 or -``size``.
            a: the pre-activations.
            g: what the changes of F are multiplied with.
            size: a number that is the same for all examples.
            tolerance: the error, as a share of the steepest slope, see ``low_rank_bound``.
        """
        found = self.low_rank_choice(size, tolerance)
        if found is None:
            return self.flip_pullback(theta, x, flipped, a, g)
        cdf = get_noise(self.noise).cdf

        def low(rank: int) -> Callable[..., Array]:
            def pull(theta, x, flipped, a, g):
                change = (flipped - x).reshape(axes(self.inputs))
                a, g = (of_units.reshape(axes(self.outputs)) for of_units in (a, g))
                weight = self.flip_weight(theta)
                pulled = low_rank_pull(rank, cdf, self.transposed, size, weight, a, change, g)
                return pulled.reshape(x.shape)

            return pull

        operands = (theta, x, flipped, a, g)
        return found.take(self.flip_weight(theta), low, self.flip_pullback, *operands)


def low_rank_of(layer: Any) -> LowRankFlips | None:
    """Return what gives the low-rank flips of a layer, which is itself or one that it amounts to.

    None where it is not known to be affine.
    """
    return layer if isinstance(layer, LowRankFlips) else getattr(layer, "one_layer", None)
