"""Comma-separated whole numbers, an image a line, with its class as first or last number."""

import re
import warnings

import numpy as np

from gradbench.suites.datasets.content import Content

_MOST = 2**27
_NUMBERS = re.compile(rb"\d{1,3}(?:,\d{1,3}|\r?\n\d{1,3})+[,\r\n]*\d{0,3}[,\r\n]*")
_HEADER = b"label,"  # how the line of names begins, where there is one


def most(head: bytes, size: int | None) -> int | None:
    """Return the bytes that such a file may have, None where it begins otherwise."""
    return _MOST if head.startswith(_HEADER) or _NUMBERS.fullmatch(head) else None


def read(data: bytes) -> list[Content]:
    """Return the pixels [n, d] and classes [n], both with the class first and with it last.

    Raises:
        ValueError: it is no table of whole numbers from 0 to 255.
    """
    if data.startswith(_HEADER):
        data = data.partition(b"\n")[2]
    data = data.strip().replace(b"\r\n", b"\n")
    rows, columns = data.count(b"\n") + 1, data.partition(b"\n")[0].count(b",") + 1
    if columns < 3 or data.translate(None, b"0123456789,\n"):
        raise ValueError("it is no table of whole numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            table = np.fromstring(data.replace(b"\n", b","), np.float32, sep=",")
            numbers = table.reshape(rows, columns)
        except (ValueError, DeprecationWarning) as error:
            raise ValueError("its lines are not of one length") from error
    if numbers.max() > 255:
        raise ValueError("it has numbers beyond 255")
    numbers = numbers.astype(np.uint8)
    return [numbers[:, 1:], numbers[:, 0], numbers[:, :-1], numbers[:, -1]]
