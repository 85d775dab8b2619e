"""The devices of a process: each makes a whole block of draws at the same time as the others.

The program of a block does not know how many devices there are. So the numbers are the same bits on
one device and on several of a kind.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, UInt32

from gradbench.core.devices import devices

_AXIS = "draws"
_CACHE = 1 << 18  # numbers of the largest array of a chunk, which then stay in a processor's cache
_SHARE = 1 / 64  # of the memory of an accelerator, which this array takes at most
_NUMBER = 8  # bytes


def chunk_numbers() -> int:
    """Return how many numbers the largest array of a chunk of draws may have on a device."""
    device = devices()[0]
    if device.platform == "cpu":
        return _CACHE
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    return max(_CACHE, int(_SHARE * memory) // _NUMBER)


def on_each(function: Callable[..., Any], numbers: UInt32[Array, " n"], *others: Any) -> list[Any]:
    """Return what a function gives for each number, each computed on a device of its own.

    To be called inside ``jax.jit``, and its result to be given to ``apart``.

    Args:
        function: takes a number [] and ``others``.
        numbers: as many as there are devices.
        others: what is the same on all devices.
    """
    rows, whole = PartitionSpec(_AXIS), PartitionSpec()

    def own(part: Any, *rest: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[None], function(part[0], *rest))

    mesh = Mesh(devices(), (_AXIS,))
    specs = (rows, *(whole for _ in others))
    spread = jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False)
    return spread(numbers, *others)


def apart(found: Any) -> list[Any]:
    """Return the results of ``on_each`` one by one, all of them on the first device."""
    first, count = devices()[0], len(devices())

    def take(leaf: Any, index: int) -> Any:
        shard = next(one for one in leaf.addressable_shards if one.index[0].start in (index, None))
        return jax.device_put(shard.data, first)[0]

    return [jax.tree.map(lambda leaf, k=index: take(leaf, k), found) for index in range(count)]
