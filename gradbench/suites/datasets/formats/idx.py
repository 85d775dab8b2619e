"""IDX, the format of MNIST: two zeros, type, dimensions, the sizes of these, bytes."""

import math
import struct

import numpy as np

from gradbench.suites.datasets.content import Content

_BYTES = 8  # the only type of numbers taken, unsigned bytes


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that a file which begins like this has, None where it is no IDX."""
    if len(head) < 8 or head[:3] != bytes([0, 0, _BYTES]) or not 1 <= head[3] <= 4:
        return None
    shape = _shape(head)
    return None if shape is None else 4 + 4 * head[3] + math.prod(shape)


def read(data: bytes) -> list[Content]:
    """Return the array of a file.

    Raises:
        ValueError: it is shorter than its header says.
    """
    shape = _shape(data)
    if shape is None or len(data) != (wanted := 4 + 4 * data[3] + math.prod(shape)):
        raise ValueError(f"it has {len(data)} bytes, not the {wanted} that its header says")
    return [np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)]


def _shape(data: bytes) -> tuple[int, ...] | None:
    count = data[3]
    if len(data) < 4 + 4 * count:
        return None
    return struct.unpack(f">{count}I", data[4 : 4 + 4 * count])
