"""Single flips of composed layers, many at once, by what their parts read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Params
from gradbench.core.noise import get_noise
from gradbench.models.flips import one_by_one
from gradbench.models.layer import axes
from gradbench.models.ranks import LowRankFlips
from gradbench.models.reads import Reads

# Gives what ``flip_each(layer, theta, x, flipped, a, g)`` does, x and flipped being [*inputs].
Pull: TypeAlias = Callable[[Params, Array, Array, Array, Array], Array]


def fast_pull(layer: Any) -> Pull | None:
    """Return the fast ``flip_pullback`` of a layer made of parts; None where there is none.

    There are three ways. A layer that is affine is one convolution or dense layer, whose weight
    follows from its parts, and is asked for its own. In a layer that reads small windows, inputs of
    which no window holds two are flipped at the same time. Where a chain begins with parts that are
    one dense layer, only what follows them is run again for each flip.
    """
    if found := layer.one_layer:
        return found.flip_pullback
    reads = layer.reads(axes(layer.inputs))
    if reads and reads.colours < prod(reads.inputs):
        return partial(_by_colours, layer, reads)
    head = layer.dense_head() if hasattr(layer, "dense_head") else None
    return partial(_after_head, layer, *head) if head else None


def one_layer(layer: Any) -> "OneLayer | None":
    """Return a layer made of parts as the one dense layer or convolution that it is, if it is."""
    reads = layer.reads(axes(layer.inputs))
    return OneLayer(layer.noise, reads) if reads and reads.is_layer else None


@dataclass(frozen=True)
class OneLayer(LowRankFlips):
    """The flips of an affine layer made of parts: those of one dense layer or convolution.

    ``reads`` has its weight, which follows from the parameters of the parts, and its windows.
    """

    noise: Any
    reads: Reads

    @property
    def inputs(self) -> tuple[int, ...]:
        """The shape of the inputs."""
        return self.reads.inputs

    @property
    def outputs(self) -> Any:
        """The number or the shape of the units."""
        return self.layer.outputs

    @cached_property
    def layer(self) -> Any:
        """The dense layer, or the convolution of all that its windows cover."""
        reads, noise = self.reads, self.noise
        if not reads.windows:
            shape = {"inputs": prod(reads.inputs), "outputs": prod(reads.outputs)}
            return replace(reads.layer, noise=noise, **shape)
        return replace(
            reads.layer,
            inputs=jax.eval_shape(reads.padded, jax.ShapeDtypeStruct(reads.inputs, float)).shape,
            channels=reads.outputs[-1],
            kernel=tuple(window.size for window in reads.windows),
            stride=tuple(window.stride for window in reads.windows),
            padding=0,
            noise=noise,
        )

    @property
    def pairs(self) -> int:
        """The number of pairs of an input, or a zero of the padding, and a unit that reads it."""
        return self.layer.pairs

    def flip_weight(self, theta: Params) -> Array:
        """Return the weight, from the parameters of the parts."""
        assert self.reads.weight is not None
        return self.reads.weight(theta).astype(jnp.result_type(*jax.tree.leaves(theta)))

    def transposed(self, weight: Array, g: Array) -> Array:
        """Return W^T g, [*inputs], for a weight and g of any number of units or channels."""
        return self._unpadded(self.layer.transposed(weight, g))

    def flip_pullback(self, theta: Params, x: Array, flipped: Array, a: Array, g: Array) -> Array:
        """Return what ``flip_each`` gives; x, flipped and the result have one shape."""
        weight = self.flip_weight(theta)
        own = {"weight": weight, "bias": jnp.zeros(len(weight), weight.dtype)}
        if not self.reads.windows:
            return self.layer.flip_pullback(own, x, flipped, a.ravel(), g.ravel())
        padded, other = (self.reads.padded(each.reshape(self.inputs)) for each in (x, flipped))
        pulled = self.layer.flip_pullback(own, padded, other, a, g)
        return self._unpadded(pulled).reshape(x.shape)

    def _unpadded(self, of_inputs: Array) -> Array:
        """Return the part of the inputs, of what ``layer`` has for all that its windows cover."""
        if not self.reads.windows:
            return of_inputs
        x = jax.ShapeDtypeStruct(self.inputs, of_inputs.dtype)
        return jax.linear_transpose(self.reads.padded, x)(of_inputs)[0]


def _by_colours(
    layer: Any, reads: Reads, theta: Params, x: Array, flipped: Array, a: Array, g: Array
) -> Array:
    """Flip the inputs of one set, its colour, at once: each output sees at most one of them."""
    cdf, base = get_noise(layer.noise).cdf, get_noise(layer.noise).cdf(a)
    x, flipped = x.reshape(reads.inputs), flipped.reshape(reads.inputs)
    *space, channels = x.shape
    steps = [np.arange(n) % k for n, k in zip(space, reads.period, strict=True)]
    place = np.ravel_multi_index(np.meshgrid(*steps, indexing="ij"), reads.period)
    colour = place[..., None] * channels + np.arange(channels)
    # The sums over windows, whose transpose takes what an output sees to all inputs in its window.
    sums = replace(reads, outputs=(*reads.outputs[:-1], 1))
    ones = jnp.ones((1, *(window.size for window in reads.windows), 1), a.dtype)
    _, to_inputs = jax.vjp(partial(sums.convolution, ones), jnp.zeros((*space, 1), a.dtype))

    def one(q: Array) -> Float[Array, "*space 1"]:
        change = cdf(layer(theta, jnp.where(colour == q, flipped, x))) - base
        return to_inputs(jnp.sum(g * change, axis=-1, keepdims=True))[0]

    each = one_by_one(one, reads.colours, x.size + a.size)
    each = jnp.moveaxis(each.reshape(-1, channels, *space), 1, -1)
    mine = place == np.arange(len(each)).reshape(-1, *(1 for _ in space))
    return jnp.sum(jnp.where(mine[..., None], each, 0), axis=0)


def _after_head(
    layer: Any,
    head: Reads,
    parts: tuple[Callable[[Params, Array], Array], Callable[[Params, Array], Array]],
    theta: Params,
    x: Array,
    flipped: Array,
    a: Array,
    g: Array,
) -> Array:
    """Add the columns of the weight of ``head`` to its output, and run the rest of the chain."""
    assert head.weight is not None
    first, rest = parts
    cdf, base = get_noise(layer.noise).cdf, get_noise(layer.noise).cdf(a)
    h, weight, change = first(theta, x), head.weight(theta), jnp.ravel(flipped - x)

    def one(i: Array) -> Array:
        above = rest(theta, h + (weight[:, i] * change[i]).reshape(h.shape))
        return jnp.sum(g * (cdf(above) - base))

    return one_by_one(one, x.size, h.size + a.size).reshape(x.shape)
