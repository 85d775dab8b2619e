"""Many draws of an estimator, reduced to statistics against the true gradient; no draw is stored.

Draws are numbered. Draw i of a cell has the key ``fold_in(key, i)``, so that it does not matter
when or where it is made. Consecutive draws form blocks. One compiled function makes a block: a scan
over chunks of vmapped draws that are small enough to stay in the processor's cache. Where a process
has several devices, each makes one at the same time. Another function, shared by all estimators,
reduces it to the statistics of ``gradbench.measure.blocks``: see ``gradbench.measure.reduce``.
Blocks are stored, merged and resumed.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradbench.core.contract import Batch, Loss, Params, is_deterministic, scalar_of
from gradbench.core.devices import devices, in_full_precision, on_host, to_host
from gradbench.core.errors import GradbenchError
from gradbench.core.platform import check_platform
from gradbench.core.precision import float64
from gradbench.core.programs import Make, parts
from gradbench.core.pytrees import layer_vectors
from gradbench.exact.moments import moments_work, unchecked_moments
from gradbench.exact.size import largest_array
from gradbench.measure.blocks import Block
from gradbench.measure.devices import apart, chunk_numbers, on_each
from gradbench.measure.reduce import reduced

BLOCKS = 32  # of a cell, at least
_LARGEST_BLOCK = 8192  # draws
_BLOCK_ENTRIES = 1 << 23  # gradient coordinates of a block, which are in memory at the same time
_MOST_DRAWS = 2**32  # keys are numbered in 32 bits


class Plan(NamedTuple):
    """The plan by which the ``draws`` of a cell are cut into blocks of ``block`` draws.

    ``averages`` are the M <= ``block`` for which blocks keep statistics of the means of M draws.
    The ``larger`` M are averaged from whole blocks and, where M is not a multiple of the block,
    from the sums of the first ``head_sizes`` draws of one more.
    """

    draws: int
    block: int
    averages: tuple[int, ...]
    head_sizes: tuple[int, ...]
    larger: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        """The sizes that the statistics of a block depend on."""
        return self.block, self.averages, self.head_sizes

    @property
    def blocks(self) -> int:
        """The number of blocks; the last one may be shorter."""
        return -(-self.draws // self.block)


def make_plan(
    draws: int, averages: Sequence[int] = (), coordinates: int = 1, blocks: int = BLOCKS
) -> Plan:
    """Return how draws are cut into blocks.

    Args:
        draws: their number.
        averages: numbers M of averaged draws to report beside 1, 2, 4, ... up to half the draws.
        coordinates: of the gradient; a block of many is smaller, so that it fits into memory.
        blocks: the least number of blocks, if there are so many draws. Standard errors are
            computed from the spread of the blocks.

    Raises:
        GradbenchError: no draws or more than 2^32, or an M that is not in 1..draws.
    """
    if draws < 1:
        raise GradbenchError(f"draws is {draws}; give a positive number of draws")
    if draws > _MOST_DRAWS:
        raise GradbenchError(
            f"draws is {draws}; give at most {_MOST_DRAWS}, and several seeds for more"
        )
    for m in averages:
        if not 1 <= m <= draws:
            raise GradbenchError(
                f"averages has M = {m}; give numbers from 1 to {draws}, the number of draws"
            )
    ladder = {2**k for k in range(draws.bit_length()) if 2**k <= max(1, draws // 2)}
    everything = sorted(ladder | set(averages))
    limit = max(1, min(draws // blocks, _LARGEST_BLOCK, _BLOCK_ENTRIES // coordinates))
    block = 1 << (limit.bit_length() - 1)
    larger = tuple(m for m in everything if m > block)
    return Plan(
        draws,
        block,
        tuple(m for m in everything if m <= block),
        tuple(sorted({m % block for m in larger} - {0})),
        larger,
    )


def measure(
    loss: Loss,
    params: Params,
    batch: Batch,
    gradient: Params,
    key: Array,
    plan: Plan,
    blocks: Iterable[int] | None = None,
) -> Iterator[Block]:
    """Yield the blocks of a plan, or those whose numbers are in ``blocks``.

    Draws are made in the precision of ``params``, and their statistics in float64 on the host.
    Where all draws are known to be equal, a single one is made.

    Args:
        loss: the estimator; ``jax.grad`` of it is a draw.
        params: the parameters.
        batch: examples along the first axis of its leaves.
        gradient: the true gradient, with the structure of ``params``.
        key: from which draw i gets ``fold_in(key, i)``.
        plan: how the draws are cut into blocks.
        blocks: numbers of blocks, all of the plan by default.
    """
    exact = to_host(layer_vectors(gradient))
    chunk = chunk_of(loss, params, batch, plan.block)
    same = is_deterministic(loss)
    once = draw_block(loss, 1, 1, params, batch, key, 0)[1] if same else ()
    numbers = iter(range(plan.blocks) if blocks is None else blocks)
    while indices := list(islice(numbers, 1 if same else len(devices()))):
        if same:
            drawn = [tuple(jnp.broadcast_to(g, (plan.block, g.shape[1])) for g in once)]
        else:
            firsts = [index * plan.block for index in indices]
            drawn = _draw_blocks(loss, plan.block, chunk, params, batch, key, firsts)
        for index, gradients in zip(indices, drawn, strict=True):
            count = min(plan.block, plan.draws - index * plan.block)
            with float64(), on_host():
                *layers, network = reduced(*plan.sizes, to_host(gradients), exact, count)
            yield Block(index, tuple(layers), network)


def layer_moments(
    loss: Loss, params: Params, batch: Batch, most: float
) -> tuple[tuple[Array, Array], ...] | None:
    """Return the exact mean and variance [P] of a draw for each layer; None if that is much work.

    ``most`` limits the work, in draws of one example as ``exact.moments_work`` counts them. To be
    called inside ``float64()``.
    """
    if moments_work(loss, params, batch) > most:
        return None
    with on_host():
        found = unchecked_moments(loss, *to_host((params, batch)))
    return tuple(zip(layer_vectors(found.mean), layer_vectors(found.variance), strict=True))


def chunk_of(loss: Loss, params: Params, batch: Batch, block: int) -> int:
    """Return how many draws of a block, whose size is a power of two, are made at a time."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    make, numbers = parts(loss)
    program = jax.make_jaxpr(partial(draw, make))(numbers, params, key, batch)
    fitting = max(1, chunk_numbers() // largest_array(program.jaxpr))
    return min(block, 1 << (fitting.bit_length() - 1))


@partial(jax.jit, static_argnums=0)
def draw(
    make: Make, numbers: Any, params: Params, key: Array, batch: Batch
) -> tuple[Array, Params]:
    """Return the value and the gradient of one draw of ``make(numbers)``.

    It is traced once for a ``make`` and the shapes of its arguments, and then known to all that
    draw.
    """
    loss = make(numbers)
    with in_full_precision():
        return jax.value_and_grad(lambda *args: scalar_of(loss(*args)))(params, key, batch)


def draw_block(
    loss: Loss,
    block: int,
    chunk: int,
    params: Params,
    batch: Batch,
    key: Array,
    first: int | np.integer[Any],
) -> tuple[Float[Array, " block"], tuple[Float[Array, "block p"], ...]]:
    """Return the values and, for each layer, the gradients of ``block`` draws from ``first`` on.

    Raises:
        GradbenchError: the platform computes wrong values.
    """
    check_platform()
    make, numbers = parts(loss)
    values, gradients = _draw_block(make, block, chunk, numbers, params, batch, key, first)
    return values, gradients


def _draw_blocks(
    loss: Loss,
    block: int,
    chunk: int,
    params: Params,
    batch: Batch,
    key: Array,
    firsts: Sequence[int],
) -> list[tuple[Float[Array, "block p"], ...]]:
    """Return the gradients of the blocks of draws from each of ``firsts`` on.

    As many as there are devices are made at the same time, fewer one after the other.
    """
    if len(firsts) == 1 or len(firsts) < len(devices()):
        return [draw_block(loss, block, chunk, params, batch, key, k)[1] for k in firsts]
    check_platform()
    make, numbers = parts(loss)
    each = jnp.asarray(firsts, jnp.uint32)
    found = _draw_on_each(make, block, chunk, numbers, params, batch, key, each)
    return [gradients for _, gradients in apart(found)]


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draw_on_each(
    make: Make,
    block: int,
    chunk: int,
    numbers: Any,
    params: Params,
    batch: Batch,
    key: Array,
    firsts: Array,
) -> Any:
    def own(first: Array, numbers: Any, params: Params, batch: Batch, key: Array) -> Any:
        return _draw_block(make, block, chunk, numbers, params, batch, key, first)

    return on_each(own, firsts, numbers, params, batch, key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _draw_block(
    make: Make,
    block: int,
    chunk: int,
    numbers: Any,
    params: Params,
    batch: Batch,
    key: Array,
    first: int | np.integer[Any],
) -> tuple[Float[Array, " block"], tuple[Float[Array, "block p"], ...]]:
    def some(_: None, own: Array) -> tuple[None, tuple[Array, tuple[Array, ...]]]:
        keys = jax.vmap(partial(jax.random.fold_in, key))(own)
        each = jax.vmap(partial(draw, make, numbers), (None, 0, None))
        values, gradients = each(params, keys, batch)
        return None, (values, layer_vectors(gradients, 1))

    numbered = first + jnp.arange(block, dtype=jnp.uint32).reshape(-1, chunk)
    _, (values, gradients) = jax.lax.scan(some, None, numbered)
    return values.reshape(block), tuple(g.reshape(block, -1) for g in gradients)
