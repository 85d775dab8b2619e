"""The sums of the histograms of a shard over its blocks, kept in its metadata.

Tables of one draw need these sums alone, and histograms are nearly all of a shard: reading them
takes longer than all the rest. Shards of an older gradbench do not have the sums.
"""

import base64
import zlib
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from gradbench.core.atomic import Counts
from gradbench.measure.blocks import BINS

KEY = b"totals"  # in the metadata of a shard


def pack_totals(totals: Sequence[Counts]) -> bytes:
    """Return arrays [K, BINS], one of each layer and of the network, as ASCII."""
    numbers = np.concatenate([np.ravel(one) for one in totals]).astype("<i8")
    return base64.b64encode(zlib.compress(numbers.tobytes()))


def unpack_totals(text: bytes, sizes: Sequence[int]) -> list[Counts]:
    """Return the arrays [K, BINS] of a text of ``pack_totals``.

    Args:
        text: the text.
        sizes: the number K of each.

    Raises:
        ValueError: it is not as ``pack_totals`` writes it, or of other sizes.
    """
    length = 8 * BINS * sum(sizes)
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.b64decode(text, validate=True), length + 1)
    except zlib.error as error:
        raise ValueError("totals") from error
    if len(data) != length:
        raise ValueError("totals")
    rows = np.frombuffer(data, "<i8").astype(np.int64, copy=False).reshape(-1, BINS)
    return [rows[end - size : end] for end, size in zip(accumulate(sizes), sizes, strict=True)]
