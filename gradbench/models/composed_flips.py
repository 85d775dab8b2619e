"""Single flips of composed layers, many at once, by what their parts read."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
    reads = layer.reads(axes(layer.inputs))
    if reads and reads.is_layer:
        return partial(_by_layer, layer, reads)
    if reads and reads.colours < prod(reads.inputs):
        return partial(_by_colours, layer, reads)
    head = layer.dense_head() if hasattr(layer, "dense_head") else None
    return partial(_after_head, layer, *head) if head else None


def _by_layer(
    layer: Any, reads: Reads, theta: Params, x: Array, flipped: Array, a: Array, g: Array
) -> Array:
    assert reads.weight is not None
    weight = reads.weight(theta).astype(jnp.result_type(*jax.tree.leaves(theta)))
    own = {"weight": weight, "bias": jnp.zeros(len(weight), weight.dtype)}
    if not reads.windows:
        outputs, inputs = weight.shape
        dense = replace(reads.layer, inputs=inputs, outputs=outputs, noise=layer.noise)
        return dense.flip_pullback(own, x, flipped, a.ravel(), g.ravel())
    flipped = reads.padded(flipped.reshape(reads.inputs))
    padded, back = jax.vjp(reads.padded, x.reshape(reads.inputs))
    conv = replace(
        reads.layer,
        inputs=padded.shape,
        channels=len(weight),
        kernel=tuple(window.size for window in reads.windows),
        stride=tuple(window.stride for window in reads.windows),
        padding=0,
        noise=layer.noise,
    )
    return back(conv.flip_pullback(own, padded, flipped, a, g))[0]


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
