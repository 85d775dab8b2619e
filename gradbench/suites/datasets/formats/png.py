"""PNG images whose rows are images themselves, as packages for web browsers carry CIFAR-10."""

import io
import struct

import numpy as np

from gradbench.suites.datasets.content import Content

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST = 2**26
_MOST_PIXELS = 2**24
_COLOUR = 2  # the type of pixels taken: red, green and blue
_ROW = 32 * 32


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that such a file may have, None where it is no strip of images."""
    if not head.startswith(_MAGIC) or len(head) < 26:
        return None
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    strip = width == _ROW and width * height <= _MOST_PIXELS and (depth, colour) == (8, _COLOUR)
    return _MOST if strip else None


def read(data: bytes) -> list[Content]:
    """Return pixels [n, 32, 32, 3] of a strip of n rows.

    Raises:
        ValueError: it cannot be decoded.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except Exception as error:  # the decoder raises errors of many kinds
        raise ValueError(f"it is no whole PNG ({error})") from error
    return [pixels.reshape(-1, 32, 32, 3)]
